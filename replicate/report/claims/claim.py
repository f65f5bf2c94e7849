"""What a claim of the paper is here: its text, the figure that tests it, the rule, and the function that judges."""

from collections.abc import Callable
from dataclasses import dataclass

from replicate.columns import COLUMNS
from replicate.report.claims.verdicts import Judgement
from replicate.report.records import Records


@dataclass(frozen=True)
class Claim:
    """A row of the registry.

    Attributes:
        name: for the command line and files.
        text: what the paper claims, in our words.
        section: where.
        statistic: the figure that tests it.
        rule: how the verdict follows.
        unit: of the effect: "points" (a difference of scores: a fraction, percentage points in print), "percent",
            "spread" (a standard deviation of scores), "share", "correlation", "megabytes", "number" or "" (nothing
            measured).
        judge: records -> judgement.
        depends_on_data: False for claims that are settled by computation alone.
    """

    name: str
    text: str
    section: str
    statistic: str
    rule: str
    unit: str
    judge: Callable[[Records], Judgement]
    depends_on_data: bool = True


ABSENT = ", which this run has not."  # ends the reason of every claim about columns that were not run


def lacking(records: Records, columns: list[str], trained: bool = True) -> str | None:
    """Why a claim about `columns` cannot be tested on these records; None if it can.

    Args:
        records: of the run.
        columns: slugs.
        trained: the claim speaks of scores or learned weights, which a diverged training does not have.
    """
    missing = [COLUMNS[slug].title for slug in columns if slug not in records.run.columns]
    if missing:
        return f"Needs {', '.join(missing)}{ABSENT}"
    diverged = [COLUMNS[slug].title for slug in dict.fromkeys(columns) if trained and records.diverged(slug)]
    return f"Needs {', '.join(diverged)}, whose training diverged." if diverged else None
