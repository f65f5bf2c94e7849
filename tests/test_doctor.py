"""The doctor: every difference from the paper's machine is found and explained, and no finding makes it fail."""

import json
import os
import signal

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from replicate import doctor, speed
from replicate.cli.doctor import as_text
from replicate.cli.doctor import doctor as verb
from replicate.profile_files import load_profile

PAPER = load_profile("paper")
SMOKE = load_profile("smoke")


def paper_machine(**changes) -> dict:
    """The machine of section 4.2, as this package would describe it."""
    gpu = {"name": "NVIDIA GeForce RTX 2080 Ti", "memory_bytes": 11_554_717_696}
    return {
        "processor": "Intel(R) Core(TM) i9-9820X CPU @ 3.30GHz", "cores": 10, "logical_cores": 20,
        "usable_cores": 20, "memory_bytes": 67_229_286_400, "system": "Linux", "python": "3.11.7",
        "gpus": [gpu, dict(gpu)], "gpus_of_machine": 2, "gpu_driver": "440.33", "gpus_missing": None,
        "distribution": "Ubuntu 18.04.6 LTS", "clock_mhz": 3300.0, **changes,
    }  # fmt: skip


def by_topic(findings) -> dict:
    return {finding.topic: finding for finding in findings}


def test_the_papers_own_machine_differs_in_nothing():
    found = by_topic(doctor.beside_paper(paper_machine(), PAPER))
    assert {topic: finding.state for topic, finding in found.items()} == {
        "system": "same", "processor": "same", "cores": "enough", "clock": "same", "memory": "enough", "GPUs": "same",
        "GPU memory": "enough",
    }  # fmt: skip
    assert all(finding.meaning == "" for finding in found.values())


GPU = {"name": "NVIDIA H100", "memory_bytes": 80_000_000_000}


@pytest.mark.parametrize(
    "changes, topic, here",
    [
        ({"distribution": "Debian GNU/Linux 12"}, "system", "Debian GNU/Linux 12"),
        ({"processor": "AMD EPYC"}, "processor", "AMD EPYC"),
        ({"usable_cores": 4}, "cores", "10, of which 4 may be used"),
        ({"cores": 2}, "cores", "2, of which 2 may be used"),
        ({"clock_mhz": 2600.0}, "clock", "2.60 GHz"),
        ({"memory_bytes": 32_000_000_000}, "memory", "32 GB"),
        ({"gpus": [GPU]}, "GPUs", "1 x NVIDIA H100"),
        ({"gpus": [paper_machine()["gpus"][0]]}, "GPUs", "1 x NVIDIA GeForce RTX 2080 Ti"),
        ({"gpus": [GPU, {**GPU, "memory_bytes": 8e9}]}, "GPU memory", "8.0 GB each"),
        ({"gpus": None, "gpus_missing": "why"}, "GPUs", "none (why)"),
    ],
)
def test_every_difference_is_said_and_explained(changes, topic, here):
    found = by_topic(doctor.beside_paper(paper_machine(**changes), PAPER))
    assert (found[topic].state, found[topic].here) == ("differs", here)
    assert found[topic].meaning.startswith(("Scores", "Times", "No result", "Fewer", "Where a batch"))
    others = [finding for name, finding in found.items() if name not in (topic, "GPUs", "GPU memory")]
    assert all(finding.state in ("same", "enough") for finding in others)


def test_what_the_system_does_not_tell_is_unknown():
    silent = paper_machine(clock_mhz=None, cores=None, gpus=[{"name": None, "memory_bytes": None}])
    found = by_topic(doctor.beside_paper(silent, PAPER))
    assert found["clock"].state == found["GPU memory"].state == "unknown"
    assert found["cores"].here == "unknown, of which 20 may be used" and found["GPUs"].here == "1 x unnamed"
    device = by_topic(doctor.for_profile(silent, PAPER, None, doctor.Path("/")))["memory to train (cuda)"]
    assert device.state == "unknown"


def test_the_time_without_a_gpu_is_the_plans_rate_of_arithmetic(monkeypatch):
    monkeypatch.setattr(speed, "forward_flop", lambda column, profile: 1e9)
    columns = [column for column in PAPER.run.columns if not column.endswith("ens")]
    expected = len(columns) * 3 * 1e9 * 4_000_000 * 10 / speed.RATE["cpu"]
    assert doctor.processor_seconds(PAPER) == pytest.approx(expected)
    found = by_topic(doctor.beside_paper(paper_machine(gpus=None, gpus_missing="why"), PAPER))
    assert f"about {expected / (365.25 * 86400):.1f} years" in found["GPUs"].meaning
    small = by_topic(doctor.beside_paper(paper_machine(gpus=None, gpus_missing="why"), SMOKE))
    assert "nothing else follows for this profile" in small["GPUs"].meaning


