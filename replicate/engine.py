"""Walk the stage graph: finished jobs are skipped, the rest run as Dask tasks, each in a worker process.

The same command again resumes: a job is done when its manifest exists. A failing job ends with a sentence and the path
of its log; jobs that do not depend on it go on, so that nothing else is lost.
"""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from replicate import manifest
from replicate.config import Profile
from replicate.errors import ConfigurationError, IncompleteRun, ReplicateError
from replicate.progress import Event, Listener
from replicate.record import write_json, write_text
from replicate.stages import Job, in_order

TOPIC = "replicate-progress"
SLURM = "slurm"  # in place of a scheduler's address


@dataclass(frozen=True)
class Settings:
    """What every job of a command needs to know beside its own parameters.

    Attributes:
        profile: the command's; its `run` section says where and how many jobs run at once.
        runs: the run directory.
        data_dir: folder of real data.
        command: as issued, for manifests.
    """

    profile: Profile
    runs: Path
    data_dir: Path | None
    command: tuple[str, ...]


@contextlib.contextmanager
def locked(runs: Path) -> Iterator[None]:
    """Hold the run directory: one command at a time writes there. The system frees the lock when its holder dies."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(runs / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        with contextlib.suppress(OSError, json.JSONDecodeError, KeyError):
            holder = json.loads((runs / ".lock-holder.json").read_text(encoding="utf-8"))
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
            raise ConfigurationError(f"{runs} is in use by {who}; wait for it, or choose another --out") from None
        raise ConfigurationError(f"{runs} is in use by another process; wait for it, or choose another --out") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write to {runs}: {error.strerror}; choose another --out") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        write_json(runs / ".lock-holder.json", {"pid": os.getpid(), "host": os.uname().nodename, "since": since})
        yield
    finally:
        lock.release()


def pending(jobs: list[Job], runs: Path) -> list[Job]:
    """The jobs of the graph that are not done, in order."""
    return [job for job in in_order(jobs) if not manifest.is_done(job.folder(runs))]


def walk(targets: list[Job], settings: Settings, listener: Listener, scheduler: str | None = None) -> int:
    """Bring all targets to done.

    Args:
        targets: jobs whose results are wanted; their inputs come along.
        settings: profile and places.
        listener: is told of every start, step and end.
        scheduler: address of a running Dask cluster; SLURM submits workers; None starts some on this machine.

    Returns:
        The number of jobs that ran.

    Raises:
        ReplicateError: the first failure, after all that does not depend on it has finished.
    """
    todo = pending(targets, settings.runs)
    listener.expect([job.label for job in todo])
    if settings.profile.run.engine == "inline" and scheduler is None:
        _walk_inline(todo, settings, listener)
    elif todo:
        _walk_with_dask(todo, settings, listener, scheduler)
    return len(todo)


def _walk_inline(todo: list[Job], settings: Settings, listener: Listener) -> None:
    """One job after the other in this process."""
    failures: dict[str, ReplicateError] = {}
    for job in todo:
        needed = {each.key for each in job.inputs.values()}
        if failures and (job.stage.exclusive or needed & failures.keys()):
            failures[job.key] = next(iter(failures.values()))
            continue
        try:
            execute(job, settings, listener.notify)
        except ReplicateError as error:
            failures[job.key] = error
            listener.notify(Event(job.label, "fail", message=str(error)))
    if failures:
        raise next(iter(failures.values()))


def execute(job: Job, settings: Settings, notify: Callable[[Event], None]) -> None:
    """Run one job here and now, and declare it done.

    Raises:
        ReplicateError: the job's own sentence, with the job's name in front and the path of its log.
    """
    from replicate import steps
    from replicate.hardware import accounting

    folder = job.folder(settings.runs)
    if manifest.is_done(folder):
        return
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        notify(Event(job.label, "start"))

        def progress(done: float, total: float, message: str = "") -> None:
            notify(Event(job.label, "step", done, total, message))

        step = steps.Step(job, job.profile, settings.runs, settings.data_dir, progress)
        notes = steps.STEPS[job.stage.name](step)
        manifest.write_manifest(folder, job, list(settings.command), accounting.describe(), notes)
    except ReplicateError as error:
        raise _with_label(error, job.label) from None
    except MemoryError:
        raise IncompleteRun(f"{job.label}: out of memory; free some and issue the same command again") from None
    except OSError as error:
        log = _write_log(folder)
        where = f" ({error.filename})" if error.filename else ""
        raise IncompleteRun(f"{job.label}: {error.strerror or error}{where}; log: {log}") from None
    except Exception as error:
        log = _write_log(folder)
        raise IncompleteRun(f"{job.label} failed: {type(error).__name__}: {error}; log: {log}") from None
    if notes and notes.get("skipped"):
        left_out = f"{len(notes['skipped'])} unusable records are left out and listed in {folder / manifest.MANIFEST}"
        notify(Event(job.label, "note", message=left_out))
    notify(Event(job.label, "end", seconds=time.monotonic() - started))


def _with_label(error: ReplicateError, label: str) -> ReplicateError:
    """The same kind of error with the job's name in front; a kind with a constructor of its own becomes its base."""
    kind = next(kind for kind in type(error).__mro__ if kind.__init__ is Exception.__init__)
    return kind(f"{label}: {error}")


