"""Claims of section 4.3 about levels, rare classes and the order of columns, and of section 4.2 about draws."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from replicate.columns import COLUMNS
from replicate.report.claims.claim import Claim, lacking
from replicate.report.claims.contrast import BOTH_NOISES, TEST_NOISE, Estimate, contrast
from replicate.report.claims.gains import (
    DOUBLE_SLACK,
    OVER_DRAWS,
    PAIRS,
    gain,
    judged_contrasts,
    paper,
    paper_gain,
)
from replicate.report.claims.verdicts import (
    ALL_RULE,
    INCONCLUSIVE,
    REFUTED,
    SUPPORTED,
    Judgement,
    Part,
    judge_parts,
    untestable,
)
from replicate.report.records import Records
from replicate.schema import HEADLINE, LEVELS, Interval

# MAP rises with depth in the paper's own table (erratum 34).
FALLING = ("GAP", "PERR", "Hit@1")
STEPS = (("0", "1"), ("1", "2"), ("2", "3"))
PAPER_DRAW = 128_000
MINIMUM_CLASSES = 10  # for a rank correlation over classes


def _falls(records: Records) -> Judgement:
    wanted = [
        (
            f"{COLUMNS[column].title}, {metric}",
            lambda score, column=column, metric=metric: score(column, metric, "0") - score(column, metric, "3"),
            paper(metric, "0", column) - paper(metric, "3", column),
            DOUBLE_SLACK,
        )
        for column in COLUMNS
        for metric in FALLING
    ]
    judged = judged_contrasts(records, list(COLUMNS), wanted)
    if judged.effect is None:
        return judged
    steps = [
        np.mean(records.seed_means(column, metric, upper)) > np.mean(records.seed_means(column, metric, lower))
        for column in COLUMNS
        for metric in FALLING
        for upper, lower in STEPS
    ]
    remark = f"{sum(steps)} of {len(steps)} single steps down fall."
    return Judgement(**{**judged.__dict__, "evidence": f"{judged.evidence} {remark}"})


def _falls_less(records: Records) -> Judgement:
    wanted = [
        (
            f"{COLUMNS[column].title}, {metric}",
            lambda score, column=column, metric=metric: (
                gain(score, metric, "3", column) - gain(score, metric, "0", column)
            ),
            paper_gain(metric, "3", column) - paper_gain(metric, "0", column),
            DOUBLE_SLACK,
        )
        for column, _ in PAIRS
        for metric in FALLING
    ]
    return judged_contrasts(records, [slug for pair in PAIRS for slug in pair], wanted)


def _fewer_examples_below(records: Records) -> Judgement:
    levels, counts = np.array(records.run.node_levels), np.array(records.run.train_positives)
    medians = [float(np.median(counts[levels == level])) for level in range(4) if (levels == level).any()]
    if len(medians) < 2:
        return untestable("These data have nodes at one level only.")
    falling = all(upper > lower for upper, lower in zip(medians, medians[1:], strict=False))
    listed = ", ".join(f"{each:,.0f}" for each in medians)
    return Judgement(
        SUPPORTED if falling else REFUTED,
        f"Median training videos of a node, from level 0 down: {listed}. A count, no sample.",
    )


def _rare_classes(records: Records) -> Judgement:
    reason = lacking(records, [slug for pair in PAIRS for slug in pair])
    if reason:
        return untestable(reason)
    if len(set(records.run.train_positives)) < MINIMUM_CLASSES:
        return untestable(f"Fewer than {MINIMUM_CLASSES} classes differ in their number of training videos.")
    return judge_parts([_rarity(records, *pair) for pair in PAIRS])


def _rarity(records: Records, column: str, baseline: str) -> Part:
    """Minus the rank correlation of a node's gain in average precision with its training videos."""
    gains = []
    for seed in records.run.seeds:
        pair = [records.evaluate[slug, seed].class_average_precision for slug in (column, baseline)]
        ours, before = np.array(pair, dtype=float)  # nodes without a positive become nan
        gains.append(ours - before)
    mean = np.mean(gains, axis=0)
    counted = np.isfinite(mean)
    positives = np.array(records.run.train_positives)[counted]
    correlation = -stats.spearmanr(positives, mean[counted]).statistic
    error = math.sqrt(1.06 / (counted.sum() - 3))  # of the correlation's Fisher transform (Fieller)
    noise = BOTH_NOISES if len(records.run.seeds) > 1 else TEST_NOISE
    estimate = Estimate(
        effect=float(correlation),
        interval=_fisher(correlation, error, 1),
        wide=_fisher(correlation, error, len(PAIRS)),
        detectable=float(math.tanh((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * error)),
        noise=f"classes, taken as independent; {noise} within them",
    )
    return Part(COLUMNS[column].title, estimate)


def _fisher(correlation: float, error: float, among: int) -> Interval:
    half = stats.norm.ppf(1 - 0.025 / among) * error
    middle = math.atanh(min(max(correlation, -0.999999), 0.999999))
    return float(math.tanh(middle - half)), float(math.tanh(middle + half))


def _order(records: Records) -> Judgement:
    slugs = [slug for slug in COLUMNS if slug in records.run.columns]
    if len(slugs) < 5:
        return untestable("An order of fewer than five columns says little.")

    def agreement(score) -> float:
        ranks = [
            stats.kendalltau([score(s, metric, "overall") for s in slugs], [paper(metric, "overall", s) for s in slugs])
            for metric in HEADLINE
        ]
        return float(np.mean([rank.statistic for rank in ranks]))

    try:
        found = contrast(records, agreement)
    except KeyError as undefined:
        return untestable(f"A score that it needs is undefined here: {undefined.args[0]}.")
    if found.interval is None:
        return Judgement(INCONCLUSIVE, "One draw of one training has no interval.", found.effect, paper=1.0)
    low, high = found.interval
    verdict = SUPPORTED if low > 0.5 else REFUTED if high < 0.5 else INCONCLUSIVE
    evidence = f"Mean Kendall tau over the four metrics, {len(slugs)} columns."
    return Judgement(verdict, evidence, found.effect, found.interval, found.detectable, 1.0, found.noise)


def _spread(limit: float) -> Callable[[Records], Judgement]:
    """Every standard deviation over draws, scaled to draws of the paper's size, against a limit (fraction)."""

    def judge(records: Records) -> Judgement:
        cells = [
            (record, cell)
            for record in records.evaluate.values()
            for cell in record.cells
            if cell.metric in HEADLINE and cell.level in LEVELS and cell.sd is not None
        ]
        draws = records.run.split["draws"]
        if draws < 2 or not cells:
            return untestable("A spread needs at least two draws.")
        scaled = [cell.sd * math.sqrt(record.draw_size / PAPER_DRAW) for record, cell in cells]
        largest = max(scaled)
        low, high = (
            largest * math.sqrt((draws - 1) / stats.chi2.ppf(q, draws - 1))
            for q in (1 - 0.025 / len(cells), 0.025 / len(cells))
        )
        below = sum(value < limit for value in scaled)
        verdict = SUPPORTED if below == len(scaled) else REFUTED if low > limit else INCONCLUSIVE
        size = records.run.split["draw_size"]
        evidence = f"{below} of {len(scaled)} cells are below; shown is the largest. Draws of {size:,} videos, scaled."
        return Judgement(verdict, evidence, largest, (low, high), None, limit, TEST_NOISE)

    return judge


def _spread_claim(name: str, reading: str, limit: float) -> Claim:
    return Claim(
        name=name,
        text=f"The standard deviation over the five test draws is below 0.03 in every cell, read as {reading} (erratum "
        "28).",
        section="4.2",
        statistic="the largest standard deviation over draws of all cells, times the root of draw size / 128,000; "
        "chi-square interval, Bonferroni over cells",
        rule="supported when every cell is below; refuted when the interval of the largest lies above; else "
        "inconclusive",
        unit="spread",
        judge=_spread(limit),
    )


CLAIMS = [
    Claim(
        name="falls-with-depth",
        text="For all models scores fall from level 0 to level 3 (GAP, PERR, Hit@1; the paper's MAP rises, erratum "
        "34).",
        section="4.3",
        statistic=f"score at level 0 minus score at level 3, per column and metric, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_falls,
    ),
    Claim(
        name="fewer-examples-below",
        text="Deeper levels have fewer training examples.",
        section="4.3",
        statistic="median number of training videos of a node, per level",
        rule="supported when it falls at every step down, else refuted; a count, so there is no interval",
        unit="",
        judge=_fewer_examples_below,
    ),
    Claim(
        name="falls-less-with-coherence",
        text="With coherence the fall is smaller: gains are larger at deep levels.",
        section="4.3",
        statistic=f"increment at level 3 minus increment at level 0, per pair, in GAP, PERR and Hit@1, {OVER_DRAWS}",
        rule=ALL_RULE,
        unit="points",
        judge=_falls_less,
    ),
    Claim(
        name="helps-rare-classes",
        text="Coherence helps classes with fewer examples more.",
        section="4.3",
        statistic="minus the rank correlation, over nodes, of the gain in average precision with the number of "
        "training videos; Fisher interval that takes nodes as independent, which a hierarchy's are not",
        rule=ALL_RULE,
        unit="correlation",
        judge=_rare_classes,
    ),
    Claim(
        name="column-order",
        text="The columns rank as in Table 1.",
        section="4.3",
        statistic=f"Kendall's tau of ours with the paper's overall scores, mean over metrics, {OVER_DRAWS}",
        rule="supported when the interval lies above 0.5, refuted when it lies below, else inconclusive",
        unit="correlation",
        judge=_order,
    ),
    _spread_claim("spread-points", "percentage points", 0.0003),
    _spread_claim("spread-fraction", "a fraction, that is 3 points", 0.03),
]
