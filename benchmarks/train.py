"""How fast each column trains: beside the least time that the machine allows, beside a plain loop, beside the paper.

python -m benchmarks.train --preset smoke
python -m benchmarks.train --preset paper --device cuda --set run.precision=bfloat16 --record
python -m benchmarks.train --show results/benchmarks

A step is forward, backward, clipping and Adam on one batch of random quantised frames, with a profile's sizes and video
lengths; reading is not part of it, but is measured beside it. Three comparisons, all from one run:

- the floor: the largest of arithmetic, bytes moved, waiting and copying, each over what this machine was measured to do
  at best. `x floor` is the measured step over it; docs/benchmarks.md says what is counted.
- the plain loop: the same model, fed with frames that numpy dequantised, padded with zeros and normalised in float32 on
  the host; once padded to the profile's frame limit, once to the 300 frames of the paper's protocol (section 4.2). What
  is aimed at is 1.5 against the latter. Where a batch has a video of full length, as nearly every one has, the former
  shows what normalising on the host costs and no more.
- a coherent column's step over its baseline's on the same batch, steps alternating, the median of the ratios with its
  quartiles. What is aimed at is at most 1.1.

On a CPU, seconds are of this process's processor time, so that what else runs on the machine disturbs little.
"""

import dataclasses
import os
import sys
from pathlib import Path

import click
import numpy as np
import torch
from tabulate import tabulate

from benchmarks import ceilings as machine
from benchmarks import roofline
from benchmarks.training_steps import WARM_UP, Group, as_pinned, groups, random_batch, random_states
from replicate import models, reference
from replicate.benchmark_records import (
    FOLDER,
    BenchmarkRecord,
    Ceilings,
    ColumnSpeed,
    file_name,
    read_all,
)
from replicate.cluster.environment import ALLOCATOR
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.compute import Compute
from replicate.config import Profile
from replicate.data.batches import Batch
from replicate.data.spec import SPECS
from replicate.errors import ReplicateError
from replicate.hardware import accounting
from replicate.manifest import code_version, package_versions
from replicate.model_sizes import node_count
from replicate.profile_files import load_profile
from replicate.schema import write_record
from replicate.stages import flatten
from replicate.steps import compute_of

MODELS = [AGGREGATOR, *(slug for slug, column in COLUMNS.items() if column.trained)]
PAPER_VIDEOS = 4_000_000  # an epoch of Table 2
BATCHES = 6  # different ones, taken in turn


