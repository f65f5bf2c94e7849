"""Claims: each test equals an independent one (statsmodels, scipy, definitions by loop); the bootstrap's weights are
what they are said to be; randomness is explicit; nothing is ever significant by being undefined."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import statistics_oracles as oracle
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from replicate.errors import ConfigurationError
from replicate.evaluate import bootstrap, statistics
from replicate.evaluate.protocol import PATH, load_protocol


def family(seed=0, cells=7, replicates=399):
    """Correlated deviations, estimates of which some are large."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((replicates, 1))
    deviations = (common + rng.standard_normal((replicates, cells))) * np.linspace(0.5, 2, cells)
    errors = deviations.std(axis=0, ddof=1)
    return rng.standard_normal(cells) * 2 * errors, errors, deviations


@pytest.mark.parametrize("seed", range(5))
def test_max_t_equals_the_definition(seed):
    estimates, errors, deviations = family(seed)
    test = statistics.max_t(estimates, errors, deviations, 0.05)
    np.testing.assert_allclose(test.adjusted, oracle.step_down_max_t(estimates, errors, deviations))
    for cell in range(len(estimates)):
        extreme = sum(abs(value) >= abs(estimates[cell]) for value in deviations[:, cell])
        assert test.p[cell] == (1 + extreme) / (len(deviations) + 1)


@pytest.mark.parametrize("seed", range(5))
def test_max_t_lies_between_the_single_p_and_bonferroni(seed):
    test = statistics.max_t(*family(seed), 0.05)
    assert (test.adjusted >= test.p).all()
    assert (test.adjusted <= np.minimum(1, len(test.p) * test.p) + 1e-12).all()
    assert test.simultaneous >= test.critical.max()


@pytest.mark.parametrize("seed", range(20))
def test_intervals_say_what_p_says(seed):
    estimates, errors, deviations = family(seed)
    test = statistics.max_t(estimates, errors, deviations, 0.05)
    np.testing.assert_array_equal(test.p <= 0.05, np.abs(estimates) > test.critical * errors)
    assert (test.adjusted <= 0.05).any() == (np.abs(estimates) > test.simultaneous * errors).any()


def test_one_cell_needs_no_adjustment():
    estimates, errors, deviations = (each[..., :1] for each in family())
    test = statistics.max_t(estimates, errors, deviations, 0.05)
    assert test.adjusted == test.p == test.holm == test.bh


def test_a_cell_in_which_nothing_differs_has_p_1():
    estimates, errors, deviations = family()
    estimates[2], errors[2], deviations[:, 2] = 0, 0, 0
    test = statistics.max_t(estimates, errors, deviations, 0.05)
    assert test.p[2] == test.adjusted[2] == 1
    others = np.delete(np.arange(7), 2)
    alone = statistics.max_t(estimates[others], errors[others], deviations[:, others], 0.05)
    np.testing.assert_array_equal(test.adjusted[others], alone.adjusted)


@pytest.mark.parametrize("what", [np.nan, np.inf])
@pytest.mark.parametrize("place", range(3))
def test_what_is_not_finite_is_refused_not_significant(place, what):
    """A comparison with NaN is false, so that no replicate would count as more extreme."""
    numbers = [np.ones(2), np.ones(2), np.random.default_rng(0).normal(size=(99, 2))]
    numbers[place].flat[0] = what
    with pytest.raises(ValueError, match="finite"):
        statistics.max_t(*numbers, 0.05)


def test_too_few_replicates_for_the_level_are_refused():
    simulated = np.random.default_rng(0).normal(size=(19, 1))
    assert statistics.quantile(simulated, 0.05) == simulated.max()
    with pytest.raises(ValueError, match="18 replicates are too few"):
        statistics.quantile(simulated[:18], 0.05)
    with pytest.raises(ValueError, match="0 replicates"):
        statistics.max_t(np.ones(1), np.ones(1), np.zeros((0, 1)), 0.05)


