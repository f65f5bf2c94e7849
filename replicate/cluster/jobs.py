"""What a job needs of the worker that carries it out."""

from collections.abc import Collection, Iterable
from typing import Any

from replicate.columns import COLUMNS
from replicate.stages import Job

GPU, CPU = "GPU", "CPU"
OURS = frozenset({GPU, CPU})  # each worker that we start offers one of them


def gpus(job: Job) -> int:
    """How many GPUs the job computes on: none unless run.device is cuda; one, or one for each process that trains the
    model. An ensemble only reads its members."""
    column = job.parameters.get("column")
    ensemble = column in COLUMNS and bool(COLUMNS[column].members)
    if not job.stage.arithmetic or job.profile.run.device != "cuda" or ensemble:
        return 0
    return processes(job)


def processes(job: Job) -> int:
    """How many processes do the job: the profile's number for what trains a model, which declares it; else one."""
    return job.identity["fields"].get("run.processes_per_model", 1)


def resources(job: Job, offered: Collection[str]) -> dict[str, float]:
    """Dask's resources for a job. What needs no GPU keeps off the workers that have one, where others offer "CPU"."""
    if gpus(job):
        return {GPU: gpus(job)}
    return {CPU: 1} if CPU in offered else {}


def can_do(worker: dict[str, Any], job: Job, offered: Collection[str]) -> bool:
    """Whether a worker, as Dask describes it, offers what a job needs."""
    return all(worker["resources"].get(name, 0) >= amount for name, amount in resources(job, offered).items())


def counts(todo: Iterable[Job]) -> tuple[int, int, int]:
    """(jobs that need a GPU, jobs that do not, the most GPUs that one needs)."""
    needs = [gpus(job) for job in todo]
    with_gpu = sum(need > 0 for need in needs)
    return with_gpu, len(needs) - with_gpu, max(needs, default=0)


def needed(job: Job) -> str:
    """For people: what a worker must offer."""
    count = gpus(job)
    return f"{count} GPUs" if count > 1 else "a GPU" if count else "to do jobs that need no GPU"
