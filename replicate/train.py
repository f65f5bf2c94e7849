"""Train one column: the protocol of section 4.2 with early stopping, exact resume and an honest end when it diverges.

A training is a pure function of (initial weights, videos, TrainingConfig, seed, Compute): killed at any moment and
issued again, it writes the same bytes as one that ran through. Durations are in timings.json and nowhere else.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from replicate import checkpoint
from replicate.checkpoint import Tensors
from replicate.compute import Compute
from replicate.config import TrainingConfig
from replicate.data.batches import Batch, Source, batches, epoch_order
from replicate.data.labels import LabelStore
from replicate.data.spec import DatasetSpec
from replicate.data.splits import Split
from replicate.evaluate.metrics import gap
from replicate.optimise import Optimiser, learning_rate
from replicate.predict import infer
from replicate.record import write_bytes, write_json

WEIGHTS, HISTORY, TIMINGS, CHECKPOINT = "weights.safetensors", "history.json", "timings.json", "checkpoint.safetensors"
LOOK_EVERY = 50  # steps between looks at loss and health, each of which waits for the device

Progress = Callable[[float, float, str], None]


@dataclass
class State:
    """How far a training is; epochs count from 1, and 0 stands for the initial weights."""

    epoch: int = 0
    best_epoch: int = 0
    best_gap: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    examples: int = 0
    steps: int = 0
    diverged_at: dict[str, Any] | None = None


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
        compute: device, precision and threads; by default one thread of the CPU.

    Returns:
        The record, plain values: status ("finished", "stopped early" or "diverged"), epochs, best_epoch (from 1; 0 are
        the initial weights), tune_gap (fraction), steps, examples, parameters, weights_bytes, batch sizes, history (one
        entry per epoch), diverged_at.

    Raises:
        IncompleteRun: a checkpoint or history in `folder` is damaged or of another training.
    """
    compute = compute or Compute()
    identity = _identity(model, split, training, spec, seed, compute)
    record = _finished(folder, identity)
    if record is None:
        with compute.active():
            record = _Run(model, source, labels, split, training, spec, seed, folder, progress, compute, identity).go()
        write_json(folder / HISTORY, {"training": identity, "record": record})
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def _finished(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a training that ended here before; its history is written last."""
    path = folder / HISTORY
    if not path.is_file():
        return None
    history = checkpoint.read_state(path)
    checkpoint.refuse_other(path, history["training"], identity)
    return history["record"]


def _identity(
    model: nn.Module, split: Split, training: TrainingConfig, spec: DatasetSpec, seed: int, compute: Compute
) -> dict[str, Any]:
    """All that a training depends on, save the videos' content: what resuming must find unchanged."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        **training.model_dump(mode="json", exclude={"seeds"}),
        **compute.as_dict(),
        "seed": seed,
        "dataset": spec.name,
        "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest(),
        "train": hashlib.sha256(np.ascontiguousarray(split.train, np.int64)).hexdigest(),
        "tune": hashlib.sha256(np.ascontiguousarray(split.tune, np.int64)).hexdigest(),
    }


