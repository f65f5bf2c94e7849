"""Claims: the four metrics equal independent definitions, scikit-learn and the challenge's evaluation; ties, cuts,
unlabelled videos, class sets and bad input are handled as stated; `evaluate` equals the single functions."""

import hypothesis.extra.numpy as arrays
import metric_oracles as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from replicate.errors import DataError
from replicate.evaluate import metrics

EXACT = 1e-12
SLOW = (oracle.pairwise_average_precision, oracle.swept_average_precision)


def example(seed=0, videos=60, nodes=50, positives=0.08, dtype=np.float32, decimals=None):
    """Scores that know something about the labels; `decimals` rounds them so that many tie."""
    rng = np.random.default_rng(seed)
    labels = rng.random((videos, nodes)) < positives
    scores = rng.standard_normal((videos, nodes)) + 1.5 * labels
    return (scores if decimals is None else np.round(scores, decimals)).astype(dtype), labels


CASES = {
    "no ties": {},
    "float64": {"dtype": np.float64},
    "many ties": {"decimals": 1},
    "all tied": {"decimals": -2},
    "fewer nodes than the cut": {"nodes": 7, "positives": 0.3},
    "more than 20 labels": {"positives": 0.6, "videos": 25},
    "empty classes, unlabelled videos": {"positives": 0.01},
    "one video": {"videos": 1, "positives": 0.3},
    "one node": {"nodes": 1, "positives": 0.5},
}
cases = pytest.mark.parametrize("scores, labels", [example(**case) for case in CASES.values()], ids=CASES)


@cases
@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("top_k", [20, 3, None])
def test_gap_and_map_equal_two_slow_definitions(scores, labels, slow, top_k):
    cut = top_k or scores.shape[1]
    assert metrics.gap(scores, labels, top_k) == pytest.approx(oracle.slow_gap(slow, scores, labels, cut), abs=EXACT)
    nodes = np.arange(scores.shape[1])
    expected = oracle.slow_map(slow, scores, labels, cut, nodes)
    assert metrics.mean_average_precision(scores, labels, top_k) == pytest.approx(expected, abs=EXACT)


@cases
@pytest.mark.parametrize("unlabelled", ["skip", "zero"])
def test_perr_and_hit_equal_slow_definitions(scores, labels, unlabelled):
    expected = oracle.slow_perr(scores, labels, unlabelled)
    assert metrics.perr(scores, labels, unlabelled) == pytest.approx(expected, abs=EXACT)
    expected = oracle.slow_hit_at_1(scores, labels, unlabelled)
    assert metrics.hit_at_1(scores, labels, unlabelled) == pytest.approx(expected, abs=EXACT)


@cases
def test_uncapped_average_precision_equals_scikit_learn(scores, labels):
    assert metrics.gap(scores, labels, None) == pytest.approx(
        average_precision_score(labels.ravel(), scores.ravel()), abs=EXACT
    )
    filled = labels.any(axis=0)
    expected = np.mean([average_precision_score(labels[:, node], scores[:, node]) for node in np.flatnonzero(filled)])
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("case", ["float64", "fewer nodes than the cut", "more than 20 labels",
                                  "empty classes, unlabelled videos"])  # fmt: skip
def test_definitions_of_the_challenge_without_ties(case):
    scores, labels = example(**{**CASES[case], "dtype": np.float64})
    assert len(np.unique(scores)) == scores.size
    probabilities = 1 / (1 + np.exp(-scores))
    assert metrics.gap(scores, labels) == pytest.approx(oracle.challenge_gap(probabilities, labels), abs=EXACT)
    expected = oracle.challenge_map(probabilities, labels)
    assert metrics.mean_average_precision(scores, labels, 20) == pytest.approx(expected, abs=EXACT)
    expected = oracle.challenge_perr(probabilities, labels)
    assert metrics.perr(scores, labels, "zero") == pytest.approx(expected, abs=EXACT)
    expected = oracle.challenge_hit_at_1(probabilities, labels)
    assert metrics.hit_at_1(scores, labels, "zero") == pytest.approx(expected, abs=EXACT)


def test_values_by_hand():
    scores = np.array([[4, 3, 2], [1, 5, 0]], np.float32)
    labels = np.array([[True, False, True], [True, False, False]])
    # ranking 5- 4+ 3- 2+ 1+ 0-: (1/2 + 2/4 + 3/5) / 3
    assert metrics.gap(scores, labels) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    # one pair per video: 5- 4+, and two positives are cut
    assert metrics.gap(scores, labels, top_k=1) == pytest.approx((1 / 2) / 3)
    assert metrics.mean_average_precision(scores, labels) == pytest.approx((1 + 1) / 2)
    assert metrics.perr(scores, labels) == pytest.approx((1 / 2 + 0) / 2)
    assert metrics.hit_at_1(scores, labels) == pytest.approx(1 / 2)


