"""Workers as Slurm jobs, submitted by dask-jobqueue's class for one job; cancelled when the command ends, however."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicate.cluster import jobs
from replicate.cluster.environment import protocol
from replicate.cluster.walking import PATIENCE, Workers
from replicate.config import Profile, SlurmConfig
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.progress import Event, Listener, duration
from replicate.stages import Job

LABEL = "slurm"
ASK, SPEAK = 10.0, 60.0  # seconds between two questions to Slurm, and between two messages about its queue
TOOLS = ("sbatch", "squeue", "scancel")


def cluster(profile: Profile, todo: list[Job], runs: Path) -> Any:
    """A scheduler in this process, and a Slurm job for each worker.

    Args:
        profile: its section `slurm` says what is submitted.
        todo: so many workers of a kind are asked for at most.
        runs: absolute; the Slurm jobs' output goes to its folder `slurm`.

    Raises:
        ConfigurationError: dask-jobqueue or Slurm's commands are missing, or sbatch refuses (its own words).
    """
    _jobqueue()
    missing = next((tool for tool in TOOLS if shutil.which(tool) is None), None)
    if missing:
        remedy = "issue the command on a machine that submits Slurm jobs, or use --scheduler"
        raise ConfigurationError(f"--slurm: there is no {missing} on the PATH; {remedy}")
    from distributed import Scheduler, SpecCluster

    address = {"port": 0, "dashboard_address": "127.0.0.1:0", "interface": profile.slurm.interface or None}
    address["protocol"] = protocol()
    try:
        return SpecCluster(
            workers=workers(profile, todo, runs),
            scheduler={"cls": Scheduler, "options": address},
            silence_logs=100,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigurationError(f"--slurm: {_said(error)}; see the section slurm of the profile") from None


def _jobqueue() -> Any:
    """The optional dependency; importing it makes Ctrl-C end the process with exit code 0, which is undone."""
    before = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import slurm
    except ImportError:
        extra = "pip install 'temporal-coherence-replication[slurm]'"
        raise ConfigurationError(f"--slurm needs dask-jobqueue, which is not installed; {extra}") from None
    finally:
        signal.signal(signal.SIGINT, before)
    return slurm


def workers(profile: Profile, todo: list[Job], runs: Path) -> dict[str, dict[str, Any]]:
    """Name -> class and options of the Slurm job of every worker."""
    slurm, threads = profile.slurm, profile.run.threads_per_job
    with_gpu, without, gpus = jobs.counts(todo)
    submission = _submission()
    kinds = {"gpu": min(slurm.gpu_jobs, with_gpu), "cpu": min(slurm.jobs, without)}
    return {
        f"{kind}-{number}": {"cls": submission, "options": _options(slurm, gpus if kind == "gpu" else 0, threads, runs)}
        for kind, count in kinds.items()
        for number in range(count)
    }


def _options(slurm: SlurmConfig, gpus: int, threads: int, runs: Path) -> dict[str, Any]:
    """Of dask-jobqueue's job, with so many GPUs. None leaves a choice to Slurm."""
    gpu_directives = [slurm.gpu_directive.replace("{gpus}", str(gpus))] if gpus else []
    share = {"--gpus": gpus, "--gpus-per-worker": max(1, gpus), "--cpus": 0 if gpus else 1}
    return {
        "queue": (slurm.gpu_partition if gpus else "") or slurm.partition or None,
        "account": slurm.account or None,
        "walltime": slurm.walltime or None,
        "memory": slurm.memory,
        "cores": 1,  # jobs of the graph at once
        "job_cpu": max(threads * max(1, gpus), slurm.cores),
        "processes": 1,
        "job_directives_skip": [] if slurm.walltime else ["#SBATCH -t "],  # dask-jobqueue's own is half an hour
        "job_extra_directives": [*gpu_directives, *slurm.directives],
        "job_script_prologue": list(slurm.prologue),
        "job_name": "replicate",
        "log_directory": str(runs / "slurm"),
        "interface": slurm.interface or None,
        "share": [word for name, value in share.items() for word in (name, str(value))],
        "threads": threads,
    }


def _submission() -> type:
    """The class of one Slurm job; made here because importing dask-jobqueue takes long."""
    from distributed.core import Status

    class Submission(_jobqueue().SLURMJob):
        """A Slurm job that starts a worker of ours, so that its environment is right."""

        def __init__(self, scheduler: str, name: str, share: list[str], threads: int, **options: Any) -> None:
            super().__init__(scheduler, name, **options)
            own = ["worker", scheduler, "--name", name, "--threads-per-job", str(threads), *share]
            interface = ["--interface", options["interface"]] if options["interface"] else []
            self._command_template = shlex.join([sys.executable, "-m", "replicate.cli.main", *own, *interface])

        async def close(self) -> None:
            """Cancel it."""
            await super().close()
            self.status = Status.closed  # which the base class leaves at running

    return Submission


def _said(error: Exception) -> str:
    """What a command of Slurm said on its standard error; dask-jobqueue wraps it into a report of several lines."""
    _, wrapped, words = str(error).partition("stderr:\n")
    lines = [line.strip() for line in (words if wrapped else str(error)).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


@dataclass
class Queue:
    """A look at Slurm's queue while a job of the graph has no worker yet.

    Attributes:
        cluster: of `cluster`.
        runs: the run directory.
        listener: is told every minute how many Slurm jobs wait, and why.
    """

    cluster: Any
    runs: Path
    listener: Listener
    asked: float = 0.0
    spoken: float = field(default_factory=time.monotonic)
    absent: bool = False  # at the last question
    running_since: float | None = None

    def __call__(self, _workers: Workers, stuck: Job | None) -> None:
        """
        Raises:
            IncompleteRun: no Slurm job for it is left, or some run and their workers do not report.
        """
        now = time.monotonic()
        if stuck is None:
            self.running_since, self.absent = None, False
            return
        if now - self.asked < ASK:
            return
        self.asked = now
        kind = "gpu" if jobs.gpus(stuck) else "cpu"
        ours = {each.job_id for name, each in self.cluster.workers.items() if name.startswith(kind)}
        states = _queue()
        if states is None:
            return
        found = [states[number] for number in ours if number in states]
        if not found and self.absent:
            raise IncompleteRun(f"{stuck.label}: Slurm has ended all jobs for {kind} workers; {self._remedy()}")
        self.absent = not found
        self._hold_running(stuck, [reason for state, reason in found if state == "RUNNING"], now)
        if now - self.spoken >= SPEAK:
            self.spoken = now
            waiting = sorted({reason for state, reason in found if state != "RUNNING"})
            why = f" ({', '.join(waiting)})" if waiting else ""
            text = f"{len(found)} jobs for {kind} workers are in the queue{why}; {stuck.label} waits for one"
            self.listener.notify(Event(LABEL, "note", message=text))

    def _hold_running(self, stuck: Job, running: list[str], now: float) -> None:
        self.running_since = (self.running_since or now) if running else None
        if running and now - self.running_since > PATIENCE:
            what = f"a Slurm job has run for {duration(PATIENCE)} and its worker does not report"
            remedy = "can its machine reach this one? slurm.interface names the network"
            raise IncompleteRun(f"{stuck.label}: {what}; {remedy}; {self._remedy()}")

    def _remedy(self) -> str:
        return f"their output is in {self.runs / 'slurm'}; the same command submits anew and resumes"


def _queue() -> dict[str, tuple[str, str]] | None:
    """Number -> (state, reason) of this user's jobs in Slurm's queue; None if it does not tell now."""
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%A|%T|%r"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.strip().split("|") for line in said.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}
