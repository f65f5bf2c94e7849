"""Claims: the compare stage's record holds paired differences whose tests, families, fall-backs, reasons, seeds and
examples are as the protocol says; identical columns differ by 0 with p = 1; the same comparison has the same bytes."""

import dataclasses
import json

import numpy as np
import pytest
from evaluation_world import COLUMNS, DRAWS, NODE_LEVELS, VIDEOS, World, find, small_protocol
from scipy import stats
from statsmodels.stats.multitest import multipletests

from replicate.evaluate import metrics
from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluation import Pool
from replicate.schema import HEADLINE, LEVELS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    for column in COLUMNS:
        made.add(column)
    return made


@pytest.fixture(scope="module")
def compared(world):
    paper = {(metric, level, "tc_rnn"): 0.009 for metric in HEADLINE for level in LEVELS}
    return world.compare(COLUMNS, paper)


def test_every_pair_metric_and_level_has_a_difference(compared):
    places = {(d.column, d.metric, d.level) for d in compared.differences}
    assert len(compared.differences) == len(places) == 2 * 7 * 5
    families = [d.family for d in compared.differences]
    assert [families.count(name) for name in ("primary", "secondary", "exploratory")] == [8, 32, 30]


def test_differences_are_those_of_the_records(world, compared):
    for difference in compared.differences:
        place, records = (difference.metric, difference.level), world.records
        cells = [
            next(c for c in records[column, 0].cells if (c.metric, c.level) == place)
            for column in (difference.column, difference.baseline)
        ]
        expected = np.subtract(cells[0].draws, cells[1].draws)
        assert difference.draws == pytest.approx(expected, abs=1e-15)
        assert difference.difference == pytest.approx(expected.mean(), abs=1e-12)
        assert difference.pool == pytest.approx(cells[0].pool - cells[1].pool, abs=1e-15)


def test_a_large_difference_is_starred_and_its_intervals_nest(compared):
    cell = find(compared, "GAP", "overall")
    assert cell.starred and cell.p_adjusted < 0.05
    low, high = cell.interval
    assert cell.simultaneous[0] <= low < cell.difference < high <= cell.simultaneous[1]
    assert low > 0


def test_only_primary_cells_are_starred_and_only_families_are_adjusted(compared):
    for difference in compared.differences:
        if difference.p is None:
            assert difference.reason
            continue
        alone = difference.family == "exploratory"
        assert (difference.p_adjusted is None) == alone == (difference.simultaneous is None)
        assert difference.starred == (difference.family == "primary" and difference.p_adjusted < 0.05)
        assert difference.p_bh >= difference.p


def test_adjustments_and_detectable_effects_are_of_the_family(world):
    world.add("tc_netv")  # no better than its baseline
    made = world.compare((*COLUMNS, "tc_netv"))
    for family in ("primary", "secondary", "exploratory"):
        members = [each for each in made.differences if each.family == family and each.p is not None]
        p = [each.p for each in members]
        assert len(set(p)) > 2
        assert [each.p_bh for each in members] == pytest.approx(multipletests(p, method="fdr_bh")[1])
        if family != "exploratory":
            assert [each.p_holm for each in members] == pytest.approx(multipletests(p, method="holm")[1])
        power = stats.norm.ppf(world.protocol.power)
        for each in members:
            low, high = each.simultaneous or each.interval
            assert each.detectable == pytest.approx((high - low) / 2 + power * each.standard_error)


def test_standard_errors_are_those_of_resampled_videos(world, compared):
    """Against a bootstrap that repeats videos and asks the metrics, for one metric of each kind."""
    rng = np.random.default_rng(5)
    scores = [world.scores(column, 0) for column in ("tc_rnn", "rnn_attn")]
    found = {"GAP": [], "Hit@1": [], "MAP": []}
    for _ in range(150):
        values = {name: [] for name in found}
        for draw in world.split.draws:
            rows = rng.choice(draw, len(draw))
            one, other = (
                metrics.evaluate(each[rows], world.labels[rows], NODE_LEVELS, world.pool.classes).values["overall"]
                for each in scores
            )
            for name in found:
                values[name].append(one[name] - other[name])
        for name in found:
            found[name].append(np.mean(values[name]))
    for name, replicates in found.items():
        assert find(compared, name, "overall").standard_error == pytest.approx(np.std(replicates), rel=0.2), name


