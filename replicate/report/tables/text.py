"""Tables 1 and 2 as Markdown, CSV and LaTeX. Every header says when data are synthetic."""

import dataclasses
import itertools
import string

from replicate.columns import COLUMNS
from replicate.report.records import Records
from replicate.report.render import BLANK, csv_text, interval, markdown, number, percent, probability, signed
from replicate.report.tables.latex import latex
from replicate.report.tables.notes import misprint_mark, notes1, notes2, protocol_note
from replicate.report.tables.rows import Cell1, Column2
from replicate.schema import Interval

UNDEFINED = "-"


def markdown1(records: Records, cells: list[Cell1]) -> str:
    """Table 1 in the paper's layout: per level ours, the increment's interval, the paper's, and the difference."""
    title = f"## Table 1, {records.label}\n\nGAP, MAP, PERR and Hit@1 by level of the hierarchy."
    tables = [markdown(*_block(records, metric, list(group))) for metric, group in _by_metric(cells)]
    return _page([title, *tables, _listed([*notes1(records, cells), "One row per cell: table1_detail.md."])])


def _by_metric(cells: list[Cell1]):
    return itertools.groupby(cells, key=lambda cell: cell.metric)


def _by_level(cells: list[Cell1]):
    return itertools.groupby(cells, key=lambda cell: cell.level)


def _block(records: Records, metric: str, cells: list[Cell1]) -> tuple[list[str], list[list[str]], list[str]]:
    titles = [column.title for column in records.columns]
    head = f"{metric}, synthetic" if records.synthetic else metric
    rows = []
    for level, group in _by_level(cells):
        group = list(group)
        rows.append([level_title(level), "ours", *(ours(cell) for cell in group)])
        if records.pairs:
            rows.append([BLANK, "interval", *(interval(cell.simultaneous) for cell in group)])
        rows.append([BLANK, "paper", *(papers(cell) for cell in group)])
        rows.append([BLANK, "ours - paper", *(_against(cell) for cell in group)])
    return [head, BLANK, *titles], rows, ["left", "left", *["right"] * len(titles)]


def level_title(level: str) -> str:
    """ "Overall" or "Level 2", as the paper prints it."""
    return "Overall" if level == "overall" else f"Level {level}"


def ours(cell: Cell1) -> str:
    """Our value, increment and marks: "78.5 (+0.8)*†"."""
    if cell.ours is None:
        return UNDEFINED
    return percent(cell.ours) + _bracket(cell.gain) + cell.marks


def papers(cell: Cell1) -> str:
    """The paper's value with the difference of its values, and a footnote mark where it prints another; empty for a
    column that is not the paper's."""
    return _papers(cell) + _mark(cell)


def _papers(cell: Cell1) -> str:
    return percent(cell.paper) + _bracket(cell.paper_gain)


def _mark(cell: Cell1) -> str:
    return misprint_mark(cell.metric, cell.level, cell.column)


def _against(cell: Cell1) -> str:
    gains = None not in (cell.gain, cell.paper_gain)
    return signed(cell.against_paper) + (_bracket(cell.gain - cell.paper_gain) if gains else BLANK)


def _bracket(increment: float | None) -> str:
    return BLANK if increment is None else f" ({signed(increment)})"


def detail1(records: Records, cells: list[Cell1]) -> str:
    """Table 1 with one row per cell and every figure of it."""
    several = len(records.run.seeds) > 1
    headers = ["Metric", "Level", "Column", "Ours", "SD over draws", *["SD over seeds"] * several, "Pool", "Paper"]
    headers += ["Ours - paper", "Over", "Increment", "Simultaneous 95 %", "Adjusted p", "Detectable"]
    over_seeds = ["Increment's SD over seeds", "95 % over seeds", "Detectable over seeds"]
    headers += [*over_seeds * several, "Paper's increment", "Marks"]
    rows = []
    for cell in cells:
        row = [cell.metric, level_title(cell.level), COLUMNS[cell.column].title, percent(cell.ours) or UNDEFINED]
        row += [percent(cell.sd_draws, 2), *[percent(cell.sd_seeds, 2)] * several, percent(cell.pool)]
        over = COLUMNS[cell.baseline].title if cell.baseline else BLANK
        row += [percent(cell.paper), signed(cell.against_paper), over, signed(cell.gain), interval(cell.simultaneous)]
        row += [probability(cell.p_adjusted), percent(cell.detectable, 2)]
        noise = [percent(cell.sd_gain_seeds, 2), interval(cell.interval_seeds), percent(cell.detectable_seeds, 2)]
        row += noise * several
        paper = signed(cell.paper_gain) + _mark(cell)
        rows.append([*row, paper, cell.marks])
    align = ["left"] * 3 + ["right"] * (len(headers) - 4) + ["left"]
    title = f"## Table 1 in detail, {records.label}"
    if records.synthetic:
        headers[0] += ", synthetic"
    return _page([title, markdown(headers, rows, align), _listed(notes1(records, cells))])


def csv1(cells: list[Cell1]) -> str:
    """Table 1, one row per cell, fractions in full precision."""
    return _csv(Cell1, cells)


