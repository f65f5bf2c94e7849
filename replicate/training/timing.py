"""Time the training of one column, alone on the machine (Table 2): real batches through the real training step.

Protocol: warm-up steps are dropped (from memory, energy and utilisation too), the device is awaited at the edges,
several repeats are all recorded and their median is the result; waiting for data and computing are told apart;
deterministic algorithms are not demanded. An epoch's time is projected from steps and is called so.
"""

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from replicate.compute import Compute
from replicate.config import TimingConfig, TrainingConfig
from replicate.data.batches import Batch, Source, batches
from replicate.data.labels import LabelStore
from replicate.data.order import Order, epoch_order
from replicate.data.spec import DatasetSpec
from replicate.hardware import accounting, meters, nvml
from replicate.training.optimise import Optimiser
from replicate.training.ranks import Ranks
from replicate.training.train import Waiting


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
    ranks: Ranks | None = None,
    order: Order = epoch_order,
) -> dict[str, Any]:
    """Train for some steps and measure.

    Args:
        model, source, labels, training, spec, seed, compute: as in train; the model's weights are spent.
        rows: the training videos; a step takes `training.batch_size` of them, in the order of an epoch.
        timing: how many steps and repeats.
        progress: called with (steps done, steps in all, message).
        ranks: this process among those that train together; memory, processor and GPU figures are this one's.
        order: of the training videos in an epoch.

    Returns:
        The record, plain values: seconds per step (median of repeats, and each), its parts, videos per second,
        projected seconds per epoch of `rows`, memory in bytes, megabytes (10^6 bytes) of weights, processor time, GPU
        figures of the measured steps by torch's allocator and by NVML (null with a reason where there are none), the
        machine.
    """
    ranks = ranks or Ranks()
    compute = dataclasses.replace(compute or Compute(), deterministic=False, processes=ranks.count)
    size = min(training.batch_size, len(rows))
    step_done = _counted(timing.repeats * (timing.warm_up_steps + timing.steps), progress)
    process, gpu = meters.ProcessMeter(), meters.GpuMeter(own_gpu(compute))
    with compute.active():
        optimiser = Optimiser(model.to(compute.device).train(), training, spec, compute, ranks)
        feed = _endless(source, labels, rows, size, seed, ranks, order)
        repeats, peaks = _measure(optimiser, feed, size, timing, compute, (gpu, process), step_done)
        feed.close()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "batch_size": size,
        "micro_batch_size": training.micro_batch_size or size,
        "warm_up_steps": timing.warm_up_steps,
        "steps": timing.steps,
        "repeats": repeats,
        **_speed(repeats, size, len(rows)),
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
        "machine": accounting.describe(),
    }


def _counted(total: int, progress: Callable[[float, float, str], None] | None) -> Callable[[], None]:
    """To be called after each step."""
    numbers = itertools.count(1)

    def step_done() -> None:
        if progress:
            progress(next(numbers), total, "timing")

    return step_done


def _measure(
    optimiser: Optimiser, feed: Iterator[Batch], size: int, timing: TimingConfig, compute: Compute,
    meters_of_steps: tuple[Any, ...], step_done: Callable[[], None],
) -> tuple[list[dict[str, float]], list[tuple[int, int]]]:  # fmt: skip
    """The repeats, and torch's (allocated, reserved) peak bytes of each on a GPU. Meters run in measured steps only."""
    repeats, peaks = [], []
    for _ in range(timing.repeats):
        for batch in itertools.islice(feed, timing.warm_up_steps):
            optimiser.step(batch, size)
            step_done()
        compute.synchronise()
        if compute.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with contextlib.ExitStack() as stack:
            for meter in meters_of_steps:
                stack.enter_context(meter)
            repeats.append(_repeat(optimiser, feed, size, timing.steps, compute, step_done))
        if compute.device == "cuda":
            peaks.append((torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()))
    return repeats, peaks


def _speed(repeats: list[dict[str, float]], size: int, videos: int) -> dict[str, float]:
    """Medians over the repeats, and what they project for an epoch of so many videos."""
    names = ("seconds_per_step", "data_wait_seconds_per_step", "compute_seconds_per_step")
    medians = {name: statistics.median(each[name] for each in repeats) for name in names}
    seconds = medians["seconds_per_step"]
    return {
        **medians,
        "videos_per_second": size / seconds,
        "epoch_videos": videos,
        "projected_seconds_per_epoch": seconds * -(-videos // size),
    }


def _repeat(
    optimiser: Optimiser, feed: Iterator[Batch], size: int, steps: int, compute: Compute, step_done: Callable[[], None]
) -> dict[str, float]:
    """Seconds per step of one repeat. Computing is all that is not waiting for data."""
    waited = Waiting()
    compute.synchronise()
    started = time.perf_counter()
    for batch in waited.through(itertools.islice(feed, steps)):
        optimiser.step(batch, size)
        step_done()
    compute.synchronise()
    seconds = time.perf_counter() - started
    return {
        "seconds_per_step": seconds / steps,
        "data_wait_seconds_per_step": waited.seconds / steps,
        "compute_seconds_per_step": (seconds - waited.seconds) / steps,
    }


def _endless(
    source: Source, labels: LabelStore, rows: np.ndarray, size: int, seed: int, ranks: Ranks, order: Order
) -> Iterator[Batch]:
    """This process's part of full batches, epoch after epoch."""
    whole = len(rows) // size * size
    for epoch in itertools.count(1):
        taken = order(rows, seed, epoch)[:whole]
        yield from batches(source, labels, taken, size, rank=ranks.rank, ranks=ranks.count)


def own_gpu(compute: Compute) -> str | None:
    """NVML's name of the GPU that a job uses; None if it uses none."""
    if compute.device != "cuda":
        return None
    return nvml.own_name(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
