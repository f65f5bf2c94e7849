"""What coherence adds in each cell of Table 1, ours with intervals, beside what the paper prints."""

import numpy as np
import pandas as pd

from replicate import reference
from replicate.columns import COLUMNS
from replicate.report.figures.style import (
    FULL_WIDTH,
    INK,
    LEVEL_NAME,
    MUTED,
    Drawing,
    NotDrawn,
    canvas,
    line_of,
    points_axis,
    titled,
    zero_line,
)
from replicate.report.records import Records
from replicate.schema import HEADLINE, LEVELS

NUMBERS = ("low", "high", "seeds_low", "seeds_high", "paper_gain")  # of a row; not a number where there is none
SPREAD = 0.17  # distance between pairs within a level, in units of the distance between levels


def gain_table(records: Records) -> pd.DataFrame:
    """One row per pair, metric and level: the increment with its intervals, and the paper's; fractions.

    Raises:
        NotDrawn: no column was run beside its baseline.
    """
    if not records.pairs:
        raise NotDrawn("no column of this run was run beside its baseline")
    rows = []
    for column, baseline in records.pairs:
        for metric in HEADLINE:
            for level in LEVELS:
                found = records.difference(column, metric, level)
                if found is None or found.difference is None:
                    continue
                low, high = found.interval or (None, None)
                seed_low, seed_high = found.seeds.interval if found.seeds else (None, None)
                rows.append(
                    {
                        "column": column,
                        "baseline": baseline,
                        "metric": metric,
                        "level": level,
                        "gain": found.difference,
                        "low": low,
                        "high": high,
                        "seeds_low": seed_low,
                        "seeds_high": seed_high,
                        "starred": found.starred,
                        "paper_gain": papers(metric, level, column).increment,
                    }
                )
    if not rows:
        raise NotDrawn("no difference of this run is defined")
    return pd.DataFrame(rows).astype(dict.fromkeys(NUMBERS, float))


def papers(metric: str, level: str, column: str) -> reference.PaperCell:
    """What the paper prints in a cell; nothing for a column that it has not."""
    return reference.table1().get((metric, level, column), reference.NOT_IN_PAPER)


def draw_gains(records: Records) -> Drawing:
    """Increments by level, one panel per metric.

    Raises:
        NotDrawn: see gain_table.
    """
    table = gain_table(records)
    title = titled("Gain of temporal coherence by level", records)
    figure = canvas(title, FULL_WIDTH, 6.4)
    grid = figure.subplots(2, 2, sharey=True)
    for axes, metric in zip(grid.flat, HEADLINE, strict=True):
        _forest(axes, table[table.metric == metric], records)
        axes.set_title(metric)
    grid[0, 0].set_ylim(len(LEVELS) - 0.5, -0.5)
    grid[0, 0].set_yticks(range(len(LEVELS)), [LEVEL_NAME[level] for level in LEVELS])
    for axes in grid[-1]:
        axes.set_xlabel("percentage points over the baseline")
    for column, baseline in records.pairs:
        label = f"{COLUMNS[column].title} over {COLUMNS[baseline].title}"
        grid[0, 0].plot([], [], label=label, **(line_of(COLUMNS[column]) | {"linestyle": "none"}))
    grid[0, 0].plot([], [], label="the paper's", color=MUTED, marker="|", markersize=9, linestyle="none")
    figure.legend(loc="outside lower center", ncols=3)
    return Drawing("gains", title, _caption(records), figure, table)


def _forest(axes, rows: pd.DataFrame, records: Records) -> None:
    zero_line(axes, vertical=True)
    pairs = [column for column, _ in records.pairs]
    for row in rows.itertuples():
        style = line_of(COLUMNS[row.column])
        colour = style["color"]
        y = LEVELS.index(row.level) + SPREAD * (pairs.index(row.column) - (len(pairs) - 1) / 2)
        axes.plot([row.seeds_low, row.seeds_high], [y, y], color=colour, linewidth=0.7)
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt")
        axes.plot(row.gain, y, **(style | {"linestyle": "none", "markersize": 4}))
        axes.plot(row.paper_gain, y, color=colour, marker="|", markersize=9, markeredgewidth=1.1)
    points_axis(axes.xaxis)
    axes.grid(axis="y", visible=False)


