"""What a job's processes and GPUs do while a block of code runs, sampled with psutil and NVML.

What cannot be known is null, with the reason. Meters are context managers; several blocks of one meter add up, so that
warming up between them stays out.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from replicate.hardware import nvml

NO_GPU_USED = "the run used no GPU"
MEMORY_SECONDS = 0.02  # between two samples of resident memory
CHILDREN_SECONDS = 1.0  # between two looks for new child processes, which read all of /proc
GPU_SECONDS = 0.1  # between two samples of a GPU; its driver renews utilisation about every 1/6 s, power more often


class _Sampled:
    """A thread that takes a sample at intervals while a `with` block runs, and one at its end."""

    interval = 0.0

    def __init__(self) -> None:
        self.seconds = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = 0.0

    def __enter__(self):
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name=type(self).__name__)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self.sample()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self.sample()

    def sample(self) -> None:
        """Look once."""
        raise NotImplementedError


class ProcessMeter(_Sampled):
    """Processor time and resident memory of this process and its children.

    The system's own high-water mark of memory would be that of the whole process, which may have done other things
    before. Pages that parent and children share are counted in each.

    Attributes:
        before: resident bytes of this process when the meter was made.
        peak: the most of this process in the blocks.
        peak_with_children: the most of all together.
        cpu_seconds: processor time of all, threads added up; a child that began and ended within a block counts if it
            was waited for.
        seconds: wall time of the blocks.
    """

    interval = MEMORY_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._process = psutil.Process()
        self.before = self.peak = self.peak_with_children = self._process.memory_info().rss
        self.cpu_seconds = 0.0
        self._children: list[psutil.Process] = []
        self._looked = 0.0
        self._cpu_before: dict[int, float] = {}

    def __enter__(self) -> "ProcessMeter":
        self._cpu_before = self._cpu()
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        after = self._cpu()
        self.cpu_seconds += sum(seconds - self._cpu_before.get(pid, 0.0) for pid, seconds in after.items())

    def _cpu(self) -> dict[int, float]:
        """Processor seconds by process; children that were waited for are in their parent's."""
        self._look()
        # Its own by the clock of processes: what the system tells of any process comes in hundredths of a second.
        seconds = {self._process.pid: time.process_time() + sum(self._process.cpu_times()[2:4])}
        for process in self._children:
            try:
                seconds[process.pid] = sum(process.cpu_times()[:4])  # user, system, and both of children that ended
            except psutil.Error:
                continue  # it has ended
        return seconds

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._children = self._process.children(recursive=True)

    def sample(self) -> None:
        if time.monotonic() - self._looked > CHILDREN_SECONDS:
            self._look()
        own = self._process.memory_info().rss
        together = own
        for child in self._children:
            try:
                together += child.memory_info().rss
            except psutil.Error:
                continue  # it has ended
        self.peak = max(self.peak, own)
        self.peak_with_children = max(self.peak_with_children, together)

    def as_dict(self) -> dict[str, Any]:
        """For records: seconds, bytes; `cores_used` is processor time over wall time."""
        return {
            "peak_memory_with_children_bytes": self.peak_with_children,
            "cpu_seconds": self.cpu_seconds,
            "cores_used": self.cpu_seconds / self.seconds if self.seconds else None,
        }