def test_ties_in_a_video_go_to_the_lowest_node_and_in_a_ranking_form_one_group():
    scores = np.zeros((1, 4), np.float32)
    labels = np.array([[False, True, True, False]])
    assert metrics.hit_at_1(scores, labels) == 0
    assert metrics.perr(scores, labels) == 0.5  # nodes 0 and 1
    assert metrics.gap(scores, labels, top_k=2) == pytest.approx((1 / 2) / 2)
    assert metrics.gap(scores, labels, top_k=None) == pytest.approx(2 / 4)


def test_unlabelled_videos_are_skipped_or_count_as_zero():
    scores = np.array([[1, 0], [1, 0]], np.float32)
    labels = np.array([[True, False], [False, False]])
    for metric in (metrics.perr, metrics.hit_at_1):
        assert metric(scores, labels) == 1
        assert metric(scores, labels, "zero") == 0.5
        with pytest.raises(ValueError, match="unlabelled must be"):
            metric(scores, labels, "drop")


def test_map_averages_over_the_class_set_and_leaves_out_classes_without_a_positive():
    scores, labels = example(nodes=6, positives=0.3)
    labels[:, 4] = False
    each = [metrics.mean_average_precision(scores, labels, classes=np.array([node])) for node in (0, 1, 2)]
    together = metrics.mean_average_precision(scores, labels, classes=np.array([2, 0, 1, 4]))
    assert together == pytest.approx(np.mean(each), abs=EXACT)
    with pytest.raises(metrics.UndefinedMetric):
        metrics.mean_average_precision(scores, labels, classes=np.array([4]))
    for wrong in ([0, 0], [6], [-1], [[0]], [1.7], [True, False]):
        with pytest.raises(ValueError, match="different node indices below 6"):
            metrics.mean_average_precision(scores, labels, classes=np.array(wrong))


ALL = (metrics.gap, metrics.mean_average_precision, metrics.perr, metrics.hit_at_1)


@pytest.mark.parametrize("metric", ALL)
def test_contract_of_a_metric(metric):
    scores, labels = example(positives=0.2)
    labels[:, :2] |= ~labels.any(axis=1, keepdims=True)
    value = metric(scores, labels)
    assert isinstance(value, float) and 0 < value < 1
    assert metric(np.where(labels, 1, -1) + np.tanh(scores) / 4, labels) == 1  # every positive above every negative
    assert metric(np.where(labels, -1, 1) + np.tanh(scores) / 4, labels) < value
    doubled = np.exp(scores.astype(np.float64))
    assert metric(doubled, labels) == pytest.approx(value, abs=EXACT)  # only the order counts
    order = np.random.default_rng(3).permutation(len(scores))
    assert metric(scores[order], labels[order]) == pytest.approx(value, abs=EXACT)
    assert metric(scores, labels) == value
    frozen = scores.copy(), labels.copy()
    for array in frozen:
        array.setflags(write=False)
    assert metric(*frozen) == value  # nothing is written to


@pytest.mark.parametrize("metric", ALL)
def test_nothing_positive_is_undefined_never_zero(metric):
    with pytest.raises(metrics.UndefinedMetric, match="undefined"):
        metric(np.zeros((3, 4), np.float32), np.zeros((3, 4), bool))


@pytest.mark.parametrize("metric", [*ALL, lambda scores, labels: metrics.evaluate(scores, labels, np.zeros(2, int))])
def test_bad_input_is_an_error(metric):
    scores, labels = np.zeros((3, 2), np.float32), np.eye(3, 2, dtype=bool)
    for bad in (np.nan, np.inf, -np.inf):
        broken = scores.copy()
        broken[2, 1] = bad
        with pytest.raises(DataError, match="video 2, node 1"):
            metric(broken, labels)
    for wrong in ((scores, labels[:2]), (scores[0], labels[0]), (scores.astype(np.float16), labels),
                  (scores, labels.astype(int)), (scores[:, :0], labels[:, :0])):  # fmt: skip
        with pytest.raises(ValueError):
            metric(*wrong)


def test_top_k_must_keep_something():
    for function in (metrics.gap, metrics.mean_average_precision):
        for wrong in (0, 2.5, "3"):
            with pytest.raises(ValueError, match="top_k must be a whole number of at least 1"):
                function(*example(), top_k=wrong)


