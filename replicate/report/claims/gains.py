"""Claims of section 4.3 about overall scores: what temporal coherence adds to each model, and where it adds most."""

from collections.abc import Callable

from replicate import reference
from replicate.columns import COLUMNS
from replicate.report.claims.claim import Claim, lacking
from replicate.report.claims.contrast import BOTH_NOISES, TEST_NOISE, contrast, of_difference
from replicate.report.claims.verdicts import (
    ALL_RULE,
    INCONCLUSIVE,
    POSITIVE_RULE,
    REFUTED,
    SUPPORTED,
    Judgement,
    Part,
    judge_parts,
    untestable,
)
from replicate.report.records import Records
from replicate.schema import HEADLINE

PAIRS = [(slug, column.baseline) for slug, column in COLUMNS.items() if column.baseline]
# A printed value is off by up to 0.05 points; a difference of two by 0.1, of two increments by 0.2.
DIFFERENCE_SLACK, DOUBLE_SLACK = 0.001, 0.002
SIMULTANEOUS = (
    "mean over draws of the paired difference; interval simultaneous over the primary family, joined with the one "
    "over seeds where there are several"
)
OVER_DRAWS = "per draw, then mean; t interval over draws, joined with the one over seeds where there are several"


def paper(metric: str, level: str, column: str) -> float:
    """The paper's score."""
    return reference.table1()[metric, level, column].value


def paper_gain(metric: str, level: str, column: str) -> float:
    """The difference of the paper's scores."""
    return reference.table1()[metric, level, column].increment


def gain(score, metric: str, level: str, column: str) -> float:
    """A column minus its baseline on one draw."""
    return score(column, metric, level) - score(COLUMNS[column].baseline, metric, level)


def judged_contrasts(records: Records, columns: list[str], wanted: list[tuple]) -> Judgement:
    """judge_parts over (what, figure of a draw, paper's effect), if the columns and cells are there."""
    reason = lacking(records, columns)
    if reason:
        return untestable(reason)
    try:
        parts = [
            Part(what, contrast(records, figure, among=len(wanted)), effect, slack)
            for what, figure, effect, slack in wanted
        ]
    except KeyError as undefined:
        return untestable(f"A score that it needs is undefined here: {undefined.args[0]}.")
    return judge_parts(parts)


def _improves(column: str, metric: str) -> Claim:
    title, baseline = COLUMNS[column].title, COLUMNS[column].baseline

    def judge(records: Records) -> Judgement:
        reason = lacking(records, [column, baseline])
        found = records.difference(column, metric)
        if reason or found is None or found.difference is None:
            return untestable(reason or (found.reason if found else "The run compared no such pair."))
        part = Part(title, of_difference(found), paper_gain(metric, "overall", column), DIFFERENCE_SLACK)
        return judge_parts([part])

    return Claim(
        name=f"gain-{column.removeprefix('tc_')}-{metric.lower().replace('@', '')}",
        text=f"{title} beats {COLUMNS[baseline].title} in overall {metric}.",
        section="4.3",
        statistic=f"{metric} of {title} minus {COLUMNS[baseline].title}, {SIMULTANEOUS}",
        rule=POSITIVE_RULE,
        unit="points",
        judge=judge,
    )


def _ensemble_best(records: Records) -> Judgement:
    others = [slug for slug in COLUMNS if slug != "tc_ens"]
    wanted = [
        (
            f"{metric} against {COLUMNS[other].title}",
            lambda score, metric=metric, other=other: (
                score("tc_ens", metric, "overall") - score(other, metric, "overall")
            ),
            paper(metric, "overall", "tc_ens") - paper(metric, "overall", other),
            DIFFERENCE_SLACK,
        )
        for metric in HEADLINE
        for other in others
    ]
    return judged_contrasts(records, list(COLUMNS), wanted)


def _netvlad_most(records: Records) -> Judgement:
    wanted = [
        (
            f"{metric}, NetVLAD's increment minus that of {COLUMNS[other].title}",
            lambda score, metric=metric, other=other: (
                gain(score, metric, "overall", "tc_netv") - gain(score, metric, "overall", other)
            ),
            paper_gain(metric, "overall", "tc_netv") - paper_gain(metric, "overall", other),
            DOUBLE_SLACK,
        )
        for metric in ("GAP", "MAP")
        for other in ("tc_rnn", "tc_tm")
    ]
    return judged_contrasts(records, ["rnn_attn", "tc_rnn", "netv", "tc_netv", "tm", "tc_tm"], wanted)