def run(profile: Profile, columns: list[str], steps: int) -> BenchmarkRecord:
    """Time the columns one group after the other, each freed before the next."""
    spec = SPECS["yt8m" if profile.dataset.name == "synthetic" else profile.dataset.name]
    nodes, generator, load = node_count(profile), np.random.default_rng(0), os.getloadavg()
    compute = dataclasses.replace(compute_of(profile), deterministic=False)
    warm_up = WARM_UP if compute.compile else min(WARM_UP, steps // 10)
    frames = [random_batch(profile, spec, nodes, generator) for _ in range(min(BATCHES, steps + warm_up))]
    states = [random_states(batch, profile.model.lstm_width, generator) for batch in frames]
    speeds = []
    with compute.active():
        if compute.device == "cuda":
            frames = [as_pinned(batch) for batch in frames]
        ceilings = machine.measure(compute, spec, frames[0].features, frames[0].lengths)
        for members in groups(columns):
            group = Group(members, profile, spec, compute, nodes)
            batches = {column: states if column == "dnn" else frames for column in members}
            # Counted first: Adam's moments then exist when memory is measured.
            work = {
                column: roofline.step_work(
                    column, profile, group.widths[column], batches[column][0], group.optimisers[column], compute
                )
                for column in members
            }
            group.run(batches, steps, warm_up)
            done = [speed(column, group, work[column], ceilings, profile) for column in members]
            for each in done:
                click.echo(f"{each.title}: {each.milliseconds_per_step:,.1f} ms a step", err=True)
            speeds += done
            del group
    return BenchmarkRecord(
        profile=profile.name, title=profile.title, device=device_name(compute), compute=compute.as_dict(),
        batch_size=profile.training.batch_size,
        micro_batch_size=profile.training.micro_batch_size or profile.training.batch_size,
        frames=tuple(batch.features.shape[1] for batch in frames), valid_share=valid_share(frames),
        steps=steps, warm_up_steps=warm_up, ceilings=ceilings, columns=tuple(speeds), load_average=load,
        configuration=dict(flatten(profile)), machine=accounting.describe(), packages=package_versions(),
        code=code_version(),
    )  # fmt: skip


def speed(column: str, group: Group, work: roofline.Work, ceilings: Ceilings, profile: Profile) -> ColumnSpeed:
    """What was measured of a column, beside its floor and the paper."""
    videos, seconds, compute = profile.training.batch_size, group.seconds_per_step(column), group.compute
    # The DNN's states are in memory; frames are read by a thread, or by processes that do not hinder one another.
    read = 0 if column == "dnn" else videos / max(1, profile.reading.workers)
    floor = roofline.floor(work, ceilings, compute, read)
    slower = max(seconds, floor.reading / 1000)
    minutes = PAPER_VIDEOS / videos * slower / 60
    paper = paper_minutes(column, profile)
    return ColumnSpeed(
        column=column, title=title_of(column), milliseconds_per_step=1000 * seconds, videos_per_second=videos / seconds,
        work=work, floor=floor, times_floor=1000 * seconds / floor.total,
        limited_by=roofline.limit(floor, 1000 * seconds),
        peak_rate_share=work.flop / seconds / roofline.rate(ceilings, compute),
        times_plain=group.times_plain(column), times_baseline=group.times_baseline(column),
        peak_memory_bytes=group.peaks[column], gpu=group.gpu[column], projected_epoch_minutes=minutes,
        paper_minutes=paper, times_paper_rate=None if paper is None else paper / minutes,
    )  # fmt: skip


def title_of(column: str) -> str:
    """As in Table 2; the DNN both ways."""
    named = {"dnn": "DNN, head on stored states", AGGREGATOR: "DNN with its LSTM"}
    return named.get(column) or COLUMNS[column].title


def paper_minutes(column: str, profile: Profile) -> float | None:
    """Table 2's minutes per epoch; the DNN's stand beside both of its forms. None where frames are not the paper's."""
    if profile.dataset.name != "yt8m" or profile.dataset.label_limit or profile.dataset.frame_limit != 300:
        return None
    printed = reference.table2().get("dnn" if column == AGGREGATOR else column)
    return printed[0] if printed else None


def valid_share(batches: list[Batch]) -> float:
    """Frames of videos among the padded ones."""
    return sum(int(batch.lengths.sum()) for batch in batches) / sum(
        batch.features.shape[0] * batch.features.shape[1] for batch in batches
    )


def device_name(compute: Compute) -> str:
    """The GPU's or the processor's."""
    return torch.cuda.get_device_name() if compute.device == "cuda" else accounting.describe()["processor"]


def tables(record: BenchmarkRecord) -> str:
    """A record as Markdown: what was measured, then the floor and the paper."""
    ceilings, batches = record.ceilings, ", ".join(str(each) for each in record.frames)
    memory = {"cpu": "resident", "cuda": "torch's allocator"}[record.compute["device"]]
    peaks = [
        f"{1e-9 * ceilings.float32_flop_per_second:,.0f} GFLOP/s float32",
        *_rate(ceilings.tensor_float32_flop_per_second, "tensor float32"),
        *_rate(ceilings.bfloat16_flop_per_second, "bfloat16"),
        f"{1e-9 * ceilings.memory_bytes_per_second:.1f} GB/s of memory",
        f"{1e6 * ceilings.operation_seconds:.2f} us an operation",
        *(f"{1e6 * each:.1f} us a frame of {cell}" for cell, each in ceilings.recurrent_step_seconds.items()),
        f"{ceilings.read_videos_per_second:,.0f} videos/s read by one thread",
    ]
    paddings = list(dict.fromkeys(padding for each in record.columns for padding in each.times_plain))
    measured = [
        [
            each.title, f"{each.milliseconds_per_step:,.1f}", f"{each.videos_per_second:,.1f}",
            *(_ratio(each.times_plain.get(padding)) for padding in paddings),
            "" if each.times_baseline is None else "{1:.3f} ({0:.3f} to {2:.3f})".format(*each.times_baseline),
            f"{each.peak_memory_bytes / 1e9:.2f}", _percent(each.gpu["utilisation"]),
        ]
        for each in record.columns
    ]  # fmt: skip
    against = [
        [
            each.title, f"{each.work.flop / 1e9:,.1f}",
            *(f"{getattr(each.floor, name):,.1f}" for name in ("compute", "memory", "latency", "copying", "total")),
            f"{each.times_floor:.2f}", each.limited_by, _percent(each.peak_rate_share), f"{each.floor.reading:,.1f}",
            f"{each.projected_epoch_minutes:,.1f}", "" if each.paper_minutes is None else f"{each.paper_minutes:g}",
            _ratio(each.times_paper_rate),
        ]
        for each in record.columns
    ]  # fmt: skip
    return "\n".join(
        [
            f"## {record.title}: {record.device}, {record.compute['precision']}",
            "",
            f"Batch {record.batch_size} in parts of {record.micro_batch_size}; frames of the batches {batches}, "
            f"{record.valid_share:.0%} of them of videos; {record.steps} steps after {record.warm_up_steps}; "
            f"threads {record.compute['threads']}; load of the machine {record.load_average[0]:.2f}.",
            f"At best: {', '.join(peaks)}.",
            "",
            _markdown(
                measured,
                ["column", "ms/step", "videos/s", *(f"x plain, to {each}" for each in paddings),
                 "x baseline (quartiles)", f"GB, {memory}", "GPU in use"],
            ),
            "",
            "Least milliseconds of a step, the measured step over them, and a projected epoch of 4 million videos:",
            "",
            _markdown(
                against,
                ["column", "GFLOP", "compute", "memory", "latency", "copying", "floor", "x floor", "limited by",
                 "of peak", "reading", "epoch, min (projected)", "Table 2", "x the paper's rate"],
            ),
        ]
    )  # fmt: skip


def _markdown(rows: list[list[str]], headers: list[str]) -> str:
    alignment = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=alignment)


