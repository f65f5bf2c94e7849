"""Records of how fast columns train on a device, written by `benchmarks/train.py` and read by `plan`.

They lie in the repository's `results/benchmarks/`, one file for each device, profile and precision.
"""

import re
from pathlib import Path
from typing import Any

from replicate.errors import MissingResult
from replicate.record import read_json
from replicate.schema import Record

FOLDER = Path(__file__).resolve().parent.parent / "results" / "benchmarks"  # of a checkout; an installed copy has none


class Ceilings(Record):
    """What a device can do at best, measured in the same run; null where there is no such thing."""

    float32_flop_per_second: float
    tensor_float32_flop_per_second: float | None  # float32 with 10 bits of mantissa, on GPUs
    bfloat16_flop_per_second: float | None
    memory_bytes_per_second: float  # read and written together
    host_to_device_bytes_per_second: float | None
    operation_seconds: float  # of an operation with nothing to do
    recurrent_step_seconds: dict[str, float]  # GRU, LSTM: of one more frame with nothing to do, forward and backward
    read_videos_per_second: float  # that one thread reads from files held in memory, checks included


class Work(Record):
    """What one training step has to do."""

    flop: int  # forward and backward, of the batch as padded
    state_bytes: int  # weights, gradients and Adam's moments, every time they are read or written
    frame_bytes: int  # quantised frames, read once; float32 ones, written once and read twice
    activation_bytes: int  # what the backward pass needs, written once and read once
    input_bytes: int  # frames as they travel to a GPU
    operations: int  # that the framework issues, views left out; 0 if compiled, which fuses them
    recurrent_steps: int  # that wait for one another
    recurrent_cell: str | None  # GRU or LSTM


class Floor(Record):
    """The least milliseconds of a step, part by part: each is a bound by itself, `total` the largest."""

    compute: float
    memory: float
    latency: float
    copying: float  # from the host to a GPU; 0 on a CPU
    total: float
    reading: float  # of a batch by the profile's readers, who work beside the steps


class ColumnSpeed(Record):
    """One column. Milliseconds are medians; ratios are of steps that alternated in one run."""

    column: str
    title: str
    milliseconds_per_step: float
    videos_per_second: float
    work: Work
    floor: Floor
    times_floor: float
    limited_by: str  # compute, memory, latency, copying, or reading where that is slower than the measured step
    peak_rate_share: float  # arithmetic per second over the ceiling of the precision
    times_plain: dict[str, float]  # padded to so many frames: the plain loop's step over ours
    times_baseline: tuple[float, float, float] | None  # quartiles of this column's step over its baseline's
    peak_memory_bytes: int  # resident on a CPU, torch's allocator on a GPU, without the pair's other model
    gpu: dict[str, Any]  # as in TimeRecord
    projected_epoch_minutes: float  # of 4 million videos, at the slower of the step and of reading
    paper_minutes: float | None  # Table 2; null where the sizes are not the paper's
    times_paper_rate: float | None  # the paper's minutes over ours


class BenchmarkRecord(Record):
    """results/benchmarks/<device>-<profile>.json."""

    profile: str
    title: str
    device: str  # its name
    compute: dict[str, Any]
    batch_size: int
    micro_batch_size: int
    frames: tuple[int, ...]  # of the batches, longest videos
    valid_share: float  # of the padded frames, those of videos
    steps: int
    warm_up_steps: int
    ceilings: Ceilings
    columns: tuple[ColumnSpeed, ...]
    load_average: tuple[float, float, float]  # of 1, 5 and 15 minutes, when the run began
    configuration: dict[str, Any]
    machine: dict[str, Any]
    packages: dict[str, str]
    code: dict[str, Any]


def file_name(record: BenchmarkRecord) -> str:
    """<device>-<profile>.json; a precision other than float32 is named."""
    precision = record.compute["precision"]
    words = [record.device, record.profile, *([precision] if precision != "float32" else [])]
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words) + ".json"


def read_all(folder: Path) -> list[BenchmarkRecord]:
    """The records of a folder, in the order of their names.

    Raises:
        MissingResult: a file there is no such record.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> BenchmarkRecord:
    try:
        return BenchmarkRecord.model_validate(read_json(path))
    except ValueError as error:
        first = str(error).splitlines()[0]
        remedy = f"remove it, or make it anew with `python -m benchmarks.train --record {path}`"
        raise MissingResult(f"{path} is no benchmark record ({first}); {remedy}") from None
