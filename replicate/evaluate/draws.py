"""Test draws as index views into one pool, and labels as compressed rows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Draws:
    """Which videos of a pool the test draws hold. A video of several draws is one unit, resampled once for all.

    Attributes:
        positions: (draws, draw size) int64 positions into the pool, no position twice in a draw.
    """

    positions: np.ndarray

    @property
    def count(self) -> int:
        """Number of draws."""
        return len(self.positions)

    @property
    def size(self) -> int:
        """Videos in each draw."""
        return self.positions.shape[1]

    @cached_property
    def videos(self) -> np.ndarray:
        """(videos,) int64: the union of the draws, ascending positions into the pool."""
        return np.unique(self.positions)

    @cached_property
    def membership(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws of every video of the union in compressed rows: (videos + 1,) int64 offsets, int64 draw numbers."""
        places = np.searchsorted(self.videos, self.positions)
        draw = np.repeat(np.arange(self.count), self.size)
        order = np.argsort(places.ravel(), kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(places.ravel(), minlength=len(self.videos)))])
        return offsets.astype(np.int64), draw[order].astype(np.int64)

    def members(self, draw: int) -> np.ndarray:
        """(draw size,) places of a draw's videos in the union, ascending."""
        return np.sort(np.searchsorted(self.videos, self.positions[draw]))

    @property
    def overlap(self) -> float:
        """Share of a draw's videos that another draw holds too, on average over pairs; 0 for disjoint draws."""
        if self.count < 2:
            return 0.0
        offsets, _ = self.membership
        times = np.diff(offsets)
        return float((times * (times - 1)).sum() / (self.count * (self.count - 1) * self.size))


@dataclass(frozen=True)
class SparseLabels:
    """Positive nodes of video v: values[offsets[v] : offsets[v + 1]], ascending.

    Attributes:
        offsets: (videos + 1,) int64.
        values: int16 or wider.
        nodes: how many there are.
    """

    offsets: np.ndarray
    values: np.ndarray
    nodes: int

    @classmethod
    def of(cls, labels: np.ndarray) -> "SparseLabels":
        """From (videos, nodes) bool."""
        videos, values = np.nonzero(labels)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(videos, minlength=len(labels)))])
        return cls(offsets.astype(np.int64), values.astype(np.int64), labels.shape[1])

    @classmethod
    def take(cls, offsets: np.ndarray, values: np.ndarray, rows: np.ndarray, nodes: int) -> "SparseLabels":
        """Some rows of larger compressed rows, in the order given."""
        rows = np.asarray(rows)
        starts = np.asarray(offsets[rows])
        counts = np.asarray(offsets[rows + 1]) - starts
        ends = np.cumsum(counts)
        index = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
        return cls(np.concatenate([[0], ends]).astype(np.int64), np.asarray(values[index]).astype(np.int64), nodes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def video_of(self) -> np.ndarray:
        """(positives,) int64: the video of every value."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def by_node(self) -> tuple[np.ndarray, np.ndarray]:
        """Videos of every node in compressed rows: (nodes + 1,) offsets, ascending videos within a node."""
        order = np.argsort(self.values, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(self.values, minlength=self.nodes))])
        return offsets.astype(np.int64), self.video_of[order]

    def dense(self, begin: int, end: int) -> np.ndarray:
        """(end - begin, nodes) bool."""
        result = np.zeros((end - begin, self.nodes), bool)
        part = slice(self.offsets[begin], self.offsets[end])
        result[self.video_of[part] - begin, self.values[part]] = True
        return result
