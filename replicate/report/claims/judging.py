"""The claims of the paper as executable rows: what is claimed, which figure tests it, by which rule, the verdict.

Texts, figures and rules are fixed here and do not depend on results. A verdict is one of VERDICTS; "refuted" is said
only when the interval excludes the paper's effect, and a claim that a run cannot test says why.
"""

import dataclasses
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.record import write_json, write_text
from replicate.report import render
from replicate.report.claims import costs, gains, levels, mathematics, studies, training
from replicate.report.claims.claim import ABSENT, Claim
from replicate.report.claims.verdicts import UNTESTABLE
from replicate.report.records import Records
from replicate.schema import Interval


@dataclass(frozen=True)
class Result:
    """A claim judged on one run: plain fields, ready to print."""

    name: str
    text: str
    section: str
    statistic: str
    rule: str
    profile: str
    data: str
    unit: str
    effect: float | None
    interval: Interval | None
    detectable: float | None
    paper: float | None
    noise: str | None
    conditional: bool
    verdict: str
    evidence: str


def registry() -> list[Claim]:
    """All claims, in the order of the card."""
    groups = (gains, studies, levels, training, costs, mathematics)
    return [claim for group in groups for claim in group.CLAIMS]


def rule_letters() -> dict[str, str]:
    """A letter for every rule, in the order of the registry: the same rule stands behind many claims."""
    rules = dict.fromkeys(claim.rule for claim in registry())
    return {rule: string.ascii_uppercase[place] for place, rule in enumerate(rules)}


def judge(folder: Path) -> list[Result]:
    """Every claim on the records of one results folder.

    Raises:
        MissingResult: a record that every run has is missing.
    """
    return judge_records(Records.open(folder))


def judge_records(records: Records) -> list[Result]:
    """Every claim on records that were read already."""
    return [_judged(claim, records) for claim in registry()]


def _judged(claim: Claim, records: Records) -> Result:
    found = claim.judge(records)
    values = dataclasses.asdict(found) | {
        name: getattr(claim, name) for name in ("name", "text", "section", "statistic", "rule", "unit")
    }
    conditional = claim.depends_on_data and len(records.run.seeds) == 1
    return Result(**values, profile=records.run.profile, data=records.run.data, conditional=conditional)


SCALES = {  # unit -> factor, decimals, what follows the number
    "points": (100, 1, ""),
    "percent": (100, 1, " %"),
    "share": (1, 2, ""),
    "spread": (100, 3, ""),
    "correlation": (1, 2, ""),
    "megabytes": (1, 4, " MB"),
}
NOTHING = 1e-12  # what rounding in float64 leaves of zero


def shown(value: float | None, unit: str, sign: bool = True, digits: int | None = None) -> str:
    """A figure as printed, with `digits` decimals or, by default, as fits its unit: points and percents with one;
    empty for None."""
    if value is None:
        return render.BLANK
    if unit == "number":
        return f"{value:+.2g}" if value else "0"
    scale, usual, suffix = SCALES[unit]
    signed = sign and unit not in ("share", "spread")  # which are never negative
    number = render.with_sign(scale * value, usual if digits is None else digits)
    return (number if signed else number.removeprefix("+")) + suffix


@dataclass(frozen=True)
class Figures:
    """A judged claim's figures as printed; empty where there is none."""

    effect: str
    interval: str
    detectable: str
    paper: str


def figures(result: Result) -> Figures:
    """The figures of a claim; where its effect and interval would all print as zero and are not, with more decimals."""
    unit, digits = result.unit, _decimals(result)
    bounds = [shown(bound, unit, digits=digits) for bound in result.interval or ()]
    return Figures(
        effect=shown(result.effect, unit, digits=digits),
        interval=f"[{', '.join(bounds)}]" if bounds else render.BLANK,
        detectable=shown(result.detectable, unit, sign=False, digits=digits),
        paper=shown(result.paper, unit),
    )


def _decimals(result: Result) -> int | None:
    """As many as show two digits of an effect (if it is zero, of its interval) that its unit's would round away; None
    for its unit's."""
    if result.effect is None or result.unit not in SCALES:
        return None
    scale, usual, _ = SCALES[result.unit]
    values = [scale * abs(value) for value in (result.effect, *(result.interval or ())) if abs(value) > NOTHING]
    if not values or max(values) >= 0.5 * 10**-usual:
        return None
    return 1 - math.floor(math.log10(values[0]))


def sentences(results: Sequence[Result], rules: bool = False) -> list[str]:
    """Judged claims for a terminal; those about columns that were not run share one of their own, at the end.

    Args:
        results: of one run.
        rules: say by which statistic and rule each was judged, too.
    """
    absent = [result for result in results if result.verdict == UNTESTABLE and result.evidence.endswith(ABSENT)]
    if len(absent) < 2:
        return [_sentence(result, rules) for result in results]
    names = ", ".join(result.name for result in absent)
    return [
        *(_sentence(result, rules) for result in results if result not in absent),
        f"{UNTESTABLE:<17}  {len(absent)} claims need columns that this run has not: {names}",
    ]


def _sentence(result: Result, rules: bool) -> str:
    """Verdict, text, figures, evidence."""
    printed = figures(result)
    parts = [
        f"{printed.effect} {printed.interval}".strip(),
        f"detectable {printed.detectable}" if printed.detectable else "",
        f"paper {printed.paper}" if printed.paper else "",
    ]
    lines = [f"{result.verdict:<17}  {result.text} (section {result.section})"]
    lines += [f"{'':19}{'; '.join(filter(None, parts))}"] if any(parts) else []
    lines += [f"{'':19}{text}" for text in (result.evidence,) if text]
    if rules:
        lines += [f"{'':19}by rule {rule_letters()[result.rule]}; statistic: {result.statistic}"]
    return "\n".join(lines)


def _rounded(value: Any) -> Any:
    """Floats to ten significant digits, so that another processor's last bits do not change the files."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def make_claims(folder: Path) -> list[Path]:
    """Write `folder`/claims.json and claims.csv; the files written."""
    rows = [_rounded(dataclasses.asdict(result)) for result in judge(folder)]
    folder = Path(folder)
    write_json(folder / "claims.json", rows)
    names = [field.name for field in dataclasses.fields(Result) if field.name != "interval"]
    headers = [*names, "interval_low", "interval_high"]
    lines = [[*(row[name] for name in names), *(row["interval"] or (None, None))] for row in rows]
    write_text(folder / "claims.csv", render.csv_text(headers, lines))
    return [folder / "claims.json", folder / "claims.csv"]
