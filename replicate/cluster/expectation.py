"""What a worker on another machine must be like before it may carry out jobs: its software, its threads, what it sees.

The command states it once; every worker holds itself against it before its first job, also one that joins later. The
folder of a walk, under the run directory, holds a token that only the same storage can show, and a note of every job
that a worker began: a scheduler that gives a lost worker's job to another one finds it there.
"""

import functools
import hashlib
import importlib.metadata
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.cluster import environment
from replicate.errors import ConfigurationError, IncompleteRun, ReplicateError
from replicate.record import digest, write_text
from replicate.stages import Job

DISTRIBUTION = "temporal-coherence-replication"
# Between processes of other versions of these, pickled jobs and results may not be understood.
TRANSPORT = ("dask", "distributed", "cloudpickle")
WALKS = ".walks"
ONE_INSTALLATION = "start the scheduler, all workers and the command anew, from one installation"


@dataclass(frozen=True)
class Expectation:
    """What every worker must show.

    Attributes:
        threads: per job, as in the jobs' keys.
        software: version of Python and of every package that results or messages depend on; digest of our sources.
        folder: of this walk, with a file `token`; absolute.
        token: its content.
        data_dir: folder of real data, here or in a remote store, if the jobs read any.
        patterns: of the shards there.
        data: (files, bytes) of those shards.
    """

    threads: int
    software: tuple[tuple[str, str], ...]
    folder: Path
    token: str
    data_dir: Any
    patterns: tuple[str, ...]
    data: tuple[int, int]

    @property
    def place(self) -> str:
        """Tells the run directory from those of other commands on the same scheduler."""
        return digest(str(self.folder.parent.parent))[:8]

    @property
    def walk(self) -> str:
        """Tells this walk from all others on the same scheduler."""
        return f"{self.place}.{self.folder.name}"


def expect(runs: Path, data_dir: Any, patterns: tuple[str, ...], threads: int) -> Expectation:
    """State what workers must be like; put the token into the run directory. What killed commands left is removed."""
    shutil.rmtree(runs / WALKS, ignore_errors=True)
    folder = runs / WALKS / uuid.uuid4().hex[:12]
    token = uuid.uuid4().hex
    write_text(folder / "token", token)
    needed = data_dir if patterns else None
    seen = _shards(needed, patterns) if needed else (0, 0)
    return Expectation(threads, tuple(software().items()), folder, token, needed, patterns, seen)


def dismiss(expectation: Expectation) -> None:
    """Remove the walk's folder."""
    shutil.rmtree(expectation.folder.parent, ignore_errors=True)


@functools.cache
def software() -> dict[str, str]:
    """Versions of Python, of our package and those it computes and talks with; 'sources' is a digest of our own."""
    from replicate.manifest import PACKAGES

    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (DISTRIBUTION, *TRANSPORT, *PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions | {"sources": _sources()}


def dask_setup(worker: Any) -> None:
    """Called by Dask where this module is preloaded: a worker runs the sources as they were when it started."""
    environment.dask_setup(worker)
    software()


def _sources() -> str:
    """Of all modules of the packages that take part: a commit alone would say nothing about files changed since."""
    root = Path(__file__).resolve().parent.parent.parent
    found = hashlib.sha256()
    for package in ("baselines", "replicate", "tc"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _shards(data_dir: Any, patterns: tuple[str, ...]) -> tuple[int, int]:
    from replicate.data.index import find_shards, sizes_of

    names = find_shards(data_dir, list(patterns))
    return len(names), sum(sizes_of(data_dir, names))


def fault(expectation: Expectation, name: str, threads: int, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why the worker in whose process this is cannot take part: one sentence with the remedy; None if it can.

    Args:
        expectation: the command's.
        name: of the worker.
        threads: how many jobs it would carry out at once in its one process.
        environ: its environment.
    """
    who = f"worker {name} on {socket.gethostname()}"
    here = software()
    for package, version in expectation.software:
        if here.get(package) != version:
            what = f"has {package} {here[package]}, this command {version}"
            if package == "sources":
                what = "runs other source files than this command"
            return f"{who} {what}; {ONE_INSTALLATION}"
    start = f"start it by `replicate worker ADDRESS --threads-per-job {expectation.threads}`"
    if threads != 1:
        return f"{who} would carry out {threads} jobs at once in one process, which share settings; {start}"
    for variable, value in environment.thread_variables(expectation.threads).items():
        if environ.get(variable) != value:
            there = environ.get(variable, "not set")
            return f"{who}: {variable} is {there}, and run.threads_per_job is {value}; {start}"
    return _storage_fault(expectation, who)


def _storage_fault(expectation: Expectation, who: str) -> str | None:
    runs = expectation.folder.parent.parent
    remedy = "--out must lie on storage that every machine sees under the same path"
    try:
        if (expectation.folder / "token").read_text(encoding="utf-8") != expectation.token:
            return f"{who} sees another {runs} than this command; {remedy}"
        write_text(expectation.folder / f"seen-{uuid.uuid4().hex}", who)
    except FileNotFoundError:
        return f"{who} does not see {runs}; {remedy}"
    except OSError as error:
        return f"{who} cannot read and write in {runs} ({error.strerror}); {remedy}"
    if expectation.data_dir is None:
        return None
    try:
        seen = _shards(expectation.data_dir, expectation.patterns)
    except ReplicateError as error:
        return f"{who}: {error}; every machine needs the same data under the same path"
    if seen != expectation.data:
        files, size = expectation.data
        there = f"{seen[0]} shards with {seen[1]:,} bytes in {expectation.data_dir}, this command {files} with {size:,}"
        return f"{who} sees {there}; every machine needs the same data under the same path"
    return None


def begin(expectation: Expectation, job: Job, worker: Any) -> None:
    """Note that a worker begins a job, which no other one may begin in this walk.

    Raises:
        ConfigurationError: the worker is not what it must be.
        IncompleteRun: a worker began the job before and was lost, or that worker is cut off and still at it.
    """
    found = _checked(expectation, str(worker.name), worker.state.nthreads)
    if found:
        raise ConfigurationError(found)
    note = expectation.folder / f"{job.key}.begun"
    try:
        with open(note, "x", encoding="utf-8") as file:
            file.write(f"{worker.name} on {socket.gethostname()}")
    except FileExistsError:
        raise IncompleteRun(lost(note.read_text(encoding="utf-8"))) from None
    except FileNotFoundError:
        raise IncompleteRun("the command that asked for it has ended") from None


@functools.cache
def _checked(expectation: Expectation, name: str, threads: int) -> str | None:
    return fault(expectation, name, threads)


def lost(who: str) -> str:
    """What is said of a job whose worker went away."""
    return f"its worker {who} was killed or lost, perhaps for want of memory; issue the same command again to resume"
