"""How far a training is, and the checkpoint that it goes on from: at the end of an epoch or within one.

A checkpoint within an epoch also holds what the rest of the epoch depends on: how many steps are done, every process's
sum of losses and state of random draws. So a training that was killed at any step ends with the same bytes.
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from replicate import checkpoint
from replicate.checkpoint import Tensors
from replicate.errors import IncompleteRun
from replicate.training.optimise import Optimiser

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class State:
    """How far a training is; epochs count from 1, and 0 stands for the initial weights.

    Attributes:
        epoch, examples, steps: that were finished; examples and steps of whole epochs.
        best_epoch, best_gap: of the best weights so far.
        history: one entry per epoch.
        diverged_at: where the training ended early.
        step: steps that are done of the epoch that was begun.
        train_seconds, data_wait_seconds: spent on them.
        scaler: of the loss, under float16.
        skipped: steps that it left out, in all.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_gap: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    examples: int = 0
    steps: int = 0
    diverged_at: dict[str, Any] | None = None
    step: int = 0
    train_seconds: float = 0.0
    data_wait_seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0


class Keeper:
    """Writes and reads a training's checkpoint. All processes read it; the first one writes it."""

    def __init__(self, folder: Path, identity: dict[str, Any], optimiser: Optimiser, minutes: float):
        """
        Args:
            folder: of the training; the processes' hosts share it.
            identity: what the training is of; another's checkpoint is refused.
            optimiser: whose model, Adam and scale of the loss are kept.
            minutes: between checkpoints within an epoch.
        """
        self.path, self.identity, self.optimiser = folder / CHECKPOINT, identity, optimiser
        self.seconds, self._written = 60 * minutes, time.monotonic()

    def due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        return time.monotonic() - self._written >= self.seconds

    def save(self, state: State, best: Tensors, begun: Tensors | None = None) -> None:
        """Write the checkpoint.

        Args:
            state: its scaler and skipped steps are filled in here.
            best: the best weights so far.
            begun: what `progress_of` returned, within an epoch.
        """
        optimiser = self.optimiser
        state.scaler, state.skipped = optimiser.scaler.state_dict(), int(optimiser.skipped)
        if optimiser.ranks.first:
            groups = {"model": optimiser.model.state_dict(), "best": best, "begun": begun or {}}
            for index, moments in optimiser.adam.state_dict()["state"].items():
                groups[f"adam.{index}"] = moments
            checkpoint.save(self.path, groups, self.identity, asdict(state))
        self._written = time.monotonic()

    def resume(self) -> tuple[State, Tensors, Tensors | None] | None:
        """What `save` was given, with model and optimiser as they were; None where there is no checkpoint.

        Raises:
            IncompleteRun: it is damaged, of another training, or not the same for all processes.
        """
        groups, values = checkpoint.load(self.path, self.identity) if self.path.exists() else ({}, {})
        state, optimiser = State(**values), self.optimiser
        place = torch.tensor([len(groups), state.epoch, state.step], device=optimiser.compute.device)
        if not (optimiser.ranks.gather(place) == place).all():
            raise IncompleteRun(f"{self.path} is not the same for all processes; let all hosts use one shared folder")
        if not groups:
            return None
        optimiser.model.load_state_dict(groups["model"])
        moments = {int(name.removeprefix("adam.")): each for name, each in groups.items() if name.startswith("adam.")}
        optimiser.adam.load_state_dict({**optimiser.adam.state_dict(), "state": moments})
        optimiser.scaler.load_state_dict(state.scaler)
        optimiser.skipped.fill_(state.skipped)
        best = {name: tensor.to(optimiser.compute.device) for name, tensor in groups["best"].items()}
        return state, best, groups.get("begun")


def progress_of(optimiser: Optimiser, loss: torch.Tensor) -> Tensors:
    """What the rest of an epoch depends on beside the model and the optimiser, of every process: its sum of losses
    (float64 scalar) and where its random draws are. All processes must call this at the same step."""
    ranks = optimiser.ranks
    found = {"loss": ranks.gather(loss), "random": ranks.gather(torch.get_rng_state())}
    if optimiser.compute.device == "cuda":
        found["cuda_random"] = ranks.gather(torch.cuda.get_rng_state())
    return found


def go_on(optimiser: Optimiser, begun: Tensors, loss: torch.Tensor) -> None:
    """Bring this process's sum of losses and random draws to where they were."""
    rank = optimiser.ranks.rank
    loss.copy_(begun["loss"][rank])
    torch.set_rng_state(begun["random"][rank].clone())  # torch would read a view from where its storage begins
    if optimiser.compute.device == "cuda":
        torch.cuda.set_rng_state(begun["cuda_random"][rank].clone())


def copy_of(model: nn.Module) -> Tensors:
    """The model's weights, apart from the model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
