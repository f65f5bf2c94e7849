"""Claims: a verdict follows from its interval by the written rule, and intervals cover what they say they cover."""

import math

import numpy as np
import pytest
from record_fixtures import compare_record
from scipy import stats

from replicate.evaluate.protocol import load_protocol
from replicate.evaluate.statistics import joined
from replicate.report.claims import contrast
from replicate.report.claims.contrast import Estimate, of_difference, summarise
from replicate.report.claims.verdicts import INCONCLUSIVE, REFUTED, SUPPORTED, Part, judge_parts, verdict_of


def part(low, high, paper=None, slack=0.0, wide=None):
    return Part("x", Estimate((low + high) / 2, (low, high), wide or (low, high), None, ""), paper, slack)


@pytest.mark.parametrize(
    ("interval", "paper", "verdict"),
    [
        ((0.1, 0.3), 0.2, SUPPORTED),
        ((0.1, 0.3), 0.9, SUPPORTED),  # the sign is the claim; the evidence names the size
        ((-0.1, 0.3), 0.2, INCONCLUSIVE),
        ((-0.1, 0.1), 0.2, REFUTED),
        ((-0.3, -0.1), 0.2, REFUTED),
        ((-0.3, -0.1), None, REFUTED),
        ((-0.3, 0.1), None, INCONCLUSIVE),
        ((0.0, 0.3), 0.2, INCONCLUSIVE),
        ((0.0, 0.0), 0.2, INCONCLUSIVE),
    ],
)
def test_rule_for_one_effect(interval, paper, verdict):
    assert verdict_of(part(*interval, paper)) == verdict


def test_rounding_of_the_paper_is_given_the_benefit():
    assert verdict_of(part(-0.1, 0.19, paper=0.2)) == REFUTED
    assert verdict_of(part(-0.1, 0.19, paper=0.2, slack=0.02)) == INCONCLUSIVE


def test_many_parts_refute_by_the_wide_interval_only():
    assert verdict_of(part(-0.3, -0.1, None, wide=(-0.5, 0.1))) == INCONCLUSIVE


def test_without_an_interval_nothing_is_decided():
    assert verdict_of(Part("x", Estimate(1.0, None, None, None, ""), 1.0)) == INCONCLUSIVE


def test_all_parts_must_be_supported_and_the_deciding_one_is_shown():
    good, unsure, bad = part(1, 2), part(-1, 2, 1.5), part(-3, -2, 1.5)
    assert judge_parts([good, good]).verdict == SUPPORTED
    assert judge_parts([good, unsure]).verdict == INCONCLUSIVE
    assert judge_parts([good, unsure]).interval == (-1, 2)
    assert judge_parts([good, unsure, bad]).verdict == REFUTED
    assert judge_parts([good, unsure, bad]).interval == (-3, -2)


def test_interval_over_draws_is_a_t_interval():
    values = np.random.default_rng(0).normal(1, 0.1, (1, 5))
    oracle = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert summarise(values).interval == pytest.approx((oracle.low, oracle.high))


def test_interval_spans_draws_and_seeds():
    seeds = np.array([[1.0], [1.2], [1.4]])
    by_seed = summarise(np.repeat(seeds, 5, axis=1)).interval
    oracle = stats.ttest_1samp(seeds[:, 0], 0).confidence_interval(0.95)
    assert by_seed == pytest.approx((oracle.low, oracle.high))
    draws = np.random.default_rng(1).normal(1, 1, (1, 5))
    one = summarise(draws)
    assert summarise(np.repeat(draws, 3, axis=0)).interval == pytest.approx(one.interval)
    assert (one.noise, summarise(np.repeat(draws, 3, axis=0)).noise) == (
        "test videos",
        "test videos and training seeds",
    )


@pytest.mark.parametrize("seed_noise", [0.3, 1.0, 3.0])
def test_the_interval_over_both_noises_covers(seed_noise):
    """Of figures whose draws and trainings are both new, the interval holds the truth in 95 % or more."""
    generator = np.random.default_rng(4)
    shape, misses, tries = (5, 5), 0, 1500
    for _ in range(tries):
        draws = generator.normal(0, 1, shape[1]) * math.sqrt(shape[1])
        low, high = summarise(draws + generator.normal(0, seed_noise, shape[0])[:, None] * math.sqrt(shape[0])).interval
        misses += not low < 0 < high
    assert misses / tries < 0.05 + 2 * math.sqrt(0.05 * 0.95 / tries)


def test_the_wider_of_two_intervals_alone_covers_too_little():
    """The figure that stands in the docs: 91.6 %, of a bootstrap's interval over videos, whose error is well known, and
    a t interval over five seeds, with noises of one size. Joined, they cover 95 % or more."""
    generator = np.random.default_rng(5)
    seeds, videos = generator.normal(size=(50_000, 5)), generator.normal(size=50_000) / math.sqrt(5)
    over_videos = stats.norm.ppf(0.975) / math.sqrt(5)
    over_seeds = stats.t.ppf(0.975, 4) * seeds.std(axis=1, ddof=1) / math.sqrt(5)
    missed = np.abs(seeds.mean(axis=1) + videos)
    assert (missed < np.maximum(over_videos, over_seeds)).mean() == pytest.approx(0.916, abs=0.004)
    assert (missed < np.hypot(over_videos, over_seeds)).mean() > 0.95


def test_independent_noises_add_in_squares_on_each_side():
    assert joined(1.0, (-2.0, 1.5), (-3.0, 2.2)) == pytest.approx((1.0 - 5.0, 1.0 + 1.3))


def test_of_several_differences_the_interval_over_seeds_is_widened_too():
    """The one over videos is simultaneous already; the one over seeds is of one cell, and sixteen would refute by
    chance."""
    found = compare_record(("netv", "tc_netv"), (0, 1, 2)).differences[0]
    values = found.difference + np.array([-0.01, 0.002, 0.008])
    oracle = stats.ttest_1samp(values, 0)
    interval = tuple(oracle.confidence_interval(0.95))
    noise = found.seeds.model_copy(update={"differences": tuple(values), "mean": values.mean(), "interval": interval})
    found = found.model_copy(update={"seeds": noise})
    alone, one_of_many = of_difference(found), of_difference(found, among=16)
    assert one_of_many.interval == alone.interval == pytest.approx(alone.wide)
    over_videos = found.difference - found.simultaneous[0]
    over_seeds = oracle.confidence_interval(1 - 0.05 / 16).high - found.difference
    half = math.hypot(over_videos, over_seeds)
    assert one_of_many.wide == pytest.approx((found.difference - half, found.difference + half), rel=1e-6)


def test_more_parts_and_overlapping_draws_widen():
    values = np.random.default_rng(2).normal(size=(1, 5))
    plain = summarise(values)
    assert summarise(values, among=10).wide[1] > plain.wide[1]
    assert summarise(values, among=10).interval == plain.interval
    assert np.ptp(summarise(values, share=0.137).interval) == pytest.approx(
        np.ptp(plain.interval) * math.sqrt(1 + 5 * 0.137 / 0.863)
    )


def test_detectable_effect_is_found_with_the_stated_power():
    """Of many draws with a true effect of that size, four in five give an interval above 0."""
    generator = np.random.default_rng(3)
    sd = 1.0
    effect = (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)) * sd / math.sqrt(5)
    found = [summarise(generator.normal(effect, sd, (1, 5))).interval[0] > 0 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_levels_are_the_protocols():
    protocol = load_protocol()
    assert (protocol.alpha, protocol.power) == (contrast.ALPHA, contrast.POWER)
