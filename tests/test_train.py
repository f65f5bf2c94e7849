"""Claims: a training that was killed at any moment and issued again writes the same bytes as one that ran through; it
stops early and diverges as the protocol says; one step is the protocol's arithmetic; another training's files, or
damaged ones, are refused with a sentence."""

import contextlib
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_corpus import NODES, SPEC, TRAINING, WIDTH, corpus, split

from replicate import checkpoint
from replicate.compute import Compute
from replicate.data.batches import Batch
from replicate.errors import IncompleteRun
from replicate.record import read_json
from replicate.training import state as training_state
from replicate.training import train as module
from replicate.training.optimise import Optimiser, clip_each, learning_rate, parts, video_loss
from replicate.training.ranks import Ranks
from replicate.training.train import CHECKPOINT, HISTORY, TIMINGS, WEIGHTS, train

PROTOCOL = TRAINING.model_copy(update={"epochs": 3, "decay": 0.5, "decay_examples": 100})


class Toy(nn.Module):
    """Mean of the frames, dropout (so that training draws at random), two linear maps."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.dropout, self.second = nn.Linear(WIDTH, 9), nn.Dropout(0.2), nn.Linear(9, NODES)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mean = frames.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.second(self.dropout(torch.tanh(self.first(mean))))


def run(folder: Path, model: nn.Module | None = None, protocol=PROTOCOL, **changes):
    source, labels = corpus()
    given = {"seed": 0, "split": split(), "progress": None, "minutes": 15.0, "compute": None, "ranks": None} | changes
    arguments = [given["split"], protocol, SPEC, given["seed"], folder]
    arguments += [given[name] for name in ("progress", "compute", "ranks")]
    return train(model or Toy(), source, labels, *arguments, checkpoint_minutes=given["minutes"])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != TIMINGS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(record, files) of a training that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    record = run(folder)
    return record, files(folder)


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


MOMENTS = {  # what is called while training, and how often in all
    "step": (Optimiser, "step", 15),
    "tune": (module, "gap", 3),
    "save": (checkpoint, "save", 3),
    "json": (module, "write_json", 4),  # timings of three epochs, then the history
    "weights": (module, "write_bytes", 1),
}
EVERY = [
    (moment, number, after)
    for moment, (_, _, calls) in MOMENTS.items()
    for number in range(calls)
    for after in ((False,) if moment in ("step", "tune") else (False, True))
]


@contextlib.contextmanager
def killed_at(monkeypatch, moment, number, after):
    """What happens inside is killed at call `number` of a moment, before it or after it."""
    owner, name, _ = MOMENTS[moment]
    real, count = getattr(owner, name), itertools.count()

    def die(*arguments):
        now = next(count) == number
        if now and not after:
            raise Killed
        result = real(*arguments)
        if now:
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize(("moment", "number", "after"), EVERY)
def test_killed_at_any_moment_it_ends_the_same(moment, number, after, whole, tmp_path, monkeypatch):
    with killed_at(monkeypatch, moment, number, after):
        run(tmp_path)
    # The new process's model has other initial weights: what counts is the state, not how it was made.
    resumed = run(tmp_path, Toy(0 if not (tmp_path / CHECKPOINT).exists() else 99))
    assert (resumed, files(tmp_path)) == whole
    assert [entry["epoch"] for entry in read_json(tmp_path / TIMINGS)["epochs"]] == [1, 2, 3]


AT_ONCE = 0.0  # minutes between checkpoints: one at every look, however coarse the clock is
WITHIN = [("step", number, False) for number in range(15)]
WITHIN += [("save", number, after) for number in (0, 3, 4, 8) for after in (False, True)]


@pytest.mark.parametrize(("moment", "number", "after"), WITHIN)
def test_killed_within_an_epoch_it_goes_on_at_the_next_batch(moment, number, after, whole, tmp_path, monkeypatch):
    """The same bytes as one without such checkpoints that ran through, and no step is done twice."""
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    real_step, steps = Optimiser.step, []
    with killed_at(monkeypatch, moment, number, after):
        run(tmp_path, minutes=AT_ONCE)
    monkeypatch.setattr(Optimiser, "step", lambda *arguments: (steps.append(1), real_step(*arguments))[1])
    resumed = run(tmp_path, Toy(0 if not (tmp_path / CHECKPOINT).exists() else 99), minutes=AT_ONCE)
    assert (resumed, files(tmp_path)) == whole
    done = number if moment == "step" else number + after
    assert len(steps) == 15 - done
    seconds = [entry["train_seconds"] for entry in read_json(tmp_path / TIMINGS)["epochs"]]
    assert len(seconds) == 3 and min(seconds) > 0


@pytest.mark.parametrize("number", range(21))
def test_asked_to_end_it_keeps_the_very_step(number, whole, tmp_path, monkeypatch):
    """Whoever is told of a batch, of training or tune videos, may ask for the end by raising IncompleteRun."""
    told, real_step, steps = itertools.count(), Optimiser.step, []

    def ask(*_):
        if next(told) == number:
            raise IncompleteRun("asked to end")

    monkeypatch.setattr(Optimiser, "step", lambda *arguments: (steps.append(1), real_step(*arguments))[1])
    with pytest.raises(IncompleteRun, match="asked to end"):
        run(tmp_path, progress=ask)
    assert len(steps) == number // 7 * 5 + min(number % 7 + 1, 5), "an epoch has 5 batches to train on and 2 to tune"
    assert (run(tmp_path, Toy(99)), files(tmp_path)) == whole
    assert len(steps) == 15, "no step is done twice"


class Bereft(Ranks):
    """Among several, of which another ended while the tune videos were scored: torch says so where they meet."""

    def add_up(self, tensor):
        if tensor.dtype == torch.float32:  # scores; the loss is float64
            raise RuntimeError("gloo: connection closed by peer")


def test_left_by_another_process_while_tuning_it_keeps_the_epochs_steps(whole, tmp_path, monkeypatch):
    real_step, steps = Optimiser.step, []
    monkeypatch.setattr(Optimiser, "step", lambda *arguments: (steps.append(1), real_step(*arguments))[1])
    with pytest.raises(RuntimeError, match="closed by peer"):
        run(tmp_path, ranks=Bereft())
    assert len(steps) == 5
    assert (run(tmp_path, Toy(99)), files(tmp_path)) == whole
    assert len(steps) == 15, "no step is done twice"


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


def diverging(step, at):
    calls = itertools.count(1)

    def spoilt(self, *arguments):
        loss, finite = step(self, *arguments)
        return loss, finite & (next(calls) != at)

    return spoilt


def test_checkpoints_within_an_epoch_wait_for_their_time(tmp_path, monkeypatch):
    clock, saves, real = iter(range(0, 9999, 20)), [], checkpoint.save  # a look at the clock takes 20 seconds
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    # Its clock alone: threads of other tests may look at the system's.
    monkeypatch.setattr(training_state, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(checkpoint, "save", lambda *given: (saves.append(given[3]["step"]), real(*given)))
    run(tmp_path, minutes=1.0, protocol=PROTOCOL.model_copy(update={"epochs": 1}))
    assert saves == [3, 0]  # after 20, 40, 60 seconds; at the end of the epoch


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


def kill():
    raise Killed


def test_finished_it_is_not_trained_again(whole, tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(Optimiser, "step", None)
    assert run(tmp_path, Toy(5)) == whole[0]


STUCK = """
import itertools, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import test_train
from toy_corpus import corpus
source, labels = corpus()
real, count = source.read, itertools.count(1)
def read(rows):
    if next(count) == 10:  # an epoch reads five batches to train on and two to tune with
        print("in the second epoch", flush=True)
        time.sleep(600)
    return real(rows)