def by_single_functions(scores, labels, classes, unlabelled):
    def value(function, *arguments, **named):
        try:
            return function(scores, labels, *arguments, **named)
        except metrics.UndefinedMetric:
            return None

    return {
        "GAP": value(metrics.gap),
        "MAP": value(metrics.mean_average_precision, classes=classes),
        "PERR": value(metrics.perr, unlabelled),
        "Hit@1": value(metrics.hit_at_1, unlabelled),
        "GAP uncapped": value(metrics.gap, None),
        "MAP@20": value(metrics.mean_average_precision, 20, classes),
        "MAP all classes": value(metrics.mean_average_precision),
    }


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("unlabelled", ["skip", "zero"])
@pytest.mark.parametrize("threads", [1, 3])
def test_evaluate_equals_the_single_functions_on_each_levels_columns(decimals, unlabelled, threads):
    scores, labels = example(videos=90, nodes=90, positives=0.04, decimals=decimals)
    levels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2, 3], [6, 24, 30, 30]))
    labels[:, levels == 3] &= np.arange(90)[:, None] < 20  # level 3 is rare
    classes = np.flatnonzero(labels.sum(axis=0) >= 2)
    result = metrics.evaluate(scores, labels, levels, classes, unlabelled, threads=threads)
    assert list(result.values) == ["overall", "0", "1", "2", "3"]
    expected = by_single_functions(scores, labels, classes, unlabelled)
    assert result.values["overall"] == pytest.approx(expected, abs=EXACT)
    for level in range(4):
        own = np.flatnonzero(levels == level)
        inside = np.flatnonzero(np.isin(own, classes))
        expected = by_single_functions(scores[:, own], labels[:, own], inside, unlabelled)
        assert result.values[str(level)] == pytest.approx(expected, abs=EXACT)
    assert result.values["overall"]["GAP"] != result.values["overall"]["GAP uncapped"]
    assert result.values["1"]["MAP@20"] != result.values["1"]["MAP"]
    for node in range(90):
        expected = average_precision_score(labels[:, node], scores[:, node]) if labels[:, node].any() else np.nan
        assert result.class_average_precision[node] == pytest.approx(expected, abs=EXACT, nan_ok=True)


def test_evaluate_says_none_where_a_level_has_no_positive():
    scores, labels = example(nodes=10, positives=0.3)
    labels[:, 5:] = False
    levels = np.repeat([0, 1], 5)
    values = metrics.evaluate(scores, labels, levels).values
    assert set(values["1"].values()) == {None}
    assert None not in values["0"].values()
    nothing = metrics.evaluate(scores, np.zeros_like(labels), levels).values
    assert {value for level in nothing.values() for value in level.values()} == {None}


def test_evaluate_does_not_depend_on_threads_to_the_last_bit():
    scores, labels = example(videos=200, nodes=70, decimals=1)
    levels = np.arange(70) % 4
    one, many = (metrics.evaluate(scores, labels, levels, threads=threads) for threads in (1, 7))
    assert one.values == many.values
    assert np.array_equal(one.class_average_precision, many.class_average_precision, equal_nan=True)


def test_evaluate_refuses_levels_that_do_not_fit():
    scores, labels = example(nodes=5)
    for levels in (np.zeros(4, int), np.zeros(5), np.array([0, 0, -1, 0, 0])):
        with pytest.raises(ValueError, match="levels must be 5 integers"):
            metrics.evaluate(scores, labels, levels)


@settings(max_examples=150)
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_any_finite_scores_rank_as_they_compare(data, dtype):
    """Also where a table over the range of scores could go wrong: huge, tiny, subnormal, -0.0 and 0.0."""
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 25)))
    width = np.dtype(dtype).itemsize * 8
    values = st.floats(allow_nan=False, allow_infinity=False, width=width) | st.sampled_from([0.0, -0.0, 1.0, 2.0])
    scores = data.draw(arrays.arrays(dtype, shape, elements=values))
    labels = data.draw(arrays.arrays(bool, shape))
    if labels.any():
        expected = oracle.slow_gap(oracle.swept_average_precision, scores, labels, 20)
        assert metrics.gap(scores, labels) == pytest.approx(expected, abs=EXACT)
        expected = oracle.slow_map(oracle.swept_average_precision, scores, labels, 25, range(shape[1]))
        assert metrics.mean_average_precision(scores, labels) == pytest.approx(expected, abs=EXACT)
        expected = oracle.slow_perr(scores, labels, "skip")
        assert metrics.perr(scores, labels) == pytest.approx(expected, abs=EXACT)
