"""NVML: which GPUs this job has, and what they say. Every answer is a value, or None with the reason."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pynvml

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


class NoNvmlError(Exception):
    """NVML cannot be used here; the message says why."""


@dataclass(frozen=True)
class Gpu:
    """A GPU or a MIG instance.

    Attributes:
        uuid: "GPU-..." or "MIG-...".
        name: of the model; None if NVML does not tell.
        memory_bytes: in all; None if NVML does not tell.
        handle: for NVML, valid within the session that it was found in.
    """

    uuid: str
    name: str | None
    memory_bytes: int | None
    handle: Any = field(compare=False, repr=False)

    @property
    def is_mig(self) -> bool:
        """A part of a GPU; what belongs to the whole GPU, such as its energy counter, says nothing about it."""
        return self.uuid.startswith("MIG-")


@contextlib.contextmanager
def session() -> Iterator[None]:
    """NVML in use. Sessions may nest.

    Raises:
        NoNvmlError: no library, no driver, or no permission.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoNvmlError(f"NVML: {error}") from None
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def ask(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """(answer, None), or (None, why there is none)."""
    try:
        return function(*arguments), None
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"


def driver_version() -> str | None:
    """Within a session."""
    return _text(ask(pynvml.nvmlSystemGetDriverVersion)[0])


def machine_gpus() -> tuple[list[Gpu], str | None]:
    """Every GPU of the machine in NVML's order, within a session; the reason if they cannot be listed."""
    count, reason = ask(pynvml.nvmlDeviceGetCount)
    if reason:
        return [], reason
    gpus = []
    for number in range(count):
        handle, reason = ask(pynvml.nvmlDeviceGetHandleByIndex, number)
        if reason:
            return [], f"GPU {number}: {reason}"
        gpus.append(_gpu(handle))
    return gpus, None if gpus else "NVML lists no GPU"


def job_gpus(environ: Mapping[str, str] = os.environ) -> tuple[list[Gpu], str | None]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this job, within a session; the reason if there are none.

    As CUDA does, entries are read up to the first that names nothing. A number counts GPUs in CUDA's order, fastest
    first, unless CUDA_DEVICE_ORDER=PCI_BUS_ID; NVML counts along the bus. On a machine with GPUs of several models the
    two may differ, and a number alone then names no GPU here.
    """
    every, reason = machine_gpus()
    value = environ.get(VISIBLE)
    if reason or value is None:
        return every, reason
    words = [word.strip() for word in value.split(",")]
    mixed = len({gpu.name for gpu in every}) > 1 and environ.get(ORDER) != "PCI_BUS_ID"
    if mixed and any(word.isdigit() for word in words):
        remedy = f"set {ORDER}=PCI_BUS_ID, or name GPUs by UUID"
        return (
            [],
            f"{VISIBLE}={value} counts GPUs of several models in CUDA's order, which NVML does not know; {remedy}",
        )
    chosen: list[Gpu] = []
    for word in words:
        gpu = _named(word, every)
        if gpu is None:
            break
        chosen.append(gpu)
    return chosen, None if chosen else f"{VISIBLE}={value!r} leaves none of the machine's {len(every)} GPUs to this job"


def _named(word: str, every: list[Gpu]) -> Gpu | None:
    if word.isdigit():
        return every[int(word)] if int(word) < len(every) else None
    if word.startswith("MIG-"):
        return find(word)[0]
    found = [gpu for gpu in every if word.startswith("GPU-") and gpu.uuid.startswith(word)]  # CUDA takes prefixes
    return found[0] if len(found) == 1 else None


def own_name(cuda_uuid: str, environ: Mapping[str, str] = os.environ) -> str:
    """NVML's name of a CUDA device of this process, by the UUID that CUDA gives it (without a prefix).

    A process sees one MIG instance at most, so the variable that chose it names it.
    """
    first = environ.get(VISIBLE, "").split(",")[0].strip()
    return first if first.startswith("MIG-") else f"GPU-{cuda_uuid}"


def find(uuid: str) -> tuple[Gpu | None, str | None]:
    """A GPU by its name, within a session; CUDA may give a MIG instance's UUID for that of a GPU."""
    handle, reason = ask(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    if reason and uuid.startswith("GPU-"):
        handle, other = ask(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid.removeprefix('GPU-')}")
        reason = reason if other else None
    return (None, f"{uuid}: {reason}") if reason else (_gpu(handle), None)


def _gpu(handle: Any) -> Gpu:
    memory, _ = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    uuid, name = ask(pynvml.nvmlDeviceGetUUID, handle)[0], ask(pynvml.nvmlDeviceGetName, handle)[0]
    return Gpu(_text(uuid) or "", _text(name), memory.total if memory else None, handle)


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def energy_joules(gpu: Gpu) -> tuple[float | None, str | None]:
    """Since the driver was loaded, of the whole GPU. GPUs before Volta and MIG instances have no such counter."""
    counter, reason = ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)
    if reason:
        return None, f"{reason} (a MIG instance has no energy counter)" if gpu.is_mig else reason
    return counter / 1000, None


# What is sampled: name in records -> how to read it.
READINGS: dict[str, Callable[[Any], float]] = {
    "utilisation": lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
    "memory_bytes": lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
    "power_watts": lambda handle: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    "sm_clock_mhz": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
}


def processes(handle: Any) -> dict[int, int | None]:
    """Process id -> bytes of GPU memory (None where the driver does not tell) of all that use a GPU.

    In a container the ids may be those of the host.
    """
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle) + pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    return {each.pid: each.usedGpuMemory for each in listed}
