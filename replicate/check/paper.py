"""Results against the paper: signs and sizes of gains, the order of columns, the fall with depth, sizes, overheads.

A claim that the records support is inside, one that they refute is outside, and one that they cannot decide is not
comparable. Nothing of this says that the code is wrong: a refuted claim is a finding.
"""

from replicate.check.cells import Cell, within
from replicate.columns import COLUMNS
from replicate.reference import table2
from replicate.report.claims.judging import Result, figures, judge_records, shown
from replicate.report.claims.verdicts import REFUTED, SUPPORTED
from replicate.report.records import Records
from replicate.schema import HEADLINE

CLAIMS = ("gain-", "ensemble-best", "netvlad-gains-most", "map-gains-more-than-gap", "hit-gains-least", "column-order",
          "falls-with-depth", "falls-less-with-coherence", "size-unchanged", "overhead-small")  # fmt: skip


def check_paper(records: Records) -> list[Cell]:
    """All cells: claims, sizes of gains, model sizes; one that says why absolute scores are not among them."""
    claims = [_claim_cell(result) for result in judge_records(records) if result.name.startswith(CLAIMS)]
    return [*claims, *_gain_cells(records), *_size_cells(), ABSOLUTE]


ABSOLUTE = Cell(
    "scores", "absolute scores of Table 1", "not checked",
    reason="the paper's 640 nodes and their labels are not public, so its scores are of other classes than ours",
)  # fmt: skip


def _claim_cell(result: Result) -> Cell:
    state = {SUPPORTED: "inside", REFUTED: "outside"}.get(result.verdict, "not comparable")
    printed = figures(result)
    found = f"{printed.effect} {printed.interval}".strip()
    reason = "" if state == "inside" else f"{result.verdict}: {result.text} {result.evidence}".strip()
    return Cell("claims", result.name, state, found, printed.paper, reason)


def _gain_cells(records: Records) -> list[Cell]:
    """Whether each overall gain is the paper's within the protocol's margin, by its test of equivalence."""
    cells = []
    for column, _ in records.pairs:
        for metric in HEADLINE:
            name, found = f"size of {COLUMNS[column].title}'s gain in {metric}", records.difference(column, metric)
            if found is None or found.equivalence is None:
                reason = (found.reason if found else None) or "the run compared no such pair with the paper"
                cells.append(Cell("gains", name, "not comparable", reason=reason))
                continue
            test = found.equivalence
            state = {"matches": "inside", "differs": "outside"}.get(test.verdict, "not comparable")
            reason = (
                "" if state == "inside" else f"{test.verdict} within {shown(test.margin, 'points', sign=False)} points"
            )
            expected = shown(test.paper, "points")
            cells.append(Cell("gains", name, state, shown(found.difference, "points"), expected, reason))
    return cells


def _size_cells() -> list[Cell]:
    """Megabytes of the models at the paper's sizes, which need no run, beside Table 2 as rounded there."""
    from replicate.model_sizes import sizes
    from replicate.profile_files import load_profile

    printed, cells = table2(), []
    for size in sizes(load_profile("paper")):
        if size.column not in printed:
            continue
        megabytes = printed[size.column][1]
        half = 0.05 if megabytes < 50 else 0.5  # it prints one decimal below 50, none above
        reason = "the sizes of preset C do not give the paper's"
        low, high = megabytes - half, megabytes + half
        cells.append(within("sizes", f"megabytes of {COLUMNS[size.column].title}", size.megabytes, low, high, reason))
    return cells
