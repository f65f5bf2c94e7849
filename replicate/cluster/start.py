"""Where jobs run: workers of this machine, of Slurm, or of a running cluster, behind one interface."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.cluster import environment, expectation, jobs, local, running, slurm, walking
from replicate.cluster.expectation import Expectation
from replicate.config import Profile
from replicate.progress import Listener
from replicate.stages import Job


@dataclass(frozen=True)
class Cluster:
    """Workers to give jobs to.

    Attributes:
        walk: a name for what is done with them, unique among those of the scheduler.
        client: Dask's.
        offered: resources that jobs may ask for.
        expected: what each worker holds itself against before it begins a job; None for workers of this machine.
        look: for `walking.Walk`.
    """

    walk: str
    client: Any
    offered: frozenset[str]
    expected: Expectation | None
    look: Callable[[walking.Workers, Job | None], None]


@contextlib.contextmanager
def cluster(
    todo: list[Job], profile: Profile, runs: Path, data_dir: Path | None, listener: Listener, scheduler: str | None
) -> Iterator[Cluster]:
    """Workers for some jobs, ended (or left alone, where others started them) when the block ends.

    Args:
        todo: the jobs; so many workers are started at most.
        profile, runs, data_dir: of the command; on several machines, absolute.
        listener: is told what Slurm says while one waits.
        scheduler: address of a running cluster, or "slurm"; None starts workers on this machine.

    Raises:
        ConfigurationError: what the jobs need cannot be had; the sentence names it and the remedy.
    """
    import dask
    import distributed  # noqa: F401 - brings its settings, which ours then go on top of

    threads = profile.run.threads_per_job
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(environment.dask_options(threads)))
        stack.enter_context(environment.of_workers(threads))
        stack.enter_context(_quiet())
        if scheduler is None:
            client = _client(stack, local.cluster(profile.run, todo))
            yield Cluster("local", client, jobs.OURS, None, walking.Patience("see whether memory suffices"))
            return
        expected = expectation.expect(runs, data_dir, profile.dataset.shards, threads)
        stack.callback(expectation.dismiss, expected)
        if scheduler == "slurm":
            submitted = slurm.cluster(profile, todo, runs)
            client = _client(stack, submitted)
            yield Cluster(expected.walk, client, jobs.OURS, expected, slurm.Queue(submitted, runs, listener))
            return
        client = stack.enter_context(running.client_of(scheduler))
        offered = running.examine(client, scheduler, todo, expected, listener)
        yield Cluster(
            expected.walk, client, offered, expected, walking.Patience(f"start some by `replicate worker {scheduler}`")
        )


def _client(stack: contextlib.ExitStack, started: Any) -> Any:
    from distributed import Client

    return stack.enter_context(Client(stack.enter_context(started)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong comes back as exceptions, with our own words; Dask's log would say it again, with tracebacks."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
