"""Claims: a training that was killed at any moment, or asked to end, and issued again writes the same bytes as one
that ran through; no step of a checkpoint is done twice; checkpoints within an epoch wait for their time."""

import contextlib
import itertools
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_training import AT_ONCE, PROTOCOL, Killed, Toy, files, ran_through, run

from replicate import checkpoint
from replicate.errors import IncompleteRun
from replicate.record import read_json
from replicate.training import state as training_state
from replicate.training import train as module
from replicate.training.optimise import Optimiser
from replicate.training.ranks import Ranks
from replicate.training.train import CHECKPOINT, HISTORY, TIMINGS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(record, files) of a training that ran through."""
    return ran_through(tmp_path_factory.mktemp("whole"))


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


def test_checkpoints_within_an_epoch_wait_for_their_time(tmp_path, monkeypatch):
    clock, saves, real = iter(range(0, 9999, 20)), [], checkpoint.save  # a look at the clock takes 20 seconds
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    # Its clock alone: threads of other tests may look at the system's.
    monkeypatch.setattr(training_state, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(checkpoint, "save", lambda *given: (saves.append(given[3]["step"]), real(*given)))
    run(tmp_path, minutes=1.0, protocol=PROTOCOL.model_copy(update={"epochs": 1}))
    assert saves == [3, 0]  # after 20, 40, 60 seconds; at the end of the epoch


def test_finished_it_is_not_trained_again(whole, tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(Optimiser, "step", None)
    assert run(tmp_path, Toy(5)) == whole[0]


STUCK = """
import itertools, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import toy_training
from toy_corpus import corpus
source, labels = corpus()
real, count = source.read, itertools.count(1)
def read(rows):
    if next(count) == 10:  # an epoch reads five batches to train on and two to tune with
        print("in the second epoch", flush=True)
        time.sleep(600)
    return real(rows)
source.read = read
toy_training.corpus = lambda: (source, labels)
toy_training.run(Path(sys.argv[1]))
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