def test_identical_columns_differ_by_0_with_p_1(tmp_path):
    world = World(tmp_path)
    for column in ("rnn_attn", "tc_rnn"):
        world.add(column, scores=world.scores("netv", 0))
    made = world.compare(("rnn_attn", "tc_rnn"))
    for difference in made.differences:
        assert difference.difference == 0
        assert difference.p in (None, 1) and difference.p_adjusted in (None, 1) and not difference.starred
        assert difference.interval in (None, (0, 0))
    cell = find(made, "Hit@1", "overall")
    assert (cell.check.mcnemar_p, cell.check.paired_t_p, cell.check.discordant) == (1, 1, (0, 0))
    assert made.influence_check.worst_ratio_gap == 0


def test_monotone_scores_give_the_same_comparison(world, compared, tmp_path):
    other = World(tmp_path)
    for column in COLUMNS:
        ranks = np.unique(world.scores(column, 0), return_inverse=True)[1]
        other.add(column, scores=ranks.reshape(VIDEOS, -1).astype(np.float32))
    made = other.compare(COLUMNS)
    for before, after in zip(compared.differences, made.differences, strict=True):
        assert before.model_copy(update={"equivalence": None}) == after


def test_cross_checks_agree_with_the_bootstrap(compared):
    for metric in ("PERR", "Hit@1"):
        cell = find(compared, metric, "overall", "tc_ens")
        assert cell.p == pytest.approx(cell.check.paired_t_p, abs=0.06)
    assert find(compared, "GAP", "overall").check.paired_t_p is None
    hit = find(compared, "Hit@1", "overall")
    assert hit.check.discordant[0] > hit.check.discordant[1] and hit.check.mcnemar_p < 0.05
    low, high = hit.check.draws_interval
    assert low < hit.difference < high


def test_cells_fall_back_to_exact_replicates_beyond_the_tolerance(world, compared):
    protocol = small_protocol(tolerance=1e-9)
    made = world.compare(("rnn_attn", "tc_rnn"), protocol=protocol)
    before, after = find(compared, "GAP", "overall"), find(made, "GAP", "overall")
    assert (before.method, after.method) == ("influence", "exact")
    assert made.influence_check.fell_back and not compared.influence_check.fell_back
    assert after.standard_error == pytest.approx(before.standard_error, rel=0.05)
    assert after.standard_error != before.standard_error
    assert after.interval == pytest.approx(before.interval, rel=0.1)
    never = world.compare(("rnn_attn", "tc_rnn"), protocol=small_protocol(tolerance=0.99))
    assert {d.method for d in never.differences if d.metric in HEADLINE} == {"influence"}


def test_influence_check_is_of_the_primary_cells(compared):
    check = compared.influence_check
    assert check.replicates == 50
    assert 0 < check.worst_ratio_gap < 0.05 and check.worst_correlation > 0.85


def test_map_over_all_classes_is_exact_and_exploratory(compared):
    cell = find(compared, "MAP all classes", "3")
    assert (cell.method, cell.family, cell.starred, cell.p_adjusted) == ("exact", "exploratory", False, None)
    assert cell.standard_error > 0


def test_cells_with_few_positives_are_not_tested(tmp_path):
    world = World(tmp_path)
    world.labels[:, NODE_LEVELS == 2] = False
    world.labels[::20, 30] = True  # 45 videos: 7.5 expected per draw
    world.pool = dataclasses.replace(world.pool, labels=SparseLabels.of(world.labels))
    for column in ("rnn_attn", "tc_rnn"):
        world.add(column)
    for metric in ("GAP", "PERR", "Hit@1"):
        cell = find(world.compare(("rnn_attn", "tc_rnn")), metric, "2")
        assert cell.difference is not None and cell.p is None
        assert "fewer than 10 expected positives per draw" in cell.reason


def test_a_cell_that_replicates_leave_without_a_positive_is_not_tested(tmp_path):
    """Enough positives in the pool, but by chance one in the only draw, so that many replicates lose it."""
    world = World(tmp_path)
    drawn = world.split.draws[0]
    world.labels[:, NODE_LEVELS == 2] = False
    world.labels[np.setdiff1d(np.arange(VIDEOS), drawn)[:200], 30] = True
    world.labels[drawn[0], 30] = True
    draws = Draws(drawn[None])
    world.pool = dataclasses.replace(world.pool, labels=SparseLabels.of(world.labels), draws=draws)
    for column in ("rnn_attn", "tc_rnn"):
        world.add(column)
    record = world.compare(("rnn_attn", "tc_rnn"))
    for metric in ("GAP", "PERR", "Hit@1"):
        cell = find(record, metric, "2")
        assert cell.difference is not None and cell.p is None
        assert "some replicates leave no positive" in cell.reason
    assert find(record, "GAP", "overall").p is not None


