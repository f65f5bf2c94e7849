"""Time the training of one column, alone on the machine (Table 2): real batches through the real training step.

Protocol: warm-up steps are dropped (from memory, energy and utilisation too), the device is awaited at the edges,
several repeats are all recorded and their median is the result; waiting for data and computing are told apart;
deterministic algorithms are not demanded. An epoch's time is projected from steps and is called so.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from replicate import hardware, meters, nvml
from replicate.compute import Compute
from replicate.config import TimingConfig, TrainingConfig
from replicate.data.batches import Batch, Source, batches, epoch_order
from replicate.data.labels import LabelStore
from replicate.data.spec import DatasetSpec
from replicate.optimise import Optimiser
from replicate.train import Waiting


def time_training(
    model: nn.Module,
    source: Source,
    labels: LabelStore,
    rows: np.ndarray,
    training: TrainingConfig,
    timing: TimingConfig,
    spec: DatasetSpec,
    seed: int,
    progress: Callable[[float, float, str], None] | None = None,
    compute: Compute | None = None,
) -> dict[str, Any]:
    """Train for some steps and measure.

    Args:
        model, source, labels, training, spec, seed, compute: as in train; the model's weights are spent.
        rows: the training videos; a step takes `training.batch_size` of them, in the order of an epoch.
        timing: how many steps and repeats.
        progress: called with (steps done, steps in all, message).

    Returns:
        The record, plain values: seconds per step (median of repeats, and each), its parts, videos per second,
        projected seconds per epoch of `rows`, memory in bytes, megabytes (10^6 bytes) of weights, processor time, GPU
        figures of the measured steps by torch's allocator and by NVML (null with a reason where there are none), the
        machine.
    """
    compute = compute or Compute()
    size = min(training.batch_size, len(rows))
    total = timing.repeats * (timing.warm_up_steps + timing.steps)
    numbers = itertools.count(1)

    def step_done() -> None:
        if progress:
            progress(next(numbers), total, "timing")

    repeats, peaks = [], []
    process, gpu = meters.ProcessMeter(), meters.GpuMeter(_gpu(compute))
    with compute.active(deterministic=False):
        optimiser = Optimiser(model.to(compute.device).train(), training, spec, compute)
        feed = _endless(source, labels, rows, size, seed)
        for _ in range(timing.repeats):
            for batch in itertools.islice(feed, timing.warm_up_steps):
                optimiser.step(batch)
                step_done()
            compute.synchronise()
            if compute.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with gpu, process:
                repeats.append(_repeat(optimiser, feed, timing.steps, compute, step_done))
            if compute.device == "cuda":
                peaks.append((torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()))
        feed.close()
    seconds = statistics.median(each["seconds_per_step"] for each in repeats)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "batch_size": size,
        "micro_batch_size": training.micro_batch_size or size,
        "warm_up_steps": timing.warm_up_steps,
        "steps": timing.steps,
        "repeats": repeats,
        "seconds_per_step": seconds,
        "data_wait_seconds_per_step": statistics.median(each["data_wait_seconds_per_step"] for each in repeats),
        "compute_seconds_per_step": statistics.median(each["compute_seconds_per_step"] for each in repeats),
        "videos_per_second": size / seconds,
        "epoch_videos": len(rows),
        "projected_seconds_per_epoch": seconds * -(-len(rows) // size),
        "weights_megabytes": weights / 1e6,
        "peak_memory_bytes": process.peak,
        "memory_before_bytes": process.before,
        "process": process.as_dict(),
        "gpu": {
            "peak_memory_bytes": max((allocated for allocated, _ in peaks), default=None),
            "peak_reserved_bytes": max((reserved for _, reserved in peaks), default=None),
            **gpu.as_dict(),
        },
        "compute": compute.as_dict(),
        "machine": hardware.describe(),
    }


def _repeat(
    optimiser: Optimiser, feed: Iterator[Batch], steps: int, compute: Compute, step_done: Callable[[], None]
) -> dict[str, float]:
    """Seconds per step of one repeat. Computing is all that is not waiting for data."""
    waited = Waiting()
    compute.synchronise()
    started = time.perf_counter()
    for batch in waited.through(itertools.islice(feed, steps)):
        optimiser.step(batch)
        step_done()
    compute.synchronise()
    seconds = time.perf_counter() - started
    return {
        "seconds_per_step": seconds / steps,
        "data_wait_seconds_per_step": waited.seconds / steps,
        "compute_seconds_per_step": (seconds - waited.seconds) / steps,
    }


def _endless(source: Source, labels: LabelStore, rows: np.ndarray, size: int, seed: int) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    whole = len(rows) // size * size
    for epoch in itertools.count(1):
        yield from batches(source, labels, epoch_order(rows, seed, epoch)[:whole], size)


def _gpu(compute: Compute) -> str | None:
    """NVML's name of the GPU that a job uses."""
    if compute.device != "cuda":
        return None
    return nvml.own_name(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
