"""Claims: jobs go through a running cluster of several machines as through one process, to the same bytes; each of its
faults is one sentence; a worker killed in mid-training costs that job alone, which the same command resumes."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import PATIENCE, wait_until

from replicate import engine, manifest
from replicate.cluster import environment, expectation, running
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from replicate.stages import Graph

RIGHT = {**os.environ, **environment.thread_variables(1), "PYTHONUNBUFFERED": "1"}
FAKE_GPU = Path(__file__).with_name("fake_gpu.py")


@contextlib.contextmanager
def scheduler(folder, *options, environ=RIGHT):
    """A Dask scheduler of its own; yields (address, process)."""
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    with processes() as start:
        process = start([*command, "--no-dashboard", "--scheduler-file", file, *options], folder / "scheduler", environ)
        yield wait_until(lambda: address_in(file), "the scheduler"), process


def address_in(file):
    """The address in a scheduler's file, which comes into being before it is written; None until then."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads(file.read_text())["address"]


@contextlib.contextmanager
def processes():
    """Starts processes that end with the block."""
    started = []

    def start(command, log, environ=RIGHT):
        with open(f"{log}.log", "ab") as out:
            started.append(
                subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, env=environ, start_new_session=True)
            )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def gpu_worker(address, name, gpus=1):
    return [
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", 1, "--memory-limit", 0,
        "--no-dashboard", "--resources", f"GPU={gpus}", "--name", name, "--preload", FAKE_GPU,
    ]  # fmt: skip


def our_worker(address, name, cpus=1):
    words = ["worker", address, "--name", name, "--gpus", 0, "--cpus", cpus]
    return [sys.executable, "-m", "replicate.cli.main", *words]


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """The address of a cluster of two machines: each has a GPU, as it says, and a worker without."""
    from distributed import Client

    folder = tmp_path_factory.mktemp("machines")
    expectation.software.cache_clear()
    expectation.software()  # sources that are edited while the tests run are those of this moment, here and there
    with scheduler(folder) as (address, _), processes() as start:
        for machine in ("one", "two"):
            start(gpu_worker(address, f"{machine}-gpu"), folder / f"{machine}-gpu")
            start(our_worker(address, f"{machine}-cpu"), folder / f"{machine}-cpu")
        with Client(address) as client:
            client.wait_for_workers(4, timeout=PATIENCE)
        yield address