def test_equivalence_has_three_verdicts(world):
    cell = {}
    for name, increment in (("far", -0.2), ("near", None)):
        value = find(world.compare(("rnn_attn", "tc_rnn")), "GAP", "overall").difference
        paper = {("GAP", "overall", "tc_rnn"): value if increment is None else increment}
        cell[name] = find(world.compare(("rnn_attn", "tc_rnn"), paper), "GAP", "overall").equivalence
    assert cell["far"].verdict == "differs" and cell["near"].verdict in ("matches", "inconclusive")
    assert cell["near"].margin == 0.005
    assert find(world.compare(("rnn_attn", "tc_rnn")), "GAP", "overall").equivalence is None


def test_a_column_of_ones_own_is_exploratory(world):
    for column in ("gru", "tc_gru"):
        world.add(column)
    made = world.compare(("gru", "tc_gru", "rnn_attn", "tc_rnn"))
    own = find(made, "GAP", "overall", "tc_gru")
    assert (own.family, own.p_adjusted, own.starred) == ("exploratory", None, False)
    assert own.p is not None and own.p_bh >= own.p
    alone = world.compare(("rnn_attn", "tc_rnn"))
    for metric in HEADLINE:  # it widens no declared family
        before, after = (find(record, metric, "overall") for record in (alone, made))
        assert after.p_adjusted == before.p_adjusted
        assert after.simultaneous == pytest.approx(before.simultaneous, rel=1e-5)


def test_columns_without_a_pair_compare_nothing(world):
    made = world.compare(("netv",))
    assert (made.differences, made.influence_check, made.examples) == ((), None, ())


def test_seeds_are_paired_and_reported_apart(tmp_path):
    world = World(tmp_path, seeds=(0, 1, 2))
    for column in ("rnn_attn", "tc_rnn"):
        for seed in world.seeds:
            world.add(column, seed)
    made = world.compare(("rnn_attn", "tc_rnn"), {("GAP", "overall", "tc_rnn"): 0.008})
    assert made.seeds == (0, 1, 2) and not made.conditional
    cell = find(made, "GAP", "overall")
    per_seed = []
    for seed in world.seeds:
        means = [world.records[column, seed].cells[0].mean for column in ("tc_rnn", "rnn_attn")]
        per_seed.append(means[0] - means[1])
    assert cell.seeds.differences == pytest.approx(per_seed, abs=1e-12)
    assert cell.difference == pytest.approx(np.mean(per_seed), abs=1e-12)
    assert cell.seeds.sd == pytest.approx(np.std(per_seed, ddof=1), abs=1e-12)
    assert cell.seeds.interval[0] < cell.difference < cell.seeds.interval[1]
    low, high = cell.seeds.two_level_interval
    assert low < cell.difference < high and high - low > cell.interval[1] - cell.interval[0]
    rule = (
        world.protocol.equivalence
    )  # both kinds of noise, ours and what is assumed of the paper's, widen the interval
    error = np.sqrt(cell.standard_error**2 + cell.seeds.sd**2 / 3 + rule.paper_increment_sd**2)
    half = stats.t.ppf(0.95, 2) * error + rule.paper_rounding
    assert cell.equivalence.interval == pytest.approx((cell.difference - 0.008 - half, cell.difference - 0.008 + half))
    assert find(made, "MAP all classes", "overall").seeds is not None


KNOWN_HITS = {4: (60, 54), 0: (12, 6), 3: (41, 37), 1: (25, 18), 2: (50, 45)}  # seed -> right videos per draw


