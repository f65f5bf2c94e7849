"""Start the processes that train one model together on this host, with `torchrun`, and see to their end.

The job goes to them (replicate.rank) through a file, progress comes back through a pipe, failures through files. They
live no longer than the process that waits for them: each reads its standard input, which ends when that process does,
by whatever signal.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replicate import errors
from replicate.errors import IncompleteRun, ReplicateError
from replicate.record import read_json, write_bytes

TASK, LOG = "processes.pickle", "processes.log"


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def needed(step: Any) -> bool:
    """Whether a job is for several processes, and this is none of them."""
    return step.profile.run.processes_per_model > 1 and not started_by_torchrun()


def run(step: Any) -> None:
    """Have a job done by `run.processes_per_model` processes of this host.

    Args:
        step: the job at work (replicate.steps.Step).

    Raises:
        ReplicateError: a process's own, or IncompleteRun when one was killed; all others have ended by then.
    """
    task, log = step.out / TASK, step.out / LOG
    for stale in step.out.glob("failure-*.json"):
        stale.unlink()
    write_bytes(task, pickle.dumps((step.job, step.profile, step.runs, step.data_dir)))
    settings = step.profile.run
    count = settings.processes_per_model
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    words += ["-m", "replicate.rank", str(task)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads_per_job)}
    with open(log, "wb") as errors_file, _started(words, environment, errors_file) as process:
        for line in process.stdout:
            step.progress(*json.loads(line))
        process.wait()
    if process.returncode:
        raise _failure(step.out, count, log)
    task.unlink()
    log.unlink()


@contextlib.contextmanager
def _started(words: list[str], environment: dict[str, str], log: Any) -> Iterator[subprocess.Popen]:
    """The launcher at work; whatever happens in the block or to it, neither it nor the processes outlive the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, env=environment, text=True) as process:

        def end_processes() -> None:
            process.wait()
            process.stdin.close()

        threading.Thread(target=end_processes, daemon=True, name="end processes with launcher").start()
        try:
            yield process
        except BaseException:
            process.terminate()
            for _ in process.stdout:  # trainings write a checkpoint first; torchrun waits 30 s, then kills
                pass
            raise


def _failure(folder: Path, count: int, log: Path) -> ReplicateError:
    """The sentence of the process that failed first in a way that it could name."""
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if files:
        found = read_json(files[0])
        for path in files:
            path.unlink()
        return getattr(errors, found["kind"])(found["message"])
    return IncompleteRun(
        f"the {count} processes that share the work were ended by a signal, or killed for want of memory; issue the "
        f"same command again to resume; log: {log}"
    )
