"""What differs between two results folders: configuration, environment, data, code, then numbers (B minus A).

Every interval says how it was made: paired where both runs scored the same test videos, else unpaired, which is wider.
"""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from replicate.columns import COLUMNS
from replicate.report import render
from replicate.report.claims.contrast import ALPHA, summarise
from replicate.report.records import Records
from replicate.schema import HEADLINE, LEVELS, Interval

SAME = "no difference"
BY_VIDEO = "paired over videos, by the influence values that both runs still have"
PAIRED = "paired over the draws, which hold the same videos in both runs; values of single videos are gone"
UNPAIRED = "unpaired: the two runs scored different videos or kept too little to say that they are the same"
INFLUENCE = "influence.npy"  # of an evaluate stage: (cells, videos of the draws)
LINES = 20  # of one kind of difference that are listed


@dataclass(frozen=True)
class Change:
    """One cell in two runs: fractions.

    Attributes:
        column, metric, level: which cell.
        a, b: its mean over draws and seeds; None where it is undefined.
        interval: 95 % of b - a; None where it cannot be computed.
        method: BY_VIDEO, PAIRED or UNPAIRED.
    """

    column: str
    metric: str
    level: str
    a: float | None
    b: float | None
    interval: Interval | None
    method: str


def describe(run_a: Path, run_b: Path, every_level: bool = False) -> str:
    """The report of a comparison, for a terminal.

    Args:
        run_a, run_b: results folders, each with `records/`.
        every_level: all levels, not the overall scores alone.

    Raises:
        MissingResult: one of them holds no records.
    """
    a, b = Records.open(run_a), Records.open(run_b)
    parts = [f"A: {run_a} ({a.label})\nB: {run_b} ({b.label})"]
    for title, lines in _sections(a, b):
        parts.append("\n".join([title, *(lines or [f"  {SAME}"])]))
    parts.append(_numbers(a, b, LEVELS if every_level else LEVELS[:1]))
    return "\n\n".join(parts)


def _sections(a: Records, b: Records) -> Iterator[tuple[str, list[str]]]:
    one, two = a.run, b.run
    plain = {name: (getattr(one, name), getattr(two, name)) for name in ("profile", "columns", "seeds")}
    yield (
        "Configuration",
        [*_changes(_side(plain, 0), _side(plain, 1)), *_changes(one.configuration, two.configuration)],
    )
    yield (
        "Environment",
        [
            *_changes(one.packages, two.packages),
            *_changes(one.machine, two.machine),
            *_changes({"command": " ".join(one.command)}, {"command": " ".join(two.command)}),
        ],
    )
    yield (
        "Data",
        [
            *_changes({"data": one.data, "dataset": one.dataset}, {"data": two.data, "dataset": two.dataset}),
            *_changes(one.split, two.split),
            *_changes(_shards(one.shards), _shards(two.shards)),
            *_changes({"records skipped": len(one.skipped)}, {"records skipped": len(two.skipped)}),
            *_changes(_tree(one), _tree(two)),
        ],
    )
    keys = sorted(name for name in {*one.keys, *two.keys} if one.keys.get(name) != two.keys.get(name))
    other = [f"  results that another key names: {', '.join(keys)}"] if keys else []
    yield "Code", [*_changes(one.code, two.code), *other]


def _side(values: Mapping[str, tuple[Any, Any]], side: int) -> dict[str, Any]:
    return {name: pair[side] for name, pair in values.items()}


def _shards(shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"shard {shard.get('name')}": {k: v for k, v in shard.items() if k != "name"} for shard in shards}


def _tree(run: Any) -> dict[str, Any]:
    names = dict(zip(run.node_names, run.node_levels, strict=True))
    return {"nodes": run.nodes} | {f"level of node {name}": level for name, level in names.items()}


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """A line per key whose values differ, up to LINES of them; "-" where one side lacks it."""
    names = [*a, *(name for name in b if name not in a)]
    differ = [name for name in names if (name in a, a.get(name)) != (name in b, b.get(name))]
    lines = [f"  {name}: {_show(a, name)} -> {_show(b, name)}" for name in differ[:LINES]]
    return lines + ([f"  and {len(differ) - LINES} more"] if len(differ) > LINES else [])


