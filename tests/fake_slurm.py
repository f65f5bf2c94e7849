"""sbatch, squeue and scancel for tests: a submitted script runs here at once, or waits for ever, or is refused."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def install(folder: Path, mode: str = "run") -> Path:
    """Put the three commands into `folder`/bin; `mode`: run, hold or refuse. Returns that folder, for the PATH."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    for name in ("sbatch", "squeue", "scancel"):
        path = bin_ / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} {folder} {mode} "$@"\n')
        path.chmod(0o755)
    return bin_


def jobs(folder: Path) -> dict[int, dict]:
    """Number -> what is known of every job submitted so far."""
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")}


def sbatch(folder: Path, mode: str, script: str) -> None:
    if mode == "refuse":
        sys.exit(
            "sbatch: error: invalid partition specified: lunar\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    number = os.getpid()
    text = Path(script).read_text()
    pid = None
    if mode == "run":
        copy = folder / f"{number}.sh"
        copy.write_text(text)
        with open(folder / f"{number}.out", "wb") as out:
            pid = subprocess.Popen(["bash", copy], stdout=out, stderr=out, start_new_session=True).pid
    write(folder, number, {"script": text, "pid": pid, "cancelled": False})
    print(f"Submitted batch job {number}")


def write(folder: Path, number: int, job: dict) -> None:
    """All at once, as `jobs` may look at any moment."""
    part = folder / f"{number}.part"
    part.write_text(json.dumps(job))
    part.replace(folder / f"{number}.json")


def squeue(folder: Path, mode: str, *_options: str) -> None:
    (folder / "asked").touch()
    for number, job in jobs(folder).items():
        if not job["cancelled"]:
            print(f"{number}|RUNNING|None" if mode == "run" else f"{number}|PENDING|Priority")


def scancel(folder: Path, _mode: str, number: str) -> None:
    job = jobs(folder)[int(number)]
    if job["pid"]:
        with contextlib.suppress(ProcessLookupError):  # its worker has ended by itself
            os.killpg(job["pid"], signal.SIGTERM)
    write(folder, int(number), {**job, "cancelled": True})


if __name__ == "__main__":
    command, folder_, *rest = sys.argv[1:]
    {"sbatch": sbatch, "squeue": squeue, "scancel": scancel}[command](Path(folder_), *rest)
