"""Tests, intervals and verdicts from replicates, draws, videos and seeds. Numbers in, numbers out.

Test noise (which videos were drawn) and seed noise (which training run it was) are different things: `max_t`,
`paired_t`, `mcnemar` and `t_interval` speak of the first, `seed_test` of the second. Only `joined`,
`two_level_interval` and `equivalence` span both.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.optimize
import scipy.stats

Interval = tuple[float, float]


@dataclass(frozen=True)
class FamilyTest:
    """A family of cells tested together, each array (cells,).

    Attributes:
        p: two-sided, of each cell alone: (1 + replicates at least as far from the estimate as 0 is) / (B + 1).
        adjusted: step-down max-T; controls the chance of any false rejection in the family.
        holm, bh: Holm's and Benjamini and Hochberg's adjustments of `p`.
        critical: quantile of |T*| of each cell alone.
        simultaneous: quantile of the largest |T*| of the family.
    """

    p: np.ndarray
    adjusted: np.ndarray
    holm: np.ndarray
    bh: np.ndarray
    critical: np.ndarray
    simultaneous: float


def max_t(estimates: np.ndarray, errors: np.ndarray, deviations: np.ndarray, alpha: float) -> FamilyTest:
    """Westfall and Young's step-down max-T on bootstrap replicates, two-sided.

    Args:
        estimates: (cells,) the differences.
        errors: (cells,) their standard errors; 0 only where nothing varies.
        deviations: (replicates, cells) of replicates from the estimates, under the same weights in every cell.
        alpha: of the quantiles.

    Raises:
        ValueError: a number is not finite, which would count as the rarest of all; or there are too few replicates.

    Source: Westfall and Young (1993), algorithm 2.8; harness anchors, section C3.
    """
    replicates = len(deviations)
    if not (np.isfinite(estimates).all() and np.isfinite(errors).all() and np.isfinite(deviations).all()):
        raise ValueError("estimates, errors and deviations must be finite; leave out cells that are undefined")
    statistics = _studentised(np.abs(estimates), errors)
    simulated = np.abs(deviations)
    for cell, error in enumerate(errors):
        simulated[:, cell] = simulated[:, cell] / error if error > 0 else 0.0
    p = (1 + (simulated >= statistics).sum(axis=0)) / (replicates + 1)
    p = np.where(statistics == 0, 1.0, p)
    order = np.argsort(-statistics, kind="stable")
    running = np.maximum.accumulate(simulated[:, order[::-1]], axis=1)[:, ::-1]  # over the cells not yet rejected
    raw = (1 + (running >= statistics[order]).sum(axis=0)) / (replicates + 1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(raw)
    largest = float(quantile(running[:, :1], alpha)[0])
    return FamilyTest(p, adjusted, holm(p), benjamini_hochberg(p), quantile(simulated, alpha), largest)


def with_bh(test: FamilyTest, bh: float) -> FamilyTest:
    """The test of a single cell with its adjustment among others."""
    return replace(test, bh=np.array([bh]))


def _studentised(sizes: np.ndarray, errors: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sizes == 0, 0.0, sizes / errors)


def quantile(simulated: np.ndarray, alpha: float) -> np.ndarray:
    """(cells,) values that a share alpha of (replicates, cells) exceeds: the one that fits p = (1 + #) / (B + 1).

    Raises:
        ValueError: no p can be as small as alpha.
    """
    rank = int(np.ceil((1 - alpha) * (len(simulated) + 1) - 1e-9))
    if rank > len(simulated):
        raise ValueError(
            f"{len(simulated)} replicates are too few for alpha = {alpha}; at least 1 / alpha - 1 are needed"
        )
    return np.sort(simulated, axis=0)[rank - 1]


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: valid under any dependence."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's step-up adjustment: bounds the expected share of false rejections."""
    order = np.argsort(-p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)))
    return adjusted


def detectable(error: float, critical: float, power: float) -> float:
    """The smallest true difference that is found with the given power, for a normal estimate."""
    return float((critical + scipy.stats.norm.ppf(power)) * error)


