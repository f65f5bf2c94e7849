"""Scores that were written before; an ensemble's are computed from its members' when they are read. No torch here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from replicate.errors import DataError
from replicate.record import read_json, write_json

LOGITS = "logits.npy"
ENSEMBLE = "ensemble.json"
RULE = "logit of the equal-weight mean of probabilities"
BLOCK = 1 << 18  # values per member whose probabilities are averaged at a time, so that they stay in the cache


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
    """The members' mean probability, as a logit."""

    members: tuple[Scores, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(videos, nodes)."""
        return self.members[0].shape

    def read(self, positions: np.ndarray | slice) -> np.ndarray:
        """float32 (positions, nodes)."""
        return mean_probability([member.read(positions) for member in self.members])


def mean_probability(logits: list[np.ndarray]) -> np.ndarray:
    """The logit of the equal-weight mean of probabilities: float32, computed in float64, from logits of one shape.

    logit(mean p) = log sum p - log sum (1 - p), both by logsumexp of log p = -log(1 + exp(-z)) and
    log(1 - p) = log p - z, so that it is finite at any logit; probabilities round to 1 from a logit of 37 on.
    """
    result = np.empty(logits[0].shape, np.float32)
    flat, sources = result.reshape(-1), [np.ascontiguousarray(each).reshape(-1) for each in logits]
    for begin in range(0, len(flat), BLOCK):
        part = slice(begin, begin + BLOCK)
        values = np.stack([each[part] for each in sources]).astype(np.float64)
        positive = np.minimum(values, 0) - np.log1p(np.exp(-np.abs(values)))
        flat[part] = _log_sum_exp(positive) - _log_sum_exp(positive - values)
    return result


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=0)
    return largest + np.log(np.exp(values - largest).sum(axis=0))


def write_ensemble(folder: Path, members: list[Path]) -> None:
    """Make `folder` hold the scores of an ensemble: only the members' places, relative to it.

    Raises:
        DataError: there is no member, or one cannot be read, or their shapes differ.
    """
    _checked(folder, [open_scores(member) for member in members])
    places = [os.path.relpath(member, folder) for member in members]
    write_json(folder / ENSEMBLE, {"rule": RULE, "members": places})


def open_scores(folder: Path) -> Scores:
    """The scores that a folder holds.

    Raises:
        DataError: it holds none, or they cannot be read.
    """
    if (folder / ENSEMBLE).is_file():
        description = read_json(folder / ENSEMBLE)
        return _checked(folder, [open_scores(folder / place) for place in description["members"]])
    path = folder / LOGITS
    try:
        logits = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} holds no scores ({reason}); delete its folder and predict again") from None
    if logits.ndim != 2 or logits.dtype != np.float32:
        raise DataError(f"{path} holds {logits.dtype} {logits.shape}, not float32 (videos, nodes); predict again")
    return StoredScores(logits)


def _checked(folder: Path, members: list[Scores]) -> EnsembleScores:
    shapes = sorted({member.shape for member in members})
    if len(shapes) != 1:
        raise DataError(f"{folder}: an ensemble's members must score the same videos, but their shapes are {shapes}")
    return EnsembleScores(tuple(members))