class _Run:
    """One training at work: the loop over epochs, and what it keeps between them."""

    def __init__(
        self, model: nn.Module, source: Source, labels: LabelStore, split: Split, training: TrainingConfig,
        spec: DatasetSpec, seed: int, folder: Path, progress: Progress | None, compute: Compute,
        identity: dict[str, Any],
    ):  # fmt: skip
        self.model, self.source, self.labels, self.split = model.to(compute.device), source, labels, split
        self.training, self.spec, self.seed, self.compute = training, spec, seed, compute
        self.folder, self.progress, self.identity = folder, progress, identity
        self.optimiser = Optimiser(self.model, training, spec, compute)
        self.state = State()
        self.best = _copy(self.model)
        self.timings: list[dict[str, float]] = []
        self.steps_per_epoch = -(-len(split.train) // training.batch_size)
        self.blocks_per_epoch = self.steps_per_epoch + -(-len(split.tune) // training.batch_size)
        self.tune_labels = labels.encode(split.tune)

    def go(self) -> dict[str, Any]:
        """Train to the end, from the checkpoint if there is one; returns the record."""
        if (self.folder / CHECKPOINT).exists():
            self._resume()
        while not self._status():
            try:
                self._epoch()
            except Divergence as end:
                self.state.diverged_at = {"epoch": self.state.epoch + 1, "step": end.step, "what": end.what}
        write_bytes(self.folder / WEIGHTS, checkpoint.weights_bytes(self.best))
        return self._record()

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
        started, waited = time.perf_counter(), Waiting()
        number = self.state.epoch + 1
        rate = learning_rate(self.training, self.optimiser.examples)
        loss = self._train_once(number, waited)
        trained = time.perf_counter()
        score = gap(self._tune_scores(), self.tune_labels)
        ended = time.perf_counter()
        self.state.epoch, self.state.examples = number, self.optimiser.examples
        self.state.steps += self.steps_per_epoch
        self.state.history.append({
            "epoch": number, "examples": self.state.examples, "learning_rate": rate, "training_loss": loss,
            "tune_gap": score,
        })  # fmt: skip
        if self.state.best_gap is None or score > self.state.best_gap:
            self.state.best_gap, self.state.best_epoch, self.best = score, number, _copy(self.model)
        self.timings.append({
            "epoch": number, "train_seconds": trained - started, "data_wait_seconds": waited.seconds,
            "tune_seconds": ended - trained,
        })  # fmt: skip
        self._save()

    def _train_once(self, number: int, waited: "Waiting") -> float:
        """The mean loss per video of one epoch's steps. What is drawn at random depends on (seed, epoch) alone."""
        self.model.train()
        order = epoch_order(self.split.train, self.seed, number)
        total = torch.zeros((), dtype=torch.float64, device=self.compute.device)
        healthy = torch.ones((), dtype=torch.bool, device=self.compute.device)
        healthy_steps = torch.zeros((), dtype=torch.int64, device=self.compute.device)
        message = f"epoch {number} of at most {self.training.epochs}"
        devices = [torch.cuda.current_device()] if self.compute.device == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint32)[0]))
            feed = waited.through(batches(self.source, self.labels, order, self.training.batch_size))
            for step, batch in enumerate(feed, start=1):
                loss, finite = self.optimiser.step(batch)
                total += loss
                healthy &= finite
                healthy_steps += healthy
                if step % LOOK_EVERY == 0 or step == self.steps_per_epoch:
                    if not healthy:
                        raise Divergence(int(healthy_steps) + 1, "loss or gradient is not finite")
                    message = self._message(number, float(loss) / len(batch.rows))
                self._tell(step, message)
        return float(total) / len(order)

    def _tune_scores(self) -> np.ndarray:
        """(tune videos, nodes) float32 logits."""
        self.model.eval()
        rows, size = self.split.tune, self.training.batch_size
        scores = np.empty(self.tune_labels.shape, np.float32)
        normalisation, message = self.training.normalisation, f"epoch {self.state.epoch + 1}, tune videos"
        blocks = infer(self.model, self.source, rows, self.spec, normalisation, size, self.compute)
        for number, block in enumerate(blocks):
            scores[number * size : number * size + len(block)] = block
            self._tell(self.steps_per_epoch + number + 1, message)
        if not np.isfinite(scores).all():
            raise Divergence(None, "tune scores are not finite")
        return scores

    def _message(self, number: int, loss: float) -> str:
        best = f", best tune GAP {self.state.best_gap:.3f}" if self.state.best_gap is not None else ""
        return f"epoch {number} of at most {self.training.epochs}, loss {loss:.3f}{best}"

    def _tell(self, block: int, message: str) -> None:
        """So many batches of the epoch are done, training and tune videos together."""
        if self.progress:
            done = self.state.epoch * self.blocks_per_epoch + block
            self.progress(done, self.training.epochs * self.blocks_per_epoch, message)

    def _save(self) -> None:
        """Timings first: killed in between, this epoch's are replaced when it is repeated; never missing."""
        write_json(self.folder / TIMINGS, {"epochs": self.timings})
        groups = {"model": self.model.state_dict(), "best": self.best}
        for index, moments in self.optimiser.adam.state_dict()["state"].items():
            groups[f"adam.{index}"] = moments
        checkpoint.save(self.folder / CHECKPOINT, groups, self.identity, asdict(self.state))

    def _resume(self) -> None:
        groups, state = checkpoint.load(self.folder / CHECKPOINT, self.identity)
        self.state = State(**state)
        self.model.load_state_dict(groups["model"])
        self.best = {name: tensor.to(self.compute.device) for name, tensor in groups["best"].items()}
        moments = {int(name.removeprefix("adam.")): each for name, each in groups.items() if name.startswith("adam.")}
        self.optimiser.adam.load_state_dict({**self.optimiser.adam.state_dict(), "state": moments})
        self.optimiser.examples = self.state.examples
        if (self.folder / TIMINGS).is_file():
            self.timings = checkpoint.read_state(self.folder / TIMINGS)["epochs"][: self.state.epoch]

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
            "compute": self.compute.as_dict(),
            "diverged_at": state.diverged_at,
            "history": state.history,
        }


class Waiting:
    """Seconds that a consumer spent waiting for its iterator."""

    def __init__(self) -> None:
        self.seconds = 0.0

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


def _copy(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
