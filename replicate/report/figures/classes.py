"""Does coherence help the classes with few examples? Gain of each node against its training videos."""

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.stats import spearmanr

from replicate.columns import COLUMNS
from replicate.report.figures.style import (
    FULL_WIDTH,
    HALF_WIDTH,
    INK,
    LEVEL_COLOUR,
    LEVEL_MARKER,
    Drawing,
    NotDrawn,
    canvas,
    points_axis,
    small_multiples,
    titled,
    zero_line,
)
from replicate.report.records import Records
from replicate.report.render import with_sign

BINS = 8  # of equal numbers of nodes
SHOWN = (0.01, 0.99)  # quantiles of the gains that the axis reaches to; those beyond would flatten the others


def class_table(records: Records) -> pd.DataFrame:
    """One row per pair and node with a positive in training and in the pool: its training videos and the difference in
    average precision on the pool (a fraction), mean over seeds."""
    rows = []
    for column, baseline in records.pairs:
        precisions = [
            np.array([records.evaluate[slug, seed].class_average_precision for seed in records.run.seeds], dtype=float)
            for slug in (column, baseline)
        ]
        gains = (precisions[0] - precisions[1]).mean(axis=0)  # a node without a positive is null for every seed
        for node, gain in enumerate(gains):
            positives = records.run.train_positives[node]
            if np.isfinite(gain) and positives:
                rows.append(
                    {
                        "column": column,
                        "baseline": baseline,
                        "node": records.run.node_names[node],
                        "level": records.run.node_levels[node],
                        "train_positives": positives,
                        "gain": gain,
                    }
                )
    return pd.DataFrame(rows)


def bins_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Nodes of one pair in BINS groups of equal size by training videos: geometric mean of the videos, mean gain, and
    its standard error over nodes."""
    ordered = rows.sort_values(["train_positives", "node"])
    groups = [ordered.iloc[places] for places in np.array_split(np.arange(len(ordered)), min(BINS, len(ordered)))]
    return pd.DataFrame(
        {
            "train_positives": np.exp(np.log(group.train_positives).mean()),
            "gain": group.gain.mean(),
            "error": group.gain.std(ddof=1) / np.sqrt(len(group)) if len(group) > 1 else 0.0,
        }
        for group in groups
    )


def draw_class_gains(records: Records) -> Drawing:
    """Gain of each node against its training videos, one panel per pair.

    Raises:
        NotDrawn: no column was run beside its baseline, or no node has positives.
    """
    table = class_table(records)
    if table.empty:
        raise NotDrawn("no column of this run was run beside its baseline on nodes with positives")
    pairs = [pair for pair in records.pairs if pair[0] in set(table.column)]
    title = titled("Gain of each node against its training videos", records)
    rows, wide = -(-len(pairs) // 2), min(len(pairs), 2)
    figure = canvas(title, FULL_WIDTH if wide > 1 else HALF_WIDTH, 0.7 + 2.4 * rows)
    labels = ("training videos of the node", "average precision (points)")
    grid = small_multiples(figure, len(pairs), wide, *labels)
    for axes, (column, baseline) in zip(grid, pairs, strict=True):
        _panel(axes, table[table.column == column])
        axes.set_title(f"{COLUMNS[column].title} over {COLUMNS[baseline].title}")
    shown = _limits(table.gain)
    grid[0].set_ylim(shown)
    grid[0].set_xscale("log")
    grid[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    grid[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    grid[0].xaxis.set_minor_formatter(NullFormatter())
    points_axis(grid[0].yaxis)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    beyond = int((~table.gain.between(*shown)).sum())
    caption = (
        "Each mark is a node of the taxonomy with a positive in training and in the test pool: difference in average "
        f"precision on the pool, percentage points{', mean over seeds' if len(records.run.seeds) > 1 else ''}. Line: "
        f"mean over {BINS} groups of equally many nodes, with one standard error over nodes. {beyond} of {len(table)} "
        "marks lie beyond the axis. Spearman's rank correlation is descriptive: nodes are not independent."
    )
    return Drawing("class_gains", title, caption, figure, table)


def _limits(gains: pd.Series) -> tuple[float, float]:
    """Of the axis: the quantiles SHOWN and zero, with a margin."""
    low, high = min(0.0, gains.quantile(SHOWN[0])), max(0.0, gains.quantile(SHOWN[1]))
    margin = 0.08 * (high - low) + 1e-3
    return low - margin, high + margin


def _panel(axes, rows: pd.DataFrame) -> None:
    zero_line(axes)
    for level, colour in LEVEL_COLOUR.items():
        at = rows[rows.level == level]
        style = {"linestyle": "none", "marker": LEVEL_MARKER[level], "markersize": 3.2, "markeredgewidth": 0}
        axes.plot(at.train_positives, at.gain, color=colour, alpha=0.75, label=f"level {level}", **style)
    means = bins_of(rows)
    style = {"color": INK, "linewidth": 1.2, "label": "mean of a group"}
    axes.errorbar(means.train_positives, means.gain, yerr=means.error, **style)
    if rows.gain.nunique() > 1 and rows.train_positives.nunique() > 1:
        rho = spearmanr(rows.train_positives, rows.gain).statistic
        axes.set_title(f"Spearman {with_sign(rho, 2)}".replace("-", "\N{MINUS SIGN}"), loc="right", fontweight="normal")
