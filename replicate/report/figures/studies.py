"""Figures of the studies: the grid's heat map, the ablations as a forest, the specification curve of the multiverse."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replicate.columns import COLUMNS
from replicate.report.figures.style import (
    BLUE,
    FULL_WIDTH,
    HALF_WIDTH,
    INK,
    MUTED,
    RC,
    VERMILLION,
    Drawing,
    canvas,
    line_of,
    points_axis,
    save,
    zero_line,
)
from replicate.report.records import open_study
from replicate.schema import HEADLINE
from replicate.studies.schema import (
    PAPER_GRID,
    AblateRecord,
    AblateRow,
    Arm,
    GridRecord,
    MultiverseRecord,
    Study,
    study_records,
)

FILLED, HOLLOW = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"
SHADES = "cividis"  # even in lightness, alike for all common kinds of colour blindness
PAPER_CELL = (5, 4)  # kernel size and feature maps of section 4.2
SHOWN = ("GAP", "MAP")  # metrics of the forest; its table has all
TITLES = {"grid": "Grid", "ablate": "Ablations", "multiverse": "Multiverse"}


def make_study_figure(path: Path) -> list[Path]:
    """Write the figure of one record; the files written."""
    folder = path.parent.parent / "figures"
    with matplotlib.style.context(RC, after_reset=True):
        drawing = draw_study(path)
    return [folder / name for name in save(drawing, folder)]


def draw_study(path: Path) -> Drawing:
    """The figure of one record."""
    record = open_study(path)
    draw = {GridRecord: draw_grid, AblateRecord: draw_ablations, MultiverseRecord: draw_multiverse}[type(record)]
    return draw(record, path.stem)


def study_figures(folder: Path) -> list[tuple[str, str, Callable[[], Drawing]]]:
    """(word that chooses it, subject, function that draws it) of every study of a results folder."""
    found = []
    for path in study_records(folder):
        kind, _, column = path.stem.partition("-")
        found.append((kind, f"{TITLES[kind]} of {COLUMNS[column].title}", partial(draw_study, path)))
    return found


def _titled(record: Study, what: str) -> str:
    suffix = " (synthetic data)" if record.data == "synthetic" else ""
    return f"{what} of {COLUMNS[record.column].title}{suffix}"


def _noise(record: Study) -> str:
    if len(record.seeds) == 1:
        return "Conditional on one trained model per cell."
    return f"Means over {len(record.seeds)} training seeds."


def draw_grid(record: GridRecord, name: str) -> Drawing:
    """Heat map of two fields, or points of one, with the baseline as a line."""
    rows = [
        {axis: _text(cell.values[axis]) for axis in record.axes}
        | {"control": not cell.in_paper, "tune_gap": cell.mean, "parameters": cell.parameters}
        for cell in record.cells
    ]
    table = pd.DataFrame(rows).astype({"tune_gap": float})
    title = _titled(record, "Grid")
    figure = canvas(title, HALF_WIDTH, 3.6 if len(record.axes) == 2 else 2.8)
    if len(record.axes) == 2:
        _heat_map(figure, record)
    else:
        _heads(figure, table, record)
    chosen = "" if record.chosen is None else " The frame marks the highest; no profile is changed by it."
    if _place(record, PAPER_CELL):
        chosen += " Dashed: the paper's choice, 5 x 4."
    if any(not cell.in_paper for cell in record.cells):
        chosen += " Controls: kernel sizes that the paper's grid lacks."
    base = (
        ""
        if record.baseline_gap is None
        else (f" {COLUMNS[record.baseline].title} without the layer reaches {100 * record.baseline_gap:.2f}.")
    )
    caption = f"GAP on the tune split at the best epoch, in percent.{chosen}{base} {_noise(record)}"
    return Drawing(name, title, caption, figure, table)


def _text(value: object) -> object:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else value


def _heat_map(figure: Figure, record: GridRecord) -> None:
    first, second = record.axes
    down, across = (sorted({cell.values[axis] for cell in record.cells}) for axis in (first, second))
    values = np.full((len(down), len(across)), np.nan)
    for cell in record.cells:
        if cell.mean is not None and "diverged" not in cell.status:
            values[down.index(cell.values[first]), across.index(cell.values[second])] = 100 * cell.mean
    axes = figure.subplots()
    known = values[~np.isnan(values)]
    scale = Normalize(known.min(), known.max()) if len(known) else Normalize(0, 1)
    shades = matplotlib.colormaps[SHADES]
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=shades, norm=scale, edgecolors="none")
    for (row, column), value in np.ndenumerate(values):
        dark = np.isnan(value) or scale(value) > 0.55
        text = "diverged" if np.isnan(value) else f"{value:.2f}"
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color="#000000" if dark else "#ffffff"
        )
    if record.chosen is not None:
        best = record.cells[record.chosen].values
        corner = across.index(best[second]), down.index(best[first])
        axes.add_patch(matplotlib.patches.Rectangle(corner, 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2))
    if _place(record, PAPER_CELL):
        corner = across.index(PAPER_CELL[1]) + 0.06, down.index(PAPER_CELL[0]) + 0.06
        shade = scale(values[down.index(PAPER_CELL[0]), across.index(PAPER_CELL[1])])
        line = {"edgecolor": "#000000" if shade > 0.55 else "#ffffff", "linewidth": 1, "linestyle": "--"}
        axes.add_patch(matplotlib.patches.Rectangle(corner, 0.88, 0.88, fill=False, **line))
    if record.baseline_gap is not None:
        title = f"{COLUMNS[record.baseline].title} without the layer: {100 * record.baseline_gap:.2f}"
        axes.set_title(title, loc="left", fontweight="normal", fontsize=8)
    controls = {size for size in down if size not in PAPER_GRID.get(first, down)}
    names = [f"{value}{' (control)' if value in controls else ''}" for value in down]
    axes.set_yticks(np.arange(len(down)) + 0.5, names)
    axes.set_xticks(np.arange(len(across)) + 0.5, [str(value) for value in across])
    axes.set_ylabel("kernel size (frames)")
    axes.set_xlabel("feature maps")
    axes.grid(False)
    axes.invert_yaxis()
    figure.colorbar(mesh, ax=axes, label="tune GAP (%)")


def _place(record: GridRecord, values: tuple[int, int]) -> bool:
    """Whether a grid of two fields has a trained cell of these values."""
    found = [tuple(cell.values.values()) for cell in record.cells if cell.mean is not None]
    return len(record.axes) == 2 and values in found


def _heads(figure: Figure, table: pd.DataFrame, record: GridRecord) -> None:
    axes = figure.subplots()
    places = np.arange(len(table))
    axes.plot(table.tune_gap, places, **(line_of(COLUMNS[record.column]) | {"linestyle": "none"}))
    if record.chosen is not None:
        axes.plot(
            table.tune_gap[record.chosen], record.chosen, marker="s", markersize=9, markerfacecolor="none",
            color=VERMILLION, linestyle="none",
        )  # fmt: skip
    axes.set_yticks(places, table[record.axes[0]])
    axes.invert_yaxis()
    axes.set_ylabel("hidden layers")
    axes.set_xlabel("tune GAP (%)")
    points_axis(axes.xaxis, signed=False)


def _arm(arm: Arm, metric: str) -> dict[str, object]:
    """The numbers of one arm and metric."""
    found = next(each for each in arm.differences if each.metric == metric)
    low, high = found.spanning or (None, None)
    scores = {"score": arm.scores[metric], "baseline": arm.baseline_scores[metric]}
    return {"metric": metric, "gain": found.difference, "low": low, "high": high} | scores


def _numbers(rows: list[dict[str, object]]) -> pd.DataFrame:
    names = ("gain", "low", "high", "score", "baseline")
    return pd.DataFrame(rows).astype(dict.fromkeys(names, float))


def draw_ablations(record: AblateRecord, name: str) -> Drawing:
    """The gain of every row over its own baseline, with intervals."""
    shown = [row for row in record.rows if row.arm]
    table = _numbers([
        {"row": row.key, "title": row.title, "both": row.both} | _arm(row.arm, metric)
        for row in shown
        for metric in HEADLINE
    ])  # fmt: skip
    title = _titled(record, "Ablations")
    baseline = COLUMNS[record.baseline].title
    figure = canvas(title, FULL_WIDTH, 1.4 + 0.2 * len(shown))
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, metric in zip(panels, SHOWN, strict=True):
        rows = table[table.metric == metric].reset_index(drop=True)
        zero_line(axes, vertical=True)
        for place, row in rows.iterrows():
            colour = VERMILLION if row.both else BLUE
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
            axes.plot(row.gain, place, color=colour, marker="s" if row.both else "o", linestyle="none")
        axes.set_title(metric)
        axes.set_xlabel(f"percentage points over {baseline}")
        points_axis(axes.xaxis)
    panels[0].set_yticks(range(len(shown)), [row.title for row in shown])
    panels[0].set_ylim(len(shown) - 0.5, -0.5)
    alone = {"color": BLUE, "marker": "o", "linestyle": "none", "label": "the layer alone changes"}
    both = {"color": VERMILLION, "marker": "s", "linestyle": "none", "label": f"{baseline} changes, too"}
    kinds = [Line2D([], [], **style) for style, has in ((alone, False), (both, True)) if _any(shown, has)]
    figure.legend(handles=kinds, loc="outside lower center", ncols=2)
    left_out = [row.title for row in record.rows if not row.arm]
    caption = (
        "A variant minus its own baseline, overall, mean over the test draws; line: 95 % interval over "
        f"{record.noise}, pointwise. Circles: only the layer changes. "
        "Squares: the baseline is trained under the same change. "
        f"{_noise(record)}" + (f" Not possible here: {', '.join(left_out)}." if left_out else "")
    )
    return Drawing(name, title, caption, figure, table)


def _any(rows: list[AblateRow], both: bool) -> bool:
    return any(row.both == both for row in rows)


def draw_multiverse(record: MultiverseRecord, name: str) -> Drawing:
    """The specification curve: gains in order, and below each the readings that it stands for."""
    table = _numbers([
        {"run": run.number}
        | {each.name: each.high if run.levels[each.letter] > 0 else each.low for each in record.factors}
        | _arm(run.arm, metric)
        for run in record.runs
        for metric in HEADLINE
    ])  # fmt: skip
    gaps = table[table.metric == "GAP"].sort_values("gain", kind="stable").reset_index(drop=True)
    title = _titled(record, "Multiverse")
    figure = canvas(title, FULL_WIDTH, 5.4)
    curve, dots = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    _curve(curve, gaps, record)
    _dots(dots, gaps, record)
    colours = ((BLUE, "interval above zero"), (MUTED, "holds zero"), (VERMILLION, "below zero"))
    style = {"marker": "o", "markersize": 3.5, "linewidth": 1.4}
    handles = [Line2D([], [], color=colour, label=label, **style) for colour, label in colours]
    figure.legend(handles=handles + curve.get_legend_handles_labels()[0], loc="outside lower center", ncols=3)
    aliases = "; ".join(" and ".join(group) for group in record.aliases)
    caption = (
        f"Gain of GAP over {COLUMNS[record.baseline].title} under {len(record.runs)} combinations of readings, in "
        f"order, with 95 % intervals over {record.noise}, pointwise; below, which reading of each factor it is. "
        f"Lines: {' and '.join(each.title for each in record.references)}, outside the factorial. {record.design}; "
        f"two-factor interactions {aliases} cannot be told apart. {_noise(record)}"
    )
    return Drawing(name, title, caption, figure, table)


def _curve(axes: Axes, gaps: pd.DataFrame, record: MultiverseRecord) -> None:
    zero_line(axes)
    for place, row in gaps.iterrows():
        colour = BLUE if row.low > 0 else VERMILLION if row.high < 0 else MUTED
        axes.plot([place, place], [row.low, row.high], color=colour, linewidth=1.4)
        axes.plot(place, row.gain, color=colour, marker="o", markersize=3.5)
    for each, dashes in zip(record.references, ("--", ":"), strict=False):
        gain = _arm(each.arm, "GAP")["gain"]
        if gain is not None:
            axes.axhline(gain, color=INK, linewidth=0.8, linestyle=dashes, label=each.title)
    axes.set_ylabel(f"GAP over {COLUMNS[record.baseline].title}\n(percentage points)")
    points_axis(axes.yaxis)


def _dots(axes: Axes, gaps: pd.DataFrame, record: MultiverseRecord) -> None:
    names = []
    for line, factor in enumerate(record.factors):
        high = gaps[factor.name] == factor.high
        names.append(f"{factor.name}: {FILLED} {factor.high}, {HOLLOW} {factor.low}")
        axes.plot(gaps.index[high], np.full(high.sum(), line), "o", color=INK, markersize=4)
        hollow = {"color": MUTED, "markersize": 4, "markerfacecolor": "none"}
        axes.plot(gaps.index[~high], np.full((~high).sum(), line), "o", **hollow)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_xlabel("readings, by gain")
