"""What the machine is, and what its GPU does: from psutil and NVML. What cannot be read is null, with the reason.

Nothing here changes between two calls on the same machine, save what GpuMeter measures.
"""

import os
import platform
from pathlib import Path
from typing import Any

import psutil

NO_GPU_USED = "the run used no GPU"


def describe() -> dict[str, Any]:
    """This machine, for records: processor, cores, memory in bytes, system, GPUs (null with a reason if none)."""
    gpus, driver, reason = _gpus()
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpus": gpus,
        "gpu_driver": driver,
        "gpus_missing": reason,
    }


def _processor() -> str:
    """The processor's model name; the architecture's where the system does not tell more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> tuple[list[dict[str, Any]] | None, str | None, str | None]:
    """(one {"name", "memory_bytes"} per GPU, driver version, None), or (None, None, why there are none)."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, None, f"NVML: {error}"
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        gpus = [
            {"name": _text(pynvml.nvmlDeviceGetName(each)), "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(each).total}
            for each in handles
        ]
        return gpus, _text(pynvml.nvmlSystemGetDriverVersion()), None
    except pynvml.NVMLError as error:
        return None, None, f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class GpuMeter:
    """Energy that the process's GPU used while a block ran, as its counter says; other processes' work is in it.

    Use as a context manager; afterwards `energy_joules` is a number, or None with `reason`.
    """

    def __init__(self, uuid: str | None):
        """
        Args:
            uuid: NVML's name of the GPU ("GPU-..."); None when the run uses none.
        """
        self.uuid = uuid
        self.energy_joules: float | None = None
        self.reason: str | None = None if uuid else NO_GPU_USED
        self._before = 0

    def __enter__(self) -> "GpuMeter":
        if self.uuid:
            self._before = self._counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self.uuid and self.reason is None:
            after = self._counter()
            if self.reason is None:
                self.energy_joules = (after - self._before) / 1000

    def _counter(self) -> int:
        """Millijoules since the driver was loaded; 0 and a reason if it cannot be read."""
        import pynvml

        try:
            pynvml.nvmlInit()
            try:
                return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(self.uuid))
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            self.reason = f"NVML: {error}"
            return 0
