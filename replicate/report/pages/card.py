"""The verdict card: every claim with effect, interval, detectable effect and verdict, one card per dataset.

Synthetic and real data never share a table, and what is settled by computation stands apart from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replicate.columns import COLUMNS
from replicate.report import render
from replicate.report.claims.gains import PAIRS
from replicate.report.claims.judging import Result, figures, judge, judge_records, shown
from replicate.report.claims.mathematics import CLAIMS as COMPUTED
from replicate.report.claims.verdicts import UNTESTABLE, VERDICTS
from replicate.report.records import CONDITIONAL, Records
from replicate.report.tables.notes import divergence_notes, rounding_note
from replicate.schema import HEADLINE

# What the README's card keeps beside the increments; the rest stands in PAPER.md and in the report.
MAIN = (
    "significant",
    "sizes-of-gains",
    "ensemble-best",
    "netvlad-gains-most",
    "falls-less-with-coherence",
    "helps-rare-classes",
    "gain-needs-order",
    "helps-small-training-sets",
    "kernel-5-and-4-maps",
    "kernels-peak-at-centre",
    "attention-more-uniform",
    "overhead-small",
    "size-unchanged",
)


@dataclass(frozen=True)
class Row:
    """One line of a card, as text."""

    name: str
    claim: str
    section: str
    effect: str
    interval: str
    detectable: str
    paper: str
    verdict: str
    evidence: str


@dataclass(frozen=True)
class Card:
    """One dataset's card.

    Attributes:
        heading: profile and kind of data.
        sentences: what must be known to read it.
        gains: a row per coherent column, a Row per headline metric.
        rows: the other claims about data.
    """

    heading: str
    sentences: tuple[str, ...]
    gains: tuple[tuple[str, tuple[Row, ...]], ...]
    rows: tuple[Row, ...]


def rows(folder: Path) -> list[Row]:
    """Every claim of one results folder as text, in the order of the registry."""
    return [row_of(result) for result in judge(folder)]


def row_of(result: Result) -> Row:
    """A judged claim as text."""
    return Row(
        name=result.name,
        claim=result.text,
        section=result.section,
        **vars(figures(result)),
        verdict=result.verdict,
        evidence=result.evidence,
    )


def card(records: Records) -> Card:
    """The card of one run."""
    results = judge_records(records)
    found = {result.name: row_of(result) for result in results}
    computed = {claim.name for claim in COMPUTED}
    gains, shown_there = [], set(computed)
    for column, baseline in PAIRS:
        prefix = f"gain-{column.removeprefix('tc_')}-"
        cells = tuple(row for name, row in found.items() if name.startswith(prefix))
        gains.append((f"{COLUMNS[column].title} over {COLUMNS[baseline].title}", cells))
        shown_there.update(row.name for row in cells)
    others = tuple(row for name, row in found.items() if name not in shown_there)
    return Card(_heading(records), tuple(_sentences(records, results)), tuple(gains), others)


def _heading(records: Records) -> str:
    return f"{records.run.data.capitalize()} data: {records.run.profile}"


def _sentences(records: Records, results: list[Result]) -> list[str]:
    verdicts = [result.verdict for result in results if result.name not in {claim.name for claim in COMPUTED}]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS)
    sentences = [f"{len(verdicts)} claims: {counts}."]
    if records.synthetic:
        sentences.append("Made up (docs/synthetic.md): verdicts exercise the pipeline and say nothing of real videos.")
    if records.rounded:
        sentences.append(rounding_note(records))
    seeds = len(records.run.seeds)
    sentences.append(CONDITIONAL if seeds == 1 else f"Intervals span test videos and {seeds} training seeds.")
    sentences += divergence_notes(records)
    split = records.run.split
    sentences.append(
        f"Trained on {split['train']:,} videos; {render.count(split['draws'], 'test draw')} of {split['draw_size']:,}. "
        "Scores, increments and intervals in percentage points; 'detectable' is the smallest true effect found with "
        "power 0.8, blank where nothing was sampled."
    )
    return sentences


def computed_rows() -> list[Row]:
    """The claims that are settled by computation, the same for every dataset."""
    made = []
    for claim in COMPUTED:
        found = claim.judge(None)
        effect = shown(found.effect, claim.unit)
        paper = shown(found.paper, claim.unit)
        made.append(Row(claim.name, claim.text, claim.section, effect, "", "", paper, found.verdict, found.evidence))
    return made


def brief(cards: Sequence[Card]) -> str:
    """Cards for the README as Markdown, each under its own heading, real data first: the increments and MAIN."""
    parts = []
    for each in _ordered(cards):
        chosen = [row for row in each.rows if row.name in MAIN]
        tested = [row for row in chosen if row.verdict != UNTESTABLE]
        parts += [*_head(each), _increments(each), _claims(each, tested), _untested(chosen)]
    verdicts = [row.verdict for row in computed_rows()]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in VERDICTS if word in verdicts)
    parts.append(
        f"Computation settles {len(verdicts)} claims, most of them mathematical: {counts}. They, and all claims that "
        "these tables lack, stand with their evidence in [PAPER.md](PAPER.md#verdicts)."
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def markdown(cards: Sequence[Card]) -> str:
    """Cards as Markdown, each under its own heading, real data first; then what was settled by computation."""
    parts = [part for each in _ordered(cards) for part in (*_head(each), _increments(each), _claims(each, each.rows))]
    headers = ["Claim", "Section", "Verdict", "Evidence"]
    settled = [[row.claim, row.section, f"**{row.verdict}**", row.evidence] for row in computed_rows()]
    parts += ["### Settled by computation", render.markdown_plain(headers, settled)]
    return "\n\n".join(parts) + "\n"


def _ordered(cards: Sequence[Card]) -> list[Card]:
    return sorted(cards, key=lambda each: each.heading)  # "Real ..." before "Synthetic ..."


def _synthetic(each: Card) -> str:
    return " (synthetic)" if each.heading.startswith("Synthetic") else ""


def _head(each: Card) -> tuple[str, str]:
    return f"### {each.heading}", " ".join(each.sentences)


def _increments(each: Card) -> str:
    matrix = [[title, *(_cell(row) for row in cells)] for title, cells in each.gains]
    table = render.markdown([f"Coherence improves{_synthetic(each)}", *HEADLINE], matrix)
    legend = "Increment, 95 % interval (simultaneous), detectable effect in brackets, the paper's increment, verdict."
    return f"{table}\n\n{legend}"


def _claims(each: Card, chosen: Sequence[Row]) -> str:
    headers = [f"Claim{_synthetic(each)}", "Effect", "95 % interval", "Detectable", "Paper", "Verdict"]
    lines = [[row.claim, row.effect, row.interval, row.detectable, row.paper, _verdict(row)] for row in chosen]
    return render.markdown_plain(headers, lines)


def _untested(chosen: Sequence[Row]) -> str:
    """The claims of these that were not testable, in one paragraph; empty where there is none."""
    found = [row.claim.rstrip(".") for row in chosen if row.verdict == UNTESTABLE]
    return f"Not testable on these records ([why](PAPER.md#verdicts)): {'; '.join(found)}." if found else ""


def _verdict(row: Row) -> str:
    why = f": {row.evidence}" if row.verdict == UNTESTABLE else ""
    return f"**{row.verdict}**{why}"


def _cell(row: Row) -> str:
    if not row.effect:
        return row.verdict
    return f"{row.effect} {row.interval} ({row.detectable}); paper {row.paper}: **{row.verdict}**"