def fill(root, folder: str, count: int, suffix: str = "") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / folder / f"x{number:04d}.tfrecord{suffix}").write_bytes(b"x" * 10)


def data_findings(profile, root) -> dict:
    return by_topic(doctor.for_profile(paper_machine(), profile, root, root))


def test_data_that_are_absent_partial_begun_or_whole(tmp_path):
    train = "data, frame/train/*.tfrecord"
    none = data_findings(PAPER, tmp_path)
    assert none[train].state == "attention" and none[train].here.startswith("0 files")
    assert "replicate data download yt8m --part ..., for frame/train and frame/validate" in none[train].meaning
    assert none["disk for data"].expected == "about 1260 GB"
    fill(tmp_path, "frame/train", 100)
    fill(tmp_path, "frame/validate", 100)
    some = data_findings(PAPER, tmp_path)
    assert some[train].state == "attention" and "needs all 3844 files" in some[train].meaning
    sample = data_findings(load_profile("yt8m-1pct"), tmp_path)
    assert sample[train].state == "fine" and sample[train].here.startswith("100 files")
    fill(tmp_path, "frame/train", 3, ".part")
    begun = data_findings(load_profile("yt8m-1pct"), tmp_path)
    assert begun[train].state == "attention" and "3 more begun" in begun[train].here
    assert "--shard 1,100" in begun[train].meaning
    for part in (tmp_path / "frame/train").glob("*.part"):
        part.unlink()
    fill(tmp_path, "frame/train", 3844)
    fill(tmp_path, "frame/validate", 3844)
    whole = data_findings(PAPER, tmp_path)
    assert whole[train].state == whole["data, frame/validate/*.tfrecord"].state == "fine"
    assert "disk for data" not in whole


def test_each_profile_says_how_to_get_its_data(tmp_path):
    assert "data" not in by_topic(doctor.for_profile(paper_machine(), SMOKE, None, tmp_path))
    for name, words in (("audioset", "download audioset"), ("yt8m-video", "video/train and video/validate")):
        found = by_topic(doctor.for_profile(paper_machine(), load_profile(name), None, tmp_path))
        assert found["data"].state == "attention" and words in found["data"].meaning


def test_room_for_results_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def results():
        return by_topic(doctor.for_profile(paper_machine(), PAPER, None, tmp_path / "not" / "yet"))["disk for results"]

    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    assert results().state == "fine"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    assert (results().state, results().here) == ("attention", "1.0 GB free")
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert results().state == "attention" and "cannot be written to" in results().here
    assert list(tmp_path.iterdir()) == []


def test_the_device_of_the_profile(tmp_path):
    def device(machine, profile=PAPER):
        findings = doctor.for_profile(machine, profile, None, tmp_path)
        return next(finding for finding in findings if finding.topic.startswith(("device", "memory to train")))

    assert device(paper_machine(gpus=[GPU])).state == "fine"
    absent = device(paper_machine(gpus=None, gpus_missing="why"))
    assert absent.state == "attention" and "--set run.device=cpu" in absent.meaning
    tight = device(paper_machine(gpus=[{**GPU, "memory_bytes": 10**9}]))
    assert tight.state == "attention" and "netv" in tight.meaning and "micro_batch_size" in tight.meaning
    assert device(paper_machine(gpus=None, gpus_missing="why"), SMOKE).state == "fine"
    two = load_profile("dual-2080ti")
    assert device(paper_machine(gpus=[GPU, GPU]), two).state == "fine"
    assert (device(paper_machine(gpus=[GPU]), two).here, device(paper_machine(gpus=[GPU]), two).state) == (
        "1 GPUs",
        "attention",
    )


def test_what_a_second_run_may_give_otherwise_is_said_of_this_machine_and_of_others(tmp_path):
    def said(name, *assignments):
        findings = doctor.for_profile(paper_machine(gpus=[GPU]), load_profile(name, assignments), None, tmp_path)
        assert len({finding.topic for finding in findings}) == len(findings)
        found = by_topic(findings)
        return found["results, run again here"], found["results, run elsewhere"]

    here, elsewhere = said("smoke")
    assert (here.here, here.expected, here.state, here.meaning) == ("the same bytes", "the same bytes", "fine", "")
    assert elsewhere.state == "fine" and "processor" in elsewhere.meaning and "cuDNN" not in elsewhere.meaning
    here, elsewhere = said("dual-2080ti", "run.deterministic=false", "run.compile=true")
    assert (here.here, here.state) == ("other bytes are possible", "attention")
    assert all(words in here.meaning for words in ("run.deterministic is", "summed over processes", "run.compile is"))
    assert elsewhere.state == "fine" and "cuDNN" in elsewhere.meaning


