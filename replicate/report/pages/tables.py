"""Table 1 and the paired differences as the report page shows them: every figure already printed, nothing computed."""

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import get_args

from replicate.columns import COLUMNS, Column
from replicate.report import render
from replicate.report.pages.text import minus
from replicate.report.records import Records
from replicate.report.tables.notes import misprint_mark
from replicate.report.tables.rows import DIVERGED, Cell1, table1
from replicate.schema import HEADLINE, LEVELS, Difference, Metric

METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class CellView:
    """One cell as text; empty where there is nothing, with the reason in `reason` where there should be something."""

    level: str
    ours: str
    spread: str
    gain: str
    paper: str
    paper_gain: str
    difference: str
    interval: str
    reason: str


@dataclass(frozen=True)
class RowView:
    """One column of Table 1, as a row of the page's table."""

    column: Column
    cells: list[CellView]


def metric_tables(records: Records) -> dict[str, list[RowView]]:
    """Metric -> one row per column of the run, one cell per level. The paper prints the four of HEADLINE only."""
    headline = {(cell.metric, cell.level, cell.column): cell for cell in table1(records)}
    return {
        metric: [
            RowView(
                column,
                [
                    _headline_view(headline[metric, level, column.slug])
                    if metric in HEADLINE
                    else _companion_view(records, metric, level, column.slug)
                    for level in LEVELS
                ],
            )
            for column in records.columns
        ]
        for metric in METRICS
    }


def _headline_view(cell: Cell1) -> CellView:
    several = cell.sd_seeds is not None
    gains = None not in (cell.gain, cell.paper_gain)
    mark = misprint_mark(cell.metric, cell.level, cell.column).removeprefix("^")
    diverged = DIVERGED if cell.marks.endswith(DIVERGED) else ""
    return CellView(
        level=cell.level,
        ours=render.percent(cell.ours) + diverged,
        spread=_spread(cell.sd_draws, cell.sd_seeds),
        gain=minus(render.signed(cell.gain)) + cell.marks.removesuffix(DIVERGED),
        paper=render.percent(cell.paper),
        paper_gain=render.signed(cell.paper_gain) + (f" [{mark}]" if mark else ""),
        difference=minus(
            render.signed(cell.against_paper)
            + (f" ({render.signed(cell.gain - cell.paper_gain)})" if gains else render.BLANK)
        ),
        interval=minus(render.interval(cell.interval_seeds if several else cell.interval)),
        reason=cell.reason or "",
    )


def _companion_view(records: Records, metric: str, level: str, column: str) -> CellView:
    cells = [records.cell(column, seed, metric, level) for seed in records.run.seeds]
    means = records.seed_means(column, metric, level)
    found = records.difference(column, metric, level)
    seeds = found.seeds if found else None
    return CellView(
        level=level,
        ours=render.percent(fmean(means) if means else None),
        spread=_spread(fmean(cell.sd**2 for cell in cells) ** 0.5, stdev(means) if len(means) > 1 else None)
        if means
        else "",
        gain=minus(render.signed(found.difference)) if found else "",
        paper="",
        paper_gain="",
        difference="",
        interval=minus(render.interval(seeds.interval if seeds else found.interval)) if found else "",
        reason=next((cell.reason for cell in cells if cell.reason), ""),
    )


def _spread(draws: float | None, seeds: float | None) -> str:
    """ "±0.4" over draws; with several seeds "±0.4 / ±0.2" over draws and over seeds, which are never merged."""
    parts = [f"±{render.percent(value, 2)}" for value in (draws, seeds) if value is not None]
    return " / ".join(parts)


def difference_rows(records: Records) -> list[dict[str, str]]:
    """Every paired difference of the run as printed text."""
    return [_difference_row(each) for each in (records.compare.differences if records.compare else ())]


def _difference_row(each: Difference) -> dict[str, str]:
    seeds, same = each.seeds, each.equivalence
    return {
        "column": COLUMNS[each.column].title,
        "baseline": COLUMNS[each.baseline].title,
        "metric": each.metric,
        "level": each.level,
        "family": each.family,
        "difference": minus(render.signed(each.difference, 2)) + ("*" if each.starred else ""),
        "interval": minus(render.interval(each.interval, 2)),
        "simultaneous": minus(render.interval(each.simultaneous, 2)),
        "p": render.probability(each.p),
        "adjusted": render.probability(each.p_adjusted),
        "holm": render.probability(each.p_holm),
        "bh": render.probability(each.p_bh),
        "detectable": render.percent(each.detectable, 2),
        "seeds_interval": minus(render.interval(seeds.interval, 2)) if seeds else "",
        "seeds_p": render.probability(seeds.p) if seeds else "",
        "equivalence": same.verdict if same else "",
        "reason": each.reason or "",
    }
