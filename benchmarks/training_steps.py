"""Training steps on random batches, timed: ours, and those of a loop that prepares frames on the host."""

import contextlib
import dataclasses
import gc
import itertools
import math
import statistics
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.ceilings import seconds
from replicate import models
from replicate.columns import COLUMNS
from replicate.compute import Compute
from replicate.config import Profile
from replicate.data.batches import Batch
from replicate.data.spec import DatasetSpec
from replicate.hardware import meters
from replicate.preprocess import pinned
from replicate.training.optimise import Optimiser
from replicate.training.timing import own_gpu

PAPER_FRAMES = 300
WARM_UP, PLAIN_EVERY = 3, 8  # most steps that are dropped (few where few are timed); the plain loop takes every 8th
ON_GPU_SECONDS = 2.0  # least time of the steps that a GPU is watched in, whose driver renews what it tells slowly


def lengths_of(videos: int, limit: int, generator: np.random.Generator) -> np.ndarray:
    """Frames of random videos: 120 + exponential(130), at most 300, as on YouTube-8M, scaled to the limit."""
    full = np.minimum(120 + generator.exponential(130, videos), PAPER_FRAMES)
    return np.maximum(1, np.round(full * limit / PAPER_FRAMES)).astype(np.int64)


def random_batch(profile: Profile, spec: DatasetSpec, nodes: int, generator: np.random.Generator) -> Batch:
    """One batch as the reader would give it; AudioSet's clips all have the same length."""
    videos, limit = profile.training.batch_size, profile.dataset.frame_limit
    whole = profile.dataset.name == "audioset"
    lengths = np.full(videos, limit, np.int64) if whole else lengths_of(videos, limit, generator)
    frames = generator.integers(0, 256, (videos, lengths.max(), spec.width), dtype=np.uint8)
    frames[np.arange(lengths.max()) >= lengths[:, None]] = 0
    return Batch(frames, lengths, generator.random((videos, nodes)) < 3 / nodes, np.arange(videos))


def as_pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU copies from by itself, where readers lay it out for one."""
    features = pinned(batch.features.shape, batch.features.dtype)
    features[:] = batch.features
    return dataclasses.replace(batch, features=features)


def random_states(batch: Batch, width: int, generator: np.random.Generator) -> Batch:
    """What the DNN reads instead of a batch's frames: one vector for each video, as the LSTM wrote it."""
    states = generator.standard_normal((len(batch.rows), 1, width), dtype=np.float32)
    return Batch(states, np.ones(len(batch.rows), np.int64), batch.labels, batch.rows)


def on_host(batch: Batch, spec: DatasetSpec, frames: int) -> Batch:
    """The batch as the plain loop feeds it: float32, padded to `frames`, of length 1; `prepare` changes nothing."""
    longest = min(frames, batch.features.shape[1])
    padded = np.zeros((len(batch.rows), frames, spec.width), np.float32)
    padded[:, :longest] = batch.features[:, :longest] * np.float32(spec.scale) + np.float32(spec.bias)
    padded[np.arange(frames) >= batch.lengths[:, None]] = 0
    padded /= np.maximum(np.linalg.norm(padded, axis=2, keepdims=True), 1e-6)
    return Batch(padded, np.minimum(batch.lengths, frames), batch.labels, batch.rows)


def groups(columns: list[str]) -> Iterator[list[str]]:
    """Columns whose steps alternate, in the order given: a baseline and its coherent form, or one alone."""
    left = list(columns)
    while left:
        first = left.pop(0)
        kin = [each for each in left if COLUMNS[each].baseline == first or COLUMNS[first].baseline == each]
        left = [each for each in left if each not in kin]
        yield [first, *kin]