def test_five_seeds_of_known_scores_in_any_order(tmp_path):
    """Each column's top node is right in so many first videos of a draw; so the truth of Hit@1 is a count."""
    world = World(tmp_path, seeds=tuple(KNOWN_HITS))

    def scores(right):
        first = np.zeros(VIDEOS, bool)
        first[world.split.draws[:, :right]] = True
        return np.where(world.labels, np.where(first[:, None], 1, -1), 0).astype(np.float32)

    for seed, (right, _) in KNOWN_HITS.items():
        world.add("tc_rnn", seed, scores(right))
    for seed in reversed(KNOWN_HITS):
        world.add("rnn_attn", seed, scores(KNOWN_HITS[seed][1]))
    made = world.compare(("rnn_attn", "tc_rnn"))
    cell, labelled = find(made, "Hit@1", "overall"), world.labels.any(axis=1)
    assert made.seeds == tuple(KNOWN_HITS) and not made.conditional
    column, baseline = (
        np.array([np.mean([labelled[draw[:n]].sum() / labelled[draw].sum() for draw in world.split.draws]) for n in of])
        for of in zip(*KNOWN_HITS.values(), strict=True)
    )
    paired, apart = stats.ttest_rel(column, baseline), stats.ttest_ind(column, baseline, equal_var=False)
    assert cell.seeds.differences == pytest.approx(column - baseline, abs=1e-12)
    assert (cell.seeds.p, cell.seeds.p_welch) == pytest.approx((paired.pvalue, apart.pvalue))
    assert cell.seeds.interval == pytest.approx(tuple(paired.confidence_interval(0.95)), abs=1e-12)
    assert cell.seeds.p < 0.01 < 0.5 < cell.seeds.p_welch  # seeds move both columns
    assert cell.check.discordant == (sum(labelled[draw[54:60]].sum() for draw in world.split.draws), 0)  # first seed
    for place in (("MAP all classes", "overall"), ("GAP", "overall")):
        low, high = find(made, *place).seeds.two_level_interval
        assert low < find(made, *place).difference < high


def test_one_seed_is_conditional(compared):
    assert compared.conditional
    assert all(d.seeds is None for d in compared.differences)


def test_overlapping_draws_count_a_video_once(tmp_path):
    world = World(tmp_path, overlapping=True)
    for column in ("rnn_attn", "tc_rnn"):
        assert not world.add(column).disjoint
    made = world.compare(("rnn_attn", "tc_rnn"))
    assert made.videos == len(np.unique(world.split.draws)) < DRAWS * 150
    cell = find(made, "GAP", "overall")
    assert cell.standard_error > 0
    pairs = [(a, b) for a in range(DRAWS) for b in range(DRAWS) if a != b]
    shared = np.mean([len(np.intersect1d(world.split.draws[a], world.split.draws[b])) / 150 for a, b in pairs])
    half = stats.t.ppf(0.975, DRAWS - 1) * np.std(cell.draws, ddof=1) * np.sqrt(1 / DRAWS + shared / (1 - shared))
    assert cell.check.draws_interval == pytest.approx((cell.difference - half, cell.difference + half))


def test_one_draw_has_no_spread_over_draws(tmp_path):
    world = World(tmp_path)
    world.split = dataclasses.replace(world.split, draws=world.split.draws[:1])
    world.pool = Pool.of(world.store, world.split, NODE_LEVELS, world.protocol)
    for column in ("rnn_attn", "tc_rnn"):
        record = world.add(column)
    assert record.cells[0].sd is None and record.cells[0].reason
    assert find(world.compare(("rnn_attn", "tc_rnn")), "GAP", "overall").check.draws_interval is None


def test_examples_are_the_largest_changes_both_ways(world, compared):
    def precision(row, truth):
        reached = [row >= row[node] for node in np.flatnonzero(truth)]
        return np.mean([(truth & each).sum() / each.sum() for each in reached])

    before, after = world.scores("base_ens", 0), world.scores("tc_ens", 0)
    labelled = world.labels.any(axis=1)
    change = np.zeros(VIDEOS)
    for video in np.flatnonzero(labelled):
        change[video] = precision(after[video], world.labels[video]) - precision(before[video], world.labels[video])
    gains, losses = np.argsort(-change, kind="stable")[:2], np.argsort(change, kind="stable")[:2]
    assert [each.video for each in compared.examples] == [f"video{3 * video + 1}" for video in (*gains, *losses)]
    for each, video in zip(compared.examples, (*gains, *losses), strict=True):
        assert each.change == pytest.approx(change[video], abs=1e-6)
        assert each.truth == tuple(f"node {node}" for node in np.flatnonzero(world.labels[video]))
        probability = 1 / (1 + np.exp(-before[video].astype(np.float64)))
        likely = max((probability >= 0.3).sum(), world.labels[video].sum())
        highest = np.argsort(-probability, kind="stable")[:likely]
        assert [shown.node for shown in each.baseline] == [f"node {node}" for node in highest]


def test_the_same_comparison_has_the_same_bytes(world, compared):
    paper = {(metric, level, "tc_rnn"): 0.009 for metric in HEADLINE for level in LEVELS}
    again = world.compare(COLUMNS, paper)
    assert json.dumps(again.model_dump(mode="json")) == json.dumps(compared.model_dump(mode="json"))


def test_the_protocol_and_its_hash_are_in_the_record(world, compared):
    assert compared.protocol_hash == world.protocol.hash
    assert compared.protocol == world.protocol.to_dict()
    assert compared.replicates == 640
