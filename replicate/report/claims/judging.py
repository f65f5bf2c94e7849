"""The claims of the paper as executable rows: what is claimed, which figure tests it, by which rule, the verdict.

Texts, figures and rules are fixed here and do not depend on results. A verdict is one of VERDICTS; "refuted" is said
only when the interval excludes the paper's effect, and a claim that a run cannot test says why.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.record import write_json, write_text
from replicate.report import render
from replicate.report.claims import costs, gains, levels, mathematics, studies, training
from replicate.report.claims.claim import Claim
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


def shown(value: float | None, unit: str, sign: bool = True) -> str:
    """An effect as printed: points and percents with one decimal, the rest as fits its unit; empty for None."""
    if value is None:
        return render.BLANK
    if unit == "number":
        return f"{value:+.2g}" if value else "0"
    scale, digits, suffix = {
        "points": (100, 1, ""),
        "percent": (100, 1, " %"),
        "share": (1, 2, ""),
        "spread": (100, 3, ""),
        "correlation": (1, 2, ""),
        "megabytes": (1, 4, " MB"),
    }[unit]
    signed = sign and unit not in ("share", "spread")  # which are never negative
    number = render.with_sign(scale * value, digits)
    return (number if signed else number.removeprefix("+")) + suffix


def shown_interval(bounds: Interval | None, unit: str) -> str:
    """An interval as printed; empty for None."""
    return render.BLANK if bounds is None else f"[{shown(bounds[0], unit)}, {shown(bounds[1], unit)}]"


def sentence(result: Result, rules: bool = False) -> str:
    """A judged claim for a terminal: verdict, text, figures, evidence; with `rules` how it was judged, too."""
    figures = [
        f"{shown(result.effect, result.unit)} {shown_interval(result.interval, result.unit)}".strip(),
        f"detectable {shown(result.detectable, result.unit, sign=False)}" if result.detectable is not None else "",
        f"paper {shown(result.paper, result.unit)}" if result.paper is not None else "",
    ]
    lines = [f"{result.verdict:<17}  {result.text} (section {result.section})"]
    lines += [f"{'':19}{'; '.join(filter(None, figures))}"] if any(figures) else []
    lines += [f"{'':19}{text}" for text in (result.evidence,) if text]
    if rules:
        lines += [f"{'':19}statistic: {result.statistic}", f"{'':19}rule: {result.rule}"]
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
