"""What the machine is, as far as a job sees it: from psutil and NVML. What cannot be read is null, with the reason.

Nothing here changes between two calls of one job.
"""

import os
import platform
from pathlib import Path
from typing import Any

import psutil

from replicate.hardware import nvml


def describe() -> dict[str, Any]:
    """This machine, for records: processor, its widest vector instructions (sums are rounded by them, and processors of
    one name differ), cores, memory in bytes, system, this job's GPUs (null with a reason if none)."""
    return {
        "processor": _processor(),
        "vector_instructions": _vector_instructions(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        **_gpus(),
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def _of_processors(key: str) -> list[str]:
    """What Linux tells of each logical core under a key; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(key)]


def _vector_instructions() -> str | None:
    """Of those that torch and its libraries choose between; null where Linux names none of them."""
    flags = set(" ".join(_of_processors("flags")[:1]).split())
    return next((flag for flag in ("avx512f", "avx2") if flag in flags), None)


def _processor() -> str:
    """The processor's model name; the architecture's where the system does not tell more."""
    names = _of_processors("model name")
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> dict[str, Any]:
    found: dict[str, Any] = {"gpus": None, "gpus_of_machine": None, "gpu_driver": None, "gpus_missing": None}
    try:
        with nvml.session():
            every, _ = nvml.machine_gpus()
            gpus, found["gpus_missing"] = nvml.job_gpus()
            found["gpus_of_machine"], found["gpu_driver"] = len(every), nvml.driver_version()
            if gpus:
                found["gpus"] = [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in gpus]
    except nvml.NoNvmlError as error:
        found["gpus_missing"] = str(error)
    return found
