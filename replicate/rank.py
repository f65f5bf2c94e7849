"""One of the processes that train one model together: do its part of a job, as torchrun starts it.

The first one tells of progress through its standard output; a failure goes through a file to the launcher
(replicate.training.torchrun).
"""

import contextlib
import json
import os
import pickle
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from replicate import errors, steps
from replicate.errors import IncompleteRun, ReplicateError
from replicate.record import write_text
from replicate.training.torchrun import LOG


def _end_with_parent() -> None:
    """End this process at once when its standard input ends."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os._exit(IncompleteRun.exit_code)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def main(task: Path) -> int:
    """One of the processes: do the job's part; the first one tells of progress."""
    _end_with_parent()
    rank = int(os.environ["RANK"])
    job, profile, runs, data_dir = pickle.loads(task.read_bytes())

    def progress(*event: Any) -> None:
        if rank == 0:
            print(json.dumps(event), flush=True)

    step = steps.Step(job, profile, runs, data_dir, progress)
    try:
        steps.STEPS[job.stage.name](step)
    except ReplicateError as error:
        _tell_failure(task.parent, rank, error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _tell_failure(task.parent, rank, IncompleteRun(f"{error.strerror or error}{where}"))
    except Exception as error:
        traceback.print_exc()  # into the log
        what = f"{type(error).__name__}: {error}; log: {task.parent / LOG}"
        _tell_failure(task.parent, rank, IncompleteRun(what))
    else:
        return 0
    return IncompleteRun.exit_code


def _tell_failure(folder: Path, rank: int, error: ReplicateError) -> None:
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    write_text(folder / f"failure-{rank}.json", json.dumps({"kind": kind.__name__, "message": str(error)}))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
