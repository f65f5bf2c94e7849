"""Claims: finished jobs are skipped; a job is done only when its manifest exists; failures are sentences with a log;
what does not depend on a failure goes on; a run directory has one holder; a killed worker is reported at once."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from patience import PATIENCE, wait_for_the_end_of

from replicate import engine, manifest, steps
from replicate.errors import ConfigurationError, DataError, IncompleteRun
from replicate.profile_files import load_profile
from replicate.progress import Event, PlainLines
from replicate.record import write_text
from replicate.stages import Graph


class Ledger:
    """Steps that write one file each and remember that they ran."""

    def __init__(self, monkeypatch, fail=None):
        self.ran: list[str] = []

        def step(work):
            self.ran.append(work.job.label)
            for role in work.job.inputs:
                assert manifest.is_done(work.input(role))
            if fail and work.job.label == fail[0]:
                raise fail[1]
            write_text(work.out / "result.txt", work.job.key)

        for name in ("taxonomy", "synthesize", "index", "labels", "split"):
            monkeypatch.setitem(steps.STEPS, name, step)


@pytest.fixture
def settings(tmp_path):
    return engine.Settings(load_profile("tiny"), tmp_path / "runs", None, ("replicate", "split"))


@pytest.fixture
def graph(settings):
    return Graph(settings.profile, None, lambda *_: None)


def walk(graph, settings):
    return engine.walk([graph.split, graph.labels], settings, PlainLines())


def test_finished_jobs_are_skipped(monkeypatch, graph, settings):
    ledger = Ledger(monkeypatch)
    assert walk(graph, settings) == 5
    assert walk(graph, settings) == 0
    assert len(ledger.ran) == 5


def test_a_folder_without_manifest_is_not_done(monkeypatch, graph, settings):
    ledger = Ledger(monkeypatch)
    walk(graph, settings)
    (graph.labels.folder(settings.runs) / manifest.MANIFEST).unlink()
    assert walk(graph, settings) == 1
    assert ledger.ran[-1] == "labels"


def test_manifest_lists_hashes_identity_and_no_dates(monkeypatch, graph, settings):
    Ledger(monkeypatch)
    walk(graph, settings)
    content = manifest.read_manifest(graph.split.folder(settings.runs))
    assert content["identity"]["inputs"] == {"index": graph.index.key}
    assert content["files"]["result.txt"]["bytes"] == len(graph.split.key)
    assert content["command"] == ["replicate", "split"]
    assert content["packages"]["python"].startswith("3.")


def test_own_error_keeps_its_kind_and_gets_the_jobs_name(monkeypatch, graph, settings):
    Ledger(monkeypatch, fail=("index", DataError("shard x is damaged")))
    with pytest.raises(DataError, match="^index: shard x is damaged$"):
        walk(graph, settings)
    assert not manifest.is_done(graph.index.folder(settings.runs))


def test_unexpected_error_is_a_sentence_with_a_log(monkeypatch, graph, settings):
    Ledger(monkeypatch, fail=("labels", KeyError("boom")))
    with pytest.raises(IncompleteRun, match=r"labels failed: KeyError: 'boom'; log: .*log\.txt"):
        walk(graph, settings)
    assert "Traceback" in (graph.labels.folder(settings.runs) / "log.txt").read_text()


def test_what_does_not_depend_on_a_failure_goes_on(monkeypatch, graph, settings, capsys):
    ledger = Ledger(monkeypatch, fail=("index", DataError("shard x is damaged")))
    with pytest.raises(DataError, match="^index: shard x is damaged$"):
        engine.walk([graph.labels, graph.split, graph.taxonomy], settings, PlainLines())
    assert ledger.ran == ["taxonomy", "synthesize", "index"]
    ledger = Ledger(monkeypatch, fail=("labels", DataError("no label has a node")))
    with pytest.raises(DataError, match="^labels: no label has a node$"):
        engine.walk([graph.labels, graph.split], settings, PlainLines())
    assert manifest.is_done(graph.split.folder(settings.runs))
    assert "FAILED labels: no label has a node" in capsys.readouterr().err


def test_the_same_with_worker_processes(tmp_path):
    words = ["train", "--model", "rnn", "--profile", "tiny", "--set", "run.engine=dask", "--set", "split.train=9999"]
    command = [sys.executable, "-m", "replicate.cli.main", *words, "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2
    *_, sentence = ended.stderr.splitlines()
    assert sentence.startswith("replicate: split: split (train 9999, tune 40, pool 160) asks for 10199 videos, ")
    assert ended.stderr.count("FAILED") == 1
    assert list(tmp_path.glob("labels/*/manifest.json")) and not list(tmp_path.glob("train/*/manifest.json"))


def test_full_disk_is_incomplete_and_resumable(monkeypatch, graph, settings):
    Ledger(monkeypatch, fail=("labels", OSError(28, "No space left on device", "file.npy")))
    with pytest.raises(IncompleteRun, match=r"No space left on device \(file\.npy\)") as caught:
        walk(graph, settings)
    assert caught.value.exit_code == 4


def test_orphans_of_a_killed_attempt_are_swept(monkeypatch, graph, settings):
    Ledger(monkeypatch)
    orphan = graph.index.folder(settings.runs) / ".x.npy.123.part"
    write_text(orphan, "half")
    walk(graph, settings)
    assert not orphan.exists()


def test_second_command_on_one_directory_is_refused(settings):
    program = (
        "import sys, time; from pathlib import Path; from replicate import engine\n"
        "with engine.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(settings.runs)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigurationError, match=f"in use by process {holder.pid} on .* since"),
            engine.locked(settings.runs),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with engine.locked(settings.runs):  # the lock of a dead holder is free
        pass


def test_unwritable_directory_is_a_sentence(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ConfigurationError, match="cannot write to"), engine.locked(blocker / "runs"):
        pass


DASK = """
import sys
from pathlib import Path
from replicate import engine
from replicate.cli.main import main
sys.argv = ["replicate", "split", "--profile", "tiny", "--set", "run.engine=dask", "--set", sys.argv[2],
            "--set", "run.workers=1", "--out", sys.argv[1]]
main()
"""


def start(tmp_path, assignment):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n  exec({DASK!r})", str(tmp_path / "runs"), assignment],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def wait_for_line(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"never printed {text!r}")


def test_killed_worker_is_one_sentence_and_exit_4(tmp_path):
    process = start(tmp_path, "synthetic.videos=50000")
    wait_for_line(process, "start  synthesize")
    (worker,) = (each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline()))
    worker.kill()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4
    assert "synthesize: its worker cpu-0 on 127.0.0.1 was killed or lost" in errors
    assert "Traceback" not in errors


def test_killed_parent_takes_its_workers_along(tmp_path):
    process = start(tmp_path, "synthetic.videos=50000")
    wait_for_line(process, "start  synthesize")
    children = descendants(process.pid)
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for_the_end_of(children)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_with_their_codes(tmp_path, sent, code):
    process = start(tmp_path, "synthetic.videos=50000")
    wait_for_line(process, "start  synthesize")
    process.send_signal(sent)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_a_line_is_written_at_once(monkeypatch):
    """Lines of two threads do not mix."""
    written = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None))
    PlainLines().notify(Event("index", "fail", message="index: shard x is damaged"))
    assert written == ["FAILED index: shard x is damaged\n"]


def test_lock_holder_file_is_json(settings):
    with engine.locked(settings.runs):
        holder = json.loads((settings.runs / ".lock-holder.json").read_text())
    assert holder["pid"] == os.getpid()
