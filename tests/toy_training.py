"""A training of the toy corpus, for tests of whatever trains, and of what a kill at any moment leaves."""

from pathlib import Path

import torch
from torch import nn
from toy_corpus import NODES, SPEC, TRAINING, WIDTH, corpus, split

from replicate.training.train import TIMINGS, train

PROTOCOL = TRAINING.model_copy(update={"epochs": 3, "decay": 0.5, "decay_examples": 100})
AT_ONCE = 0.0  # minutes between checkpoints: one at every look, however coarse the clock is


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


def ran_through(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """(record, files) of a training that nothing interrupted."""
    return run(folder), files(folder)


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def kill():
    raise Killed