source.read = read
test_train.corpus = lambda: (source, labels)
test_train.run(Path(sys.argv[1]))
"""


def test_sigkill_in_mid_training(whole, tmp_path):
    words = [sys.executable, "-c", STUCK, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the second epoch\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / HISTORY).exists()
    assert len(read_json(tmp_path / TIMINGS)["epochs"]) == 1 and (tmp_path / CHECKPOINT).exists()
    assert run(tmp_path) == whole[0]
    for orphan in tmp_path.glob(".*.part"):
        orphan.unlink()  # the engine sweeps them before a job starts
    assert files(tmp_path) == whole[1]


def test_seeds_give_other_orders_and_other_weights(whole, tmp_path):
    assert run(tmp_path, seed=1)["history"] != whole[0]["history"]


def test_training_touches_no_global_random_state(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    model = Toy()
    torch.random.set_rng_state(before[0])
    run(tmp_path, model)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_the_record_is_plain_and_says_what_happened(whole):
    record, _ = whole
    assert json.loads(json.dumps(record)) == record
    assert (record["status"], record["epochs"], record["steps"], record["examples"]) == ("finished", 3, 15, 216)
    assert record["parameters"] == WIDTH * 9 + 9 + 9 * NODES + NODES
    assert record["weights_bytes"] == 4 * record["parameters"]
    rates = [entry["learning_rate"] for entry in record["history"]]
    assert rates == [0.01, 0.01, 0.005]  # after 0, 72 and 144 examples; halved each 100
    assert record["tune_gap"] == max(entry["tune_gap"] for entry in record["history"])


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


CHANGES = {
    "learning_rate": {"protocol": PROTOCOL.model_copy(update={"learning_rate": 0.02})},
    "seed": {"seed": 1},
    "train": {"split": dataclasses.replace(split(), train=split().train[::-1].copy())},
    "shapes": {"model": nn.Sequential(nn.Linear(WIDTH, NODES))},
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
def test_files_of_another_training_are_refused(changed, finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        if not finished:
            patched.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
        try:
            run(tmp_path)
        except Killed:
            assert not finished
    name = HISTORY if finished else CHECKPOINT
    message = rf"{name} is of another training \({changed} is .* there and .* here\); delete it"
    with pytest.raises(IncompleteRun, match=message):
        run(tmp_path, **CHANGES[changed])


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A folder with a checkpoint of epoch 3."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_a_sentence(fault, interrupted):
    path = interrupted / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes({"cut": content[:-50], "flipped": content, "empty": b"", "text": b"not a checkpoint"}[fault])
    with pytest.raises(IncompleteRun, match=f"{CHECKPOINT} is damaged .*; delete it and issue the same command again"):
        run(interrupted)


def test_every_flipped_bit_of_tensors_is_noticed(interrupted):
    path = interrupted / CHECKPOINT
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in np.random.default_rng(0).integers(begin, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(place) % 8
        path.write_bytes(damaged)
        with pytest.raises(IncompleteRun, match="its checksum does not match its tensors"):
            checkpoint.load(path, {})


def test_a_damaged_history_is_a_sentence(tmp_path):
    run(tmp_path)
    (tmp_path / HISTORY).write_text("{")
    with pytest.raises(IncompleteRun, match=f"{HISTORY} is damaged"):
        run(tmp_path)


def test_progress_reaches_its_total_and_never_goes_back(tmp_path):
    told = []
    run(tmp_path, progress=lambda *event: told.append(event))
    done = [event[0] for event in told]
    assert done == list(range(1, 3 * 7 + 1))  # 5 steps and 2 blocks of tune videos in each of 3 epochs
    assert {event[1] for event in told} == {21}
    assert "epoch 3 of at most 3, loss" in told[-3][2]


def test_accumulated_gradients_train_as_whole_batches_do(tmp_path):
    """To rounding: 15 steps in parts of 5 videos, without what is drawn at random."""

    def calm():
        model = Toy()
        model.dropout = nn.Identity()
        return model

    run(tmp_path / "whole", calm())
    record = run(tmp_path / "parts", calm(), PROTOCOL.model_copy(update={"micro_batch_size": 5}))
    assert record["parts_per_step"] == 4
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-5)


def adam(parameters, gradients, moments, step, rate):
    """Kingma and Ba (2015), algorithm 1, in float64, after each gradient is clipped to a length of 1 by itself."""
    for name, gradient in gradients.items():
        gradient = gradient / max(1.0, np.sqrt((gradient**2).sum()))
        first, second = moments.setdefault(name, [np.zeros_like(gradient), np.zeros_like(gradient)])
        first[...] = 0.9 * first + 0.1 * gradient
        second[...] = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
        parameters[name] -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


def test_a_step_is_the_protocols_arithmetic():
    """A linear model of the videos' means, by hand: loss summed over nodes, mean over videos; clipping; Adam; decay."""
    source, labels = corpus()
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, NODES)
    model.forward = lambda frames, mask: nn.Linear.forward(model, frames.sum(dim=1) / mask.sum(dim=1, keepdim=True))
    optimiser = Optimiser(model, PROTOCOL.model_copy(update={"normalisation": "none"}), SPEC, Compute())
    weights = {name: tensor.detach().double().numpy().copy() for name, tensor in model.named_parameters()}
    moments = {}
    for step in range(1, 13):  # the rate falls at the tenth
        rows = np.arange(12 * (step - 1), 12 * step) % 96
        batch = Batch(*source.read(rows), labels.encode(rows), rows)
        dequantised = batch.features * SPEC.scale + SPEC.bias
        kept = np.arange(dequantised.shape[1]) < batch.lengths[:, None]
        means = (dequantised * kept[:, :, None]).sum(axis=1) / batch.lengths[:, None]
        logits = means @ weights["weight"].T + weights["bias"]
        probabilities = 1 / (1 + np.exp(-logits))
        loss = -np.where(batch.labels, np.log(probabilities), np.log(1 - probabilities)).sum()
        error = (probabilities - batch.labels) / len(rows)
        found, finite = optimiser.step(batch)
        assert bool(finite) and abs(float(found) - loss) < 1e-4 * loss
        rate = 0.01 * 0.5 ** (12 * (step - 1) // 100)
        adam(weights, {"weight": error.T @ means, "bias": error.sum(axis=0)}, moments, step, rate)
        for name, tensor in model.named_parameters():
            np.testing.assert_allclose(tensor.detach().numpy(), weights[name], rtol=1e-4, atol=1e-6)


def test_clipping_is_of_each_tensor_by_itself():
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.zeros(2)]
    norms = clip_each(gradients, 1.0)
    assert norms.tolist() == pytest.approx([5.0, 0.5, 0.0])
    assert [each.tolist() for each in gradients] == [pytest.approx([0.6, 0.8]), pytest.approx([0.3, 0.4]), [0.0, 0.0]]


