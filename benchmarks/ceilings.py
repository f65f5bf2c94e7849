"""What a machine can do at best, measured beside what it is held against: arithmetic, memory, latency, input.

Each figure is the best of some repeats of a small program that does one thing only, so that a training step which is
made of such things can hardly be faster. Seconds are read from the clock that the steps are timed with.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from replicate.benchmark_records import Ceilings
from replicate.compute import Compute
from replicate.data.batches import RecordSource
from replicate.data.index import Index, build_index
from replicate.data.messages import SequenceExample
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import frame

REPEATS = 5
MATRIX = {"cpu": 1024, "cuda": 8192}  # rows and columns of the matrices that are multiplied
COPIED = {"cpu": 1 << 28, "cuda": 1 << 31}  # bytes, far more than a cache holds
OPERATIONS = 2000  # tiny operations, one after the other
TINY, SHORT, LONG = 8, 50, 250  # width of the recurrent layers that only wait, and frames of two sequences


def seconds(work: Callable[[], object], compute: Compute) -> float:
    """Of one call: processor time on a CPU (of one thread); elsewhere elapsed time, the device awaited at both ends."""
    clock = time.process_time if compute.device == "cpu" and compute.threads == 1 else time.perf_counter
    compute.synchronise()
    begin = clock()
    work()
    compute.synchronise()
    return clock() - begin


def best(work: Callable[[], object], compute: Compute) -> float:
    """The least seconds of some calls, after one that does not count."""
    work()
    return min(seconds(work, compute) for _ in range(REPEATS))


def measure(compute: Compute, spec: DatasetSpec, features: np.ndarray, lengths: np.ndarray) -> Ceilings:
    """The ceilings of a machine; call inside `compute.active`.

    Args:
        compute: device, precision and threads of the steps that are held against them.
        spec: format of the records.
        features, lengths: frames of some videos, (videos, time, width) uint8 and (videos,): those that are read.
    """
    on_gpu = compute.device == "cuda"
    return Ceilings(
        float32_flop_per_second=_float32_rate(compute, rounded=False),
        tensor_float32_flop_per_second=_float32_rate(compute, rounded=True) if on_gpu else None,
        bfloat16_flop_per_second=matrix_rate(compute, torch.bfloat16) if on_gpu else None,
        memory_bytes_per_second=bandwidth(compute),
        host_to_device_bytes_per_second=transfer_rate(compute) if on_gpu else None,
        operation_seconds=operation_latency(compute),
        recurrent_step_seconds={cell.__name__: recurrent_latency(cell, compute) for cell in (nn.GRU, nn.LSTM)},
        read_videos_per_second=reading_rate(compute, spec, features, lengths),
    )


def matrix_rate(compute: Compute, dtype: torch.dtype) -> float:
    """Operations per second of the product of two large square matrices; a multiply-add is two."""
    size = MATRIX[compute.device]
    left, right = (torch.rand(size, size, device=compute.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * size**3 / best(lambda: torch.mm(left, right, out=out), compute)


def _float32_rate(compute: Compute, rounded: bool) -> float:
    """The same of float32; with inputs rounded to 10 bits of mantissa, as `run.tf32` lets a GPU, or not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = rounded
    try:
        return matrix_rate(compute, torch.float32)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def bandwidth(compute: Compute) -> float:
    """Bytes per second, read and written ones together, of copying within the device's memory."""
    source = torch.ones(COPIED[compute.device] // 4, device=compute.device)
    target = torch.empty_like(source)
    return 2 * COPIED[compute.device] / best(lambda: target.copy_(source), compute)


def transfer_rate(compute: Compute) -> float:
    """Bytes per second from page-locked memory of the host to the GPU."""
    source = torch.ones(COPIED["cpu"], dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device=compute.device)
    return COPIED["cpu"] / best(lambda: target.copy_(source, non_blocking=True), compute)


def operation_latency(compute: Compute) -> float:
    """Seconds of an operation that has next to nothing to do: what the framework, and launching a kernel, cost."""
    values = torch.zeros(TINY, device=compute.device)

    def work() -> None:
        for _ in range(OPERATIONS):
            values.add_(1.0)

    return best(work, compute) / OPERATIONS


def recurrent_latency(cell: type[nn.GRU | nn.LSTM], compute: Compute) -> float:
    """Seconds, forward and backward, of one more frame in a recurrent layer too small to compute anything: each step
    waits for the one before. The slope between two lengths, so that what a call costs drops out; at least 0."""
    layer = cell(TINY, TINY, batch_first=True).to(compute.device)

    def of(frames: int) -> float:
        values = torch.zeros(1, frames, TINY, device=compute.device)
        return best(lambda: layer(values)[0].sum().backward(), compute)

    return max(0.0, (of(LONG) - of(SHORT)) / (LONG - SHORT))


def reading_rate(compute: Compute, spec: DatasetSpec, features: np.ndarray, lengths: np.ndarray) -> float:
    """Videos per second that one thread reads at random places of a file which the system holds in memory, checks and
    lays out as a batch: what feeds a training. Processor time."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with open(root / "videos.tfrecord", "wb") as file:
            for number, length in enumerate(lengths):
                file.write(frame(_record(spec, f"video{number:06d}", features[number, :length])))
        build_index(spec, root, ["videos.tfrecord"], root / "index")
        source = RecordSource(Index.open(root / "index", root), spec, spec.frame_limit)
        rows = np.random.default_rng(0).permutation(len(lengths))
        one_thread = Compute("cpu")
        return len(rows) / best(lambda: source.read(rows), one_thread)


def _record(spec: DatasetSpec, video: str, frames: np.ndarray) -> bytes:
    """A video as the corpus stores it."""
    message = SequenceExample()
    message.context.feature[spec.id_key].bytes_list.value.append(video.encode())
    message.context.feature[spec.label_key].int64_list.value.append(0)
    column = 0
    for feature in spec.features:
        listed = message.feature_lists.feature_list[feature.key]
        for values in frames[:, column : column + feature.width]:
            listed.feature.add().bytes_list.value.append(values.tobytes())
        column += feature.width
    return message.SerializeToString(deterministic=True)