def _sweep(folder: Path) -> None:
    """Remove what an earlier, killed attempt was writing when it died."""
    for orphan in folder.rglob(".*.part"):
        orphan.unlink(missing_ok=True)


def _write_log(folder: Path) -> Path:
    log = folder / "log.txt"
    with contextlib.suppress(OSError):
        write_text(log, traceback.format_exc())
    return log


def _execute_in_worker(job: Job, settings: Settings, topic: str, expected: Any, *_inputs: Any) -> None:
    """A Dask task.

    Args:
        job, settings: what is done.
        topic: where the listener hears of it.
        expected: what a worker on another machine holds itself against first.
        _inputs: the results of the jobs that it waits for; they carry nothing.
    """
    from distributed import Status, get_worker

    from replicate.cluster import expectation

    if manifest.is_done(job.folder(settings.runs)):
        return  # a worker that held the empty result went away, and Dask wants it anew
    worker = get_worker()
    if expected:
        try:
            expectation.begin(expected, job, worker)
        except ReplicateError as error:
            raise _with_label(error, job.label) from None
    task = worker.state.tasks[worker.get_current_task()]
    last = [0.0]

    def notify(event: Event) -> None:
        if task.state in ("cancelled", "released", "forgotten"):
            raise IncompleteRun("the command that asked for it has ended")
        if worker.status in (Status.closing, Status.closed):
            raise IncompleteRun(f"its worker {worker.name} was asked to end; issue the same command again to resume")
        now = time.monotonic()
        if event.kind != "step" or now - last[0] > 0.25:  # a few messages a second are enough for a person
            last[0] = now
            worker.log_event(topic, event.as_list())

    execute(job, settings, notify)


def _walk_with_dask(todo: list[Job], settings: Settings, listener: Listener, scheduler: str | None) -> None:
    from replicate.cluster import start, walking
    from replicate.plan import urgent_first

    if scheduler:  # others may have another working directory
        settings = replace(settings, runs=settings.runs.absolute())
    where = settings.runs, settings.data_dir
    with start.cluster(todo, settings.profile, *where, listener, scheduler) as cluster:
        topic = f"{TOPIC}-{cluster.walk}"
        cluster.client.subscribe_topic(topic, lambda event: listener.notify(Event(*event[1])))
        arguments = settings, topic, cluster.expected
        walk = walking.Walk(
            cluster.client, _execute_in_worker, arguments, cluster.walk, cluster.offered, listener, cluster.look
        )
        walk.go(urgent_first(todo, settings.runs))
