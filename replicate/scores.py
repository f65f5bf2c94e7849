"""Scores that were written before; an ensemble's are computed from its members' when they are read. No torch here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from replicate.ensembles import Rule, mean_logit, mean_probability
from replicate.errors import DataError
from replicate.record import read_json, write_json

LOGITS = "logits.npy"
ENSEMBLE = "ensemble.json"


class Scores(Protocol):
    """Logits of every pool video: `shape` is (videos, nodes)."""

    shape: tuple[int, int]

    def read(self, positions: np.ndarray | slice) -> np.ndarray:
        """float32 (positions, nodes): a new array."""


@dataclass(frozen=True)
class StoredScores:
    """Logits in a memory-mapped file."""

    logits: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(videos, nodes)."""
        return self.logits.shape

    def read(self, positions: np.ndarray | slice) -> np.ndarray:
        """float32 (positions, nodes)."""
        return np.array(self.logits[positions])


@dataclass(frozen=True)
class EnsembleScores:
    """One score of the members', by a rule of replicate.ensembles; `weights` are those that were tuned, if any."""

    members: tuple[Scores, ...]
    rule: Rule = "probability"
    weights: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(videos, nodes)."""
        return self.members[0].shape

    def read(self, positions: np.ndarray | slice) -> np.ndarray:
        """float32 (positions, nodes)."""
        logits = [member.read(positions) for member in self.members]
        if self.rule == "logit":
            return mean_logit(logits)
        return mean_probability(logits, None if self.weights is None else np.array(self.weights))


def write_ensemble(
    folder: Path, members: list[Path], rule: Rule = "probability", weights: np.ndarray | None = None
) -> None:
    """Make `folder` hold the scores of an ensemble: only the members' places, relative to it, and the rule.

    Args:
        folder, members: folders.
        rule: "probability", "logit" (means with equal weights) or "tuned" (weighted mean of probabilities).
        weights: of the members, for "tuned".

    Raises:
        DataError: there is no member, or one cannot be read, or their shapes differ.
    """
    _checked(folder, [open_scores(member) for member in members])
    places = [os.path.relpath(member, folder) for member in members]
    numbers = None if weights is None else [float(weight) for weight in weights]
    write_json(folder / ENSEMBLE, {"rule": rule, "weights": numbers, "members": places})


def open_scores(folder: Path) -> Scores:
    """The scores that a folder holds.

    Raises:
        DataError: it holds none, or they cannot be read.
    """
    if (folder / ENSEMBLE).is_file():
        description = read_json(folder / ENSEMBLE)
        members = _checked(folder, [open_scores(folder / place) for place in description["members"]])
        weights = description["weights"]
        return EnsembleScores(members, description["rule"], None if weights is None else tuple(weights))
    path = folder / LOGITS
    try:
        logits = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} holds no scores ({reason}); delete its folder and predict again") from None
    if logits.ndim != 2 or logits.dtype != np.float32:
        raise DataError(f"{path} holds {logits.dtype} {logits.shape}, not float32 (videos, nodes); predict again")
    return StoredScores(logits)


def _checked(folder: Path, members: list[Scores]) -> tuple[Scores, ...]:
    shapes = sorted({member.shape for member in members})
    if len(shapes) != 1:
        raise DataError(f"{folder}: an ensemble's members must score the same videos, but their shapes are {shapes}")
    return tuple(members)
