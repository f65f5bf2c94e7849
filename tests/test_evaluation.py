"""Claims: the evaluate stage's record holds the metrics, by definition, of every draw and of the pool; class set,
support and reasons are right; an ensemble is read through its members; bad scores are a sentence, degenerate ones are
carried through; neither threads nor repetition change a byte."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_world import COLUMNS, NODE_LEVELS, RARE, VIDEOS, World, find

from replicate.data.labels import LabelStore
from replicate.data.splits import Split
from replicate.errors import DataError
from replicate.evaluate import metrics
from replicate.evaluate.draws import SparseLabels
from replicate.evaluate.influence import CELLS
from replicate.evaluate.protocol import load_protocol
from replicate.evaluation import Pool, _check_agreement, evaluate_column
from replicate.schema import HEADLINE, LEVELS
from replicate.scores import LOGITS, mean_probability, write_ensemble


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    for column in COLUMNS:
        made.add(column)
    return made


@pytest.mark.parametrize("metric", HEADLINE)
@pytest.mark.parametrize("level", LEVELS)
def test_cells_are_the_metrics_by_definition(world, metric, level):
    cell = next(c for c in world.records["tc_rnn", 0].cells if (c.metric, c.level) == (metric, level))
    nodes = np.arange(len(NODE_LEVELS)) if level == "overall" else np.flatnonzero(int(level) == NODE_LEVELS)
    scores = world.scores("tc_rnn", 0)
    functions = {
        "GAP": lambda s, y: metrics.gap(s[:, nodes], y[:, nodes]),
        "MAP": lambda s, y: metrics.mean_average_precision(s, y, classes=np.setdiff1d(nodes, [RARE])),
        "PERR": lambda s, y: metrics.perr(s[:, nodes], y[:, nodes]),
        "Hit@1": lambda s, y: metrics.hit_at_1(s[:, nodes], y[:, nodes]),
    }
    draws = [functions[metric](scores[draw], world.labels[draw]) for draw in world.split.draws]
    assert cell.draws == pytest.approx(draws, abs=1e-12)
    assert (cell.mean, cell.sd) == pytest.approx((np.mean(draws), np.std(draws, ddof=1)), abs=1e-12)
    assert cell.pool == pytest.approx(functions[metric](scores, world.labels), abs=1e-12)


def test_class_set_and_support(world):
    record = world.records["rnn_attn", 0]
    by_level = {each.level: each for each in record.classes}
    assert (by_level["3"].used, by_level["3"].of, by_level["overall"].used) == (3, 4, len(NODE_LEVELS) - 1)
    assert by_level["3"].least_positives == 10
    support = {each.level: each for each in record.support}
    assert support["overall"].positives == world.labels.sum()
    assert support["1"].videos == world.labels[:, NODE_LEVELS == 1].any(axis=1).sum()
    assert support["overall"].beyond_top == np.maximum(world.labels.sum(axis=1) - 20, 0).sum()
    assert record.class_average_precision[RARE] is not None


def test_a_class_counts_from_10_expected_positives_per_draw_on():
    """Expected from the whole pool: 900 videos, draws of 150, so 60 positives in the pool, wherever they are."""
    labels = np.zeros((900, 3), bool)
    for node, positives in enumerate((59, 60, 61)):
        labels[:positives, node] = True
    sparse, rows = SparseLabels.of(labels), np.arange(900)
    split = Split(rows[:0], rows[:0], rows, np.arange(150, 900).reshape(5, 150), True)
    pool = Pool.of(LabelStore(sparse.offsets, sparse.values, 3), split, np.zeros(3), load_protocol())
    assert pool.classes.tolist() == [1, 2]


@pytest.mark.parametrize("other", [0.5 + 2e-9, np.nan])
def test_the_two_ways_to_a_metric_must_agree(other):
    """The rankings behind influence values are not those of `evaluate`, so each would notice a fault of the other."""
    draws = [SimpleNamespace(values={"overall": {"GAP": value}}) for value in (0.4, 0.6)]
    _check_agreement(SimpleNamespace(values=np.full(len(CELLS), 0.5)), draws, "netv")
    with pytest.raises(AssertionError, match="netv, GAP overall: two ways give"):
        _check_agreement(SimpleNamespace(values=np.full(len(CELLS), other)), draws, "netv")


def test_an_ensemble_is_evaluated_through_its_members(world, tmp_path):
    members = [world.evaluated[column, 0].scores for column in ("rnn_attn", "netv")]
    place = tmp_path / "predict"
    place.mkdir()
    write_ensemble(place, members)
    out = tmp_path / "evaluate"
    out.mkdir()
    record = evaluate_column(place, world.pool, world.protocol, "base_ens", 0, out, 1, lambda *_: None)
    logits = mean_probability([world.scores(column, 0) for column in ("rnn_attn", "netv")])
    expected = [metrics.gap(logits[draw], world.labels[draw]) for draw in world.split.draws]
    assert record.cells[0].draws == pytest.approx(expected, abs=1e-12)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]  # its logits are gone again


def test_threads_and_repetition_change_no_byte(world, tmp_path):
    before = world.evaluated["tc_rnn", 0]
    for threads in (1, 3):
        out = tmp_path / str(threads)
        out.mkdir()
        record = evaluate_column(before.scores, world.pool, world.protocol, "tc_rnn", 0, out, threads, lambda *_: None)
        assert record == world.records["tc_rnn", 0]
        for path in out.iterdir():
            assert path.read_bytes() == (before.measures / path.name).read_bytes()


def test_scores_that_are_not_finite_are_a_sentence(world, tmp_path):
    place = tmp_path / "predict"
    place.mkdir()
    scores = world.scores("tc_rnn", 0)
    scores[17, 3] = np.nan
    np.save(place / LOGITS, scores)
    with pytest.raises(DataError, match="video 17, node 3 is nan"):
        evaluate_column(place, world.pool, world.protocol, "tc_rnn", 0, tmp_path, 1, lambda *_: None)


def test_scores_of_another_pool_are_a_sentence(world, tmp_path):
    np.save(tmp_path / LOGITS, np.zeros((5, len(NODE_LEVELS)), np.float32))
    with pytest.raises(DataError, match=r"\(5, 42\), the pool is \(900, 42\); predict again"):
        evaluate_column(tmp_path, world.pool, world.protocol, "tc_rnn", 0, tmp_path, 1, lambda *_: None)


def test_a_level_without_positives_has_no_value_but_a_reason(tmp_path):
    world = World(tmp_path)
    world.labels[:, NODE_LEVELS == 2] = False
    world.pool = dataclasses.replace(world.pool, labels=SparseLabels.of(world.labels))
    for column in ("rnn_attn", "tc_rnn"):
        record = world.add(column)
    for cell in record.cells:
        assert (cell.draws is None) == (cell.level == "2") == (cell.mean is None)
        assert cell.level != "2" or "undefined on 5 of 5 draws" in cell.reason
    made = world.compare(("rnn_attn", "tc_rnn"))
    for metric in HEADLINE:
        cell = find(made, metric, "2")
        assert (cell.difference, cell.p, cell.starred) == (None, None, False)
        assert "undefined" in cell.reason


def test_a_diverged_column_with_constant_scores_is_carried_through(tmp_path):
    world = World(tmp_path)
    world.add("rnn_attn")
    record = world.add("tc_rnn", scores=np.full((VIDEOS, len(NODE_LEVELS)), -1.0, np.float32))
    assert all(cell.mean is not None for cell in record.cells)
    cell = find(world.compare(("rnn_attn", "tc_rnn")), "GAP", "overall")
    assert cell.difference < 0 and cell.p_adjusted < 0.05