def _show(values: Mapping[str, Any], name: str) -> str:
    """A value as a profile's file or a record writes it; text without quotation marks."""
    value = values.get(name, "-")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(a: Records, b: Records, levels: tuple[str, ...]) -> str:
    columns = [column.slug for column in a.columns if column in b.columns]
    if not columns:
        return "Numbers\n  the runs have no column in common"
    found = [change(a, b, column, metric, level) for metric in HEADLINE for level in levels for column in columns]
    methods = list(dict.fromkeys(each.method for each in found if each.interval))
    headers = ["Metric", "Level", "Column", "A", "B", "B - A", "95 %"]
    rows = [
        [
            each.metric,
            each.level,
            COLUMNS[each.column].title,
            render.percent(each.a, 2) or "-",
            render.percent(each.b, 2) or "-",
            "-" if None in (each.a, each.b) else render.signed(each.b - each.a, 2),
            render.interval(each.interval, 2),
        ]
        for each in found
    ]
    kinds = {a.run.data, b.run.data}
    label = f" ({', '.join(sorted(kinds))} data)"
    notes = [f"Intervals are {method}." for method in methods]
    notes += ["They speak of test videos, not of training."] if methods else []
    if len(kinds) > 1:
        notes.append("One run is on synthetic data, the other on real data: their numbers do not compare.")
    notes += [f"Only in {side}: {missing}." for side, missing in (("A", _only(a, b)), ("B", _only(b, a))) if missing]
    return "\n".join([f"Numbers{label}, percent", render.markdown(headers, rows), *notes])


def _only(a: Records, b: Records) -> str:
    return ", ".join(column.title for column in a.columns if column not in b.columns)


def same_videos(a: Records, b: Records) -> bool:
    """Whether both runs have the same draws of the same videos with the same positives."""
    names = ("labels", "split")
    return all(name in a.run.keys and a.run.keys[name] == b.run.keys.get(name) for name in names)


def change(a: Records, b: Records, column: str, metric: str, level: str) -> Change:
    """One cell in two runs, with the narrowest interval that their records and score stores allow."""
    draws = [_draws(run, column, metric, level) for run in (a, b)]
    means = [statistics.fmean(values) if values else None for values in draws]
    paired = same_videos(a, b)
    influences = [influence(run, column, metric, level) for run in (a, b)] if paired else [None, None]
    if None not in means and all(each is not None for each in influences):
        error = float(np.sqrt(np.square(influences[1] - influences[0]).sum()))
        half = float(stats.norm.ppf(1 - ALPHA / 2)) * error
        effect = means[1] - means[0]
        return Change(column, metric, level, *means, (effect - half, effect + half), BY_VIDEO)
    method = PAIRED if paired else UNPAIRED
    if None in means or min(len(values) for values in draws) < 2:
        return Change(column, metric, level, *means, None, method)
    if not paired:
        return Change(column, metric, level, *means, _welch(*draws), method)
    differences = [after - before for before, after in zip(*draws, strict=True)]
    first = next(iter(a.evaluate.values()))
    share = 0.0 if first.disjoint else first.draw_size / first.videos
    return Change(column, metric, level, *means, summarise(np.array([differences]), share).interval, method)


def influence(run: Records, column: str, metric: str, level: str) -> np.ndarray | None:
    """(videos of the draws,) float64 influence values of a cell, mean over seeds; None where the run's evaluate stages
    are gone. Their sum of squares is the variance of the cell over test videos."""
    from replicate.evaluate.influence import CELLS

    paths = [_stage_folder(run, f"evaluate-{column}-{seed}") for seed in run.run.seeds]
    if None in paths:
        return None
    place = CELLS.index((metric, level))
    rows = [np.load(path / INFLUENCE, mmap_mode="r")[place] for path in paths]
    mean = np.mean(rows, axis=0, dtype=np.float64)
    return mean if np.isfinite(mean).all() else None


def _stage_folder(run: Records, name: str) -> Path | None:
    """The evaluate stage's folder of a run whose results lie in RUNS/results/PROFILE, or in `runs`; None if gone."""
    key = run.run.keys.get(name)
    for runs in (run.folder.resolve().parent.parent, Path("runs")):
        folder = runs / "evaluate" / key if key else runs
        if key and (folder / INFLUENCE).is_file():
            return folder
    return None


def _welch(a: list[float], b: list[float]) -> Interval:
    """95 % of the difference of two means of independent draws."""
    variances = [statistics.variance(values) / len(values) for values in (a, b)]
    effect, error = statistics.fmean(b) - statistics.fmean(a), math.sqrt(sum(variances))
    parts = sum(v**2 / (len(values) - 1) for v, values in zip(variances, (a, b), strict=True))
    freedom = sum(variances) ** 2 / parts if parts else math.inf
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    return effect - half, effect + half


def _draws(run: Records, column: str, metric: str, level: str) -> list[float]:
    """The cell on every draw, mean over the run's seeds; empty where it is undefined."""
    cells = [run.cell(column, seed, metric, level).draws for seed in run.run.seeds]
    return [] if None in cells else [statistics.fmean(values) for values in zip(*cells, strict=True)]
