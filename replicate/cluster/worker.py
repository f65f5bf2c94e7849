"""`replicate worker`: Dask's own workers with the environment and the resources that jobs rely on."""

import asyncio
import contextlib
import signal
import socket
from dataclasses import dataclass
from typing import Any

from replicate.cluster import environment, gpus, local
from replicate.errors import ConfigurationError

ALL = -1


@dataclass(frozen=True)
class Offer:
    """What this machine gives to a cluster.

    Attributes:
        threads: per job.
        gpus: how many are used; ALL: those that CUDA_VISIBLE_DEVICES leaves, if there are any.
        gpus_per_worker: more than one for models that several processes train together.
        cpus: how many workers without a GPU; ALL: as many as the remaining cores suffice for, at least one.
        name: of the workers, with the kind and a number behind it unless there is one worker; empty: the machine's.
        interface: network that the cluster is reached by; empty: Dask chooses.
    """

    threads: int
    gpus: int
    gpus_per_worker: int
    cpus: int
    name: str
    interface: str


def workers(offer: Offer) -> dict[str, dict[str, Any]]:
    """Name -> resources and environment of each worker.

    Raises:
        ConfigurationError: fewer GPUs than asked for, or no worker at all.
    """
    groups: list[str] = []
    if offer.gpus:
        groups, there = gpus.shared_out(offer.gpus_per_worker)
        if len(groups) * offer.gpus_per_worker < offer.gpus:
            raise ConfigurationError(f"--gpus {offer.gpus}: so many GPUs cannot be used here ({there}); lower it")
        groups = groups if offer.gpus == ALL else groups[: offer.gpus // offer.gpus_per_worker]
    cores = local.usable_cores() // offer.threads - len(groups)
    found = local.options(groups, offer.gpus_per_worker, max(1, cores) if offer.cpus == ALL else offer.cpus)
    if not found:
        raise ConfigurationError("--cpus 0 leaves no worker, as there is no GPU to give; leave the option out")
    name = offer.name or socket.gethostname()
    return {name if offer.name and len(found) == 1 else f"{name}-{kind}": each for kind, each in found.items()}


def serve(address: str, offer: Offer) -> None:
    """Start the workers and wait until the scheduler ends or a signal comes; a worker that dies is started anew.

    Raises:
        ConfigurationError: as `workers`; or nothing answers at the address.
    """
    import dask
    import distributed  # noqa: F401 - brings its settings, which ours then go on top of

    started = workers(offer)
    with dask.config.set(environment.dask_options(offer.threads)), environment.of_workers(offer.threads):
        ended_by = asyncio.run(_serve(address, offer, started))
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if ended_by:
        raise SystemExit(128 + ended_by)


async def _serve(address: str, offer: Offer, started: dict[str, dict[str, Any]]) -> int:
    """The signal that ended it; 0 if that was the scheduler's end."""
    nanny = environment.nanny()
    # Slurm may send a signal twice; the second must not cut short what the first began. Nor does one cut short the
    # start of a worker process: half started, it cannot be told to end.
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda number=number: ended.done() or ended.set_result(number)
        )
    async with contextlib.AsyncExitStack() as stack:
        nannies = [
            nanny(
                address, name=name, nthreads=1, memory_limit=0, dashboard=False, interface=offer.interface or None,
                preload=["replicate.cluster.expectation"], **options,
            )
            for name, options in started.items()
        ]  # fmt: skip
        try:
            for each in nannies:
                await stack.enter_async_context(each)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            said = error.__cause__ or error  # Dask's says only that it failed
            remedy = "start one by `dask scheduler`, from this installation"
            raise ConfigurationError(f"{address}: no Dask scheduler answers there ({said}); {remedy}") from None
        print(f"{len(nannies)} workers at {address}: {', '.join(started)}", flush=True)
        finished = asyncio.gather(*(each.finished() for each in nannies))
        await asyncio.wait([finished, ended], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(each.close() for each in nannies))
    return ended.result() if ended.done() else 0
