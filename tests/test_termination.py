"""Claims: SIGTERM, to the command alone or to all of its processes, ends a training at its next step with a checkpoint,
wherever it runs, and the same command goes on there to the same bytes; without a step it ends after some seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
from patience import PATIENCE

from replicate import engine, manifest, termination
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from replicate.stages import Graph
from tests.test_cluster_running import our_worker, processes, scheduler

# Long epochs: without a checkpoint of their own, killed trainings would begin them again.
CHANGES = ("training.epochs=3", "training.batch_size=2", "training.learning_rate=1e-4", "run.columns=['rnn']")
RESULTS = ("weights.safetensors", "history.json", "record.json")


def graph_of(*more):
    return Graph(load_profile("tiny", (*CHANGES, *more)), None, lambda *_: None)


def walk(runs: Path, jobs):
    engine.walk(jobs, engine.Settings(jobs[0].profile, runs, None, ("replicate", "train")), PlainLines())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run directory with all that the training needs."""
    runs = tmp_path_factory.mktemp("prepared")
    walk(runs, list(graph_of().train("rnn", 0).inputs.values()))
    return runs


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """Gives the results of a training that ran through, by what else is set."""
    found = {}

    def results(*more):
        if more not in found:
            runs = tmp_path_factory.mktemp("whole") / "runs"
            shutil.copytree(prepared, runs)
            job = graph_of(*more).train("rnn", 0)
            walk(runs, [job])
            found[more] = contents(job.folder(runs))
        return found[more]

    return results


@pytest.fixture
def runs(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "runs")
    return tmp_path / "runs"


def contents(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def command(runs, *more, scheduler=()):
    words = [sys.executable, "-m", "replicate.cli.main", "train", "--profile", "tiny", "--model", "rnn", "--out", runs]
    words += [word for each in (*CHANGES, *more) for word in ("--set", each)]
    return list(map(str, [*words, *scheduler]))


def wait_until(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def in_second_epoch(folder):
    return lambda: (folder / "timings.json").is_file()


def steps_kept(folder):
    """(whole epochs, steps of the next) of the checkpoint."""
    with safetensors.safe_open(folder / "checkpoint.safetensors", "pt") as file:
        state = json.loads(file.metadata()["checkpoint"])["state"]
    return state["epoch"], state["step"]


@pytest.mark.parametrize("to_all", [False, True], ids=["to the command", "to all its processes"])
@pytest.mark.parametrize(
    "more", [(), ("run.engine=dask",), ("run.processes_per_model=2",), ("reading.workers=1",)],
    ids=["inline", "dask", "torchrun", "reading workers"],
)  # fmt: skip
def test_a_training_ends_at_its_next_step_and_goes_on_there(more, to_all, whole, runs):
    folder = graph_of(*more).train("rnn", 0).folder(runs)
    with subprocess.Popen(command(runs, *more), stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(in_second_epoch(folder), process)
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == termination.EXIT_CODE == 143
    assert "Traceback" not in errors
    epochs, step = steps_kept(folder)
    assert epochs >= 1 and step >= 1
    job = graph_of(*more).train("rnn", 0)
    walk(runs, [job])
    assert contents(folder) == whole(*[each for each in more if each.startswith("run.processes")])


def test_a_worker_of_a_cluster_that_is_ended_keeps_the_step(whole, runs, tmp_path):
    """As Slurm ends it: every process of the worker's job gets the signal."""
    folder = graph_of().train("rnn", 0).folder(runs)
    with scheduler(tmp_path) as (address, _), processes() as start:
        worker = start(our_worker(address, "only"), tmp_path / "worker")
        wait_until(lambda: "1 workers at" in (tmp_path / "worker.log").read_text(), worker)
        words = command(runs, scheduler=("--scheduler", address))
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            wait_until(in_second_epoch(folder), process)
            os.killpg(worker.pid, signal.SIGTERM)
            os.killpg(worker.pid, signal.SIGTERM)
            start(our_worker(address, "next"), tmp_path / "next")  # Dask gives it the job, and it finds who began it
            _, errors = process.communicate(timeout=PATIENCE)
        assert worker.wait(PATIENCE) == 143
    assert process.returncode == 4
    assert "train RNN, seed 0: its worker only" in errors and "issue the same command again to resume" in errors
    epochs, step = steps_kept(folder)
    assert epochs >= 1 and step >= 1
    job = graph_of().train("rnn", 0)
    walk(runs, [job])
    assert contents(folder) == whole() and manifest.is_done(folder)


WAITING = """
import sys, time
from replicate import termination
termination.GRACE = 1
with termination.put_off():
    print("begun", flush=True)
    time.sleep(600)
"""


def test_without_a_step_it_ends_nonetheless():
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.terminate()
            assert process.wait(PATIENCE) == 143
        finally:
            process.kill()


def test_put_off_is_not_put_aside():
    """At the end of the block at the latest; and the next block hears nothing of it."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, termination.put_off():
        signal.raise_signal(signal.SIGTERM)
        reached = True
    assert caught.value.code == 143 and reached
    assert signal.getsignal(signal.SIGTERM) == before
    with termination.put_off():
        termination.look()


def test_what_is_put_away_after_a_look_may_take_its_time():
    """Nothing ends the process then, neither the clock nor the same signal from another side."""
    with pytest.raises(SystemExit), termination.put_off():
        signal.raise_signal(signal.SIGTERM)
        asked = signal.alarm(termination.GRACE)
        with pytest.raises(SystemExit):
            termination.look()
        signal.raise_signal(signal.SIGTERM)
        left = signal.alarm(0)
    assert asked > 0 and left == 0
