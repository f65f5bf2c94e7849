"""Claims: influence values are the derivative of the statistic; exact replicates are the metrics of resampled videos;
both follow the metrics' tie rule, count a video once however many draws hold it, and do not depend on threads."""

import numpy as np
import pytest
import statistics_oracles as oracle
from sklearn.metrics import average_precision_score

from replicate.evaluate import metrics
from replicate.evaluate.bootstrap import deviations, weight_vectors
from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluate.influence import CELLS, REPLICATED, measure_column

LEVELS = np.array([0] * 3 + [1] * 22 + [2] * 4 + [3] * 3)


def case(kind, seed=0, videos=48):
    """(scores, labels, positions): a pool in which the scores know something about the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((videos, len(LEVELS))) < 0.12
    labels[:, :6] |= rng.random((videos, 6)) < 0.3
    scores = rng.standard_normal((videos, len(LEVELS))) + 1.2 * labels
    if "ties" in kind:
        scores = np.round(scores) * 0.5
        scores[scores == 0] *= rng.choice([-1, 1], (scores == 0).sum())  # -0.0 and 0.0 are equal
    if "overlapping" in kind:
        positions = np.stack([np.sort(rng.permutation(videos)[: videos // 2]) for _ in range(3)])
    elif "scattered" in kind:
        positions = np.sort(rng.permutation(videos)[: videos - 3].reshape(3, -1), axis=1)
    else:
        positions = np.arange(videos).reshape(3, -1)
    return scores.astype(np.float32), labels, positions


KINDS = ["disjoint", "disjoint ties", "overlapping", "overlapping ties", "scattered"]
CLASSES = np.array([0, 1, 2, 3, 4, 5, 9, 11, 25, 26, 29, 30])


def measure(kind, weights=None, threads=1, transform=lambda scores: scores):
    scores, labels, positions = case(kind)
    draws = Draws(positions)
    weights = np.ones((len(draws.videos), 1), np.uint8) if weights is None else weights
    sampled = SparseLabels.of(labels[draws.videos])
    return measure_column(transform(scores), sampled, LEVELS, draws, CLASSES, weights, threads)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_metrics_of_the_draws(kind):
    scores, labels, positions = case(kind)
    measured = measure(kind)
    draws = [metrics.evaluate(scores[draw], labels[draw], LEVELS, CLASSES).values for draw in positions]
    for number, (metric, level) in enumerate(REPLICATED):
        expected = np.mean([draw[level][metric] for draw in draws])
        assert measured.replicates[number, 0] == pytest.approx(expected, abs=1e-12)  # all weights are 1
        if number < len(CELLS):
            assert measured.values[number] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_influence_values_are_finite_differences(kind):
    scores, labels, positions = case(kind)
    measured, draws = measure(kind), Draws(positions)
    step = 1e-4
    for number, (metric, level) in enumerate(CELLS):
        for place in range(0, len(draws.videos), 5):
            weights, values = np.ones(len(scores)), []
            for sign in (1, -1):
                weights[draws.videos[place]] = 1 + sign * step
                values.append(oracle.statistic(metric, level, scores, labels, weights, LEVELS, CLASSES, positions))
            slope = (values[0] - values[1]) / (2 * step)
            assert measured.influence[number, place] == pytest.approx(slope, abs=1e-7, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_influence_values_sum_to_zero(kind):
    assert np.abs(measure(kind).influence.astype(np.float64).sum(axis=1)).max() < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_exact_replicates_are_metrics_of_repeated_videos(kind):
    """A weight of k is the video k times: `metrics.evaluate` on repeated rows knows nothing of weights."""
    scores, labels, positions = case(kind)
    videos = Draws(positions).videos
    weights = weight_vectors(len(videos), 5, 80)
    measured = measure(kind, weights)
    of_pool = np.zeros(len(scores), int)
    for replicate in (0, 17, 63, 64, 79):
        of_pool[videos] = weights[:, replicate]
        values = []
        for draw in positions:
            rows = np.repeat(draw, of_pool[draw])
            values.append(metrics.evaluate(scores[rows], labels[rows], LEVELS, CLASSES).values)
        for number, (metric, level) in enumerate(REPLICATED):
            expected = np.mean([draw[level][metric] for draw in values if draw[level][metric] is not None])
            assert measured.replicates[number, replicate] == pytest.approx(expected, abs=1e-12), (metric, level)


@pytest.mark.parametrize("times", [2, 30])
def test_only_the_proportions_of_weights_count(times):
    """So that sums of weights may be large: 30 x 8 nearly fills a byte."""
    weights = weight_vectors(48, 2, 8)
    before, after = measure("disjoint ties", weights), measure("disjoint ties", times * weights)
    np.testing.assert_allclose(after.replicates, before.replicates, rtol=1e-12, atol=0)


def test_weighted_oracle_is_scikit_learns():
    rng = np.random.default_rng(1)
    scores, hits = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    weights = rng.integers(0, 4, 60).astype(float)
    expected = average_precision_score(hits, scores, sample_weight=weights)
    found = oracle.weighted_average_precision(scores, hits, weights, weights[hits].sum())
    assert found == pytest.approx(expected, abs=1e-12)


def test_influence_replicates_follow_exact_ones():
    """On the same weights, replicate by replicate, at a size at which the first order suffices."""
    rng = np.random.default_rng(3)
    labels = rng.random((8000, 9)) < 0.15
    levels = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])
    scores = (rng.standard_normal(labels.shape) + 1.5 * labels).astype(np.float32)
    draws = Draws(np.arange(8000).reshape(2, 4000))
    weights = weight_vectors(8000, 11, 60)
    measured = measure_column(scores, SparseLabels.of(labels), levels, draws, np.arange(9), weights)
    first_order = deviations(measured.influence, 11, 60).T
    exact = measured.replicates[: len(CELLS), :60] - measured.values[:, None]
    for cell in range(len(CELLS)):
        assert np.corrcoef(first_order[cell], exact[cell])[0, 1] > 0.99
        assert first_order[cell].std() / exact[cell].std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("transform", [lambda s: 3 * s + 7, np.arctan, lambda s: np.sign(s) * np.sqrt(np.abs(s))])
def test_a_strictly_monotone_transform_changes_nothing(transform):
    def strictly(scores):
        distinct, place = np.unique(scores, return_inverse=True)
        changed = transform(distinct.astype(np.float64)).astype(np.float32)
        assert (np.diff(changed) > 0).all()
        return changed[place].reshape(scores.shape)

    weights = weight_vectors(48, 2, 8)
    before, after = measure("disjoint ties", weights), measure("disjoint ties", weights, transform=strictly)
    for name in ("influence", "values", "replicates"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("kind", ["disjoint", "overlapping ties"])
def test_threads_change_no_bit(kind):
    weights = weight_vectors(len(Draws(case(kind)[2]).videos), 2, 40)
    one, three = measure(kind, weights), measure(kind, weights, threads=3)
    for name in ("influence", "values", "replicates", "perr", "first"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_constant_scores_have_values_and_no_pooled_influence():
    """A model that learned nothing: all pairs tie, and precision is the share of positives."""
    _, labels, positions = case("disjoint")
    draws, weights = Draws(positions), weight_vectors(48, 2, 8)
    constant = np.zeros(labels.shape, np.float32)
    measured = measure_column(constant, SparseLabels.of(labels), LEVELS, draws, CLASSES, weights)
    cell = CELLS.index(("MAP", "overall"))
    shares = [labels[draw][:, CLASSES].mean(axis=0) for draw in positions]
    assert measured.values[cell] == pytest.approx(np.mean([share[share > 0].mean() for share in shares]), abs=1e-12)
    assert np.isfinite(measured.influence).all()


def test_overlap_is_the_mean_share_of_common_videos():
    positions = case("overlapping")[2]
    shared = [len(np.intersect1d(positions[a], positions[b])) / 24 for a in range(3) for b in range(3) if a != b]
    assert Draws(positions).overlap == pytest.approx(np.mean(shared))
    assert Draws(case("disjoint")[2]).overlap == 0


def test_scores_of_another_type_are_refused():
    with pytest.raises(ValueError, match="float32"):
        measure("disjoint", transform=lambda scores: scores.astype(np.float64))