class Group:
    """Columns whose steps alternate.

    Attributes:
        optimisers: by column, each with its model on the device.
        widths: by column, of each modality that a model reads.
        ours: seconds of every timed step.
        plain: seconds of the plain loop's steps, by column and padding; the DNN reads no frames and has none.
        peaks: most bytes in use during a column's first step, without what the others of the group hold.
        back_to_back: on a GPU, seconds of a step among many that nobody waited for in between.
        gpu: what NVML said while they ran.
    """

    def __init__(self, columns: list[str], profile: Profile, spec: DatasetSpec, compute: Compute, nodes: int):
        frames, limit = tuple(feature.width for feature in spec.features), profile.dataset.frame_limit
        states = (profile.model.lstm_width,)
        self.columns, self.spec, self.compute = columns, spec, compute
        self.widths = {column: states if column == "dnn" else frames for column in columns}
        self.optimisers: dict[str, Optimiser] = {}
        for column in columns:
            sizes = self.widths[column], nodes, 0, limit
            model = models.build(column, profile.model, profile.coherence, *sizes).to(compute.device).train()
            self.optimisers[column] = Optimiser(model, profile.training, spec, compute)
        paddings = sorted({limit, PAPER_FRAMES})
        self.ours: dict[str, list[float]] = {column: [] for column in columns}
        self.plain: dict[str, dict[int, list[float]]] = {
            column: {} if column == "dnn" else {padding: [] for padding in paddings} for column in columns
        }
        self.peaks = dict.fromkeys(columns, 0)
        self.back_to_back: dict[str, float] = {}
        self.gpu = {column: meters.GpuMeter(None).as_dict() for column in columns}

    def run(self, batches: dict[str, list[Batch]], steps: int, warm_up: int) -> None:
        """Fill `ours`, `plain`, `peaks` and `gpu`.

        Args:
            batches: by column; taken in turn.
            steps, warm_up: that are timed, and before those.
        """
        for number in range(-warm_up, steps):
            for column in self.columns if number % 2 else self.columns[::-1]:
                batch = batches[column][number % len(batches[column])]
                optimiser = self.optimisers[column]
                with self._peak(column) if number == -warm_up else contextlib.nullcontext():
                    taken = seconds(lambda of=optimiser, on=batch: of.step(on), self.compute)
                if number >= 0:
                    self.ours[column].append(taken)
                if number >= 0 and number % PLAIN_EVERY == 0:
                    self._run_plain(column, batch)
        if self.compute.device == "cuda":
            for column in self.columns:
                self.watch(column, batches[column], steps)

    def seconds_per_step(self, column: str) -> float:
        """The median step; on a GPU, the mean of steps that nobody waited for in between, as in training."""
        return self.back_to_back.get(column) or statistics.median(self.ours[column])

    def times_plain(self, column: str) -> dict[str, float]:
        """The plain loop's median step over ours, by the frames that it pads to."""
        middle = statistics.median(self.ours[column])
        return {str(frames): statistics.median(taken) / middle for frames, taken in self.plain[column].items()}

    def times_baseline(self, column: str) -> tuple[float, float, float] | None:
        """Quartiles of this column's step over its baseline's on the same batch; None without a baseline here."""
        baseline = COLUMNS[column].baseline
        if baseline not in self.columns:
            return None
        ratios = [ours / before for ours, before in zip(self.ours[column], self.ours[baseline], strict=True)]
        return tuple(float(each) for each in np.quantile(ratios, [0.25, 0.5, 0.75]))

    @contextlib.contextmanager
    def _peak(self, column: str) -> Iterator[None]:
        """Notes the most memory in a step of the column."""
        others = sum(_held(each) for name, each in self.optimisers.items() if name != column)
        if self.compute.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            yield
            peak = torch.cuda.max_memory_allocated()
        else:
            gc.collect()
            with meters.ProcessMeter() as meter:
                yield
            peak = meter.peak
        self.peaks[column] = peak - others

    def watch(self, column: str, batches: list[Batch], steps: int) -> None:
        """Steps as training takes them on a GPU, issued without waiting for the one before, and what NVML says then."""
        count = max(steps, math.ceil(ON_GPU_SECONDS / statistics.median(self.ours[column])))
        optimiser, meter = self.optimisers[column], meters.GpuMeter(own_gpu(self.compute))

        def work() -> None:
            for batch in itertools.islice(itertools.cycle(batches), count):
                optimiser.step(batch)

        with meter:
            self.back_to_back[column] = seconds(work, self.compute) / count
        self.gpu[column] = meter.as_dict()

    def _run_plain(self, column: str, batch: Batch) -> None:
        optimiser = self.optimisers[column]
        for padding, taken in self.plain[column].items():

            def step(frames: int = padding) -> None:
                optimiser.step(on_host(batch, self.spec, frames))

            taken.append(seconds(step, self.compute))


def _held(optimiser: Optimiser) -> int:
    """Bytes of weights, gradients and Adam's moments."""
    tensors = [each for parameter in optimiser.parameters for each in (parameter, parameter.grad) if each is not None]
    for moments in optimiser.adam.state.values():
        tensors += [each for each in moments.values() if isinstance(each, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
