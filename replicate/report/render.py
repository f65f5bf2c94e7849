"""Numbers and tables as text: percent with one decimal, Markdown by tabulate with its bars escaped, CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

from tabulate import tabulate

BLANK = ""


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as percent, "90.7"; empty for None."""
    return BLANK if fraction is None else f"{100 * fraction:.{digits}f}"


def with_sign(value: float, digits: int) -> str:
    """A number with its sign, "+0.8"; one that rounds to zero has none, "0.0", because zero is neither."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def signed(fraction: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points, "+0.8"; empty for None."""
    return BLANK if fraction is None else with_sign(100 * fraction, digits)


def interval(bounds: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval of a difference in percentage points, "[+0.5, +1.1]"; empty for None."""
    return BLANK if bounds is None else f"[{signed(bounds[0], digits)}, {signed(bounds[1], digits)}]"


def probability(p: float | None) -> str:
    """A p-value, three decimals or "<0.001"."""
    return BLANK if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; empty for None."""
    return BLANK if value is None else f"{value:,.{digits}f}"


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A GitHub table; bars within cells are escaped."""
    cells = [[_bar(cell) for cell in row] for row in rows]
    return tabulate(cells, [_bar(h) for h in headers], tablefmt="pipe", disable_numparse=True, colalign=align)


def markdown_plain(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table without padding, for cells of sentences."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_bar(cell) for cell in line)} |" for line in lines)


def _bar(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def count(number: float, noun: str) -> str:
    """A number with its noun, "1 seed" or "5 seeds"; of nouns whose plural takes an s."""
    return f"{number:g} {noun}" + "s" * (number != 1)


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated values, floats in full precision, None as an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    return buffer.getvalue()
