"""The least time that a training step can take on a machine: what it has to do, over what the machine can do at best.

Arithmetic, traffic and waiting are counted, not estimated: the step runs once on torch's meta device, which knows
shapes and holds no values, with torch's own counter, and once on the device itself with two videos, to count the
operations that the framework issues. docs/benchmarks.md says what is counted and why.
"""

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from replicate import models
from replicate.benchmark_records import Ceilings, Floor, Work
from replicate.compute import Compute
from replicate.config import Profile
from replicate.data.batches import Batch
from replicate.model_sizes import smoothing_flop
from replicate.training.optimise import Optimiser, video_loss

FLOAT = 4  # bytes
# Every value of the weights: read forward and backward; gradient written, read for its norm, read by Adam; weight and
# both moments read and written by Adam.
TIMES_STATE_MOVES = 2 + 3 + 6


# Operations that touch no value, though torch does not call them views.
IDLE = ("aten::_unsafe_view", "aten::unsafe_split", "aten::empty", "aten::promote_types", "profiler::")


class CountOperations(TorchDispatchMode):
    """Counts the operations issued within a block; those that only look at memory differently do nothing."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += not (function.is_view or function.name().startswith(IDLE))
        return function(*arguments, **(named or {}))


def step_work(
    column: str, profile: Profile, widths: tuple[int, ...], batch: Batch, optimiser: Optimiser, compute: Compute
) -> Work:
    """What a step of a column on `batch` has to do.

    Args:
        column, profile: which model.
        widths: values per frame of each modality.
        batch: a step's videos.
        optimiser: of the column's model on the device; takes one step with two of the videos.
        compute: the device's.
    """
    videos, frames, width = batch.features.shape
    flop, kept = meta_step(column, profile, widths, batch.features.shape, batch.labels.shape[1])
    counter = CountOperations()
    with counter:
        optimiser.step(Batch(batch.features[:2], batch.lengths[:2], batch.labels[:2], batch.rows[:2]))
    values = videos * frames * width
    quantised = batch.features.dtype == np.uint8
    weights = sum(parameter.numel() for parameter in optimiser.parameters)
    cells = [type(layer).__name__ for layer in optimiser.model.modules() if isinstance(layer, nn.GRU | nn.LSTM)]
    return Work(
        flop=flop,
        state_bytes=TIMES_STATE_MOVES * FLOAT * weights,
        frame_bytes=values * (1 + 3 * FLOAT) if quantised else values * 2 * FLOAT,
        activation_bytes=kept if compute.mixed else 2 * kept,
        input_bytes=batch.features.nbytes + batch.labels.nbytes + batch.lengths.nbytes,
        operations=0 if compute.compile else counter.count,
        recurrent_steps=frames * len(cells),
        recurrent_cell=cells[0] if cells else None,
    )


def meta_step(
    column: str, profile: Profile, widths: tuple[int, ...], shape: tuple[int, int, int], nodes: int
) -> tuple[int, int]:
    """(operations of matrix products and temporal convolutions, bytes kept for the backward pass) of a step."""
    with torch.device("meta"):
        sizes = widths, nodes, 0, profile.dataset.frame_limit
        model = models.build(column, profile.model, profile.coherence, *sizes).train()
        frames, mask = torch.empty(shape), torch.ones(shape[:2], dtype=torch.bool)
        labels = torch.empty(shape[0], nodes)
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    known.add(frames.untyped_storage()._cdata)
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, smoothing_flop(model) as smoothing, saved:
        video_loss(model(frames, mask), labels).backward()
    convolutions = 3 * sum(smoothing)  # forward; backward, the values' gradient and the kernel's
    return counter.get_total_flops() + convolutions, sum(storage.nbytes() for storage in kept.values())


def rate(ceilings: Ceilings, compute: Compute) -> float:
    """The ceiling of a step's arithmetic in operations per second; float16 is as fast as bfloat16."""
    if compute.mixed and ceilings.bfloat16_flop_per_second:
        return ceilings.bfloat16_flop_per_second
    if compute.tf32 and ceilings.tensor_float32_flop_per_second:
        return ceilings.tensor_float32_flop_per_second
    return ceilings.float32_flop_per_second


def floor(work: Work, ceilings: Ceilings, compute: Compute, read: float) -> Floor:
    """The parts in milliseconds, and the largest; `read` videos are read from records by each reader for a step.

    The parts may overlap: a GPU computes while it loads and while the host issues what comes next, a processor loads
    ahead. So their sum would be no bound; their maximum is one. `reading` is beside the step, in a thread of its own.
    """
    waiting = work.recurrent_steps * ceilings.recurrent_step_seconds.get(work.recurrent_cell or "", 0.0)
    host = ceilings.host_to_device_bytes_per_second
    parts = {
        "compute": work.flop / rate(ceilings, compute),
        "memory": (work.state_bytes + work.frame_bytes + work.activation_bytes) / ceilings.memory_bytes_per_second,
        "latency": max(work.operations * ceilings.operation_seconds, waiting),
        "copying": work.input_bytes / host if host else 0.0,
    }
    milliseconds = {name: 1000 * seconds for name, seconds in parts.items()}
    reading = 1000 * read / ceilings.read_videos_per_second
    return Floor(**milliseconds, total=max(milliseconds.values()), reading=reading)


def limit(parts: Floor, measured: float) -> str:
    """What keeps a column from being faster: reading, if it takes longer than the measured milliseconds of a step; else
    the largest part of the floor."""
    if parts.reading > measured:
        return "reading"
    return max(("compute", "memory", "latency", "copying"), key=lambda name: getattr(parts, name))
