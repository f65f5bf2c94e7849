"""Claims: a job gets a worker that has what it computes on; worker processes have the threads that keys name; a worker
that is not what it must be says why in one sentence; waiting without hope ends."""

import asyncio
import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from replicate import termination
from replicate.cli.worker import worker as worker_verb
from replicate.cluster import environment, expectation, gpus, jobs, local, walking, worker
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.profile_files import load_profile
from replicate.stages import Graph, in_order
from tests.fake_nvml import FakeGpu, FakeNvml

HERE = socket.gethostname()


def todo(*assignments, columns=("rnn", "netv", "tm", "rnn_attn", "base_ens")):
    profile = load_profile("tiny", assignments)
    return in_order(Graph(profile, None, lambda *_: None).results(columns))


def needs(made):
    return {job.stage.name: jobs.gpus(job) for job in made if job.parameters.get("column") != "base_ens"}


def test_stages_that_compute_models_need_a_gpu_where_the_device_is_one():
    assert set(needs(todo()).values()) == {0}
    found = needs(todo("run.device=cuda"))
    assert {name for name, count in found.items() if count} == {"train", "predict", "explain", "time"}
    ensembles = [job for job in todo("run.device=cuda") if job.parameters.get("column") == "base_ens"]
    assert ensembles and not any(jobs.gpus(job) for job in ensembles)


def test_what_needs_no_gpu_keeps_off_workers_that_have_one_if_others_say_so():
    made = todo("run.device=cuda")
    train = next(job for job in made if job.stage.name == "train")
    split = next(job for job in made if job.stage.name == "split")
    assert jobs.resources(train, jobs.OURS) == jobs.resources(train, {"GPU"}) == {"GPU": 1}
    assert jobs.resources(split, jobs.OURS) == {"CPU": 1}
    assert jobs.resources(split, {"GPU"}) == {}
    assert jobs.can_do({"resources": {"GPU": 1}}, train, jobs.OURS)
    assert not jobs.can_do({"resources": {"GPU": 1}}, split, jobs.OURS)
    assert not jobs.can_do({"resources": {"CPU": 1}}, train, jobs.OURS)


def visible(monkeypatch, count):
    found = [f"GPU-{number}" for number in range(count)], None if count else "NVML lists no GPU"
    monkeypatch.setattr(gpus, "visible", lambda *_: found)


def test_local_workers_one_per_gpu_and_others_that_see_none(monkeypatch):
    visible(monkeypatch, 2)
    made = todo("run.device=cuda", "run.workers=3")
    found = local.workers(made[0].profile.run, made)
    assert found == {
        "gpu-0": {"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": "GPU-0"}},
        "gpu-1": {"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": "GPU-1"}},
        **{f"cpu-{n}": {"resources": {"CPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": ""}} for n in range(3)},
    }
    one_training = [job for job in made if job.stage.name == "train"][:1]
    assert list(local.workers(made[0].profile.run, one_training)) == ["gpu-0"]


def test_local_workers_without_gpus_are_as_many_as_cores_allow(monkeypatch):
    monkeypatch.setattr(gpus, "visible", lambda *_: pytest.fail("no job needs a GPU"))
    monkeypatch.setattr(local, "usable_cores", lambda: 6)
    made = todo("run.threads_per_job=2")
    assert local.workers(made[0].profile.run, made) == {f"cpu-{n}": {"resources": {"CPU": 1}} for n in range(3)}
    assert len(local.workers(made[0].profile.run, made[:1])) == 1


def test_no_gpu_is_a_sentence_before_anything_starts(monkeypatch):
    visible(monkeypatch, 0)
    made = todo("run.device=cuda")
    with pytest.raises(ConfigurationError, match=r"no GPU can be used here \(NVML lists no GPU\); give --set run.dev"):
        local.workers(made[0].profile.run, made)


def test_a_model_of_two_processes_gets_two_gpus(monkeypatch):
    made = todo("run.device=cuda")
    for job in made:
        if job.stage.name == "train":
            job.identity["fields"]["run.processes_per_model"] = 2
    run = made[0].profile.run
    visible(monkeypatch, 5)
    environments = [each.get("env") for name, each in local.workers(run, made).items() if name.startswith("gpu")]
    assert environments == [{"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1"}, {"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-3"}]
    visible(monkeypatch, 1)
    with pytest.raises(ConfigurationError, match=r"2 GPUs are needed for one model \(there are 1\)"):
        local.workers(run, made)


def test_gpus_are_named_as_cuda_visible_devices_does(monkeypatch):
    machine = [FakeGpu("GPU-aaaa-0"), FakeGpu("GPU-bbbb-1")]
    FakeNvml(machine, mig=[FakeGpu("MIG-cccc-2")]).install(monkeypatch)
    assert gpus.visible({}) == (["GPU-aaaa-0", "GPU-bbbb-1"], None)
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "1"})[0] == ["GPU-bbbb-1"]
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "MIG-cccc-2"})[0] == ["MIG-cccc-2"]


