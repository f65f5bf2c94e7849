"""Claims: a training stops early and diverges as the protocol says, over a kill as without one."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from toy_training import AT_ONCE, PROTOCOL, Killed, Toy, kill, run

from replicate.errors import IncompleteRun
from replicate.training import train as module
from replicate.training.optimise import Optimiser
from replicate.training.train import WEIGHTS


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best", "status"),
    [
        ([0.5, 0.4, 0.3, 0.9], 2, 3, 1, "stopped early"),
        ([0.1, 0.5, 0.5, 0.5, 0.9], 2, 4, 2, "stopped early"),  # an equal score is no better one
        ([0.1, 0.2, 0.3], 1, 3, 3, "finished"),
        ([0.3, 0.2, 0.4, 0.1, 0.1], 2, 5, 3, "finished"),
    ],
)
def test_early_stopping(scores, patience, epochs, best, status, tmp_path, monkeypatch):
    protocol = PROTOCOL.model_copy(update={"epochs": len(scores), "patience": patience})
    found = iter(scores)
    monkeypatch.setattr(module, "gap", lambda *_: next(found))
    record = run(tmp_path / "long", protocol=protocol)
    assert (record["epochs"], record["best_epoch"], record["status"]) == (epochs, best, status)
    rising = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(module, "gap", lambda *_: next(rising))
    run(tmp_path / "short", protocol=protocol.model_copy(update={"epochs": best}))
    assert (tmp_path / "long" / WEIGHTS).read_bytes() == (tmp_path / "short" / WEIGHTS).read_bytes()


def test_early_stopping_counts_over_a_kill(tmp_path, monkeypatch):
    protocol = PROTOCOL.model_copy(update={"epochs": 9, "patience": 3})
    scores = iter([0.5, 0.4, Killed, 0.3, 0.2, 0.9])

    def next_score(*_):
        score = next(scores)
        if score is Killed:
            raise Killed
        return score

    monkeypatch.setattr(module, "gap", next_score)
    with pytest.raises(Killed):
        run(tmp_path, protocol=protocol)
    record = run(tmp_path, protocol=protocol)
    assert (record["epochs"], record["best_epoch"], record["tune_gap"]) == (4, 1, 0.5)
    monkeypatch.setattr(module, "gap", lambda *_: 0.5)
    run(tmp_path / "first", protocol=protocol.model_copy(update={"epochs": 1}))
    assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "first" / WEIGHTS).read_bytes()


def diverging(step, at):
    calls = itertools.count(1)

    def spoilt(self, *arguments):
        loss, finite = step(self, *arguments)
        return loss, finite & (next(calls) != at)

    return spoilt


def test_asked_to_end_after_a_step_that_diverged_it_diverges(tmp_path, monkeypatch):
    """Between two looks nothing is known of it yet; spoilt weights must not be taken for an epoch to go on with."""
    told = itertools.count()

    def ask(*_):
        if next(told) == 3:
            raise IncompleteRun("asked to end")

    monkeypatch.setattr(module, "LOOK_EVERY", 100)
    monkeypatch.setattr(Optimiser, "step", diverging(Optimiser.step, at=3))
    record = run(tmp_path, progress=ask)
    assert (record["status"], record["diverged_at"]["step"]) == ("diverged", 3)


def test_a_divergence_is_the_same_after_a_resumption(tmp_path, monkeypatch):
    """Also its examples and steps, which count whole epochs."""
    monkeypatch.setattr(module, "LOOK_EVERY", 1)

    def spoilt():
        model, calls = Toy(), iter(range(99))
        model.register_forward_hook(lambda *given: given[2] * (torch.nan if next(calls) >= spoil_after else 1))
        return model

    spoil_after = 3
    through = run(tmp_path / "through", spoilt())
    with monkeypatch.context() as patched:
        real, count = Optimiser.step, iter(range(99))
        patched.setattr(Optimiser, "step", lambda *given: real(*given) if next(count) < 2 else kill())
        with pytest.raises(Killed):
            run(tmp_path / "resumed", spoilt(), minutes=AT_ONCE)
    spoil_after = 1
    assert run(tmp_path / "resumed", spoilt(), minutes=AT_ONCE) == through
    assert through["diverged_at"]["step"] == 4 and through["examples"] == 0


def test_divergence_survives_a_kill(tmp_path, monkeypatch):
    def spoil(model, _):
        if model.training:
            model.second.weight.data.fill_(torch.nan)

    def spoilt():
        model = Toy()
        model.register_forward_pre_hook(spoil)
        return model

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(tmp_path, spoilt())
    record = run(tmp_path, spoilt())
    assert record["status"] == "diverged" and record["epochs"] == 0 and record["best_epoch"] == 0
    assert record["diverged_at"] == {"epoch": 1, "step": 1, "what": "loss or gradient is not finite"}
    initial = {name: tensor for name, tensor in Toy().state_dict().items()}
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        assert torch.equal(tensor, initial[name])
    json.dumps(record, allow_nan=False)


def test_tune_scores_that_are_not_finite_are_a_divergence(tmp_path):
    model = Toy()

    def spoil(each, _):
        if not each.training:
            each.second.bias.data.fill_(torch.inf)

    model.register_forward_pre_hook(spoil)
    record = run(tmp_path, model)
    assert record["status"] == "diverged"
    assert record["diverged_at"] == {"epoch": 1, "step": None, "what": "tune scores are not finite"}
