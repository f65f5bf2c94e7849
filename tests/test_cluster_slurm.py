"""Claims: workers come from Slurm's jobs and go with the command, however it ends; what Slurm refuses is said in its
own words. Slurm's commands are fakes that run what is submitted here."""

import contextlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from patience import PATIENCE, lives, wait_until

from replicate import engine, manifest
from replicate.cluster import slurm, walking
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from replicate.stages import Graph
from tests import fake_slurm


@pytest.fixture
def made(tmp_path):
    assignments = ["slurm.partition=lunar", "slurm.jobs=2", 'slurm.directives=["--qos=long"]']
    settings = engine.Settings(load_profile("tiny", assignments), tmp_path / "runs", None, ("replicate", "split"))
    return Graph(settings.profile, None, lambda *_: None), settings


def install(monkeypatch, folder, mode="run"):
    monkeypatch.setenv("PATH", str(fake_slurm.install(folder / "slurm", mode)), prepend=os.pathsep)


def test_workers_come_from_slurm_and_go_with_the_command(made, tmp_path, monkeypatch):
    graph, settings = made
    install(monkeypatch, tmp_path)
    assert engine.walk([graph.split, graph.labels], settings, PlainLines(), engine.SLURM) == 5
    assert manifest.is_done(graph.split.folder(settings.runs))
    jobs = fake_slurm.jobs(tmp_path / "slurm").values()
    assert len(jobs) == 2 and all(job["cancelled"] for job in jobs)
    script = next(iter(jobs))["script"]
    for line in ("#SBATCH -p lunar", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=15G", "#SBATCH --qos=long"):
        assert line in script.splitlines()
    assert "#SBATCH -t" not in script and "--gpus 0 --gpus-per-worker 1 --cpus 1" in script
    started = {job["pid"] for job in jobs}
    wait_until(lambda: not started & set(map(group, filter(lives, psutil.process_iter()))), "the end of Slurm's jobs")


def group(process):
    """Number of its process group; None if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(process.pid)


def test_a_refusal_is_sbatchs_own_sentence(made, tmp_path, monkeypatch):
    graph, settings = made
    install(monkeypatch, tmp_path, "refuse")
    with pytest.raises(ConfigurationError) as caught:
        engine.walk([graph.split], settings, PlainLines(), engine.SLURM)
    assert str(caught.value) == (
        "--slurm: sbatch: error: invalid partition specified: lunar; sbatch: error: Batch job submission failed: "
        "Invalid partition name specified; see the section slurm of the profile"
    )
    assert not (settings.runs / ".walks").exists()


def test_a_machine_without_slurm_is_a_sentence(made, monkeypatch):
    graph, settings = made
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="--slurm: there is no sbatch on the PATH; issue the command on a"):
        engine.walk([graph.split], settings, PlainLines(), engine.SLURM)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_cancels_jobs_that_never_started(tmp_path, monkeypatch, sent, code):
    install(monkeypatch, tmp_path, "hold")
    words = ["table1", "--model", "rnn", "--profile", "tiny", "--out", str(tmp_path / "runs"), "--slurm"]
    process = subprocess.Popen(
        [sys.executable, "-m", "replicate.cli.main", *words], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    asked = tmp_path / "slurm" / "asked"
    wait_until(lambda: asked.exists() or process.poll() is not None, "squeue to be asked why no worker comes")
    assert len(fake_slurm.jobs(tmp_path / "slurm")) == 4
    process.send_signal(sent)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert all(job["cancelled"] for job in fake_slurm.jobs(tmp_path / "slurm").values())


def test_slurm_and_scheduler_exclude_each_other(tmp_path):
    words = ["all", "--slurm", "--scheduler", "tcp://x:1", "--out", str(tmp_path)]
    ended = subprocess.run([sys.executable, "-m", "replicate.cli.main", *words], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "replicate: --slurm and --scheduler tcp://x:1 exclude each other; give one of them\n"


def test_the_job_of_a_gpu_worker(tmp_path):
    assignments = ["run.device=cuda", "slurm.partition=cpu", "slurm.gpu_partition=a100", "slurm.walltime=24:00:00",
                   "slurm.account=vision", "run.threads_per_job=3", "slurm.prologue=['module load cuda']",
                   "slurm.gpu_jobs=3"]  # fmt: skip
    profile = load_profile("tiny", assignments)
    trainings = [Graph(profile, None, lambda *_: None).train(column, 0) for column in ("rnn", "rnn_attn")]
    for training in trainings:
        training.identity["fields"]["run.processes_per_model"] = 2
    found = slurm.workers(profile, trainings, tmp_path)
    assert list(found) == ["gpu-0", "gpu-1"]
    script = found["gpu-0"]["cls"]("tcp://head:1", name="gpu-0", **found["gpu-0"]["options"]).job_script()
    lines = script.splitlines()
    for line in ("-p a100", "-A vision", "-t 24:00:00", "--gres=gpu:2", "--cpus-per-task=6"):
        assert f"#SBATCH {line}" in lines
    assert lines.index("module load cuda") < len(lines) - 1
    words = "worker tcp://head:1 --name gpu-0 --threads-per-job 3 --gpus 2 --gpus-per-worker 2 --cpus 0"
    assert lines[-1].endswith(f"-m replicate.cli.main {words}")


class Notes(PlainLines):
    def __init__(self):
        super().__init__()
        self.said = []

    def notify(self, event):
        self.said.append(event.message)


@pytest.fixture
def queue(made, tmp_path, monkeypatch):
    """A queue that is asked, the clock, what squeue answers, a job without a worker."""
    clock, states = [1000.0], {}
    for module in (slurm, walking):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(slurm, "_queue", lambda: states)
    workers = {"cpu-0": SimpleNamespace(job_id="7"), "cpu-1": SimpleNamespace(job_id="8")}
    graph, _ = made
    look = slurm.Queue(SimpleNamespace(workers=workers), tmp_path, Notes(), spoken=clock[0])
    return look, clock, states, graph.split


def test_one_is_told_why_jobs_wait(queue):
    look, clock, states, job = queue
    states.update({"7": ("PENDING", "Priority"), "8": ("PENDING", "Resources"), "9": ("RUNNING", "None")})
    for _ in range(13):
        look({}, job)
        clock[0] += slurm.ASK
    text = "2 jobs for cpu workers are in the queue (Priority, Resources); split waits for one"
    assert look.listener.said == [text] * 2


def test_jobs_that_slurm_ended_are_not_waited_for(queue, tmp_path):
    look, clock, _, job = queue
    look({}, job)
    clock[0] += slurm.ASK
    with pytest.raises(IncompleteRun, match=rf"^split: Slurm has ended all jobs for cpu workers; .*{tmp_path}/slurm; "):
        look({}, job)


def test_workers_that_run_and_do_not_report_are_not_waited_for(queue):
    look, clock, states, job = queue
    states["7"] = ("RUNNING", "None")
    look({}, job)
    clock[0] += walking.PATIENCE + 1
    with pytest.raises(IncompleteRun, match=r"a Slurm job has run for 5 min 0 s and its worker does not report; can"):
        look({}, job)
