"""GPUs of this job, meters of GPUs and processes: against a fake NVML that fails in every way, and real processes."""

import json
import os
import subprocess
import sys

import psutil
import pynvml
import pytest
from patience import wait_until

from replicate.hardware import accounting, nvml
from replicate.hardware.meters import NO_GPU_USED, GpuMeter, ProcessMeter
from tests.fake_nvml import FakeGpu, FakeNvml

MB = 1_000_000
FIGURES = {
    "energy_joules", "nvml_peak_memory_bytes", "own_peak_memory_bytes", "utilisation", "power_watts", "sm_clock_mhz",
    "memory_clock_mhz", "other_processes",
}  # fmt: skip


@pytest.fixture
def two(monkeypatch):
    """Two GPUs of one model."""
    return FakeNvml([FakeGpu("GPU-aaaa-0"), FakeGpu("GPU-abcd-1")]).install(monkeypatch)


def job(**environ) -> tuple[list[str], str | None]:
    with nvml.session():
        gpus, reason = nvml.job_gpus(environ)
    return [gpu.uuid for gpu in gpus], reason


@pytest.mark.parametrize(
    "value, uuids",
    [
        (None, ["GPU-aaaa-0", "GPU-abcd-1"]),
        ("0", ["GPU-aaaa-0"]),
        ("1", ["GPU-abcd-1"]),
        ("1,0", ["GPU-abcd-1", "GPU-aaaa-0"]),
        (" 1 , 0 ", ["GPU-abcd-1", "GPU-aaaa-0"]),
        ("GPU-abcd-1", ["GPU-abcd-1"]),
        ("GPU-ab", ["GPU-abcd-1"]),  # CUDA takes an unambiguous beginning
        ("GPU-a", []),  # this one is not
        ("MIG-1111", ["MIG-1111"]),
        ("MIG-9999", []),
        ("1,7,0", ["GPU-abcd-1"]),  # what follows an entry that names nothing is hidden
        ("1,-1,0", ["GPU-abcd-1"]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_only_what_cuda_visible_devices_leaves_is_this_jobs(value, uuids, two):
    two.mig.append(FakeGpu("MIG-1111"))
    found, reason = job(**({} if value is None else {"CUDA_VISIBLE_DEVICES": value}))
    assert found == uuids
    assert (reason is None) == bool(uuids)
    if reason:
        assert f"CUDA_VISIBLE_DEVICES={value!r} leaves none of the machine's 2 GPUs" in reason
    assert two.open == 0


def test_a_number_is_no_name_where_models_differ(two):
    """CUDA counts the fastest first, NVML along the bus."""
    two.gpus[1].name = "Other Fake"
    found, reason = job(CUDA_VISIBLE_DEVICES="0")
    assert found == [] and "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID" in reason
    assert job(CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID") == (["GPU-aaaa-0"], None)
    assert job(CUDA_VISIBLE_DEVICES="GPU-abcd-1") == (["GPU-abcd-1"], None)
    assert job() == (["GPU-aaaa-0", "GPU-abcd-1"], None)


def test_the_name_of_this_process_gpu(monkeypatch):
    assert nvml.own_name("aaaa-0", {}) == "GPU-aaaa-0"
    assert nvml.own_name("aaaa-0", {"CUDA_VISIBLE_DEVICES": "3"}) == "GPU-aaaa-0"
    assert nvml.own_name("aaaa-0", {"CUDA_VISIBLE_DEVICES": "MIG-1111"}) == "MIG-1111"
    FakeNvml([FakeGpu()], mig=[FakeGpu("MIG-2222")]).install(monkeypatch)
    with nvml.session():
        assert nvml.find("GPU-2222")[0].uuid == "MIG-2222", "CUDA may give a MIG instance's UUID without saying so"
        assert nvml.find("GPU-none") == (None, "GPU-none: NVML: Not Found")


def test_describe_names_this_jobs_gpus(two, monkeypatch):
    two.gpus[1].name = b"Tesla Fake"  # older bindings give bytes
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = accounting.describe()
    assert found["gpus"] == [{"name": "Tesla Fake", "memory_bytes": 8_000_000_000}]
    assert (found["gpus_of_machine"], found["gpu_driver"], found["gpus_missing"]) == (2, "580.00", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = accounting.describe()
    assert hidden["gpus"] is None and "leaves none" in hidden["gpus_missing"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert accounting.describe() == accounting.describe()
    assert two.open == 0


@pytest.mark.parametrize(
    ("flags", "widest"), [("fma avx avx2 avx512f", "avx512f"), ("fma avx avx2", "avx2"), ("fma avx", None)]
)
def test_processors_of_one_name_are_told_by_their_vector_instructions(flags, widest, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"model name\t: AMD EPYC\nflags\t\t: {flags}\n" * 2)
    monkeypatch.setattr(accounting, "Path", lambda path: tmp_path / path.removeprefix("/proc/"))
    machine = accounting.describe()
    assert (machine["processor"], machine["vector_instructions"]) == ("AMD EPYC", widest)


@pytest.mark.parametrize(
    "fault, says",
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "NVML: NVML Shared Library Not Found"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "NVML: Driver Not Loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "NVML: Insufficient Permissions"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "NVML: RM has detected an NVML/RM version mismatch."),
    ],
)
def test_without_nvml_everything_is_null_with_the_reason(fault, says, monkeypatch):
    FakeNvml([FakeGpu()], fault=fault).install(monkeypatch)
    machine = accounting.describe()
    assert (machine["gpus"], machine["gpu_driver"], machine["gpus_missing"]) == (None, None, says)
    meter = GpuMeter("GPU-aaaa-0")
    with meter:
        pass
    found = meter.as_dict()
    assert {name for name in FIGURES if found[name] is None} == FIGURES
    assert (found["reason"], meter.reason, meter.energy_joules) == (says, says, None)


def test_a_machine_without_gpus_and_a_gpu_that_is_lost_are_reasons(monkeypatch):
    FakeNvml([]).install(monkeypatch)
    assert accounting.describe()["gpus_missing"] == "NVML lists no GPU"
    lost = FakeGpu(faults={"HandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})
    FakeNvml([FakeGpu("GPU-b"), lost]).install(monkeypatch)
    assert accounting.describe()["gpus_missing"] == "GPU 1: NVML: GPU is lost"
    unnamed = FakeGpu(faults=dict.fromkeys(("Name", "MemoryInfo"), pynvml.NVML_ERROR_NOT_SUPPORTED))
    FakeNvml([unnamed]).install(monkeypatch)
    assert accounting.describe()["gpus"] == [{"name": None, "memory_bytes": None}]


def measured(gpu: FakeGpu | list[FakeGpu], monkeypatch, blocks: int = 1, samples: int = 0, **fake) -> dict:
    """What a meter says of some blocks, each of which lasts for so many samples and one at its end."""
    monkeypatch.setattr(GpuMeter, "interval", 0.005)
    gpus = gpu if isinstance(gpu, list) else [gpu]
    nvml_ = FakeNvml(gpus, **fake).install(monkeypatch)
    meter = GpuMeter([each.uuid for each in gpus])
    for _ in range(blocks):
        with meter:
            wait_until(lambda: len(meter._samples) >= samples, "samples")
    assert nvml_.open == 0
    return meter.as_dict()


def test_a_run_without_gpu_has_no_figures():
    meter = GpuMeter(None)
    with meter:
        pass
    found = meter.as_dict()
    assert {found[name] for name in FIGURES} == {None} and found["reason"] == NO_GPU_USED and found["samples"] == 0


def test_what_a_gpu_did(monkeypatch):
    users = {os.getpid(): 700 * MB, 99999999: 100 * MB}
    gpu = FakeGpu(
        used=[0, 900 * MB, 950 * MB, 920 * MB],
        utilisation=[80, 100, 90],
        milliwatts=[100_000, 300_000],
        millijoules=[5_000_000, 5_250_000],
        sm_clock=[1200, 1500],
        users=users,
        graphics={88888888: None},
    )
    found = measured(gpu, monkeypatch, samples=10)
    assert found["energy_joules"] == 250.0
    assert found["nvml_peak_memory_bytes"] == 950 * MB
    assert found["own_peak_memory_bytes"] == 700 * MB
    assert found["other_processes"] == 2
    assert 0.8 < found["utilisation"] <= 1.0 and 100 < found["power_watts"] < 300.0001
    assert found["sm_clock_mhz"]["least"] == 1200 and found["sm_clock_mhz"]["most"] == 1500
    assert found["memory_clock_mhz"] == {"least": 5000, "mean": 5000, "most": 5000}
    assert (found["reason"], found["reasons"]) == (None, {}) and found["samples"] > 10


def test_blocks_add_up_and_what_lies_between_stays_out(monkeypatch):
    """The counter stands at 100, 110 after the first block, 500 after warming up, 530 after the second."""
    gpu = FakeGpu(millijoules=[100_000, 110_000, 500_000, 530_000], users={os.getpid(): 1})
    assert measured(gpu, monkeypatch, blocks=2)["energy_joules"] == pytest.approx(40.0)


def test_several_gpus_of_one_job_are_added_up(monkeypatch):
    mine = {os.getpid(): 5}
    gpus = [
        FakeGpu("GPU-0", used=10, utilisation=50, milliwatts=1000, millijoules=[0, 1000], sm_clock=900, users=mine),
        FakeGpu(
            "GPU-1", used=20, utilisation=100, milliwatts=2000, millijoules=[0, 2000], sm_clock=800, users={77777777: 1}
        ),
    ]
    found = measured(gpus, monkeypatch)
    assert (found["energy_joules"], found["nvml_peak_memory_bytes"], found["power_watts"]) == (3.0, 30, 3.0)
    assert found["utilisation"] == pytest.approx(0.75) and found["sm_clock_mhz"]["least"] == 800
    assert (found["other_processes"], found["own_peak_memory_bytes"]) == (1, 5)


READING_FAULTS = {
    "UtilizationRates": {"utilisation"},
    "MemoryInfo": {"nvml_peak_memory_bytes"},
    "PowerUsage": {"power_watts"},
    "TotalEnergyConsumption": {"energy_joules"},
    "ClockInfo": {"sm_clock_mhz", "memory_clock_mhz"},
    "ComputeRunningProcesses": {"other_processes", "own_peak_memory_bytes"},
}


@pytest.mark.parametrize("code", (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION))
@pytest.mark.parametrize("function", READING_FAULTS)
def test_a_reading_that_is_refused_is_null_with_the_reason_and_the_others_stay(function, code, monkeypatch):
    found = measured(FakeGpu(users={os.getpid(): 5}, faults={function: code}), monkeypatch)
    says = f"NVML: {pynvml.NVMLError(code)}"
    assert {name for name in FIGURES if found[name] is None} == READING_FAULTS[function]
    assert found["reasons"] == dict.fromkeys(READING_FAULTS[function], says)
    assert found["reason"] == (says if function == "TotalEnergyConsumption" else None)


def test_a_gpu_lost_in_mid_run_leaves_no_figure_of_a_part_of_it(monkeypatch):
    later = (1, pynvml.NVML_ERROR_GPU_IS_LOST)
    gpu = FakeGpu(users={os.getpid(): 5}, faults=dict.fromkeys(("PowerUsage", "TotalEnergyConsumption"), later))
    found = measured(gpu, monkeypatch, samples=3)
    assert found["power_watts"] is None and found["energy_joules"] is None
    assert found["reasons"]["power_watts"] == found["reasons"]["energy_joules"] == "NVML: GPU is lost"


def test_a_counter_that_runs_backwards_is_no_energy(monkeypatch):
    found = measured(FakeGpu(millijoules=[100, 50], users={os.getpid(): 5}), monkeypatch)
    assert found["energy_joules"] is None and "ran backwards" in found["reason"]


def test_a_mig_instance_has_memory_but_no_energy_of_its_own(monkeypatch):
    faults = dict.fromkeys(
        ("TotalEnergyConsumption", "UtilizationRates", "PowerUsage"), pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    found = measured(FakeGpu("MIG-1111", used=7, users={os.getpid(): 5}, faults=faults), monkeypatch)
    assert found["nvml_peak_memory_bytes"] == 7
    assert found["reason"] == "NVML: Not Supported (a MIG instance has no energy counter)"
    assert set(found["reasons"]) == {"energy_joules", "utilisation", "power_watts"}


def test_a_gpu_that_nvml_does_not_know_is_a_reason(monkeypatch):
    FakeNvml([FakeGpu()]).install(monkeypatch)
    meter = GpuMeter("GPU-other")
    with meter:
        pass
    assert meter.reason == "GPU-other: NVML: Not Found"


def test_processes_of_another_namespace_are_not_called_others(monkeypatch):
    found = measured(FakeGpu(users={99999999: 5}), monkeypatch)
    assert found["other_processes"] is None and found["own_peak_memory_bytes"] is None
    assert "does not list this process" in found["reasons"]["other_processes"]
    untold = measured(FakeGpu(users={os.getpid(): None}), monkeypatch)
    assert (untold["other_processes"], untold["own_peak_memory_bytes"]) == (0, None)
    assert "does not tell memory by process" in untold["reasons"]["own_peak_memory_bytes"]


def test_a_child_of_this_process_is_no_other(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = measured(FakeGpu(users={os.getpid(): 5, child.pid: 6}), monkeypatch)
    finally:
        child.communicate(b"\n")
    assert (found["other_processes"], found["own_peak_memory_bytes"]) == (0, 11)


# Processes

# In a process of its own: in this one the system takes back pages of large libraries, and garbage goes, at any time.
# Without the settings by which workers keep what they freed, which Dask leaves where it starts some.
MEMORY = """
import json, subprocess, sys, time
import psutil
from replicate.hardware import meters

HUNGRY = "memory = bytearray(b'x') * 80_000_000\\nprint('ready', flush=True)\\ninput()"
child = subprocess.Popen([sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert child.stdout.readline() == b"ready\\n"
meter = meters.ProcessMeter()
with meter:
    held = bytearray(b"x") * 60_000_000
    time.sleep(3 * meters.MEMORY_SECONDS)
    of_child = psutil.Process(child.pid).memory_info().rss
child.communicate(b"\\n")
del held
fresh = meters.ProcessMeter()
with fresh:
    pass
print(json.dumps([meter.before, meter.peak, meter.peak_with_children, of_child, fresh.peak, fresh.peak_with_children]))
"""


@pytest.fixture(scope="module")
def memory():
    """Bytes: before a block that holds 60 MB beside a child with 80 MB, the meter's peaks, the child; and of a block
    after all were freed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, stdout=subprocess.PIPE, env=environ)
    return json.loads(done.stdout)


def test_memory_of_children_is_counted_with_it_and_apart(memory):
    before, peak, with_children, of_child, _, _ = memory
    assert 45_000_000 < peak - before < 75_000_000
    assert peak + 80_000_000 <= with_children <= peak + of_child + 15_000_000


def test_memory_that_was_freed_before_the_block_is_not_in_it(memory):
    _, peak, with_children, _, fresh, fresh_with_children = memory
    assert peak - fresh > 45_000_000
    assert with_children - fresh_with_children > 45_000_000 + 80_000_000


SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
TICK = 0.05  # seconds; the system counts processor time by hundredths, for each process and kind


def spin() -> None:
    exec(SPIN, {})


def spent() -> float:
    """Processor seconds of this process and of its children that ended, by the system's own account."""
    return sum(os.times()[:4])


def test_processor_time_of_self_and_of_children_that_ended():
    meter = ProcessMeter()
    spin()  # warming up: not in the block
    begin = spent()
    with meter:
        spin()
        subprocess.run([sys.executable, "-c", SPIN], check=True)
    first = spent() - begin
    assert 0.6 - TICK < meter.cpu_seconds < first + TICK
    found = meter.as_dict()
    assert found["cores_used"] == pytest.approx(meter.cpu_seconds / meter.seconds)
    spin()
    begin = spent()
    with meter:
        spin()
    assert 0.9 - TICK < meter.cpu_seconds < first + spent() - begin + TICK, "between two blocks nothing is counted"


def test_processor_time_of_the_shortest_block_is_counted():
    """The system's own account comes in hundredths of a second: most such blocks would have none."""
    for _ in range(20):
        meter = ProcessMeter()
        with meter:
            pass
        assert meter.cpu_seconds > 0


def test_processor_time_of_a_child_that_lives_on():
    program = "print('ready', flush=True)\ninput()\n" + SPIN + "\nprint('done', flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    meter, own = ProcessMeter(), spent()
    try:
        with meter:
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"done\n"
        own = spent() - own
        whole = sum(psutil.Process(child.pid).cpu_times()[:2])
    finally:
        child.communicate(b"\n")
    assert 0.3 - TICK < meter.cpu_seconds < own + whole + TICK