def _caption(records: Records) -> str:
    seeds = len(records.run.seeds)
    noise = (
        f"Thick line: 95 % interval over test videos; thin line: 95 % t interval over {seeds} training seeds."
        if seeds > 1
        else "Line: 95 % interval over test videos; conditional on one trained model per column."
    )
    return (
        f"A column minus its baseline: mean over the test draws of the paired difference. {noise} Intervals are "
        "pointwise. Vertical tick: the difference of the values that the paper prints."
    )


def draw_against_paper(records: Records) -> Drawing:
    """Our scores against the paper's in every cell of Table 1, and our increments against its.

    Raises:
        NotDrawn: see gain_table; or no column of the run is the paper's.
    """
    gains = gain_table(records)
    scores = score_table(records).dropna()
    if scores.empty:
        raise NotDrawn("no column of this run is one of the paper's with a defined score")
    title = titled("Ours against the paper's, every cell of Table 1", records)
    figure = canvas(title, FULL_WIDTH, 4.0)
    left, right = figure.subplots(1, 2)
    for column in records.columns:
        rows = scores[scores.column == column.slug]
        style = line_of(column) | {"linestyle": "none", "markersize": 3.8}
        left.plot(rows.paper, rows.ours, label=column.title, **style)
    for column, _ in records.pairs:
        rows = gains[gains.column == column]
        style = line_of(COLUMNS[column]) | {"markersize": 3.8, "elinewidth": 0.6}
        errors = [rows.gain - rows.low, rows.high - rows.gain]
        right.errorbar(rows.paper_gain, rows.gain, yerr=errors, **(style | {"linestyle": "none"}))
    for axes, name in ((left, "Scores (%)"), (right, "Increments (percentage points)")):
        axes.axline((0, 0), slope=1, color=INK, linestyle=":", linewidth=0.9)
        axes.set_title(name)
        axes.set_xlabel("the paper's")
        axes.set_ylabel("ours")
    _limits(left, scores.paper, scores.ours)
    for axis in (left.xaxis, left.yaxis):
        points_axis(axis, signed=False)
    zero_line(right)
    for axis in (right.xaxis, right.yaxis):
        points_axis(axis)
    figure.legend(loc="outside lower center", ncols=5)
    caption = (
        "Left: four metrics at five levels for every column; dotted: equal. Data and label mapping are not the "
        "paper's, so absolute scores are for orientation. Right: increments over the baseline, which is what is "
        "replicated, with 95 % intervals over test videos."
    )
    return Drawing("against_paper", title, caption, figure, scores.merge(gains, how="left"))


def score_table(records: Records) -> pd.DataFrame:
    """One row per cell of Table 1: our mean over draws and seeds, and the paper's value; fractions."""
    rows = []
    for column in records.columns:
        for metric in HEADLINE:
            for level in LEVELS:
                means = records.seed_means(column.slug, metric, level)
                paper = papers(metric, level, column.slug).value
                ours = float(np.mean(means)) if means else None
                rows.append({"column": column.slug, "metric": metric, "level": level, "ours": ours, "paper": paper})
    return pd.DataFrame(rows).astype({"ours": float, "paper": float})


def _limits(axes, x: pd.Series, y: pd.Series) -> None:
    """Frame the points; a diagonal far away must not squeeze them."""
    for setter, values in ((axes.set_xlim, x), (axes.set_ylim, y)):
        margin = 0.06 * (values.max() - values.min()) + 1e-3
        setter(values.min() - margin, values.max() + margin)
