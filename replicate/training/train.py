"""Train one column: the protocol of section 4.2 with early stopping, exact resume and an honest end when it diverges.

A training is a pure function of (initial weights, videos, TrainingConfig, seed, Compute): killed at any moment and
issued again, it writes the same bytes as one that ran through. Durations are in timings.json and nowhere else.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from replicate import checkpoint, termination
from replicate.checkpoint import Tensors
from replicate.compute import Compute
from replicate.config import TrainingConfig
from replicate.data.batches import Batch, Source, batches
from replicate.data.labels import LabelStore
from replicate.data.order import Order, epoch_order
from replicate.data.spec import DatasetSpec
from replicate.data.splits import Split
from replicate.errors import ConfigurationError, IncompleteRun
from replicate.evaluate.metrics import gap
from replicate.predict import infer
from replicate.record import write_bytes, write_json
from replicate.training.optimise import Optimiser, learning_rate
from replicate.training.ranks import Ranks
from replicate.training.state import CHECKPOINT, Keeper, State, copy_of, go_on, progress_of

__all__ = ["CHECKPOINT", "HISTORY", "TIMINGS", "WEIGHTS", "Waiting", "train"]

WEIGHTS, HISTORY, TIMINGS = "weights.safetensors", "history.json", "timings.json"
LOOK_EVERY = 50  # steps between looks at loss and health, each of which waits for the device and the other processes
CHECKPOINT_MINUTES = 15.0

Progress = Callable[[float, float, str], None]


class Divergence(Exception):
    """Loss, gradients or scores stopped being finite."""

    def __init__(self, step: int | None, what: str):
        super().__init__(what)
        self.step, self.what = step, what


def train(
    model: nn.Module,
    source: Source,
    labels: LabelStore,
    split: Split,
    training: TrainingConfig,
    spec: DatasetSpec,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
    compute: Compute | None = None,
    ranks: Ranks | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    order: Order = epoch_order,
) -> dict[str, Any]:
    """Train a model and write weights.safetensors (of the best epoch), history.json and timings.json into `folder`.

    Args:
        model: with its initial weights; called as model(frames, mask) -> logits (batch, nodes).
        source: frames by row of the index.
        labels: nodes by row of the index.
        split: trains on its `train` rows, stops early by GAP on its `tune` rows.
        training: the protocol.
        spec: format of the frames.
        seed: of the order of videos, and of whatever is drawn while training.
        folder: a checkpoint there is resumed; a finished training there is returned at once.
        progress: called with (batches done, batches in all, message) after every batch of training or tune videos.
            Where it raises IncompleteRun, or SIGTERM came, the training ends with a checkpoint of that very batch.
        compute: device, precision and threads; by default one thread of the CPU.
        ranks: this process among those that train the model together. All must call this with the same arguments and a
            folder that they share; the first one writes, and each returns the record.
        checkpoint_minutes: between checkpoints within an epoch; there is always one at its end.
        order: of the training videos in an epoch.

    Returns:
        The record, plain values: status ("finished", "stopped early" or "diverged"), epochs, best_epoch (from 1; 0 are
        the initial weights), tune_gap (fraction), steps, examples, parameters, weights_bytes, batch sizes, history (one
        entry per epoch), diverged_at.

    Raises:
        ConfigurationError: there are more processes than videos in a batch.
        IncompleteRun: a checkpoint or history in `folder` is damaged or of another training.
    """
    ranks = ranks or Ranks()
    compute = dataclasses.replace(compute or Compute(), processes=ranks.count)
    identity = _identity(model, split, training, spec, seed, compute, order)
    record = _finished(folder, identity)
    _refuse_idle(ranks, min(training.batch_size, len(split.train)))
    if record is None:
        with compute.active(), termination.put_off():
            run = _Run(
                model, source, labels, split, training, spec, seed, folder, progress, compute, identity, ranks,
                checkpoint_minutes, order,
            )  # fmt: skip
            record = run.go()
        if ranks.first:
            write_json(folder / HISTORY, {"training": identity, "record": record})
    if ranks.first:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def _refuse_idle(ranks: Ranks, videos: int) -> None:
    if videos < ranks.count:
        raise ConfigurationError(
            f"run.processes_per_model is {ranks.count}, but a batch has {videos} videos; lower it, so that each "
            "process has one"
        )


def _finished(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a training that ended here before; its history is written last."""
    path = folder / HISTORY
    if not path.is_file():
        return None
    history = checkpoint.read_state(path)
    checkpoint.refuse_other(path, history["training"], identity)
    return history["record"]


