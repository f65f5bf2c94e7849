"""Claims: an ensemble's score is the logit of the mean probability at any logit; its options are what they say; members
are scored once."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from replicate import engine, ensembles
from replicate.ensembles import mean_logit, mean_probability, tuned_weights
from replicate.errors import DataError
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from replicate.record import read_json
from replicate.scores import open_scores, write_ensemble
from replicate.stages import Graph, in_order


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def members(videos: int = 50, nodes: int = 7, count: int = 3, spread: float = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, spread, (videos, nodes)).astype(np.float32) for _ in range(count)]


def test_mean_probability():
    logits = members()
    expected = np.mean([sigmoid(z) for z in logits], axis=0)
    np.testing.assert_allclose(sigmoid(mean_probability(logits)), expected, atol=1e-7)
    weights = np.array([0.5, 0.2, 0.3])
    expected = sum(weight * sigmoid(z) for weight, z in zip(weights, logits, strict=True))
    np.testing.assert_allclose(sigmoid(mean_probability(logits, weights)), expected, atol=1e-7)


def test_mean_probability_where_probabilities_round_to_0_and_1():
    """Closed forms: equal members give themselves, opposite ones even odds, a certain and an even one three to one."""
    extreme = np.array([[-2000.0, -90.0, 0.0, 90.0, 2000.0]], np.float32)
    np.testing.assert_array_equal(mean_probability([extreme, extreme]), extreme)
    found = mean_probability([extreme, -extreme])
    np.testing.assert_allclose(found, 0, atol=1e-6)
    certain = np.full((1, 1), 2000, np.float32)
    assert mean_probability([certain, np.zeros((1, 1), np.float32)])[0, 0] == pytest.approx(np.log(3))
    tiny = np.full((1, 1), -1000, np.float32)
    assert mean_probability([tiny, 2 * tiny])[0, 0] == pytest.approx(-1000 - np.log(2))  # (p + p^2) / 2


def test_mean_logit_is_the_geometric_mean_of_odds():
    logits = members(spread=1)
    odds = np.prod([np.exp(z.astype(np.float64)) for z in logits], axis=0) ** (1 / 3)
    np.testing.assert_allclose(np.exp(mean_logit(logits)), odds, rtol=1e-5)


def test_tuned_weights_are_the_most_likely():
    """An independent optimiser finds no better weights; the best member gets the most."""
    generator = np.random.default_rng(1)
    truth = generator.normal(-1, 2, (400, 6))
    labels = generator.random((400, 6)) < sigmoid(truth)
    logits = [(truth + generator.normal(0, noise, truth.shape)).astype(np.float32) for noise in (0.5, 2.0, 3.0)]

    def loss(weights: np.ndarray) -> float:
        probability = sum(weight * sigmoid(z) for weight, z in zip(weights, logits, strict=True))
        return -np.where(labels, np.log(probability), np.log1p(-probability)).mean()

    found = tuned_weights(logits, labels)
    assert found.sum() == pytest.approx(1) and (found > 0).all() and found.argmax() == 0
    total = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    best = minimize(loss, [1 / 3] * 3, bounds=[(1e-6, 1)] * 3, constraints=total, tol=1e-12)
    assert loss(found) <= best.fun + 1e-6 and loss(found) < loss(np.full(3, 1 / 3))


def test_a_member_that_is_sure_and_wrong_gets_no_weight_and_no_warning():
    labels = np.array([[True, False, True, False]])
    right = np.where(labels, 1.0, -1.0).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = tuned_weights([right, -1000 * right], labels)
    assert weights == pytest.approx([1, 0], abs=1e-6)


def test_members_that_scored_other_videos_are_refused(tmp_path):
    for name, scores in zip("ab", (members()[0], members(videos=49)[0]), strict=True):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "logits.npy", scores)
    with pytest.raises(DataError, match="same videos"):
        write_ensemble(tmp_path, [tmp_path / "a", tmp_path / "b"])


def graph(rule: str) -> Graph:
    return Graph(load_profile("tiny", (f"ensemble.rule={rule}",)), None, lambda *_: None)


def test_a_rule_changes_the_ensembles_alone():
    rules = ("probability", "logit", "tuned")
    whole = [{job.key for job in in_order([graph(rule).predict("base_ens", 0)])} for rule in rules]
    assert len(whole[0] - whole[1]) == 1
    assert len(whole[2] - whole[0]) == 4  # the ensemble, and its members' scores of the tune videos


@pytest.mark.parametrize("rule", ["logit", "tuned"])
def test_a_rule_end_to_end(rule, tmp_path, monkeypatch):
    """On two small members, so that it is quick."""
    import dataclasses

    from replicate.columns import COLUMNS

    monkeypatch.setitem(COLUMNS, "base_ens", dataclasses.replace(COLUMNS["base_ens"], members=("rnn", "rnn_attn")))
    made = graph(rule)
    target = made.predict("base_ens", 0)
    engine.walk([target], engine.Settings(made.profile, tmp_path, None, ("replicate",)), PlainLines())
    scores = [open_scores(made.predict(member, 0).folder(tmp_path)).read(slice(None)) for member in ("rnn", "rnn_attn")]
    weights = read_json(target.folder(tmp_path) / "ensemble.json")["weights"]
    expected = mean_logit(scores) if rule == "logit" else mean_probability(scores, np.array(weights))
    np.testing.assert_array_equal(open_scores(target.folder(tmp_path)).read(slice(None)), expected)
    assert (weights is None) == (rule == "logit")


def test_blocks_are_of_no_account(monkeypatch):
    """Scores are joined a block at a time; here of eight, with some left over."""
    logits = members(videos=7, nodes=5)
    labels = np.random.default_rng(1).random((7, 5)) < 0.3
    whole = mean_probability(logits), tuned_weights(logits, labels)
    monkeypatch.setattr(ensembles, "BLOCK", 8)
    np.testing.assert_array_equal(mean_probability(logits), whole[0])
    np.testing.assert_allclose(tuned_weights(logits, labels), whole[1], rtol=1e-9)