def test_one_video_tells_nothing():
    assert statistics.paired_t(np.ones(1), np.zeros(1)) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_holm_and_bh_are_statsmodels(seed):
    p = np.round(np.random.default_rng(seed).random(30) ** 3, 2)
    np.testing.assert_allclose(statistics.holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


def test_t_interval_of_disjoint_draws_is_students():
    values = np.random.default_rng(0).standard_normal(5)
    expected = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert statistics.t_interval(values, 0.0, 0.05) == pytest.approx(expected)
    wider = statistics.t_interval(values, 0.137, 0.05)
    growth = (wider[1] - wider[0]) / (expected[1] - expected[0])
    assert growth == pytest.approx(math.sqrt(1 + 5 * 0.137 / 0.863))  # 1.34, as the harness anchors say


def test_paired_t_and_mcnemar_are_the_libraries():
    rng = np.random.default_rng(1)
    column, baseline = rng.integers(0, 2, (2, 300)).astype(float)
    assert statistics.paired_t(column, baseline) == pytest.approx(scipy.stats.ttest_rel(column, baseline).pvalue)
    table = [[((column == a) & (baseline == b)).sum() for b in (1, 0)] for a in (1, 0)]
    p, only = statistics.mcnemar(column, baseline)
    assert p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert only == (table[0][1], table[1][0])


def test_equal_columns_have_p_1():
    column = np.random.default_rng(1).integers(0, 2, 50).astype(float)
    assert statistics.paired_t(column, column) == 1
    assert statistics.mcnemar(column, column) == (1, (0, 0))
    test = statistics.seed_test(column[:4], column[:4], 0.05, 0.8)
    assert (test.mean, test.p, test.p_welch) == (0, 1, 1)


def test_seed_test_is_scipys():
    rng = np.random.default_rng(2)
    baseline = rng.standard_normal(5)
    column = baseline + 0.3 + 0.1 * rng.standard_normal(5)
    test = statistics.seed_test(column, baseline, 0.05, 0.8)
    paired = scipy.stats.ttest_rel(column, baseline)
    assert test.p == pytest.approx(paired.pvalue)
    assert test.interval == pytest.approx(tuple(paired.confidence_interval(0.95)))
    assert test.p_welch == pytest.approx(scipy.stats.ttest_ind(column, baseline, equal_var=False).pvalue)
    assert test.p < test.p_welch  # pairing pays where seeds move both


def test_interval_over_five_seeds_covers_the_true_gain():
    """Seeds move both columns together; t allows for estimating their spread from five. The two-level interval does
    not, so that it is too narrow for few seeds, as docs/statistics.md says."""
    rng, gain, covered = np.random.default_rng(6), 0.3, np.zeros(2)
    for _ in range(600):
        baseline = rng.normal(0, 1, 5)
        column = baseline + gain + rng.normal(0, 0.2, 5)
        bounds = statistics.seed_test(column, baseline, 0.05, 0.8).interval
        two_level = statistics.two_level_interval(column - baseline, np.zeros((199, 5)), 0.05, rng)
        covered += [low <= gain <= high for low, high in (bounds, two_level)]
    assert covered[0] / 600 == pytest.approx(0.95, abs=0.027)  # three Monte Carlo standard errors
    assert covered[1] / 600 < 0.9


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_detectable_difference_over_seeds_is_statsmodels(seeds):
    expected = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)
    assert statistics.noncentrality(seeds, 0.05, 0.8) / math.sqrt(seeds) == pytest.approx(expected, rel=1e-4)


def test_detectable_difference_is_found_with_its_power():
    error, critical = 0.3, 2.8
    shift = statistics.detectable(error, critical, 0.8)
    estimates = np.random.default_rng(0).normal(shift, error, 40_000)
    assert (np.abs(estimates) > critical * error).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("shift, margin", list(itertools.product([0, 0.1, 0.25, 0.6], np.linspace(0.05, 0.5, 19))))
def test_matches_is_two_one_sided_tests(shift, margin):
    x = np.random.default_rng(3).normal(shift, 0.4, 25)
    error = x.std(ddof=1) / 5
    test = statistics.equivalence(x.mean(), error, 24, margin, 0, 0.05)
    p = ttost_paired(x, np.zeros(25), -margin, margin)[0]
    assert (test.verdict == "matches") == (p < 0.05)
    low, high = scipy.stats.t.interval(0.95, 24, x.mean(), error)
    assert (test.verdict == "differs") == (low > margin or high < -margin)


def test_rounding_of_the_paper_only_weakens_a_verdict():
    assert statistics.equivalence(0.001, 0.0002, np.inf, 0.002, 0, 0.05).verdict == "matches"
    assert statistics.equivalence(0.001, 0.0002, np.inf, 0.002, 0.001, 0.05).verdict == "inconclusive"
    assert statistics.equivalence(0.01, 0.0002, np.inf, 0.002, 0.001, 0.05).verdict == "differs"


def test_two_level_interval_holds_both_kinds_of_noise():
    """Variance of seeds / S, times (S - 1) / S for resampling from S, plus that of the videos."""
    rng = np.random.default_rng(4)
    differences, shared = rng.normal(1, 0.5, 5), rng.normal(0, 0.3, (20_000, 1))
    interval = statistics.two_level_interval(differences, shared.repeat(5, axis=1), 0.05, np.random.default_rng(5))
    expected = 2 * 1.96 * math.sqrt(differences.var() / 5 + 0.3**2)
    assert interval[1] - interval[0] == pytest.approx(expected, rel=0.05)


def test_two_level_interval_resamples_a_seed_with_its_own_replicates():
    """Literally: in each replicate as many seeds with replacement, each with its estimate and its deviation there."""
    rng = np.random.default_rng(3)
    differences, deviations = np.array([0.1, 0.3, -0.2]), rng.normal(0, [0.01, 0.5, 0.1], (199, 3))
    found = statistics.two_level_interval(differences, deviations, 0.1, np.random.default_rng(4))
    drawn = np.random.default_rng(4).integers(0, 3, (199, 3))
    means = [sum(differences[s] + deviations[b, s] for s in drawn[b]) / 3 for b in range(199)]
    assert found == pytest.approx(np.quantile(means, (0.05, 0.95)), abs=1e-12)


