"""Figure 7: the top three levels of the taxonomy under "Game", drawn from the committed tree; no run is needed."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes

from replicate.report.figures.style import FULL_WIDTH, INK, LEVEL_COLOUR, MUTED, PAPER, RC, RULE, Drawing, canvas, save
from replicate.report.records import Records
from replicate.taxonomy.browse import Catalogue, read_catalogue

TOP = "Game"
DEPTH = 3  # levels shown
ROW = 0.205  # inches per row
COLUMNS = (0.0, 0.2, 0.46)  # where the names of each level start, as shares of the width
NUMBERS = ((0.74, "labels"), (0.86, "nodes below"), (1.0, "real label sets"))


@dataclass(frozen=True)
class Placed:
    """A node with the row that it is drawn in (an inner node lies beside its first child)."""

    path: str
    level: int
    row: int


def place(catalogue: Catalogue, top: str = TOP) -> list[Placed]:
    """The nodes down to level DEPTH - 1 in the order of the drawing: parents before children, siblings by name."""
    placed: list[Placed] = []

    def visit(path: str, row: int) -> int:
        level = path.count(":")
        placed.append(Placed(path, level, row))
        children = sorted(catalogue.children(path)) if level < DEPTH - 1 else []
        for child in children:
            row = visit(child, row)
        return row if children else row + 1

    visit(top, 0)
    return placed


def node_table(catalogue: Catalogue, placed: list[Placed]) -> pd.DataFrame:
    """One row per drawn node: labels and nodes at or under it, and real label sets with it."""
    paths = list(catalogue.scopes)
    return pd.DataFrame(
        {
            "path": node.path,
            "level": node.level,
            "labels": catalogue.labels_under(node.path),
            "nodes_below": sum(path.startswith(f"{node.path}:") for path in paths),
            "real_label_sets": catalogue.statistics[node.path]["positives"],
        }
        for node in placed
    )


def draw_game_taxonomy(_records: Records | None = None) -> Drawing:
    """Figure 7. The tree is the package's own, so the records of a run play no part."""
    catalogue = read_catalogue()
    placed = place(catalogue)
    table = node_table(catalogue, placed)
    rows = 1 + max(node.row for node in placed)
    title = f'Figure 7. The top three levels of the taxonomy under "{TOP}"'
    figure = canvas(title, FULL_WIDTH, 0.75 + ROW * rows)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(rows - 0.4, -1.6))
    axes.axis("off")
    _connect(axes, placed)
    deepest = {node.row: node.path for node in placed}
    for node, labels in zip(placed, table["labels"], strict=True):
        name = node.path.rpartition(":")[2]
        inner = deepest[node.row] != node.path
        text = f"{name} ({labels})" if inner else name
        cover = {"facecolor": PAPER, "edgecolor": "none", "pad": 2}
        axes.text(COLUMNS[node.level] + 0.014, node.row, text, va="center", fontsize=7.5, color=INK, bbox=cover)
        axes.plot(COLUMNS[node.level], node.row, marker="o", markersize=4, color=LEVEL_COLOUR[node.level])
    _numbers(axes, placed, table)
    return Drawing("figure7", title, _caption(catalogue, placed), figure, table)


def _connect(axes: Axes, placed: list[Placed]) -> None:
    rows = {node.path: node.row for node in placed}
    for node in placed:
        parent = node.path.rpartition(":")[0]
        if parent in rows:
            start, end = COLUMNS[node.level - 1] + 0.014, COLUMNS[node.level]
            bend = end - 0.03
            if rows[parent] == node.row:  # beside its parent; the parent's name covers the line
                axes.plot((start, end), (node.row, node.row), color=MUTED, linewidth=0.7, zorder=0)
            else:
                line = ((bend, bend, end), (rows[parent], node.row, node.row))
                axes.plot(*line, color=MUTED, linewidth=0.7, zorder=0)


def _numbers(axes: Axes, placed: list[Placed], table: pd.DataFrame) -> None:
    """Counts at the right, for the deepest node of each row."""
    deepest = {node.row: number for number, node in enumerate(placed)}
    for place_, word in NUMBERS:
        axes.text(place_, -1.1, word, ha="right", va="center", fontsize=7, color=MUTED)
    axes.axhline(-0.6, color=RULE, linewidth=0.6)
    for row, number in deepest.items():
        for (where, _), column in zip(NUMBERS, ("labels", "nodes_below", "real_label_sets"), strict=True):
            value = f"{table[column][number]:,}"
            axes.text(where, row, value, ha="right", va="center", fontsize=7.5, color=INK)


def _caption(catalogue: Catalogue, placed: list[Placed]) -> str:
    total = catalogue.labels_under(TOP)
    below = sum(path.startswith(f"{TOP}:") for path in catalogue.scopes)
    return (
        f"{len(placed)} of our taxonomy's {below + 1} nodes under {TOP}: levels 0 to {DEPTH - 1}; the others lie "
        f"deeper. {total} labels lie at or under it, in brackets those of the other inner nodes. The columns "
        "belong to the rightmost node of a row: labels at or under it, nodes below it, and how many of 980,029 real "
        "label sets have it. The authors did not publish their tree; this one was built anew to its measures and "
        "holds the paths that the paper names."
    )


def make_figure_7(folder: Path) -> list[Path]:
    """Write figure7.svg, figure7.png and figure7.csv into `folder`; the same tree gives the same bytes."""
    with matplotlib.style.context(RC, after_reset=True):
        drawing = draw_game_taxonomy()
    return [Path(folder) / name for name in save(drawing, Path(folder))]