def make(runs, *assignments):
    settings = engine.Settings(load_profile("tiny", assignments), runs, None, ("replicate", "train"))
    return Graph(settings.profile, None, lambda *_: None), settings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A run directory with everything that training needs."""
    runs = tmp_path_factory.mktemp("corpus") / "runs"
    graph, settings = make(runs)
    engine.walk([graph.labels, graph.split], settings, PlainLines())
    return runs


@pytest.fixture
def runs(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "runs")
    return tmp_path / "runs"


LONG = ("training.epochs=20", "training.patience=20")


class Killer(PlainLines):
    """Kills the worker of a training once that has left a checkpoint."""

    def __init__(self, address, job, settings):
        super().__init__()
        self.pids, self.job, self.settings, self.killed = pids(address), job, settings, None

    def notify(self, event):
        super().notify(event)
        checkpoints = [path for path in self.job.folder(self.settings.runs).rglob("*") if "checkpoint" in path.name]
        if event.kind == "step" and event.label == self.job.label and checkpoints and not self.killed:
            (note,) = self.settings.runs.glob(f"{expectation.WALKS}/*/{self.job.key}.begun")
            self.killed = note.read_text().partition(" on ")[0]
            os.kill(self.pids[self.killed], signal.SIGKILL)


def pids(address):
    """Process of each worker, by its name."""
    with running.client_of(address) as client:
        names = {each: worker["name"] for each, worker in client.scheduler_info()["workers"].items()}
        return {names[each]: pid for each, pid in client.run(os.getpid).items()}


def test_a_worker_killed_in_mid_training_costs_that_job_alone_and_it_resumes(machines, runs, capsys):
    graph, settings = make(runs, *LONG, "run.device=cuda")
    killed, other = graph.train("rnn", 0), graph.train("rnn_attn", 0)
    killer = Killer(machines, killed, settings)
    with pytest.raises(IncompleteRun, match=r"^train RNN, seed 0: its worker (one|two)-gpu on \S+ was killed or lost"):
        engine.walk([killed, other], settings, killer, machines)
    assert killer.killed in ("one-gpu", "two-gpu")
    assert manifest.is_done(other.folder(runs)) and not manifest.is_done(killed.folder(runs))
    assert capsys.readouterr().err.count("FAILED") == 1
    assert not (runs / expectation.WALKS).exists()

    assert engine.walk([killed, other], settings, PlainLines(), machines) == 1
    graph, settings = make(runs, *LONG)
    whole = graph.train("rnn", 0)
    engine.walk([whole], settings, PlainLines())
    assert whole.key != killed.key
    weights = [(job.folder(runs) / "weights.safetensors").read_bytes() for job in (whole, killed)]
    assert weights[0] == weights[1], "through a killed worker of a cluster, and in one go in this process"


def test_timings_come_after_all_else_from_one_worker(machines, runs):
    started = []

    class Starts(PlainLines):
        def notify(self, event):
            if event.kind in ("start", "end"):
                started.append((event.kind, event.label))
            if event.kind == "start" and event.label.startswith("time"):
                (note,) = runs.glob(f"{expectation.WALKS}/*/{timed[event.label]}.begun")
                workers.append(note.read_text())

    workers = []
    graph, settings = make(runs, "run.device=cuda")
    times = [graph.time(column) for column in ("rnn", "rnn_attn", "tc_rnn")]
    timed = {job.label: job.key for job in times}
    engine.walk([*times, graph.train("rnn", 0), graph.labels], settings, Starts(), machines)
    kinds = [label.split()[0] for _, label in started]
    assert kinds == ["train"] * 2 + ["time"] * 6
    assert [kind for kind, _ in started[2:]] == ["start", "end"] * 3, "one after the other"
    assert len(workers) == 3 and len(set(workers)) == 1 and "gpu" in workers[0]


def test_a_cluster_without_the_needed_gpus_is_a_sentence(machines, runs):
    graph, settings = make(runs, "run.device=cuda")
    job = graph.train("rnn", 0)
    job.identity["fields"]["run.processes_per_model"] = 2
    with pytest.raises(ConfigurationError) as caught:
        engine.walk([job], settings, PlainLines(), machines)
    assert str(caught.value).startswith(
        f"--scheduler {machines}: train RNN, seed 0 needs 2 GPUs, as run.device is cuda, and no worker of 4 offers "
        f"that; on machines with GPUs start `replicate worker {machines} --gpus-per-worker 2`, or `dask worker"
    )


def test_threads_of_the_profile_and_of_the_workers_must_agree(machines, runs):
    graph, settings = make(runs, "run.threads_per_job=2")
    with pytest.raises(ConfigurationError, match=r"OMP_NUM_THREADS is 1, and run.threads_per_job is 2; start it by `"):
        engine.walk([graph.train("rnn", 0)], settings, PlainLines(), machines)


def examine(address, job, expected):
    with running.client_of(address) as client:
        return running.examine(client, address, [job], expected, PlainLines())


def test_other_versions_and_other_files_are_sentences(machines, runs):
    graph, settings = make(runs)
    job = graph.train("rnn", 0)
    with environment.of_workers(1):
        expected = expectation.expect(runs, None, (), 1)
        for package, there in (("distributed", "the scheduler"), ("torch", "worker "), ("python", "the scheduler")):
            wanted = tuple((name, "0.1" if name == package else version) for name, version in expected.software)
            said = rf"{there}.* has {package} [\d.]+.*, this command 0\.1; start the"
            with pytest.raises(ConfigurationError, match=said):
                examine(machines, job, dataclasses.replace(expected, software=wanted))
        with pytest.raises(ConfigurationError, match=f"sees another {runs} than this command; --out must lie on"):
            examine(machines, job, dataclasses.replace(expected, token="of a disk of this machine"))
        assert examine(machines, job, expected) == {"GPU", "CPU"}


def test_an_interrupted_command_leaves_no_worker_at_its_job(machines, tmp_path):
    words = ["table1", "--model", "rnn", "--profile", "tiny", "--set", "synthetic.videos=50000"]
    command = [sys.executable, "-m", "replicate.cli.main", *words, "--out", tmp_path / "runs", "--scheduler", machines]
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert any("start  synthesize" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors
    graph, settings = make(tmp_path / "runs", "synthetic.videos=50000")
    corpus = graph.index.inputs["synthesize"]
    assert not (settings.runs / expectation.WALKS).exists()
    with running.client_of(machines) as client, environment.of_workers(1):
        here = [str(key) for keys in client.processing().values() for key in keys]
        assert not here, "the scheduler has forgotten the job"
        expected = expectation.expect(settings.runs, None, (), 1)
        offered = running.examine(client, machines, [corpus], expected, PlainLines())
        busy = client.run(running._busy_in_worker, {f"synthesize-{corpus.key}-{expected.place}"})
    assert offered and not any(busy.values())


def test_a_lost_scheduler_is_a_sentence_and_resumable(tmp_path):
    graph, settings = make(tmp_path / "runs", "synthetic.videos=50000")
    with scheduler(tmp_path) as (address, process), processes() as start:

        class Fate(PlainLines):
            def notify(self, event):
                super().notify(event)
                if event.kind == "start" and event.label == "synthesize":
                    process.kill()

        with pytest.raises(ConfigurationError, match=f"{address}: the cluster has no worker; start some by `replicate"):
            engine.walk([graph.index], settings, Fate(), address)
        start(our_worker(address, "only"), tmp_path / "only")
        with running.client_of(address) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
        with pytest.raises(IncompleteRun, match="connection to the Dask scheduler is lost; .* to resume$") as caught:
            engine.walk([graph.index], settings, Fate(), address)
    assert caught.value.exit_code == 4


def test_no_scheduler_there_is_a_sentence(tmp_path, monkeypatch):
    graph, settings = make(tmp_path / "runs")
    before = set(threading.enumerate())
    with pytest.raises(ConfigurationError, match=r"--scheduler nonsense://x: no Dask scheduler answers there \(.*sta"):
        engine.walk([graph.index], settings, PlainLines(), "nonsense://x")
    with pytest.raises(ConfigurationError, match="tls:// needs distributed.comm.tls"):
        engine.walk([graph.index], settings, PlainLines(), "tls://127.0.0.1:1")
    left = [thread for thread in threading.enumerate() if thread.name == "IO loop" and thread not in before]
    assert not left, "a client that is left to the garbage collector may block the next one"


def ended(command, environ=RIGHT):
    """Exit code and last line of a command that ends by itself."""
    process = subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True, timeout=PATIENCE)
    return process.returncode, process.stderr.splitlines()[-1]


def test_a_worker_without_a_scheduler_is_a_sentence():
    environ = {**RIGHT, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    code, said = ended(our_worker("tcp://127.0.0.1:1", "lonely"), environ)
    assert code == 2
    assert said.startswith("replicate: tcp://127.0.0.1:1: no Dask scheduler answers there (Timed out")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["Start Nanny at", "Waiting to connect to", "Registered to"])
def test_a_signal_while_workers_start_ends_them_too(tmp_path, sent, moment):
    with scheduler(tmp_path) as (address, _), processes() as start:
        early = start(our_worker(address, "early"), tmp_path / "early")
        wait_until(lambda: moment in (tmp_path / "early.log").read_text(), "a line of its log", every=0.001)
        early.send_signal(sent)
        assert early.wait(PATIENCE) == 128 + sent


def test_workers_end_with_a_signal_and_with_their_scheduler(tmp_path):
    with scheduler(tmp_path) as (address, process), processes() as start:
        first, second = (start(our_worker(address, name), tmp_path / name) for name in ("first", "second"))
        for name in ("first", "second"):
            log = tmp_path / f"{name}.log"
            wait_until(lambda log=log: "1 workers at" in log.read_text(), "the end of its start")
        with running.client_of(address) as client:
            first.terminate()
            assert first.wait(PATIENCE) == 128 + signal.SIGTERM
            wait_until(lambda: len(client.scheduler_info()["workers"]) == 1, "the worker to leave")
        process.kill()
        assert second.wait(PATIENCE) == 0
    assert "the scheduler has ended" in (tmp_path / "second.log").read_text()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")
def test_tls(tmp_path):
    import dask
    import distributed  # noqa: F401 - brings its settings

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
         "-subj", "/CN=cluster"], check=True, capture_output=True,
    )  # fmt: skip
    tls = {"ca-file": certificate}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"{role}.key": key, f"{role}.cert": certificate}
    names = {name: f"DASK_DISTRIBUTED__COMM__TLS__{name.upper().replace('.', '__').replace('-', '_')}" for name in tls}
    environ = RIGHT | {names[name]: str(path) for name, path in tls.items()}
    graph, settings = make(tmp_path / "runs")
    with scheduler(tmp_path, "--protocol", "tls", environ=environ) as (address, _), processes() as start:
        assert address.startswith("tls://")
        start(our_worker(address, "only"), tmp_path / "only", environ)
        with dask.config.set({f"distributed.comm.tls.{name}": str(path) for name, path in tls.items()}):
            with running.client_of(address) as client:
                client.wait_for_workers(1, timeout=PATIENCE)
            assert engine.walk([graph.taxonomy], settings, PlainLines(), address) == 1
    assert manifest.is_done(graph.taxonomy.folder(tmp_path / "runs"))
