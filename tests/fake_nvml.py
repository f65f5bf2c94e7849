"""NVML as a fake: GPUs with readings, and faults to order. Installed over the functions of the module `pynvml`."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml


@dataclass
class FakeGpu:
    """A device. A reading is a value, or a list whose last item stays; `faults` maps a function's short name
    (e.g. "PowerUsage") to the NVML error code that it raises, or to (calls before it does, code)."""

    uuid: str = "GPU-aaaa-0"
    name: str | bytes = "Tesla Fake"
    total: int = 8_000_000_000
    used: int | list[int] = 1_000_000_000
    utilisation: int | list[int] = 90
    milliwatts: int | list[int] = 200_000
    millijoules: int | list[int] = 0
    sm_clock: int | list[int] = 1500
    memory_clock: int | list[int] = 5000
    users: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    faults: dict = field(default_factory=dict)

    def reading(self, name: str):
        value = getattr(self, name)
        if not isinstance(value, list):
            return value
        return value.pop(0) if len(value) > 1 else value[0]


class FakeNvml:
    """The library. `fault` is raised at initialisation; `calls` counts sessions that are open."""

    def __init__(self, gpus: list[FakeGpu], mig: list[FakeGpu] = (), fault: int | None = None, driver="580.00"):
        self.gpus, self.mig, self.fault, self.driver = gpus, list(mig), fault, driver
        self.open = 0
        self._calls: dict[tuple[str, str], itertools.count] = {}

    def install(self, monkeypatch) -> "FakeNvml":
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):  # this machine's
            monkeypatch.delenv(name, raising=False)
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))
        return self

    def _check(self, gpu: FakeGpu, name: str) -> None:
        assert self.open > 0, f"{name} was called outside a session"
        fault = gpu.faults.get(name)
        if fault is None:
            return
        after, code = fault if isinstance(fault, tuple) else (0, fault)
        if next(self._calls.setdefault((gpu.uuid, name), itertools.count())) >= after:
            raise pynvml.NVMLError(code)

    def nvmlInit(self):  # noqa: N802 - NVML's names
        if self.fault is not None:
            raise pynvml.NVMLError(self.fault)
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return self.driver

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self._check(self.gpus[index], "HandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        for gpu in (*self.gpus, *self.mig):
            if gpu.uuid == uuid:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, gpu):  # noqa: N802
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu):  # noqa: N802
        self._check(gpu, "Name")
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu):  # noqa: N802
        self._check(gpu, "MemoryInfo")
        return SimpleNamespace(total=gpu.total, used=gpu.reading("used"))

    def nvmlDeviceGetUtilizationRates(self, gpu):  # noqa: N802
        self._check(gpu, "UtilizationRates")
        return SimpleNamespace(gpu=gpu.reading("utilisation"), memory=0)

    def nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        self._check(gpu, "PowerUsage")
        return gpu.reading("milliwatts")

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):  # noqa: N802
        self._check(gpu, "TotalEnergyConsumption")
        return gpu.reading("millijoules")

    def nvmlDeviceGetClockInfo(self, gpu, kind):  # noqa: N802
        self._check(gpu, "ClockInfo")
        return gpu.reading("sm_clock" if kind == pynvml.NVML_CLOCK_SM else "memory_clock")

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):  # noqa: N802
        self._check(gpu, "ComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in gpu.users.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu):  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in gpu.graphics.items()]