def t_interval(values: np.ndarray, overlap: float, alpha: float) -> Interval:
    """Student's interval of a mean over test draws that may share videos.

    Args:
        values: one per draw, at least two.
        overlap: share of a draw's videos that another draw holds, rho. The variance factor is 1/n + rho / (1 - rho): of
            Nadeau and Bengio's form, but for overlap in a finite pool, not for retrained models.
        alpha: 1 - level.
    """
    error = values.std(ddof=1) * np.sqrt(1 / len(values) + overlap / (1 - overlap))
    half = scipy.stats.t.ppf(1 - alpha / 2, len(values) - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def paired_t(column: np.ndarray, baseline: np.ndarray) -> float:
    """Two-sided p of a paired t test over videos; 1 where no video differs, or fewer than two are there to vary."""
    difference = column - baseline
    if len(difference) < 2 or not difference.any():
        return 1.0
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return float(2 * scipy.stats.t.sf(abs(difference.mean()) / error, len(difference) - 1)) if error else 0.0


def mcnemar(column: np.ndarray, baseline: np.ndarray) -> tuple[float, tuple[int, int]]:
    """McNemar's exact test of two columns of 0 and 1: (p, (only the column is right, only the baseline is right))."""
    only = int(((column > 0) & (baseline == 0)).sum()), int(((column == 0) & (baseline > 0)).sum())
    return (float(scipy.stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0), only


@dataclass(frozen=True)
class SeedTest:
    """A difference over training seeds."""

    mean: float
    sd: float
    interval: Interval
    p: float
    p_welch: float
    detectable: float


def seed_test(column: np.ndarray, baseline: np.ndarray, alpha: float, power: float) -> SeedTest:
    """Paired t test over seeds with S - 1 degrees of freedom, Welch's unpaired one beside it.

    Args:
        column, baseline: (seeds,) at least two; entry s of both was trained with the same seed.
        alpha: two-sided.
        power: of the detectable difference, by the non-central t distribution.
    """
    difference = column - baseline
    seeds = len(difference)
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    error = sd / np.sqrt(seeds)
    critical = float(scipy.stats.t.ppf(1 - alpha / 2, seeds - 1))
    p = float(2 * scipy.stats.t.sf(abs(mean) / error, seeds - 1)) if error > 0 else float(mean == 0)
    varies = column.std() > 0 or baseline.std() > 0
    welch = float(scipy.stats.ttest_ind(column, baseline, equal_var=False).pvalue) if varies else p
    interval = mean - critical * error, mean + critical * error
    return SeedTest(mean, sd, interval, p, welch, error * noncentrality(seeds, alpha, power))


@functools.cache
def joined(centre: float, *intervals: Interval) -> Interval:
    """The interval that spans independent noises, each with an interval about the same estimate.

    Half-widths add in squares, below and above for themselves. The wider of a bootstrap's interval over videos and a t
    interval over five seeds, with noises of the same size, covers 91.6 %, this at least 95 % (simulated in the tests).
    """
    below = math.hypot(*(centre - low for low, _ in intervals))
    above = math.hypot(*(high - centre for _, high in intervals))
    return centre - below, centre + above


def noncentrality(seeds: int, alpha: float, power: float) -> float:
    """True difference in standard errors that a two-sided paired t test finds with the given power.

    The power is an integral over the estimated error: scipy's non-central t gives NaN for few degrees of freedom.
    """
    degrees = seeds - 1
    critical, normal = scipy.stats.t.ppf(1 - alpha / 2, degrees), scipy.stats.norm
    estimated = np.sqrt(scipy.stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, degrees) / degrees)

    def excess(shift: float) -> float:
        found = normal.sf(critical * estimated - shift) + normal.cdf(-critical * estimated - shift)
        return float(found.mean() - power)

    return float(scipy.optimize.brentq(excess, 0, 10 * critical))


def two_level_interval(
    differences: np.ndarray, deviations: np.ndarray, alpha: float, generator: np.random.Generator
) -> Interval:
    """Percentile interval when seeds and videos are resampled, the videos' weights shared by all seeds.

    Too narrow for a handful of seeds: their resampled spread is (seeds - 1) / seeds of the unbiased variance, and
    nothing allows for its own error, as the t of `seed_test` does.

    Args:
        differences: (seeds,) estimates.
        deviations: (replicates, seeds) of replicates over videos from them.
        alpha: 1 - level.
        generator: draws the seeds.
    """
    replicates, seeds = deviations.shape
    chosen = generator.integers(0, seeds, (replicates, seeds))
    means = (differences[chosen] + np.take_along_axis(deviations, chosen, axis=1)).mean(axis=1)
    low, high = np.quantile(means, (alpha / 2, 1 - alpha / 2))
    return float(low), float(high)


@dataclass(frozen=True)
class EquivalenceTest:
    """Ours minus the paper's, and what follows."""

    interval: Interval
    verdict: Literal["matches", "differs", "inconclusive"]


def equivalence(
    difference: float, error: float, degrees: float, margin: float, rounding: float, alpha: float
) -> EquivalenceTest:
    """Two one-sided tests with three verdicts.

    Args:
        difference: ours minus the paper's.
        error: its standard error, from all sources.
        degrees: of freedom of the error; infinite for a normal quantile.
        margin: what still counts as equal.
        rounding: how far the paper's printed value may be from its true one; widens the intervals on both sides.
        alpha: of each one-sided test: "matches" when the (1 - 2 alpha) interval lies inside the margin, "differs" when
            the (1 - alpha) interval lies wholly outside.
    """

    def interval(level: float) -> Interval:
        half = float(scipy.stats.t.ppf(1 - level, degrees)) * error + rounding
        return difference - half, difference + half

    narrow, wide = interval(alpha), interval(alpha / 2)
    if -margin < narrow[0] and narrow[1] < margin:
        verdict: Literal["matches", "differs", "inconclusive"] = "matches"
    else:
        verdict = "differs" if wide[0] > margin or wide[1] < -margin else "inconclusive"
    return EquivalenceTest(narrow, verdict)
