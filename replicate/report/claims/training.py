"""Claims of sections 4.2 and 4.4 about what the layer learns, and those that one run cannot test."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from replicate.report import render
from replicate.report.claims.claim import Claim, lacking
from replicate.report.claims.contrast import TEST_NOISE, Estimate, spanning, summarise
from replicate.report.claims.verdicts import (
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
from replicate.schema import Interval

KERNEL_NOISE = "kernels, taken as independent"
COHERENT = ("tc_rnn", "tc_netv", "tc_tm")


def mean_kernels(records: Records) -> list[tuple[str, int, np.ndarray]]:
    """(column, seed, kernel) of every temporal convolution: averaged over its maps, then over its groups (heads).

    A kernel and its negative do the same where the projection behind it can change sign, so each head's is turned until
    its largest weight in absolute value is positive, and divided by the sum of absolute values (erratum 41).
    """
    found = []
    for (column, seed), record in sorted(records.explain.items()):
        for weights in record.kernels.values():
            kernels = np.atleast_2d(np.asarray(weights, dtype=float).mean(axis=-2))  # (groups, size)
            largest = np.take_along_axis(kernels, np.abs(kernels).argmax(axis=1)[:, None], axis=1)
            scale = np.abs(kernels).sum(axis=1, keepdims=True)
            turned = np.divide(kernels * np.sign(largest), scale, out=np.zeros_like(kernels), where=scale > 0)
            found.append((column, seed, turned.mean(axis=0)))
    return found


def peaks_at_centre(kernel: np.ndarray) -> bool:
    """Whether the current frame has the largest weight."""
    return int(kernel.argmax()) == len(kernel) // 2


def is_bell(kernel: np.ndarray) -> bool:
    """Whether weights peak at the current frame and never rise with distance from it, on either side."""
    centre = len(kernel) // 2
    return bool((np.diff(kernel[centre:]) <= 0).all() and (np.diff(kernel[: centre + 1]) >= 0).all())


def _kernels(holds: Callable[[np.ndarray], bool]) -> Callable[[Records], Judgement]:
    """Of every learned kernel, whether something holds."""

    def judge(records: Records) -> Judgement:
        settings = records.run.configuration
        if settings.get("coherence.initialisation") != "random" or settings.get("coherence.trainable") is False:
            return untestable("Only kernels that start at random and are trained tell anything (erratum 13).")
        kernels = [kernel for column, _, kernel in mean_kernels(records) if column in COHERENT and len(kernel) >= 3]
        if not kernels:
            return untestable("No coherent column with a kernel of three frames or more was run.")
        count, seeds = sum(holds(kernel) for kernel in kernels), render.count(len(records.run.seeds), "seed")
        low, high = _clopper_pearson(count, len(kernels))
        verdict = SUPPORTED if low > 0.5 else REFUTED if high < 0.5 else INCONCLUSIVE
        evidence = f"{count} of {render.count(len(kernels), 'kernel')} (layers and sites, {seeds})."
        needed = [each for each in range(len(kernels) + 1) if _clopper_pearson(each, len(kernels))[0] > 0.5]
        detectable = needed[0] / len(kernels) if needed else None
        return Judgement(verdict, evidence, count / len(kernels), (low, high), detectable, 1.0, KERNEL_NOISE)

    return judge


def _clopper_pearson(count: int, of: int) -> Interval:
    low = stats.beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    return float(low), float(high)


def _attention(records: Records) -> Judgement:
    reason = lacking(records, ["rnn_attn", "tc_rnn"])
    if reason:
        return untestable(reason)
    pairs = [[records.explain.get((slug, seed)) for slug in ("tc_rnn", "rnn_attn")] for seed in records.run.seeds]
    if any(each is None or each.attention is None for pair in pairs for each in pair):
        return untestable("The run recorded no attention.")
    shares = [[each.attention.share for each in pair] for pair in pairs]
    videos = pairs[0][0].attention.videos
    effects = np.array([ours["mean"] - before["mean"] for ours, before in shares])
    # The same videos on both sides: taking them as different ones makes the interval too wide, never too narrow.
    error = math.sqrt(np.mean([(ours["sd"] ** 2 + before["sd"] ** 2) / videos for ours, before in shares]))
    effect, half = float(effects.mean()), 1.96 * error
    bounds, detectable = (effect - half, effect + half), (1.96 + stats.norm.ppf(0.8)) * error
    estimate = Estimate(effect, bounds, bounds, float(detectable), TEST_NOISE)
    if len(effects) > 1:
        estimate = spanning(estimate, summarise(effects[:, None]))
    means = [np.mean([pair[side]["mean"] for pair in shares]) for side in (0, 1)]
    return judge_parts([Part("TC-RNN", estimate)], f"Mean share {means[0]:.2f} with coherence, {means[1]:.2f} without.")


def _never(reason: str) -> Callable[[Records], Judgement]:
    return lambda _: untestable(reason)


SHARE_RULE = (
    "supported when the interval (Clopper-Pearson) of the share lies above one half, because the paper says 'in "
    "general'; refuted when it lies below; else inconclusive; not tested unless kernels start at random and are trained"
)

CLAIMS = [
    Claim(
        name="kernels-peak-at-centre",
        text="The learned kernels give the current frame the highest weight.",
        section="4.4.2, Figure 8",
        statistic="share of kernels (mean over maps; each head's turned until its largest weight is positive, then the "
        "mean over heads) that peak at the centre",
        rule=SHARE_RULE,
        unit="share",
        judge=_kernels(peaks_at_centre),
    ),
    Claim(
        name="kernels-bell-shaped",
        text="The learned kernels are bell-shaped: weights fall with distance from the current frame.",
        section="4.4.2, Figure 8",
        statistic="share of kernels that peak at the centre and never rise with distance",
        rule=SHARE_RULE,
        unit="share",
        judge=_kernels(is_bell),
    ),
    Claim(
        name="attention-more-uniform",
        text="With coherence attention spreads more evenly over the frames.",
        section="4.4.3, Figure 10",
        statistic="effective number of attended frames, exp(entropy), as a share of the video's frames: mean over "
        "the pool, TC-RNN minus RNN-Attn",
        rule=POSITIVE_RULE,
        unit="points",
        judge=_attention,
    ),
    Claim(
        name="corrects-videos",
        text="TC-Ens puts right four videos that Base-Ens gets wrong.",
        section="4.4.1, Figure 9",
        statistic="the paper's four videos",
        rule="the videos were picked by hand; no statistic follows from them",
        unit="",
        judge=_never("Picked videos test nothing; Figure 9 here shows the largest changes in both directions instead."),
    ),
    Claim(
        name="state-of-the-art",
        text="The ensemble is state of the art in hierarchical categorization of YouTube-8M.",
        section="1, 6",
        statistic="none",
        rule="the label tree and the split are the authors' own, so no other published result compares",
        unit="",
        judge=_never("No other published result uses the authors' label tree and split."),
    ),
]
