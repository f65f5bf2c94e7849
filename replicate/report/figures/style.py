"""How every figure looks and how it is saved: print sizes, colour-blind colours with a marker and a line style beside
each, and files whose bytes depend on nothing but the numbers."""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from replicate.columns import OWN, Column
from replicate.errors import MissingResult
from replicate.record import write_bytes, write_text
from replicate.report.records import Records

# The palette of Okabe and Ito (2008), distinct for all common kinds of colour blindness.
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
)  # fmt: skip
# Greys of their own, so that a page can replace each of them in dark mode.
INK, MUTED, RULE, PAPER = "#1b1b20", "#62626e", "#dcdce3", "#fffffe"

FAMILY_COLOUR = {"dnn": MUTED, "rnn": BLUE, "netvlad": VERMILLION, "transformer": GREEN, "": PURPLE, OWN: ORANGE}
FAMILY_MARKER = {"dnn": "X", "rnn": "o", "netvlad": "s", "transformer": "^", "": "D", OWN: "P"}
LEVEL_COLOUR = {0: ORANGE, 1: BLUE, 2: GREEN, 3: PURPLE}
LEVEL_MARKER = {0: "o", 1: "s", 2: "^", 3: "D"}
LEVEL_NAME = {"overall": "Overall", "0": "Level 0", "1": "Level 1", "2": "Level 2", "3": "Level 3"}

FULL_WIDTH, HALF_WIDTH = 6.8, 4.8  # inches: the text width of a page, and a figure of one or two panels

RC = {  # put over matplotlib's own defaults, and not over what a user's matplotlibrc says
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the glyphs are the same everywhere
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a node's or video's name is a dollar sign
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "replicate",  # ids in the SVG become a function of what they name
}


class NotDrawn(MissingResult):
    """A figure cannot be made of these records; the sentence says why and stands in the report in its place."""


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: stem of its files.
        title: what it shows, with "synthetic data" where the data are.
        caption: how to read it: what is averaged over what, what intervals are, what is named in no axis.
        figure: the drawing.
        data: the numbers behind it, one row per mark.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame


def titled(title: str, records: Records) -> str:
    """A figure's title; figures of made-up data say so."""
    return f"{title} ({'; '.join(records.badges)})" if records.badges else title


def canvas(title: str, width: float, height: float) -> Figure:
    """An empty figure with its title, which lays its axes out by itself; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=9.5, fontweight="bold")
    return figure


def small_multiples(figure: Figure, count: int, wide: int, xlabel: str, ylabel: str) -> list[Axes]:
    """`count` panels with common axes in rows of `wide`; the lowest of each column and the first of each row have
    labels."""
    rows = -(-count // wide)
    grid = figure.subplots(rows, wide, squeeze=False, sharex=True, sharey=True)
    for number, axes in enumerate(grid.flat):
        axes.set_visible(number < count)
        if number + wide >= count:
            axes.set_xlabel(xlabel)
            axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    return list(grid.flat[:count])


def line_of(column: Column) -> dict[str, object]:
    """Colour by family; marker, filling and dashes tell a coherent column from its baseline without colour."""
    colour = FAMILY_COLOUR[column.family]
    coherent = column.baseline is not None
    plain_rnn = column.slug == "rnn"
    return {
        "color": SKY if plain_rnn else colour,
        "marker": "v" if plain_rnn else FAMILY_MARKER[column.family],
        "linestyle": "-" if coherent else ":" if plain_rnn else "--",
        "markerfacecolor": colour if coherent else PAPER,
    }


def points_axis(axis: object, signed: bool = True) -> None:
    """Print an axis of fractions as percentage points (signed) or per cent."""
    form = "{:+.3g}" if signed else "{:.3g}"
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: form.format(100 * value).replace("-", "\N{MINUS SIGN}") if value else "0")
    )


def zero_line(axes: Axes, vertical: bool = False) -> None:
    """A thin line where nothing changes."""
    draw = axes.axvline if vertical else axes.axhline
    draw(0, color=INK, linewidth=0.7, zorder=1)


def save(drawing: Drawing, folder: Path) -> list[str]:
    """Write SVG, PNG and CSV of a drawing; the same drawing gives the same bytes.

    Returns:
        Names of the files.
    """
    with matplotlib.style.context(RC, after_reset=True):
        for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            content = io.BytesIO()
            drawing.figure.savefig(content, format=suffix, metadata=metadata)
            write_bytes(folder / f"{drawing.name}.{suffix}", content.getvalue())
    write_text(folder / f"{drawing.name}.csv", drawing.data.to_csv(index=False, lineterminator="\n"))
    return [f"{drawing.name}.{suffix}" for suffix in ("svg", "png", "csv")]