class GpuMeter(_Sampled):
    """What the given GPUs do while blocks run: the GPUs' work, so that of other processes is in it (`other_processes`).

    Attributes:
        energy_joules: by the GPUs' own counters, all together; None with `reason`.
        reason: why there is no energy, or no GPU at all.
    """

    interval = GPU_SECONDS

    def __init__(self, uuids: str | Sequence[str] | None):
        """
        Args:
            uuids: NVML's names of the GPUs ("GPU-...", "MIG-..."); None when the run uses none.
        """
        super().__init__()
        self.uuids = [uuids] if isinstance(uuids, str) else list(uuids or ())
        self.energy_joules: float | None = None
        self._refused: str | None = None if self.uuids else NO_GPU_USED
        self._missing: dict[str, str] = {}  # reading -> why it is null
        self._samples: list[list[dict[str, float]]] = []  # of each GPU, per sample
        self._processes: list[dict[int, int | None]] = []  # on all GPUs, per sample
        self._own: set[int] = set()  # process ids of this job
        self._gpus: list[nvml.Gpu] = []
        self._before: list[float] = []

    @property
    def reason(self) -> str | None:
        return self._refused or self._missing.get("energy_joules")

    def __enter__(self) -> "GpuMeter":
        if self._refused is None:
            self._open()
        return self if self._refused else super().__enter__()

    def __exit__(self, *exception: object) -> None:
        if self._refused:
            return
        super().__exit__(*exception)
        used = [end - start for start, end in zip(self._before, self._counters(), strict=False)]
        if any(joules < 0 for joules in used):
            self._missing["energy_joules"] = "the energy counter ran backwards; was the driver loaded anew?"
        self.energy_joules = None if "energy_joules" in self._missing else (self.energy_joules or 0.0) + sum(used)
        self._own |= _family()
        self._session.__exit__(None, None, None)

    def _open(self) -> None:
        self._session = nvml.session()
        try:
            self._session.__enter__()
        except nvml.NoNvmlError as error:
            self._refused = str(error)
            return
        found = [nvml.find(uuid) for uuid in self.uuids]
        self._refused = next((reason for _, reason in found if reason), None)
        if self._refused:
            self._session.__exit__(None, None, None)
            return
        self._gpus = [gpu for gpu, _ in found]
        self._own |= _family()
        self._before = self._counters()

    def _answer(self, name: str, value: Any, reason: str | None) -> Any:
        if reason:
            self._missing.setdefault(name, reason)
        return value

    def _counters(self) -> list[float]:
        answers = [self._answer("energy_joules", *nvml.energy_joules(gpu)) for gpu in self._gpus]
        return [joules for joules in answers if joules is not None]

    def sample(self) -> None:
        self._samples.append(
            [
                {name: self._answer(name, *nvml.ask(read, gpu.handle)) for name, read in nvml.READINGS.items()}
                for gpu in self._gpus
            ]
        )
        users: dict[int, int | None] = {}
        for gpu in self._gpus:
            users |= self._answer("processes", *nvml.ask(nvml.processes, gpu.handle)) or {}
        self._processes.append(users)

    def as_dict(self) -> dict[str, Any]:
        """For records: bytes, watts, joules, MHz. `reasons` says of each null why; `reason`, if no GPU could be read.

        A reading that failed once is null: a peak or a mean of the rest would not be what it says. Of several GPUs,
        energy, power and memory are sums, utilisation (the share of time in which any kernel ran) is the mean, clocks
        are the slowest GPU's.
        """
        memory, watts = self._over_gpus("memory_bytes", sum), self._over_gpus("power_watts", sum)
        figures = {
            "energy_joules": self.energy_joules,
            "nvml_peak_memory_bytes": max(memory, default=None),
            "utilisation": _mean(self._over_gpus("utilisation", _mean)),
            "power_watts": _mean(watts),
            "sm_clock_mhz": _range(self._over_gpus("sm_clock_mhz", min)),
            "memory_clock_mhz": _range(self._over_gpus("memory_clock_mhz", min)),
        }
        reasons = {
            {"memory_bytes": "nvml_peak_memory_bytes"}.get(name, name): why for name, why in self._missing.items()
        }
        for name, (value, why) in self._users().items():
            figures[name] = value
            if why and not self._refused:
                reasons[name] = why
        reasons.pop("processes", None)
        return {**figures, "samples": len(self._samples), "reason": self.reason, "reasons": reasons}

    def _over_gpus(self, name: str, combine: Callable[[list[float]], float]) -> list[float]:
        """One value per sample; none if the reading ever failed."""
        return [] if name in self._missing else [combine([gpu[name] for gpu in row]) for row in self._samples]

    def _users(self) -> dict[str, tuple[int | None, str | None]]:
        """Most other processes on the GPUs at once, and most bytes of this job's own, each with a reason if null."""
        why = self._refused or self._missing.get("processes")
        if not why and not any(self._own & users.keys() for users in self._processes):
            why = "NVML does not list this process; in a container its ids are those of the host"
        if why:
            return {"other_processes": (None, why), "own_peak_memory_bytes": (None, why)}
        others = max(len(users.keys() - self._own) for users in self._processes)
        mine = [[users[pid] for pid in self._own & users.keys()] for users in self._processes]
        if any(size is None for row in mine for size in row):
            return {
                "other_processes": (others, None),
                "own_peak_memory_bytes": (None, "the driver does not tell memory by process"),
            }
        return {"other_processes": (others, None), "own_peak_memory_bytes": (max(map(sum, mine)), None)}


_RENAMED = {"memory_bytes": "nvml_peak_memory_bytes"}  # as torch's allocator has a peak of its own


def _family() -> set[int]:
    return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _range(values: list[float]) -> dict[str, float] | None:
    return {"least": min(values), "mean": _mean(values), "most": max(values)} if values else None
