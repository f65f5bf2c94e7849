"""What the paper prints in Tables 1 and 2, transcribed in the CSV files beside. Scores as fractions."""

import csv
import functools
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources

from replicate.columns import COLUMNS

SLUGS = {column.title: slug for slug, column in COLUMNS.items()}


@dataclass(frozen=True)
class PaperCell:
    """One cell of Table 1 as printed.

    Attributes:
        value: fraction; None for a column that the paper has not.
        printed: the increment in brackets, a fraction; None in columns without one.
        increment: the difference of the printed values, which is what we compare with (erratum 31); None likewise.
    """

    value: float | None
    printed: float | None
    increment: float | None

    @property
    def misprinted(self) -> bool:
        """Whether the increment in brackets is not the difference of the two printed values."""
        return self.printed != self.increment


NOT_IN_PAPER = PaperCell(None, None, None)


@functools.cache
def table1() -> dict[tuple[str, str, str], PaperCell]:
    """(metric, level, column's slug) -> cell, 200 of them. Differences are taken in decimal, so they are exact."""
    cells = {}
    for row in _rows("table1.csv"):
        printed = {SLUGS[title]: text.split() for title, text in row.items() if title in SLUGS}
        for slug, words in printed.items():
            baseline = COLUMNS[slug].baseline
            increment = Decimal(words[0]) - Decimal(printed[baseline][0]) if baseline else None
            cells[row["metric"], row["level"].lower(), slug] = PaperCell(
                value=_fraction(Decimal(words[0])),
                printed=_fraction(Decimal(words[1].strip("()"))) if baseline else None,
                increment=_fraction(increment) if baseline else None,
            )
    return cells


@functools.cache
def table2() -> dict[str, tuple[float, float]]:
    """Column's slug -> (minutes per epoch, megabytes), the eight columns of Table 2."""
    rows = _rows("table2.csv")
    return {SLUGS[row["column"]]: (float(row["minutes_per_epoch"]), float(row["megabytes"])) for row in rows}


def _fraction(percent: Decimal) -> float:
    return float(percent / 100)


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("replicate.reference") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
