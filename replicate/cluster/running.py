"""A running Dask cluster: reach it, and hold it against what the jobs need before any of them starts."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from replicate.cluster import expectation, jobs
from replicate.cluster.expectation import Expectation
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.progress import Event, Listener
from replicate.stages import Job

SETTLE = 300.0  # seconds in which a worker leaves the job of a command that has ended: at its next step
TLS = "tls:// needs distributed.comm.tls.* in Dask's configuration (docs/cluster.md)"


@contextlib.contextmanager
def client_of(address: str) -> Iterator[Any]:
    """A client of the scheduler at an address.

    Raises:
        ConfigurationError: nothing answers there, or not by this protocol or with these certificates.
    """
    from distributed import Client

    class Closing(Client):
        """Closes when it cannot start. Dask leaves such a client to the garbage collector, which may come upon it while
        the next one starts, and then waits forever for a lock that this one holds."""

        def start(self, **kwargs: Any) -> None:
            """As Dask's."""
            try:
                super().start(**kwargs)
            except BaseException:
                self.close()
                raise

    try:
        client = Closing(address, timeout="20s")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        remedy = f"{TLS}; or start one" if address.startswith("tls") else "start one, or leave the option out"
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(f"--scheduler {address}: no Dask scheduler answers there ({said}); {remedy}") from None
    with client:
        yield client


def examine(client: Any, address: str, todo: list[Job], expected: Expectation, listener: Listener) -> frozenset[str]:
    """Hold the cluster against what the jobs need.

    Returns:
        The resources that its workers offer.

    Raises:
        ConfigurationError: no worker at all or none with a GPU where one is needed; other software; threads or
            environment not as the jobs' keys say; a run directory or data that a worker does not see.
        IncompleteRun: a worker does not leave a job that an earlier command gave it.
    """
    workers = client.scheduler_info()["workers"]
    start = f"`replicate worker {address}`"
    if not workers:
        raise ConfigurationError(f"--scheduler {address}: the cluster has no worker; start some by {start}")
    offered = frozenset(name for worker in workers.values() for name in worker["resources"])
    stuck = [job for job in todo if not any(jobs.can_do(worker, job, offered) for worker in workers.values())]
    if stuck:
        raise ConfigurationError(f"--scheduler {address}: {_unmet(address, stuck, len(workers))}")
    _examine_versions(client, address, workers, expected)
    faults = _ask(client, address, _fault_in_worker, expected)
    found = next((faults[name] for name in sorted(faults) if faults[name]), None)
    if found:
        raise ConfigurationError(f"--scheduler {address}: {found}")
    _settle(client, address, todo, expected.place, listener)
    return offered


def _unmet(address: str, stuck: list[Job], workers: int) -> str:
    job = max(stuck, key=jobs.gpus)
    count, also = jobs.gpus(job), f" (and {len(stuck) - 1} more jobs)" if len(stuck) > 1 else ""
    per_worker = f" --gpus-per-worker {count}" if count > 1 else ""
    dask = f'`dask worker {address} --nthreads 1 --resources "GPU={count}"` in the environment of docs/cluster.md'
    return (
        f"{job.label}{also} needs {jobs.needed(job)}, as run.device is cuda, and no worker of {workers} offers that; "
        f"on machines with GPUs start `replicate worker {address}{per_worker}`, or {dask}, or give --set run.device=cpu"
    )


def _examine_versions(client: Any, address: str, workers: dict[str, Any], expected: Expectation) -> None:
    """By Dask's own means, which need nothing of ours there: later messages are pickled objects of our package."""
    names = (expectation.DISTRIBUTION, *expectation.TRANSPORT)
    versions = client.get_versions(packages=list(names))
    wanted = dict(expected.software)
    who = {worker: f"worker {workers[worker]['name']} ({worker})" for worker in workers}
    there = {"the scheduler": versions["scheduler"]} | {who[name]: versions["workers"].get(name) for name in workers}
    for name, found in there.items():
        if not found:
            continue  # it went away meanwhile
        packages = found["packages"] | {"python": ".".join(str(found["host"]["python"]).split(".")[:3])}
        for package in ("python", *names):
            if (packages.get(package) or "none") != wanted[package]:
                is_there = packages.get(package) or "missing"
                what = f"{name} has {package} {is_there}, this command {wanted[package]}"
                raise ConfigurationError(f"--scheduler {address}: {what}; {expectation.ONE_INSTALLATION}")


def _ask(client: Any, address: str, question: Callable[..., str | None], *arguments: Any) -> dict[str, str | None]:
    """The answer of every worker, by its address."""
    try:
        return client.run(question, *arguments)
    except Exception as error:  # whatever a foreign installation raises
        what = f"a worker cannot carry out our code ({type(error).__name__}: {error})"
        raise ConfigurationError(f"--scheduler {address}: {what}; {expectation.ONE_INSTALLATION}") from None


def _fault_in_worker(expected: Expectation, dask_worker: Any) -> str | None:
    return expectation.fault(expected, str(dask_worker.name), dask_worker.state.nthreads)


def _busy_in_worker(names: set[str], dask_worker: Any) -> str | None:
    """One of the jobs (by the part of its key in Dask that all walks of a run directory share) that a thread is at."""
    return next((key for key in map(str, dask_worker.active_threads.values()) if key.rpartition(".")[0] in names), None)


def _settle(client: Any, address: str, todo: list[Job], place: str, listener: Listener) -> None:
    """Wait until no worker is at one of these jobs for a command that has ended: two would write into one folder."""
    names = {f"{job.stage.name}-{job.key}-{place}" for job in todo}
    deadline = time.monotonic() + SETTLE
    told = False
    while busy := {name: key for name, key in _ask(client, address, _busy_in_worker, names).items() if key}:
        worker, key = next(iter(busy.items()))
        what = f"worker {worker} is still at {key.rpartition('-')[0]} for a command that has ended"
        if not told:
            listener.notify(Event("cluster", "note", message=f"{what}; waiting until it leaves that"))
            told = True
        if time.monotonic() > deadline:
            raise IncompleteRun(f"--scheduler {address}: {what}; end that worker, then issue the same command again")
        time.sleep(0.5)
