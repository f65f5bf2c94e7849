"""From estimates to a verdict, by rules that were written down before any result was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from replicate.report.claims.contrast import Estimate
from replicate.schema import Interval

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
UNTESTABLE = "not testable here"
VERDICTS = (SUPPORTED, REFUTED, INCONCLUSIVE, UNTESTABLE)

POSITIVE_RULE = (
    "supported when the interval lies above 0; refuted when it does not and also excludes the paper's effect (where "
    "the paper gives none: when it lies below 0); else inconclusive, as is an interval without width, which rests on "
    "no video that tells the columns apart"
)
ALL_RULE = (
    "every part is an effect that should be positive; supported when the interval of each lies above 0; refuted when "
    "one part's interval, widened for the number of parts, does not and excludes the paper's effect; else "
    "inconclusive; shown is the weakest part"
)


@dataclass(frozen=True)
class Part:
    """One effect that a claim expects to be positive.

    Attributes:
        what: for people, e.g. "TC-RNN, GAP".
        paper: the paper's effect, rounded as printed; None where it gives no number.
        slack: how far rounding may have moved `paper`.
    """

    what: str
    estimate: Estimate
    paper: float | None = None
    slack: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and the figures that it rests on; `evidence` is a sentence."""

    verdict: str
    evidence: str
    effect: float | None = None
    interval: Interval | None = None
    detectable: float | None = None
    paper: float | None = None
    noise: str | None = None


def untestable(reason: str) -> Judgement:
    """A claim that these records cannot test, and why."""
    return Judgement(UNTESTABLE, reason)


def verdict_of(part: Part) -> str:
    """POSITIVE_RULE for one part; `wide` is what refutes, so that many parts do not refute by chance."""
    estimate = part.estimate
    if estimate.interval is None or estimate.interval[0] == estimate.interval[1]:
        return INCONCLUSIVE
    if estimate.interval[0] > 0:
        return SUPPORTED
    low, high = estimate.wide
    if part.paper is None:
        return REFUTED if high < 0 else INCONCLUSIVE
    excluded = high < part.paper - part.slack or low > part.paper + part.slack
    return REFUTED if excluded else INCONCLUSIVE


def judge_parts(parts: Sequence[Part], remark: str = "") -> Judgement:
    """ALL_RULE over parts (POSITIVE_RULE when there is one)."""
    verdicts = [verdict_of(part) for part in parts]
    verdict = next((v for v in (REFUTED, INCONCLUSIVE) if v in verdicts), SUPPORTED)
    weakest = min(zip(parts, verdicts, strict=True), key=lambda pair: _order(pair[0], pair[1], verdict))[0]
    return Judgement(
        verdict=verdict,
        evidence=" ".join(filter(None, [_evidence(parts, verdicts, weakest), remark])),
        effect=weakest.estimate.effect,
        interval=weakest.estimate.interval,
        detectable=weakest.estimate.detectable,
        paper=weakest.paper,
        noise=weakest.estimate.noise,
    )


def _order(part: Part, own: str, verdict: str) -> tuple[bool, float]:
    """First the parts that decide the verdict, of them the one whose interval reaches lowest."""
    low = part.estimate.interval[0] if part.estimate.interval else part.estimate.effect
    return own != verdict, low


def _evidence(parts: Sequence[Part], verdicts: list[str], weakest: Part) -> str:
    if len(parts) == 1:
        return _size(parts[0])
    counts = [f"{verdicts.count(v)} {v}" for v in (SUPPORTED, INCONCLUSIVE, REFUTED) if v in verdicts]
    return f"Of {len(parts)} parts {', '.join(counts)}; weakest: {weakest.what}."


def _size(part: Part) -> str:
    """Whether a single effect is smaller or larger than the paper's, which the verdict on its sign does not say."""
    if part.paper is None or part.estimate.interval is None:
        return ""
    low, high = part.estimate.interval
    if low == high:
        return "No video tells the columns apart."
    if high < part.paper - part.slack:
        return "Smaller than the paper's effect."
    if low > part.paper + part.slack:
        return "Larger than the paper's effect."
    return "The interval holds the paper's effect."