def _identity(
    model: nn.Module, split: Split, training: TrainingConfig, spec: DatasetSpec, seed: int, compute: Compute,
    order: Order,
) -> dict[str, Any]:  # fmt: skip
    """All that a training depends on, save the videos' content: what resuming must find unchanged."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        **training.model_dump(mode="json", exclude={"seeds"}),
        **compute.as_dict(),
        "seed": seed,
        "dataset": spec.name,
        "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        "train": hashlib.sha256(np.ascontiguousarray(order(split.train, seed, 1), np.int64)).hexdigest(),
        "tune": hashlib.sha256(np.ascontiguousarray(split.tune, np.int64)).hexdigest(),
    }


class _Run:
    """One training at work: the loop over epochs, and what it keeps between them."""

    def __init__(
        self, model: nn.Module, source: Source, labels: LabelStore, split: Split, training: TrainingConfig,
        spec: DatasetSpec, seed: int, folder: Path, progress: Progress | None, compute: Compute,
        identity: dict[str, Any], ranks: Ranks, checkpoint_minutes: float, order: Order,
    ):  # fmt: skip
        self.model, self.source, self.labels, self.split = model.to(compute.device), source, labels, split
        self.order = order
        self.training, self.spec, self.seed, self.compute = training, spec, seed, compute
        self.folder, self.progress, self.ranks = folder, progress, ranks
        self.optimiser = Optimiser(self.model, training, spec, compute, ranks)
        self.keeper = Keeper(folder, identity, self.optimiser, checkpoint_minutes)
        self.state = State()
        self.best = copy_of(self.model)
        self.begun: Tensors | None = None  # of an epoch to go on with
        self.timings: list[dict[str, float]] = []
        self.steps_per_epoch = -(-len(split.train) // training.batch_size)
        self.blocks_per_epoch = self.steps_per_epoch + -(-len(split.tune) // training.batch_size)
        self.tune_labels = labels.encode(split.tune)

    def go(self) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one; returns the record."""
        self._resume()
        while not self._status():
            try:
                self._epoch()
            except Divergence as end:
                self.state.diverged_at = {"epoch": self.state.epoch + 1, "step": end.step, "what": end.what}
        if self.ranks.first:
            write_bytes(self.folder / WEIGHTS, checkpoint.weights_bytes(self.best))
        return self._record()

    def _resume(self) -> None:
        found = self.keeper.resume()
        if found is None:
            return
        self.state, self.best, self.begun = found
        in_epoch = min(self.state.step * self.training.batch_size, len(self.split.train))
        self.optimiser.examples = self.state.examples + in_epoch
        if (self.folder / TIMINGS).is_file():
            self.timings = checkpoint.read_state(self.folder / TIMINGS)["epochs"][: self.state.epoch]

    def _status(self) -> str:
        """How the training ended; empty while it goes on."""
        state = self.state
        if state.diverged_at:
            return "diverged"
        if state.epoch >= self.training.epochs:
            return "finished"
        return "stopped early" if state.epoch - state.best_epoch >= self.training.patience else ""

    def _epoch(self) -> None:
        """One pass over the training videos, the tune videos' GAP, a checkpoint."""
        number = self.state.epoch + 1
        rate = learning_rate(self.training, self.state.examples)
        loss = self._train_once(number)
        trained = time.perf_counter()
        try:
            score = gap(self._tune_scores(), self.tune_labels)
        except (IncompleteRun, SystemExit, RuntimeError):  # torch's if another process ended; the epoch's steps stay
            self.keeper.save(self.state, self.best, self.begun)
            raise
        timing = {
            "epoch": number, "train_seconds": self.state.train_seconds,
            "data_wait_seconds": self.state.data_wait_seconds, "tune_seconds": time.perf_counter() - trained,
        }  # fmt: skip
        self.state.epoch, self.state.examples = number, self.optimiser.examples
        self.state.steps += self.steps_per_epoch
        self.state.step, self.state.train_seconds, self.state.data_wait_seconds = 0, 0.0, 0.0
        self.begun = None
        self.state.history.append({
            "epoch": number, "examples": self.state.examples, "learning_rate": rate, "training_loss": loss,
            "tune_gap": score,
        })  # fmt: skip
        if self.state.best_gap is None or score > self.state.best_gap:
            self.state.best_gap, self.state.best_epoch, self.best = score, number, copy_of(self.model)
        self.timings.append(timing)
        if self.ranks.first:  # first: killed in between, this epoch's are replaced when it is repeated; never missing
            write_json(self.folder / TIMINGS, {"epochs": self.timings})
        self.keeper.save(self.state, self.best)

    def _train_once(self, number: int) -> float:
        """The mean loss per video of one epoch's steps. What is drawn at random depends on (seed, epoch, rank)."""
        self.model.train()
        order, size, done = self.order(self.split.train, self.seed, number), self.training.batch_size, self.state.step
        total = torch.zeros((), dtype=torch.float64, device=self.compute.device)
        healthy = torch.ones((), dtype=torch.bool, device=self.compute.device)
        healthy_steps = torch.full((), done, dtype=torch.int64, device=self.compute.device)
        message = f"epoch {number} of at most {self.training.epochs}"
        clock, waited = Clock(self.state.train_seconds), Waiting(self.state.data_wait_seconds)
        devices = [torch.cuda.current_device()] if self.compute.device == "cuda" else []
        with torch.random.fork_rng(devices):
            words = [self.seed, number, self.ranks.rank] if self.ranks.rank else [self.seed, number]
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0]))
            if self.begun:
                go_on(self.optimiser, self.begun, total)
            place = {"rank": self.ranks.rank, "ranks": self.ranks.count, "done": done}
            feed = batches(self.source, self.labels, order, size, **place)
            for step, batch in enumerate(waited.through(feed), start=done + 1):
                loss, finite = self.optimiser.step(batch, min(size, len(order) - (step - 1) * size))
                total += loss
                healthy &= finite
                healthy_steps += healthy
                if step % LOOK_EVERY == 0 or step == self.steps_per_epoch:
                    due = self._look(step, healthy_steps)
                    message = self._message(number, float(loss) / max(1, len(batch.rows)))
                    if due and step < self.steps_per_epoch:
                        self._save_within(step, total, clock, waited)
                if end := self._tell_or_end(step, message):
                    self._look(step, healthy_steps)
                    self._save_within(step, total, clock, waited)
                    self.ranks.wait()
                    raise end
            self.begun = progress_of(self.optimiser, total)
        self.ranks.add_up(total)
        self.state.step = self.steps_per_epoch
        self.state.train_seconds, self.state.data_wait_seconds = clock.seconds, waited.seconds
        return float(total) / len(order)

    def _look(self, step: int, healthy_steps: torch.Tensor) -> bool:
        """Whether a checkpoint is due, by the first process's clock. All processes find the same.

        Raises:
            Divergence: a step of some process was not finite.
        """
        due = torch.full_like(healthy_steps, self.keeper.due())
        found = self.ranks.gather(torch.stack([healthy_steps, due]))
        healthy = int(found[:, 0].min())
        if healthy < step:
            raise Divergence(healthy + 1, "loss or gradient is not finite")
        if self.optimiser.exhausted():
            raise Divergence(step, "gradients are not finite in float16")
        return bool(found[0, 1])

    def _save_within(self, step: int, total: torch.Tensor, clock: "Clock", waited: "Waiting") -> None:
        """A checkpoint after so many steps of the epoch."""
        state = dataclasses.replace(
            self.state, step=step, train_seconds=clock.seconds, data_wait_seconds=waited.seconds
        )
        self.keeper.save(state, self.best, progress_of(self.optimiser, total))

    def _tune_scores(self) -> np.ndarray:
        """(tune videos, nodes) float32 logits. Every process scores its share and gets all."""
        self.model.eval()
        share, size, several = self.ranks.share(len(self.split.tune)), self.training.batch_size, self.ranks.count
        scores = np.zeros(self.tune_labels.shape, np.float32)
        mine, rows = scores[share], self.split.tune[share]
        normalisation, message = self.training.normalisation, f"epoch {self.state.epoch + 1}, tune videos"
        blocks = infer(self.model, self.source, rows, self.spec, normalisation, size, self.compute)
        for number, block in enumerate(blocks):
            mine[number * size : number * size + len(block)] = block
            self._tell(min(self.steps_per_epoch + (number + 1) * several, self.blocks_per_epoch), message)
        self.ranks.add_up(torch.from_numpy(scores))
        if not np.isfinite(scores).all():
            raise Divergence(None, "tune scores are not finite")
        return scores

    def _message(self, number: int, loss: float) -> str:
        best = f", best tune GAP {self.state.best_gap:.3f}" if self.state.best_gap is not None else ""
        return f"epoch {number} of at most {self.training.epochs}, loss {loss:.3f}{best}"

    def _tell_or_end(self, step: int, message: str) -> BaseException | None:
        """Tell of a step; what ends the training here, if some process was asked to end."""
        end: BaseException | None = None
        try:
            self._tell(step, message)
        except (IncompleteRun, SystemExit) as error:
            end = error
        if not self.ranks.any(end is not None):
            return None
        others = "another of the processes that share the work was asked to end"
        return end or IncompleteRun(f"{others}; issue the same command again to resume")

    def _tell(self, block: int, message: str) -> None:
        """So many batches of the epoch are done, training and tune videos together."""
        termination.look()
        if self.progress:
            done = self.state.epoch * self.blocks_per_epoch + block
            self.progress(done, self.training.epochs * self.blocks_per_epoch, message)

    def _record(self) -> dict[str, Any]:
        training, state = self.training, self.state
        micro = min(training.micro_batch_size or training.batch_size, training.batch_size)
        return {
            "status": self._status(),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "tune_gap": state.best_gap,
            "steps": state.steps,
            "examples": state.examples,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights_bytes": sum(tensor.numel() * tensor.element_size() for tensor in self.best.values()),
            "batch_size": training.batch_size,
            "micro_batch_size": micro,
            "parts_per_step": -(-training.batch_size // micro),
            "compute": {**self.compute.as_dict(), "nondeterminism": self.compute.nondeterminism()},
            "skipped_steps": int(self.optimiser.skipped),
            "diverged_at": state.diverged_at,
            "history": state.history,
        }


class Clock:
    """Seconds since it was made, and those before."""

    def __init__(self, before: float = 0.0) -> None:
        self._started = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._started


class Waiting:
    """Seconds that a consumer spent waiting for its iterator, and those before."""

    def __init__(self, before: float = 0.0) -> None:
        self.seconds = before

    def through(self, items: Iterable[Batch]) -> Iterator[Batch]:
        """The same items."""
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - started
            if item is None:
                return
            yield item