def test_versions_beside_the_lock(tmp_path, monkeypatch):
    there = {"right": "1.0", "torch": "2.13.0+cpu", "wrong": "2.0"}

    def version(name):
        if name not in there:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    lock = tmp_path / "lock"
    lock.write_text("# a comment==1\nright==1.0\ntorch==2.13.0\nelsewhere==1.0; sys_platform == 'none'\n")
    assert doctor._versions(lock).here == "2 of 2 as locked"
    lock.write_text(lock.read_text() + "wrong==2.1\nabsent==3.0\n")
    found = doctor._versions(lock)
    assert (found.state, found.here) == ("attention", "2 of 4 as locked")
    assert "wrong 2.0 (2.1), absent absent (3.0)" in found.meaning
    assert doctor._versions(tmp_path / "none").state == "unknown"


@pytest.mark.parametrize(
    "program, found, why",
    [
        ("print('a warning'); print('{\"version\": \"1\"}')", {"version": "1"}, ""),
        (f"import os; os.kill(os.getpid(), {signal.SIGILL.value})", None, "crashed (SIGILL)"),
        ("import no_such_module", None, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", None, "failed without a word"),
        ("import time; time.sleep(60)", None, "did not load within 1 s"),
    ],
)
def test_a_framework_that_crashes_is_a_finding(program, found, why):
    answer, reason = doctor.imported(program, seconds=1.0 if "sleep" in program else PATIENCE)
    assert answer == found and reason.startswith(why)


def frameworks(monkeypatch, torch=None, tensorflow=None):
    answers = {doctor.TORCH: torch, doctor.TENSORFLOW: tensorflow}
    monkeypatch.setattr(doctor, "imported", lambda program: (answers[program], "" if answers[program] else "broken"))


def test_frameworks_that_do_not_load_or_do_not_see_the_gpu(tmp_path, monkeypatch):
    cpu, cuda = {"version": "2", "cuda": None, "gpus": 0}, {"version": "2", "cuda": "13.0", "gpus": 2}

    def states(machine):
        return {topic: each.state for topic, each in by_topic(doctor.software(machine, tmp_path / "none")).items()}

    frameworks(monkeypatch, cuda, {"version": "2"})
    assert states(paper_machine()) == {"versions": "unknown", "torch": "fine", "tensorflow": "fine", "NVML": "fine"}
    frameworks(monkeypatch, cpu)
    assert states(paper_machine())["torch"] == states(paper_machine())["tensorflow"] == "attention"
    bare = paper_machine(gpus=None, gpus_missing="no library", gpu_driver=None)
    assert (states(bare)["torch"], states(bare)["NVML"]) == ("fine", "attention")
    frameworks(monkeypatch)
    assert states(paper_machine())["torch"] == "attention"


def test_the_verb_ends_with_0_whatever_it_finds(tmp_path, monkeypatch):
    frameworks(monkeypatch)
    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)  # what changes from one look to the next
    monkeypatch.setattr(doctor.psutil, "cpu_freq", lambda: None)
    run = CliRunner().invoke
    options = ["--profile", "paper", "--out", str(tmp_path / "runs")]
    text = run(verb, options, env={"REPLICATE_DATA": ""})
    assert text.exit_code == 0, text.output
    for heading in ("beside the paper's (section 4.2)", "For the paper profile", "Installed"):
        assert heading in text.output
    assert max(map(len, text.output.splitlines())) <= 100
    made = run(verb, [*options, "--json"], env={"REPLICATE_DATA": ""})
    found = json.loads(made.output)
    assert made.exit_code == 0 and found["profile"] == "paper" and found["machine"]["processor"]
    assert {finding["group"] for finding in found["findings"]} == {"paper", "profile", "software"}
    assert as_text(found) + "\n" == text.output
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_this_machine_is_described(monkeypatch):
    machine = doctor.surroundings()
    assert machine["distribution"] and machine["usable_cores"] == len(os.sched_getaffinity(0))
    described = {**machine, "processor": "Intel(R) Core(TM) i9-9820X CPU @ 3.30GHz"}
    monkeypatch.setattr(doctor.accounting, "describe", lambda: described)
    assert doctor.surroundings()["clock_mhz"] == 3300
    monkeypatch.setattr(doctor.accounting, "describe", lambda: {**described, "processor": "unstated"})
    monkeypatch.setattr(doctor.psutil, "cpu_freq", lambda: None)
    assert doctor.surroundings()["clock_mhz"] is None
