"""How fast each column trains, beside a loop that prepares frames on the host, and what the coherence layer costs.

python -m benchmarks.train --preset smoke

A step is forward, backward, clipping and Adam on one batch of random quantised frames, with a profile's sizes and video
lengths; reading is not part of it. Two ratios, both of steps that alternate in one run:

- against the plain loop: the same model, fed with frames that numpy dequantised, padded with zeros and normalised in
  float32 on the host; once padded to the profile's frame limit, once to the 300 frames of the paper's protocol (section
  4.2). What is aimed at is 1.5 against the latter. Where a batch has a video of full length, as nearly every one has,
  the former shows what normalising on the host costs and no more.
- a coherent column's step over its baseline's on the same batch, the median of the ratios with its quartiles. What is
  aimed at is at most 1.1.

On a CPU, seconds are of this process's processor time, so that what else runs on the machine disturbs little.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import groupby

import click
import numpy as np
from tabulate import tabulate

from replicate import models
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.compute import Compute
from replicate.config import Profile, load_profile
from replicate.data.batches import Batch
from replicate.data.spec import SPECS, DatasetSpec
from replicate.model_sizes import node_count
from replicate.optimise import Optimiser

MODELS = [AGGREGATOR, *(slug for slug, column in COLUMNS.items() if column.trained and slug != "dnn")]
PAPER_FRAMES = 300
BATCHES, WARM_UP, PLAIN_EVERY = 6, 3, 8  # different batches; steps dropped; the plain loop takes every eighth step
# As worker processes run: memory that was freed is kept, or page faults would be a third of a step.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(1 << 29), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}


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


def on_host(batch: Batch, spec: DatasetSpec, frames: int) -> Batch:
    """The batch as the plain loop feeds it: float32, padded to `frames`, of length 1; `prepare` changes nothing."""
    longest = min(frames, batch.features.shape[1])
    padded = np.zeros((len(batch.rows), frames, spec.width), np.float32)
    padded[:, :longest] = batch.features[:, :longest] * np.float32(spec.scale) + np.float32(spec.bias)
    padded[np.arange(frames) >= batch.lengths[:, None]] = 0
    padded /= np.maximum(np.linalg.norm(padded, axis=2, keepdims=True), 1e-6)
    return Batch(padded, np.minimum(batch.lengths, frames), batch.labels, batch.rows)


def seconds(work: Callable[[], object], compute: Compute) -> float:
    """Of one call: processor time on a CPU (of one thread); elsewhere elapsed time, the device awaited at both ends."""
    clock = time.process_time if compute.device == "cpu" and compute.threads == 1 else time.perf_counter
    compute.synchronise()
    begin = clock()
    work()
    compute.synchronise()
    return clock() - begin


class Group:
    """Columns whose steps alternate: a baseline and its coherent form, or one alone."""

    def __init__(self, columns: list[str], profile: Profile, spec: DatasetSpec, compute: Compute, nodes: int):
        widths, limit = tuple(feature.width for feature in spec.features), profile.dataset.frame_limit
        self.columns, self.spec, self.compute = columns, spec, compute
        self.paddings = sorted({limit, PAPER_FRAMES})
        self.optimisers = {}
        for column in columns:
            model = models.build(column, profile.model, profile.coherence, widths, nodes, 0, limit)
            self.optimisers[column] = Optimiser(model.to(compute.device).train(), profile.training, spec, compute)
        self.ours: dict[str, list[float]] = {column: [] for column in columns}
        self.plain: dict[tuple[str, int], list[float]] = {(c, p): [] for c in columns for p in self.paddings}

    def run(self, batches: list[Batch], steps: int) -> None:
        """Fill `ours` with seconds per step, and `plain` with those of the plain loop."""
        for number in range(-WARM_UP, steps):
            batch = batches[number % len(batches)]
            for column in self.columns if number % 2 else self.columns[::-1]:
                optimiser = self.optimisers[column]
                taken = seconds(lambda of=optimiser, on=batch: of.step(on), self.compute)
                if number >= 0:
                    self.ours[column].append(taken)
            if number % PLAIN_EVERY == 0 and number >= 0:
                self._run_plain(batch)

    def _run_plain(self, batch: Batch) -> None:
        for (column, padding), taken in self.plain.items():
            optimiser = self.optimisers[column]

            def step(of: Optimiser = optimiser, frames: int = padding) -> None:
                of.step(on_host(batch, self.spec, frames))

            taken.append(seconds(step, self.compute))

    def rows(self, videos: int) -> list[list[str]]:
        """Lines of the table."""
        made = []
        for column in self.columns:
            title = COLUMNS[column].title if column in COLUMNS else "DNN's LSTM"
            middle = statistics.median(self.ours[column])
            row = [title, f"{1000 * middle:.1f}", f"{videos / middle:,.0f}"]
            for padding in self.paddings:
                row.append(f"{statistics.median(self.plain[column, padding]) / middle:.2f}")
            made.append(row + [self._cost(column)])
        return made

    def _cost(self, column: str) -> str:
        baseline = COLUMNS[column].baseline if column in COLUMNS else None
        if baseline not in self.columns:
            return ""
        ratios = [ours / before for ours, before in zip(self.ours[column], self.ours[baseline], strict=True)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))  # lines are kept as they are
@click.option("--preset", default="smoke", show_default=True, metavar="PROFILE", help="Whose sizes, e.g. audioset.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--steps", default=40, show_default=True, help="Steps that are timed, of each column.")
@click.option("--columns", default=",".join(MODELS), metavar="A,B,...", help="Which columns.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a field of the profile.")
def main(preset: str, device: str, steps: int, columns: str, assignments: tuple[str, ...]) -> None:
    """Print milliseconds per step of every column, and ratios."""
    profile = load_profile(preset, (*assignments, f"run.device={device}"))
    spec = SPECS["yt8m" if profile.dataset.name == "synthetic" else profile.dataset.name]
    nodes, generator = node_count(profile), np.random.default_rng(0)
    batches = [random_batch(profile, spec, nodes, generator) for _ in range(BATCHES)]
    compute = Compute(device, profile.run.precision, profile.run.threads_per_job)
    table, paddings = [], []
    with compute.active(deterministic=False):
        for _, members in groupby(columns.split(","), key=lambda c: c.removeprefix("tc_").removesuffix("_attn")):
            group = Group(list(members), profile, spec, compute, nodes)
            group.run(batches, steps)
            table += group.rows(profile.training.batch_size)
            paddings = group.paddings
    headers = ["column", "ms/step", "videos/s", *(f"x plain, to {each}" for each in paddings), "x baseline (quartiles)"]
    longest = ", ".join(str(batch.features.shape[1]) for batch in batches)
    click.echo(f"{profile.title}: batch {profile.training.batch_size}, frames of the batches {longest}; {compute}")
    click.echo(tabulate(table, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1))))


if __name__ == "__main__":
    wanted = {**os.environ, **ALLOCATOR}
    if wanted != dict(os.environ):  # the allocator reads its settings when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.train", *sys.argv[1:]], wanted)
    main()
