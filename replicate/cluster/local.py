"""Workers on this machine: one per GPU that the jobs need, and others beside them for what needs none."""

from typing import Any

from replicate.cluster import gpus, jobs
from replicate.cluster.environment import nanny, protocol
from replicate.config import RunConfig
from replicate.errors import ConfigurationError
from replicate.hardware.accounting import usable_cores
from replicate.hardware.nvml import VISIBLE
from replicate.stages import Job

HOST = "127.0.0.1"


def workers(run: RunConfig, todo: list[Job]) -> dict[str, dict[str, Any]]:
    """Name -> Dask's options of every worker: as many as there are jobs of its kind at most.

    Raises:
        ConfigurationError: jobs need a GPU, and there is none.
    """
    with_gpu, without, per_worker = jobs.counts(todo)
    groups: list[str] = []
    if with_gpu:
        groups, there = gpus.shared_out(per_worker)
        if not groups:
            what = "no GPU can be used here" if per_worker == 1 else f"{per_worker} GPUs are needed for one model"
            remedy = "give --set run.device=cpu" if per_worker == 1 else "lower run.processes_per_model"
            raise ConfigurationError(f"run.device is 'cuda', but {what} ({there}); {remedy}")
    cores = usable_cores() // (run.threads_per_job * max(map(jobs.processes, todo)))
    others = run.workers or max(1, cores - len(groups[:with_gpu]))
    return options(groups[:with_gpu], per_worker, min(others, without))


def options(groups: list[str], gpus_per_worker: int, cpus: int) -> dict[str, dict[str, Any]]:
    """Name -> resources and environment of a worker for each group of GPUs, and of so many without.

    Those without see no GPU where others have some: a library that looks for GPUs would take memory there.
    """
    with_gpu = {
        f"gpu-{number}": {"resources": {jobs.GPU: gpus_per_worker}, "env": {VISIBLE: names}}
        for number, names in enumerate(groups)
    }
    hidden = {"env": {VISIBLE: ""}} if groups else {}
    return with_gpu | {f"cpu-{number}": {"resources": {jobs.CPU: 1}, **hidden} for number in range(cpus)}


def cluster(run: RunConfig, todo: list[Job]) -> Any:
    """A scheduler in this process and its workers; they end with it.

    Raises:
        ConfigurationError: as `workers`.
    """
    from distributed import Scheduler, SpecCluster

    shared = {"host": HOST, "protocol": protocol(), "dashboard": False, "nthreads": 1, "memory_limit": 0}
    shared |= {"silence_logs": 100, "preload": ["replicate.cluster.environment"]}
    patient = nanny()
    specification = {name: {"cls": patient, "options": {**shared, **own}} for name, own in workers(run, todo).items()}
    # The dashboard gets any free port: without one, Dask takes 8787 and warns if it is taken.
    address = {"host": HOST, "port": 0, "protocol": protocol(), "dashboard_address": f"{HOST}:0"}
    return SpecCluster(
        workers=specification,
        scheduler={"cls": Scheduler, "options": address},
        silence_logs=100,  # failures come back as exceptions, with our own words
    )