def _rate(rate: float | None, name: str) -> list[str]:
    return [] if rate is None else [f"{1e-9 * rate:,.0f} GFLOP/s {name}"]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def show(folder: Path) -> None:
    """Print the tables of every record in a folder."""
    records = read_all(folder)
    if not records:
        raise click.UsageError(f"--show {folder}: there are no records; make one with --record {folder}")
    click.echo("\n\n".join(tables(record) for record in records))


def chosen(columns: str) -> list[str]:
    """Slugs of the columns.

    Raises:
        UsageError: nothing builds such a column.
    """
    slugs = columns.split(",")
    unknown = [slug for slug in slugs if slug not in models.BUILDERS]
    if unknown:
        raise click.UsageError(f"--columns {unknown[0]}: nothing to train is called so; known: {', '.join(MODELS)}")
    return slugs


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"))  # lines are kept as they are
@click.option("--preset", default="smoke", show_default=True, metavar="PROFILE", help="Whose sizes, e.g. audioset.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="That are timed, of each column.")
@click.option("--columns", default=",".join(MODELS), metavar="A,B,...", help="Which columns.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a field of the profile.")
@click.option(
    "--record", is_flag=False, flag_value=str(FOLDER), metavar="FILE.json|DIR",
    help="Write the record, too; without a value, among the published ones, where `replicate plan` finds it.",
)  # fmt: skip
@click.option("--show", "shown", type=click.Path(path_type=Path), help="Print a folder's records and measure nothing.")
def main(
    preset: str, device: str, steps: int, columns: str, assignments: tuple[str, ...], record: str | None,
    shown: Path | None,
) -> None:  # fmt: skip
    """Measure and print, or print what was measured."""
    try:
        if shown:
            show(shown)
            return
        profile = load_profile(preset, (*assignments, f"run.device={device}"))
        made = run(profile, chosen(columns), steps)
        click.echo(tables(made))
        if record:
            path = Path(record) if record.endswith(".json") else Path(record) / file_name(made)
            write_record(path, made)
            click.echo(f"\nrecord: {path}")
    except ReplicateError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    wanted = {**os.environ, **ALLOCATOR}
    if wanted != dict(os.environ):  # the allocator reads its settings when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.train", *sys.argv[1:]], wanted)
    main()
