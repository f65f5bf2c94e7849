"""What a worker process must be started with, wherever it is started: environment variables and Dask's settings."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

# Sums are split by them, so they change rounding: threads per job are part of a job's key.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# These change speed or repeatability alone, and a value that is set already stays.
OTHERS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuDNN's recurrent layers are deterministic only with it
    # Dask's own setting gives memory back after every tensor; the page faults cost a third of a training step.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 29),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
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


def protocol() -> str:
    """What schedulers of ours speak: TLS where Dask's configuration demands encryption."""
    import dask
    import distributed  # noqa: F401 - brings its configuration

    return "tls://" if dask.config.get("distributed.comm.require-encryption") else "tcp://"