def test_learning_rate_is_a_staircase():
    rates = [learning_rate(PROTOCOL, examples) for examples in (0, 99, 100, 199, 200)]
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_loss_is_finite_at_any_logit():
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    right, wrong = torch.tensor([[True, False, True]]), torch.tensor([[False, True, True]])
    assert float(video_loss(logits, right)) == pytest.approx(np.log(2))
    assert float(video_loss(logits, wrong)) == pytest.approx(2e4 + np.log(2))


def test_parts_are_padded_to_their_own_longest():
    source, labels = corpus()
    rows = np.argsort(source.lengths, kind="stable")[:20]
    batch = Batch(*source.read(rows), labels.encode(rows), rows)
    found = list(parts(batch, 8))
    assert [len(part.rows) for part in found] == [8, 8, 4]
    assert [part.features.shape[1] for part in found] == [source.lengths[rows[i : i + 8]].max() for i in (0, 8, 16)]
    assert np.concatenate([part.rows for part in found]).tolist() == rows.tolist()
    assert list(parts(batch, 0)) == [batch]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    real, calls = checkpoint.write_bytes, iter(range(9))

    def full(path, content):
        if next(calls) == 1:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    _, state = checkpoint.load(tmp_path / CHECKPOINT, read_identity(tmp_path))
    assert state["epoch"] == 1


def read_identity(folder: Path):
    import safetensors

    with safetensors.safe_open(folder / CHECKPOINT, "pt") as file:
        return json.loads(file.metadata()["checkpoint"])["identity"]