def _metric_gains_more(larger: tuple[str, ...], smaller: str) -> Callable[[Records], Judgement]:
    """Of every pair, the increment in each of some metrics minus the one in another."""

    def judge(records: Records) -> Judgement:
        wanted = [
            (
                f"{COLUMNS[column].title}, {metric}'s increment minus {smaller}'s",
                lambda score, metric=metric, column=column: (
                    gain(score, metric, "overall", column) - gain(score, smaller, "overall", column)
                ),
                paper_gain(metric, "overall", column) - paper_gain(smaller, "overall", column),
                DOUBLE_SLACK,
            )
            for column, _ in PAIRS
            for metric in larger
        ]
        return judged_contrasts(records, [slug for pair in PAIRS for slug in pair], wanted)

    return judge


def _sizes(records: Records) -> Judgement:
    """Equivalence of every primary increment with the paper's."""
    reason = lacking(records, [slug for pair in PAIRS for slug in pair])
    if reason:
        return untestable(reason)
    cells = [records.difference(column, metric) for column, _ in PAIRS for metric in HEADLINE]
    verdicts = [each.equivalence.verdict for each in cells if each and each.equivalence]
    if len(verdicts) < len(cells):
        return untestable("The run tested no equivalence with the paper's increments.")
    farthest = max(cells, key=lambda each: abs(each.difference - each.equivalence.paper))
    verdict = REFUTED if "differs" in verdicts else SUPPORTED if set(verdicts) == {"matches"} else INCONCLUSIVE
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("matches", "inconclusive", "differs"))
    return Judgement(
        verdict=verdict,
        evidence=f"Of {len(cells)} increments {counts}; farthest: {COLUMNS[farthest.column].title}, {farthest.metric}.",
        effect=farthest.difference - farthest.equivalence.paper,
        interval=farthest.equivalence.interval,
        paper=0.0,
        noise=f"{BOTH_NOISES if len(records.run.seeds) > 1 else TEST_NOISE}; the interval is 90 %",
    )


def _significant(records: Records) -> Judgement:
    """Whether every primary increment is positive and starred."""
    reason = lacking(records, [slug for pair in PAIRS for slug in pair])
    if reason:
        return untestable(reason)
    cells = [records.difference(column, metric) for column, _ in PAIRS for metric in HEADLINE]
    if any(each is None or each.difference is None for each in cells):
        return untestable("A primary increment is undefined here.")
    parts = [
        Part(
            f"{COLUMNS[each.column].title}, {each.metric}",
            of_difference(each, among=len(cells)),
            paper_gain(each.metric, "overall", each.column),
            DIFFERENCE_SLACK,
        )
        for each in cells
    ]
    starred = sum(each.starred and each.difference > 0 for each in cells)
    remark = f"{starred} of {len(cells)} are positive and significant over test videos after adjustment."
    if len(records.run.seeds) == 1:
        remark += " One training per column cannot say whether another would show it."
    return judge_parts(parts, remark)


CLAIMS = [
    *(_improves(column, metric) for column, _ in PAIRS for metric in HEADLINE),
    Claim(
        name="significant",
        text="The coherent models beat their baselines consistently, with statistical significance.",
        section="6",
        statistic=f"the sixteen overall increments, each: {SIMULTANEOUS}",
        rule=ALL_RULE,
        unit="points",
        judge=_significant,
    ),
    Claim(
        name="sizes-of-gains",
        text="The increments are as large as printed (RNN and Transformer about 0.9, NetVLAD 1.4 in GAP; erratum 32).",
        section="4.3",
        statistic="ours minus the paper's increment in the sixteen overall cells",
        rule="two one-sided tests against the protocol's margins: supported when all sixteen match, refuted when one "
        "differs, else inconclusive",
        unit="points",
        judge=_sizes,
    ),
    Claim(
        name="ensemble-best",
        text="TC-Ens has the best overall score of all columns.",
        section="4.3",
        statistic=f"TC-Ens minus each other column in each metric, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_ensemble_best,
    ),
    Claim(
        name="netvlad-gains-most",
        text="NetVLAD gains more from coherence than RNN and Transformer do, in GAP and MAP.",
        section="4.3",
        statistic=f"NetVLAD's increment minus each other model's, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_netvlad_most,
    ),
    Claim(
        name="map-gains-more-than-gap",
        text="The overall gain in MAP exceeds the one in GAP for every model (by level it does not, erratum 33).",
        section="4.3",
        statistic=f"increment in MAP minus increment in GAP, per pair, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_metric_gains_more(("MAP",), "GAP"),
    ),
    Claim(
        name="hit-gains-least",
        text="The overall gain in Hit@1 is the smallest of the four metrics.",
        section="4.3",
        statistic=f"increment in GAP, MAP and PERR minus increment in Hit@1, per pair, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_metric_gains_more(("GAP", "MAP", "PERR"), "Hit@1"),
    ),
]
