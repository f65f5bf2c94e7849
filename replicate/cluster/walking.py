"""Give jobs to Dask and wait for them: what fails becomes a sentence, what can never run does not wait forever."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from replicate.cluster import jobs
from replicate.cluster.expectation import lost
from replicate.errors import IncompleteRun, ReplicateError
from replicate.progress import Event, Listener, duration
from replicate.stages import Job

TICK = 2.0  # seconds between two looks at the cluster
RANK = 1e-6  # between the priorities of two jobs: beside those of other commands ours all count about 0, Dask's default
PATIENCE = 300.0  # seconds without a worker that a job needs: machines come back, and new ones take time to start
Workers = dict[str, dict[str, Any]]  # address -> Dask's description


@dataclass
class Walk:
    """Jobs on their way through a cluster.

    Attributes:
        client: Dask's.
        task: called in a worker with (job, *arguments, *results of the jobs that it waits for).
        arguments: the same for every job.
        name: of this walk; no other one of the scheduler has it.
        offered: resources that jobs may ask for.
        listener: is told of failures.
        look: is shown the workers every few seconds, and a job that none of them can do, if there is one; raises when
            waiting has no sense.
    """

    client: Any
    task: Callable[..., None]
    arguments: tuple[Any, ...]
    name: str
    offered: frozenset[str]
    listener: Listener
    look: Callable[[Workers, Job | None], None]
    futures: dict[str, Any] = field(default_factory=dict)  # by the job's key
    submitted: dict[str, Job] = field(default_factory=dict)  # by Dask's
    failures: list[ReplicateError] = field(default_factory=list)

    def go(self, todo: list[Job]) -> None:
        """Carry out all jobs, given in the order in which they should begin, inputs first; exclusive ones after all
        others, one after the other, by one worker, so that nothing of ours runs beside them on any machine and what
        they measure is comparable.

        Raises:
            ReplicateError: the first failure, after all that does not depend on it has finished.
        """
        beside = [job for job in todo if not job.stage.exclusive]
        for job in beside:
            self._submit(job, [each.key for each in job.inputs.values()])
        self._wait(beside)
        alone = [job for job in todo if job.stage.exclusive]
        if alone and not self.failures:
            address = self._one_worker(alone)
            for before, job in zip([None, *alone], alone, strict=False):
                self._submit(job, [before.key] if before else [], address)
            self._wait(alone, address)
        if self.failures:
            raise self.failures[0]

    def _submit(self, job: Job, after: list[str], worker: str | None = None) -> None:
        waits = [self.futures[key] for key in after if key in self.futures]
        name = f"{job.stage.name}-{job.key}-{self.name}"
        priority = -RANK * len(self.submitted)  # left alone, Dask takes jobs that came within 100 ms in any order
        self.submitted[name] = job
        self.futures[job.key] = self.client.submit(
            self.task, job, *self.arguments, *waits, key=name, pure=False, retries=0,
            resources=jobs.resources(job, self.offered), workers=worker, priority=priority,
        )  # fmt: skip

    def _one_worker(self, alone: list[Job]) -> str:
        """The address of one that can do all these jobs."""
        while True:
            workers = self._workers()
            for address, worker in sorted(workers.items(), key=lambda item: str(item[1]["name"])):
                if all(jobs.can_do(worker, job, self.offered) for job in alone):
                    return address
            self.look(workers, alone[0])
            time.sleep(TICK)

    def _wait(self, todo: list[Job], only: str | None = None) -> None:
        """Until every job has ended, well or not. One that could not start because of a failure is none itself."""
        from distributed import wait
        from distributed.client import FuturesCancelledError

        pending = {self.futures[job.key]: job for job in todo}
        while pending:
            try:
                done, _ = wait(list(pending), timeout=TICK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                workers = self._workers()
                if only and only not in workers:
                    first = next(iter(pending.values()))
                    raise IncompleteRun(f"{first.label}: {lost(only)}") from None
                self.look(workers, self._stuck(workers, pending.values()))
                continue
            except FuturesCancelledError:
                raise _disconnected() from None
            for future in done:
                job = pending.pop(future)
                if future.status == "error":
                    self._failed(job, future.exception())

    def _stuck(self, workers: Workers, todo: Iterable[Job]) -> Job | None:
        stuck = (job for job in todo if not any(jobs.can_do(each, job, self.offered) for each in workers.values()))
        return next(stuck, None)

    def _workers(self) -> Workers:
        try:
            return self.client.scheduler_info()["workers"]
        except (OSError, KeyError):  # a client that has given up the scheduler knows nothing of it
            raise _disconnected() from None

    def _failed(self, job: Job, error: BaseException) -> None:
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            job, worker = self.submitted[error.task], error.last_worker  # the job may be one that waited for it
            error = IncompleteRun(f"{job.label}: {lost(f'{worker.name} on {worker.host}')}")
        elif not isinstance(error, ReplicateError):
            error = IncompleteRun(f"{job.label} failed: {type(error).__name__}: {error}")
        if str(error) not in [str(known) for known in self.failures]:
            self.failures.append(error)
            self.listener.notify(Event(job.label, "fail", message=str(error)))


def _disconnected() -> IncompleteRun:
    return IncompleteRun(
        "the connection to the Dask scheduler is lost; start it anew if it ended, then issue the same "
        "command again to resume"
    )


@dataclass
class Patience:
    """A look at a cluster that ends the wait for a kind of worker which has been missing for too long."""

    remedy: str
    since: float | None = None

    def __call__(self, _workers: Workers, stuck: Job | None) -> None:
        """
        Raises:
            IncompleteRun: there has been no worker for a job for PATIENCE seconds.
        """
        now = time.monotonic()
        self.since = (self.since or now) if stuck else None
        if stuck and now - self.since > PATIENCE:
            without = f"{stuck.label}: for {duration(PATIENCE)} no worker has offered {jobs.needed(stuck)}"
            raise IncompleteRun(f"{without}; {self.remedy}, then issue the same command again to resume")
