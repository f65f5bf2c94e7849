"""Claims: a training by two processes of one host, or of two, gives the same bytes, and one process's scores to
rounding; whichever process dies, all end, one sentence says so, and the same command goes on from the checkpoint."""

import contextlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from patience import PATIENCE, wait_until
from safetensors.torch import load_file

from replicate import engine, hosts
from replicate.errors import ConfigurationError, DataError, IncompleteRun
from replicate.profile_files import load_profile
from replicate.progress import Event
from replicate.record import read_json
from replicate.stages import Graph
from replicate.training.torchrun import LOG, TASK

ROOT = Path(__file__).resolve().parent.parent
CHANGES = ("training.epochs=12", "training.patience=12", "run.columns=['rnn']")
TWO = (*CHANGES, "run.processes_per_model=2")


class Told:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.events: list[Event] = []

    def expect(self, labels):
        pass

    def notify(self, event):
        self.events.append(event)


def job_of(assignments):
    return Graph(load_profile("tiny", assignments), None, lambda *_: None).train("rnn", 0)


def train(runs: Path, assignments=TWO, told=None) -> Path:
    """The folder of a training that an inline engine walked to."""
    job = job_of(assignments)
    settings = engine.Settings(job.profile, runs, None, ("replicate", "train"))
    engine.walk([job], settings, told or Told())
    return job.folder(runs)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run directory with all that a training needs."""
    runs = tmp_path_factory.mktemp("prepared")
    job = job_of(TWO)
    settings = engine.Settings(job.profile, runs, None, ("replicate", "split"))
    engine.walk(list(job.inputs.values()), settings, Told())
    return runs


@pytest.fixture
def runs(prepared, tmp_path):
    """A run directory of one test's own."""
    shutil.copytree(prepared, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def one_host(prepared, tmp_path_factory):
    """(folder of a training by two processes, what the listener was told)."""
    runs, told = tmp_path_factory.mktemp("one host") / "runs", Told()
    shutil.copytree(prepared, runs)
    return train(runs, told=told), told


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("weights.safetensors", "history.json", "record.json")}


def test_two_processes_give_one_processs_scores(one_host, runs):
    folder, told = one_host
    alone = train(runs, CHANGES)
    assert alone.name != folder.name, "how many processes trained is part of the key"
    weights, expected = (load_file(each / "weights.safetensors") for each in (folder, alone))
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-3, atol=1e-5)
    record, before = (read_json(each / "record.json") for each in (folder, alone))
    assert record["tune_gap"] == pytest.approx(before["tune_gap"], abs=1e-4)
    assert (record["compute"]["processes"], before["compute"]["processes"]) == (2, 1)
    assert not {LOG, TASK} & {path.name for path in folder.iterdir()}
    steps = [event.done for event in told.events if event.kind == "step"]
    assert steps == sorted(steps) and steps[-1] == 12 * (5 + 2)


def free_port() -> int:
    """Of those that Linux gives to nobody who asks for any: another could have it before the launchers do."""
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def test_two_hosts_give_the_same_bytes_as_one(one_host, runs):
    """Two launchers that meet over the loopback interface, each with one process; also what is to be done before."""
    shutil.rmtree(runs / "split")
    port = free_port()
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    words += [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    command = ["-m", "replicate.cli.main", "train", "--profile", "tiny", "--model", "rnn", "--out", runs]
    changes = [word for each in TWO for word in ("--set", each)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    hosts = [
        subprocess.Popen(
            [*words, f"--node-rank={rank}", *command, *changes], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        said = [host.communicate(timeout=PATIENCE) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said[0][1][-3000:]
    assert results(runs / "train" / one_host[0].name) == results(one_host[0])
    assert sorted(bool(output) for output, _ in said) == [False, True], "one process alone says what was done"
    assert "2 jobs ran" in said[0][0] + said[1][0]


def test_other_commands_are_not_for_torchrun(tmp_path):
    job = job_of(TWO)
    settings = engine.Settings(job.profile, tmp_path, None, ("replicate", "split"))
    with pytest.raises(ConfigurationError, match="torchrun starts `replicate train` and `replicate time` alone"):
        hosts.walk([job.inputs["split"]], settings, Told())


def processes_of(folder: Path) -> list[psutil.Process]:
    """The launcher and its processes, oldest first."""
    every = psutil.process_iter(["cmdline", "create_time"])
    found = [each for each in every if str(folder / TASK) in (each.info["cmdline"] or ())]
    return sorted(found, key=lambda each: each.info["create_time"])


def kill_when_begun(folder: Path, number: int) -> None:
    """Kill one of the three processes as soon as there is a checkpoint; looking for them takes time and comes first."""
    wait_until(lambda: len(processes_of(folder)) == 3, "three processes")
    process = processes_of(folder)[number]
    wait_until((folder / "checkpoint.safetensors").exists, "a checkpoint", every=0.001)
    process.kill()


@pytest.mark.parametrize("number", [0, 2], ids=["launcher", "process"])
def test_when_one_is_killed_all_end_and_the_command_resumes(number, one_host, runs):
    folder = runs / "train" / one_host[0].name
    killer = threading.Thread(target=kill_when_begun, args=(folder, number))
    killer.start()
    with pytest.raises(IncompleteRun, match="processes that share the work w.* killed.*issue the same command again"):
        train(runs)
    killer.join()
    wait_until(lambda: not processes_of(folder), "the end of all processes")
    assert not (folder / "manifest.json").exists() and (folder / "checkpoint.safetensors").exists()
    assert results(train(runs)) == results(one_host[0])


def test_a_fault_in_one_process_is_its_sentence(runs):
    """A shard that was damaged since it was indexed."""
    (shard,) = sorted(runs.glob("synthesize/*/*.tfrecord"))[:1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 3 :: 997] = bytes(len(content[len(content) // 3 :: 997]))
    shard.write_bytes(content)
    with pytest.raises(DataError, match=f"^train RNN, seed 0: .*{shard.name}"):
        train(runs)


def test_processes_end_with_the_one_that_waits_for_them(one_host, runs):
    """Also when it has no time for last words."""
    words = [sys.executable, "-m", "replicate.cli.main", "train", "--profile", "tiny", "--model", "rnn", "--out", runs]
    words += [word for each in TWO for word in ("--set", each)]
    folder = runs / "train" / one_host[0].name
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        wait_until(lambda: len(processes_of(folder)) == 3 or command.poll() is not None, "three processes")
        assert command.poll() is None
        command.kill()
    wait_until(lambda: not processes_of(folder), "the end of all processes")


IN_A_STEP = """
import sys, time
from pathlib import Path
from replicate import rank, steps

def step(_):
    print("begun", flush=True)
    time.sleep(600)

steps.STEPS["train"] = step
sys.exit(rank.main(Path(sys.argv[1])))
"""


def test_a_process_ends_with_its_standard_input_also_in_a_step(tmp_path):
    """Also while it has nothing to tell, and so does not notice that nobody listens."""
    job = job_of(TWO)
    task = tmp_path / TASK
    task.write_bytes(pickle.dumps((job, job.profile, tmp_path, None)))
    words, pipe = [sys.executable, "-c", IN_A_STEP, str(task)], subprocess.PIPE
    environment = {**os.environ, "RANK": "0"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.stdin.close()
            assert process.wait(PATIENCE) == IncompleteRun.exit_code
        finally:
            process.kill()