def csv2(columns: list[Column2]) -> str:
    """Table 2, one row per column; seconds, bytes, joules and megabytes in full precision; reasons last."""
    return _csv(Column2, columns)


def _csv(kind: type, rows: list) -> str:
    names = [field.name for field in dataclasses.fields(kind)]
    bounds = [field.name for field in dataclasses.fields(kind) if field.type == Interval | None]
    headers = [part for name in names for part in ((f"{name}_low", f"{name}_high") if name in bounds else (name,))]
    lines = []
    for row in rows:
        line = []
        for name in names:
            value = getattr(row, name)
            if name in bounds:
                line += list(value or (None, None))
            elif isinstance(value, dict):
                line.append("; ".join(f"{key}: {reason}" for key, reason in value.items()))
            else:
                line.append(value)
        lines.append(line)
    return csv_text(headers, lines)


def latex1(records: Records, cells: list[Cell1]) -> str:
    """Table 1 for a LaTeX document that loads booktabs and graphicx: the rows of `markdown1`, a float per metric."""
    blocks = []
    for metric, group in _by_metric(cells):
        levels = [
            {"title": level_title(level), "rows": _latex_rows(records, list(row))}
            for level, row in _by_level(list(group))
        ]
        blocks.append({"metric": f"{metric} (synthetic)" if records.synthetic else metric, "levels": levels})
    titles = [column.title for column in records.columns]
    return latex("table1.tex.j2", label=records.label, titles=titles, blocks=blocks, notes=notes1(records, cells))


def _latex_rows(records: Records, cells: list[Cell1]) -> list[dict[str, object]]:
    """The rows of one level: a name and cells of text and footnote mark."""
    rows: list[tuple[str, list[tuple[str, str]]]] = [("ours", [(ours(cell), BLANK) for cell in cells])]
    if records.pairs:
        rows.append(("interval", [(interval(cell.simultaneous), BLANK) for cell in cells]))
    rows.append(("paper", [(_papers(cell), _mark(cell).removeprefix("^")) for cell in cells]))
    rows.append(("ours - paper", [(_against(cell), BLANK) for cell in cells]))
    return [{"name": name, "cells": [{"text": text, "mark": mark} for text, mark in row]} for name, row in rows]


MEGABYTE = 1e6
# (label, whether ours, field, how its value prints)
QUANTITIES = (
    ("Seconds per epoch, projected", "seconds_per_epoch", lambda value: number(value, 2)),
    ("Seconds per step", "seconds_per_step", lambda value: number(value, 4)),
    ("Times its baseline's step", "slower", lambda value: number(value, 3)),
    ("Videos per second", "videos_per_second", number),
    ("Peak GPU memory, torch's allocator, MB", "gpu_torch_bytes", lambda value: number(value / MEGABYTE)),
    ("Peak GPU memory, NVML, MB", "gpu_nvml_bytes", lambda value: number(value / MEGABYTE)),
    ("GPU energy per 1,000 videos, J", "joules_per_1000_videos", number),
    ("Peak resident memory, MB", "rss_bytes", lambda value: number(value / MEGABYTE)),
    ("Weights, MB", "megabytes", lambda value: number(value, 3)),
    ("Parameters", "parameters", lambda value: number(value, 0)),
    ("Paper: minutes per epoch", "paper_minutes", lambda value: f"{value:g}"),
    ("Paper: model size, MB", "paper_megabytes", lambda value: f"{value:g}"),
)


def rows2(columns: list[Column2]) -> tuple[list[list[str]], list[str]]:
    """The printed rows of Table 2, and the reasons that its bracketed letters stand for."""
    letters: dict[str, str] = {}
    rows = []
    for label, name, shown in QUANTITIES:
        row = [label]
        for column in columns:
            value = getattr(column, name)
            reason = column.reasons.get(name)
            if value is not None:
                row.append(shown(value))
            elif reason:
                row.append(f"({letters.setdefault(reason, string.ascii_lowercase[len(letters)])})")
            else:
                row.append(BLANK)
        rows.append(row)
    return rows, [f"({letter}) not measured: {reason}." for reason, letter in letters.items()]


def markdown2(records: Records, columns: list[Column2]) -> str:
    """Table 2: what each column costs, the paper's figures below."""
    rows, reasons = rows2(columns)
    head = "Synthetic data" if records.synthetic else BLANK
    table = markdown([head, *(column.title for column in columns)], rows, ["left", *["right"] * len(columns)])
    title = f"## Table 2, {records.label}\n\nTraining time and model size."
    return _page([title, table, _listed([*reasons, *notes2(records, columns), protocol_note(records)])])


def latex2(records: Records, columns: list[Column2]) -> str:
    """Table 2 for a LaTeX document that loads booktabs and graphicx."""
    rows, reasons = rows2(columns)
    titles = [column.title for column in columns]
    notes = [*reasons, *notes2(records, columns), protocol_note(records)]
    head = "Synthetic data" if records.synthetic else BLANK
    return latex("table2.tex.j2", label=records.label, head=head, titles=titles, rows=rows, notes=notes)


def _listed(notes: list[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def _page(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"