def test_weights_are_poisson_with_mean_and_variance_1():
    counts, values = np.array(bootstrap.WEIGHT_COUNTS), np.arange(len(bootstrap.WEIGHT_COUNTS))
    assert counts.sum() == (counts * values).sum() == 1 << 16
    assert (counts * (values - 1) ** 2).sum() == 1 << 16
    assert np.abs(counts / (1 << 16) - scipy.stats.poisson.pmf(values, 1)).max() < 2e-5
    weights = bootstrap.weight_vectors(5000, 1, 100)[:, :100]
    shares = np.bincount(weights.ravel(), minlength=4)[:4] / weights.size
    np.testing.assert_allclose(shares, scipy.stats.poisson.pmf(np.arange(4), 1), atol=0.004)
    assert abs(np.corrcoef(weights.T)[np.triu_indices(100, 1)]).max() < 0.08  # replicates are independent


def test_a_vector_of_weights_depends_on_its_number_alone():
    whole = bootstrap.weight_vectors(9000, 3, 300)
    np.testing.assert_array_equal(bootstrap.weight_vectors(9000, 3, 70), whole[:, :128])
    np.testing.assert_array_equal(bootstrap.weight_vectors(9000, 3, 44, first=256), whole[:, 256:])
    assert (bootstrap.weight_vectors(9000, 4, 1) != whole[:, :64]).any()


def test_deviations_are_the_weighted_sums():
    influence = np.random.default_rng(0).standard_normal((3, 9000)).astype(np.float32)
    weights = bootstrap.weight_vectors(9000, 3, 150)[:, :150].astype(np.float64)
    expected = (weights - 1).T @ influence.T.astype(np.float64)
    np.testing.assert_allclose(bootstrap.deviations(influence, 3, 150), expected, atol=2e-3)
    one, two = (bootstrap.deviations(influence, 3, 150, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_bootstrap_of_a_mean_is_scipys():
    x = (np.random.default_rng(0).random(2000) < 0.3) * 1.0
    influence = ((x - x.mean()) / len(x)).astype(np.float32)[None]
    error = bootstrap.deviations(influence, 7, 16_000).std(ddof=1)
    rng = np.random.default_rng(1)
    theirs = scipy.stats.bootstrap((x,), np.mean, n_resamples=16_000, batch=1000, rng=rng, method="percentile")
    assert error == pytest.approx(theirs.standard_error, rel=0.035)  # each is known to 0.56 %, as one deviation
    assert error == pytest.approx(x.std() / math.sqrt(len(x)), rel=0.03)


def test_global_random_state_is_untouched():
    np.random.seed(12)
    before = np.random.get_state()[1].copy()
    bootstrap.deviations(np.ones((1, 50), np.float32), 3, 70)
    statistics.two_level_interval(np.ones(3), np.zeros((10, 3)), 0.05, np.random.default_rng(0))
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    np.random.seed(13)
    other = bootstrap.deviations(np.arange(50, dtype=np.float32)[None], 3, 70)
    np.random.seed(14)
    np.testing.assert_array_equal(other, bootstrap.deviations(np.arange(50, dtype=np.float32)[None], 3, 70))


def test_protocol_is_complete_and_named_by_its_hash(tmp_path):
    protocol = load_protocol()
    assert set(protocol.equivalence.margins) == set(protocol.family.primary) == {"GAP", "MAP", "PERR", "Hit@1"}
    assert (protocol.bootstrap.replicates, protocol.classes.min_positives, protocol.alpha) == (9999, 10, 0.05)
    text = PATH.read_text()
    copy = tmp_path / "protocol.toml"
    copy.write_text("# another comment\n" + text)
    assert load_protocol(copy).hash == protocol.hash
    changed = tmp_path / "changed.toml"
    changed.write_text(text.replace("alpha = 0.05", "alpha = 0.01"))
    assert load_protocol(changed).hash != protocol.hash


@pytest.mark.parametrize("old, new, key", [("alpha = 0.05", "alpha = 5", "alpha"), ("power", "powr", "power"),
                                           ("alpha = 0.05", "alpha =", "cannot be read")])  # fmt: skip
def test_damaged_protocol_is_a_sentence(tmp_path, old, new, key):
    path = tmp_path / "protocol.toml"
    path.write_text(PATH.read_text().replace(old, new))
    with pytest.raises(ConfigurationError, match=key) as caught:
        load_protocol(path)
    assert str(path) in str(caught.value) and "restore" in str(caught.value)


def test_margins_follow_the_stated_rule():
    """Half the mean of the paper's four overall increments, rounded to 0.05 points, halves up."""
    from replicate.reference import table1

    protocol = load_protocol()
    for metric, margin in protocol.equivalence.margins.items():
        increments = [table1()[metric, "overall", column].increment for column in protocol.family.pairs]
        assert margin == pytest.approx(math.floor(np.mean(increments) / 2 / 0.0005 + 0.5 + 1e-9) * 0.0005), metric
