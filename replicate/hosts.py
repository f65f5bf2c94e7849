"""Walk the stage graph with processes that the user started with torchrun, on one host or on several.

All processes train each model together; whatever else is to be done before, the first one does while the others wait.
The hosts share the run directory and the data.
"""

import datetime
from typing import Any

from replicate import engine, manifest
from replicate.errors import ConfigurationError, IncompleteRun, ReplicateError
from replicate.progress import Listener
from replicate.stages import Job, in_order

SHARED = ("train", "time")  # stages that all processes do together
LONG = datetime.timedelta(days=30)  # how long the others may wait for the first process


def walk(targets: list[Job], settings: engine.Settings, listener: Listener) -> int:
    """Bring trainings to done, and all that they need.

    Args:
        targets: trainings and timings.
        settings: profile and places.
        listener: is told by the first process.

    Returns:
        The number of jobs that ran. The other processes end here when the first one returns.

    Raises:
        ReplicateError: of this process.
    """
    from torch import distributed

    from replicate.training.ranks import joined

    run = settings.profile.run
    if any(job.stage.name not in SHARED for job in targets):
        raise ConfigurationError(
            "torchrun starts `replicate train` and `replicate time` alone; issue other commands without it"
        )
    with joined(run.processes_per_model, run.device) as ranks:
        waiting = distributed.new_group(backend="gloo", timeout=LONG)
        if ranks.first:
            with engine.locked(settings.runs):
                return _walk(targets, settings, listener, ranks, waiting)
        _walk(targets, settings, listener, ranks, waiting)
    raise SystemExit(0)


def _walk(targets: list[Job], settings: engine.Settings, listener: Listener, ranks: Any, waiting: Any) -> int:
    from torch import distributed

    told = [[job.key for job in engine.pending(targets, settings.runs)] if ranks.first else None]
    distributed.broadcast_object_list(told, group=waiting)
    jobs = {job.key: job for job in in_order(targets)}
    if ranks.first:
        listener.expect([jobs[key].label for key in told[0]])
    for key in told[0]:
        job = jobs[key]
        if ranks.first:
            engine.execute(job, settings, listener.notify)
        elif job.stage.name in SHARED:
            _take_part(job, settings)
        distributed.barrier(group=waiting)
    return len(told[0])


def _take_part(job: Job, settings: engine.Settings) -> None:
    """Do another process's part of a job.

    Raises:
        IncompleteRun: what the first process made is not there.
    """
    from replicate import steps

    for needed in job.inputs.values():
        folder = needed.folder(settings.runs)
        if not manifest.is_done(folder):
            raise IncompleteRun(f"{folder} is not on this host; give --out a folder that all hosts share")
    step = steps.Step(job, job.profile, settings.runs, settings.data_dir, lambda *_: None)
    try:
        steps.STEPS[job.stage.name](step)
    except ReplicateError:
        raise
    except Exception as error:
        raise IncompleteRun(f"{job.label} failed: {type(error).__name__}: {error}") from None
