"""What a worker process must be started with, wherever it is started: environment variables and Dask's settings."""

import contextlib
import os
import platform
import signal
from collections.abc import Iterator
from typing import Any

from replicate import termination


def _largest_kept() -> int:
    """Bytes of a tensor up to which its memory is kept. Old versions of glibc refuse more than 2^25 and then keep next
    to nothing; 2.36 is known to take more."""
    name, version = platform.libc_ver()
    recent = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 36)
    return 1 << (28 if recent else 25)


# Sums are split by them, so they change rounding: threads per job are part of a job's key.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# Memory that a tensor gives back is kept for the next one; the system clears each page that it lends anew, which costs
# up to a third of a training step. Heaps of other threads than the first shrink whatever is said here, so there is one.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_largest_kept()),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 29),
}
# These change speed or repeatability alone, and a value that is set already stays.
OTHERS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuDNN's recurrent layers are deterministic only with it
    **ALLOCATOR,  # in place of Dask's own, which gives everything back
}


def thread_variables(threads: int) -> dict[str, str]:
    """What every library that counts threads by a variable of its own is told."""
    return dict.fromkeys(THREADS, str(threads))


@contextlib.contextmanager
def of_workers(threads: int) -> Iterator[None]:
    """Inside, processes that are started inherit the threads of a job, whatever the shell says; ours are as before
    afterwards."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(thread_variables(threads))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def dask_options(threads: int) -> dict[str, Any]:
    """Dask's settings for a scheduler and workers of ours; workers get them from the process that starts them."""
    return {
        "distributed.scheduler.allowed-failures": 0,  # a job whose worker dies is reported, not tried on another
        "distributed.scheduler.events-cleanup-delay": "1h",
        "distributed.worker.daemon": True,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.tick.limit": "1h",  # training steps hold the interpreter for long; that is no fault
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.nanny.pre-spawn-environ": {**thread_variables(threads), **OTHERS},
    }


def nanny() -> type:
    """The class of Dask's nannies, one per worker process; ours gives a training time to write its checkpoint."""
    from distributed import Nanny

    class PatientNanny(Nanny):
        """Waits for its worker's job as long as SIGTERM lets anything wait."""

        async def close(self, timeout: float = termination.GRACE / 0.8, reason: str = "nanny-close") -> Any:
            """Of the timeout Dask grants the worker four fifths, then kills it."""
            return await super().close(timeout=timeout, reason=reason)

    return PatientNanny


def dask_setup(worker: Any) -> None:
    """Called by Dask where this module is preloaded: signals that reach all processes of a terminal or of a Slurm job
    are for the nanny, which lets the job at hand end well. (Not ignored: that, processes started here would inherit.)
    """
    if worker.nanny:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)


def protocol() -> str:
    """What schedulers of ours speak: TLS where Dask's configuration demands encryption."""
    import dask
    import distributed  # noqa: F401 - brings its configuration

    return "tls://" if dask.config.get("distributed.comm.require-encryption") else "tcp://"