def test_torch_counts_where_nvml_cannot(monkeypatch):
    import pynvml
    import torch

    FakeNvml([], fault=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpus.visible({}) == (["0", "1"], None)
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "3, 5"}) == (["3", "5"], None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found, reason = gpus.visible({"CUDA_VISIBLE_DEVICES": ""})
    assert not found and "NVML" in reason


def test_workers_have_the_threads_of_the_key_whatever_the_shell_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    with environment.of_workers(2):
        assert [os.environ[name] for name in environment.THREADS] == ["2"] * 4
    assert os.environ["OMP_NUM_THREADS"] == "7" and "NUMBA_NUM_THREADS" not in os.environ


def test_schedulers_of_ours_encrypt_where_dask_is_told_to():
    import dask

    assert environment.protocol() == "tcp://"
    with dask.config.set({"distributed.comm.require-encryption": True}):
        assert environment.protocol() == "tls://"


def test_a_worker_that_is_asked_to_end_has_all_the_time_that_sigterm_leaves(monkeypatch):
    """Of which Dask gives four fifths to the worker's own end, before it kills the process."""
    from distributed import Nanny

    granted = []

    async def close(_, timeout=5, **_others):
        granted.append(timeout)

    monkeypatch.setattr(Nanny, "close", close)
    kind = environment.nanny()
    asyncio.run(kind.close(object.__new__(kind)))
    assert [0.8 * timeout for timeout in granted] == [termination.GRACE]


def offer(**named):
    return worker.Offer(**{"threads": 1, "gpus": worker.ALL, "gpus_per_worker": 1, "cpus": worker.ALL, "name": "",
                           "interface": "", **named})  # fmt: skip


def test_a_machine_offers_what_it_has(monkeypatch):
    monkeypatch.setattr(local, "usable_cores", lambda: 4)
    visible(monkeypatch, 2)
    assert list(worker.workers(offer(name="a"))) == ["a-gpu-0", "a-gpu-1", "a-cpu-0", "a-cpu-1"]
    assert list(worker.workers(offer(name="a", gpus=1, cpus=0))) == ["a"]
    assert worker.workers(offer(name="a", gpus_per_worker=2, cpus=0))["a"]["resources"] == {"GPU": 2}
    with pytest.raises(ConfigurationError, match=r"--gpus 3: so many GPUs cannot be used here \(there are 2\)"):
        worker.workers(offer(gpus=3))
    visible(monkeypatch, 0)
    assert len(worker.workers(offer(threads=2))) == 2
    with pytest.raises(ConfigurationError, match="--cpus 0 leaves no worker"):
        worker.workers(offer(cpus=0))


@pytest.fixture
def expected(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.tfrecord").write_bytes(b"1234")
    return expectation.expect(tmp_path / "runs", data, ("*.tfrecord",), 1)


RIGHT = environment.thread_variables(1)


def fault(expected, threads=1, environ=RIGHT, **changed):
    return expectation.fault(dataclasses.replace(expected, **changed), "w", threads, environ)


def test_a_right_worker_has_no_fault(expected):
    assert fault(expected) is None


def test_each_fault_of_a_worker_is_its_own_sentence(expected, tmp_path):
    who = f"worker w on {HERE}"
    start = "start it by `replicate worker ADDRESS --threads-per-job 1`"
    assert fault(expected, threads=4) == (
        f"{who} would carry out 4 jobs at once in one process, which share settings; {start}"
    )
    without = {name: value for name, value in RIGHT.items() if name != "NUMBA_NUM_THREADS"}
    assert fault(expected, environ=without) == (
        f"{who}: NUMBA_NUM_THREADS is not set, and run.threads_per_job is 1; {start}"
    )
    other = tuple((name, "0.0" if name == "torch" else version) for name, version in expected.software)
    assert f"{who} has torch " in fault(expected, software=other) and "this command 0.0" in fault(
        expected, software=other
    )
    other = tuple((name, "x" if name == "sources" else version) for name, version in expected.software)
    assert f"{who} runs other source files than this command; start the sch" in fault(expected, software=other)
    assert f"{who} sees 1 shards with 4 bytes" in fault(expected, data=(2, 9))
    elsewhere = fault(expected, data_dir=tmp_path / "elsewhere")
    assert elsewhere.startswith(f"{who}: no file under {tmp_path / 'elsewhere'} matches '*.tfrecord'")
    assert elsewhere.endswith("every machine needs the same data under the same path")


def test_a_run_directory_that_is_not_shared_is_seen(expected, tmp_path):
    runs = tmp_path / "runs"
    assert fault(expected, folder=tmp_path / "other" / ".walks" / "x").startswith(
        f"worker w on {HERE} does not see {tmp_path / 'other'}; --out must lie on storage that every machine sees"
    )
    assert f"sees another {runs} than this command" in fault(expected, token="of another disk")


def test_a_job_that_a_worker_began_is_not_begun_by_another(expected):
    def dask_worker(name):
        return SimpleNamespace(name=name, state=SimpleNamespace(nthreads=1))

    expectation._checked.cache_clear()
    job = todo()[0]
    with environment.of_workers(1):
        expectation.begin(expected, job, dask_worker("first"))
        with pytest.raises(IncompleteRun, match=f"^its worker first on {HERE} was killed or lost.* to resume$"):
            expectation.begin(expected, job, dask_worker("second"))
        with pytest.raises(ConfigurationError, match=f"^worker third on {HERE}: OMP_NUM_THREADS is 1, and run.threads"):
            expectation.begin(dataclasses.replace(expected, threads=2), todo()[1], dask_worker("third"))
        expectation.dismiss(expected)
        with pytest.raises(IncompleteRun, match="has ended"):
            expectation.begin(expected, job, dask_worker("first"))


def test_walks_of_killed_commands_leave_nothing(expected, tmp_path):
    again = expectation.expect(tmp_path / "runs", None, (), 1)
    assert not expected.folder.exists() and again.folder.is_dir()
    expectation.dismiss(again)
    assert not list((tmp_path / "runs").iterdir())


def test_each_walk_of_a_scheduler_has_a_name_of_its_own(expected, tmp_path):
    """Dask would give two jobs of the same name one result; those of one run directory are told by its part."""
    again, elsewhere = (expectation.expect(tmp_path / name, None, (), 1) for name in ("runs", "other"))
    assert len({expected.walk, again.walk, elsewhere.walk}) == 3
    assert expected.place == again.place != elsewhere.place
    assert all(each.walk.startswith(f"{each.place}.") for each in (expected, again, elsewhere))


def test_waiting_for_a_worker_that_never_comes_ends(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(walking, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    train = next(job for job in todo("run.device=cuda") if job.stage.name == "train")
    patience = walking.Patience("start some")
    patience({}, train)
    clock[0] += walking.PATIENCE
    patience({}, None)  # one came, and went again
    patience({}, train)
    clock[0] += walking.PATIENCE
    patience({}, train)
    clock[0] += 1
    with pytest.raises(IncompleteRun, match=r"^train RNN, seed 0: for 5 min 0 s no worker has offered a GPU; start s"):
        patience({}, train)


def test_a_client_that_has_given_up_its_scheduler_is_a_sentence():
    """Dask's then knows nothing, not even that there are no workers."""
    walk = walking.Walk(SimpleNamespace(scheduler_info=dict), None, (), "x", jobs.OURS, None, None)
    with pytest.raises(IncompleteRun, match="the connection to the Dask scheduler is lost"):
        walk._one_worker(todo()[:1])


PAGE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_the_profile_on_the_page_loads(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_site.toml").write_text(text)
    assert load_profile(str(tmp_path / "my_site.toml")).slurm.gpu_jobs == 8


def test_the_workers_on_the_page_are_understood():
    import yaml

    blocks = [each for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for each in yaml.safe_load_all(text)]
    workers = [
        block["spec"]["worker"]["spec"]["containers"][0] for block in blocks if "worker" in block.get("spec", {})
    ]
    assert len(workers) == 2
    for container in workers:
        verb, name, *words = container["args"]
        assert (verb, name) == ("replicate", "worker")
        assert worker_verb.make_context("worker", ["tcp://head:8786", *words]).params["name"] == "$(DASK_WORKER_NAME)"


FREED_AGAIN_AND_AGAIN = """
import resource, threading
import numpy as np

def use():
    taken = [np.empty(size << 20, np.uint8) for size in (19, 59, 3, 3, 3)]  # as a step of an LSTM, in megabytes
    for each in taken:
        each[::4096] = 1

def work():
    use()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(5):
        use()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

thread = threading.Thread(target=work)  # as a worker's jobs
thread.start()
thread.join()
"""


@pytest.mark.skipif(int(environment.ALLOCATOR["MALLOC_MMAP_THRESHOLD_"]) < 59 << 20, reason="an old C library")
def test_memory_that_a_job_gives_back_is_kept_for_its_next_step():
    def page_faults(variables):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
        command = [sys.executable, "-c", FREED_AGAIN_AND_AGAIN]
        return int(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)

    if page_faults({}) < 100:
        pytest.skip("this system's C library keeps memory by itself")
    assert page_faults(environment.OTHERS) < 100


def test_dask_takes_jobs_in_the_order_in_which_they_are_given():
    taken = []
    client = SimpleNamespace(submit=lambda task, job, *_, key, priority, **__: taken.append((priority, job)))
    made = [job for job in todo() if not job.stage.exclusive]
    walk = walking.Walk(client, None, (), "x", jobs.OURS, None, None)
    for job in made:
        walk._submit(job, [])
    assert [job for _, job in sorted(taken, key=lambda pair: -pair[0])] == made
    assert len({priority for priority, _ in taken}) == len(made)
    assert all(-0.5 < priority <= 0 for priority, _ in taken), "another command's jobs must not wait for all of ours"
