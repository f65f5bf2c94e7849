"""Test draws as index views into one pool, labels as compressed rows, and both with weights of videos."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from replicate.evaluate.average_precision import Placed, by_score, compiled, weighted_totals


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

    @property
    def overlap(self) -> float:
        """Share of a draw's videos that another draw holds too, on average over pairs; 0 for disjoint draws."""
        if self.count < 2:
            return 0.0
        times = np.unique(self.positions, return_counts=True)[1]
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


@dataclass(frozen=True)
class DrawView:
    """One draw within the union of all.

    Attributes:
        videos: (draw size,) int64 places in the union, ascending.
        labels: of these videos.
    """

    videos: np.ndarray
    labels: SparseLabels


class Sample:
    """Draws with the labels of their videos and vectors of weights."""

    def __init__(self, draws: Draws, labels: SparseLabels, weights: np.ndarray):
        """
        Args:
            draws: the test draws.
            labels: of their union.
            weights: (videos of the union, replicates) uint8.
        """
        self.draws, self.labels, self.weights = draws, labels, weights
        self._in_a_byte = 255 // max(1, int(weights.max(initial=1)))
        places = np.sort(np.searchsorted(draws.videos, draws.positions), axis=1)
        taken = (SparseLabels.take(labels.offsets, labels.values, videos, labels.nodes) for videos in places)
        self.views = tuple(DrawView(videos, each) for videos, each in zip(places, taken, strict=True))

    @property
    def replicates(self) -> int:
        """How many vectors of weights there are."""
        return self.weights.shape[1]

    def weighted_sums(self, view: DrawView, values: np.ndarray) -> np.ndarray:
        """(rows, replicates) float64: sums over the videos of a draw of weight x value, from (rows, draw size) values.

        Added in the order of the videos, so that neither a library nor a processor decides the last bit.
        """
        return _weighted_sums(view.videos, self.weights, np.ascontiguousarray(values, np.float64))

    def replicated(self, placed: Placed) -> tuple[np.ndarray, np.ndarray]:
        """`weighted_totals` under all weights: two arrays (replicates,)."""
        return weighted_totals(by_score(placed), self.weights, self._in_a_byte)


@compiled
def _weighted_sums(videos, weights, values):
    total = np.zeros((len(values), weights.shape[1]))
    for number in range(len(videos)):
        weight = weights[videos[number]]
        for row in range(len(values)):
            value, sums = values[row, number], total[row]
            if value != 0:
                for replicate in range(len(weight)):
                    sums[replicate] += value * weight[replicate]
    return total
