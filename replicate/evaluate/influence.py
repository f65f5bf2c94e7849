"""Influence values and exact replicates of the four metrics, overall and per level, of one column on all test draws.

The influence value psi_v is the derivative of the statistic (the mean over the draws) with respect to the weight of
video v. To first order a bootstrap replicate is the statistic plus sum_v (w_v - 1) psi_v, which costs one product per
video instead of a ranking of all scores. Exact replicates weigh the same rankings instead, and check the first order.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluate.metrics import TOP_K
from replicate.evaluate.sweeps import add_influence, rank_pairs, sums, weighted_sums
from replicate.evaluate.video_ranks import VideoRanks, group_nodes, rank_block

GROUPS = ("overall", "0", "1", "2", "3")
METRICS = ("GAP", "MAP", "PERR", "Hit@1")
CELLS = tuple((metric, group) for metric in METRICS for group in GROUPS)  # the order of influence values
ALL_CLASSES = tuple(("MAP all classes", group) for group in GROUPS)
REPLICATED = CELLS + ALL_CLASSES  # the order of exact replicates

_ROWS = 1 << 13  # videos ranked at a time
_BLOCK_BYTES = 1 << 28  # of scores copied node by node at a time
_LANES = 4  # running sums that classes are dealt to; a constant, so that the result does not depend on threads
_WIDTH = 32  # replicates swept at once: a row of weights is half a cache line


@dataclass(frozen=True)
class ColumnMeasures:
    """What a column's scores say about one another's sampling noise.

    Attributes:
        influence: (cells, videos of the union) float32, in the order of `CELLS`; NaN where a draw leaves it undefined.
        values: (cells,) float64: the statistic itself, the mean over draws.
        replicates: (len(REPLICATED), replicates) float64: the exact statistic under each vector of weights.
        perr, first: (groups, videos of the union) float64: each video's own PERR and Hit@1, NaN without a positive.
    """

    influence: np.ndarray
    values: np.ndarray
    replicates: np.ndarray
    perr: np.ndarray
    first: np.ndarray


def measure_column(
    scores: np.ndarray,
    labels: SparseLabels,
    levels: np.ndarray,
    draws: Draws,
    classes: np.ndarray,
    weights: np.ndarray,
    threads: int = 1,
) -> ColumnMeasures:
    """Influence values, values and exact replicates of a column.

    Args:
        scores: (pool videos, nodes) float32, finite; may be memory-mapped, and is read in blocks.
        labels: of the union of the draws, in the order of `draws.videos`.
        levels: (nodes,) int in 0 to 3.
        draws: the test draws.
        classes: node indices that MAP averages over.
        weights: (videos of the union, replicates) uint8, one column per exact replicate.
        threads: how many compute at once; the result does not depend on it.

    Source: harness anchors, section C4.
    """
    offsets, members = draws.membership
    rows = _Rows(scores, draws.videos)
    ranks = _rank_videos(rows, labels, levels, threads)
    in_class = np.isin(np.arange(labels.nodes), classes)
    accumulator = _Accumulator(draws, weights)
    _pooled_rankings(accumulator, ranks, labels, levels, threads)
    _class_rankings(accumulator, rows, labels, levels, in_class, threads)
    for metric, values in (("PERR", ranks.perr), ("Hit@1", ranks.first)):
        for group in range(len(GROUPS)):
            accumulator.ratio(CELLS.index((metric, GROUPS[group])), values[group], offsets, members)
    return ColumnMeasures(
        accumulator.influence.astype(np.float32), accumulator.values, accumulator.replicates, ranks.perr, ranks.first
    )


class _Rows:
    """Rows of a pool that the draws use: a view where they are consecutive, copies of blocks else."""

    def __init__(self, scores: np.ndarray, videos: np.ndarray):
        if scores.dtype != np.float32:
            raise ValueError(f"scores must be float32, not {scores.dtype}")
        self.consecutive = len(videos) > 0 and videos[-1] - videos[0] + 1 == len(videos)
        self.scores = scores[videos[0] : videos[-1] + 1] if self.consecutive else scores
        self.videos = videos

    def block(self, begin: int, end: int) -> np.ndarray:
        """(end - begin, nodes) float32, contiguous."""
        part = self.scores[begin:end] if self.consecutive else self.scores[self.videos[begin:end]]
        return np.ascontiguousarray(part)

    def columns(self, first: int, last: int) -> np.ndarray:
        """(last - first, videos) float32, contiguous: scores of some nodes, node by node."""
        result = np.empty((last - first, len(self.videos)), np.float32)
        for begin in range(0, len(self.videos), _ROWS):
            end = min(begin + _ROWS, len(self.videos))
            part = self.scores[begin:end, first:last] if self.consecutive else \
                self.scores[self.videos[begin:end], first:last]
            result[:, begin:end] = part.T
        return result


def in_threads(function: Callable, items: Iterable, threads: int) -> list:
    """Results of `function` for all items, in order; compiled code and NumPy let threads run side by side."""
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def _rank_videos(rows: _Rows, labels: SparseLabels, levels: np.ndarray, threads: int) -> VideoRanks:
    ranks = VideoRanks.empty(len(GROUPS), len(labels), TOP_K)
    nodes = group_nodes(levels, len(GROUPS))

    def rank(begin: int) -> None:
        block = rows.block(begin, min(begin + _ROWS, len(labels)))
        rank_block(block, labels.offsets, labels.values, *nodes, begin, ranks)

    in_threads(rank, range(0, len(labels), _ROWS), threads)
    return ranks


class _Accumulator:
    """The sums that rankings add to."""

    def __init__(self, draws: Draws, weights: np.ndarray):
        self.draws, self.weights = draws, weights
        self.influence = np.zeros((len(CELLS), len(draws.videos)))
        self.values = np.full(len(CELLS), np.nan)
        self.replicates = np.full((len(REPLICATED), weights.shape[1]), np.nan)

    def weighted(self, per_video: np.ndarray) -> np.ndarray:
        """(draws, replicates) float64: weighted sums of a value per video of the union over each draw."""
        used = np.flatnonzero(per_video)
        total = np.zeros((self.draws.count, self.weights.shape[1]))
        offsets, members = self.draws.membership
        draw, owner = _draws_of(used, offsets, members)
        for number in range(self.draws.count):
            videos = owner[draw == number]
            for begin in range(0, len(videos), _ROWS):
                part = videos[begin : begin + _ROWS]
                total[number] += per_video[part] @ self.weights[part].astype(np.float64)
        return total

    def ratio(self, cell: int, values: np.ndarray, offsets: np.ndarray, members: np.ndarray) -> None:
        """A mean over the videos of each draw that have a value."""
        eligible = ~np.isnan(values)
        filled = np.where(eligible, values, 0.0)
        draw, video = _draws_of(np.arange(len(values)), offsets, members)
        counts = np.bincount(draw, eligible[video], minlength=self.draws.count)
        totals = np.bincount(draw, filled[video], minlength=self.draws.count)
        if not counts.all():
            return
        means = totals / counts
        self.values[cell] = means.mean()
        psi = eligible[video] * (filled[video] - means[draw]) / counts[draw] / self.draws.count
        self.influence[cell] = np.bincount(video, psi, minlength=len(values))
        with np.errstate(invalid="ignore"):
            self.replicates[cell] = _mean(self.weighted(filled) / self.weighted(eligible.astype(np.float64)))


def _mean(replicates: np.ndarray) -> np.ndarray:
    """(replicates,) mean over draws; a draw that a replicate leaves without a positive is left out of its mean."""
    defined = ~np.isnan(replicates)
    with np.errstate(invalid="ignore"):
        return np.where(defined, replicates, 0.0).sum(axis=0) / defined.sum(axis=0)


def _draws_of(videos: np.ndarray, offsets: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draw, video) of every membership of some videos."""
    starts, counts = offsets[videos], offsets[videos + 1] - offsets[videos]
    ends = np.cumsum(counts)
    index = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
    return members[index], np.repeat(videos, counts)


def _per_draw(values: np.ndarray, draws: Draws) -> np.ndarray:
    """(draws,) sums of a value per video of the union."""
    offsets, members = draws.membership
    draw, video = _draws_of(np.arange(len(values)), offsets, members)
    return np.bincount(draw, values[video], minlength=draws.count)


def _sweep_weights(ranking, draws: Draws, weights: np.ndarray) -> np.ndarray:
    """(draws, replicates): `weighted_sums`, a few replicates at a time, so that their counters stay in the cache."""
    parts = [
        weighted_sums(ranking, *draws.membership, weights[begin], draws.count) for begin in range(len(weights))
    ]
    return np.concatenate(parts, axis=1)


def _pooled_rankings(
    accumulator: _Accumulator, ranks: VideoRanks, labels: SparseLabels, levels: np.ndarray, threads: int
) -> None:
    """GAP: the videos' highest nodes in one ranking per group."""
    draws, slices = accumulator.draws, _weight_slices(accumulator.weights)

    def rank(group: int) -> None:
        cell = CELLS.index(("GAP", GROUPS[group]))
        counted = np.ones(len(labels.values)) if group == 0 else (levels[labels.values] == group - 1)
        positives = np.bincount(labels.video_of, counted, minlength=len(labels))
        total = _per_draw(positives, draws)
        if not total.all():
            return
        ranking = rank_pairs(ranks.score[group].ravel(), ranks.hit[group].ravel(), ranks.score.shape[2])
        values = sums(ranking, *draws.membership, draws.count) / total
        accumulator.values[cell] = values.mean()
        psi, unused = accumulator.influence[cell], np.zeros(len(labels))
        scale = 1 / (total * draws.count)
        add_influence(ranking, *draws.membership, scale, scale, psi, unused)
        psi -= positives * _spread(values * scale, draws)
        with np.errstate(invalid="ignore", divide="ignore"):
            exact = _sweep_weights(ranking, draws, slices) / accumulator.weighted(positives)
        accumulator.replicates[cell] = _mean(exact)

    in_threads(rank, range(len(GROUPS)), threads)


def _weight_slices(weights: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(weights[:, begin : begin + _WIDTH]) for begin in range(0, weights.shape[1], _WIDTH)]


def _spread(per_draw: np.ndarray, draws: Draws) -> np.ndarray:
    """(videos of the union,) sum of a value per draw over the draws of each video."""
    offsets, members = draws.membership
    return np.add.reduceat(per_draw[members], offsets[:-1])


class _ClassSums:
    """What some classes add up to, per group and draw; summed over lanes in the end."""

    def __init__(self, draws: Draws, replicates: int):
        groups = len(GROUPS)
        self.psi = np.zeros((groups, len(draws.videos)))
        self.values = np.zeros((groups, draws.count))
        self.exact = np.zeros((2, groups, draws.count, replicates))  # over the class set, over all classes
        self.counted = np.zeros((2, groups, draws.count, replicates))  # classes with a positive in the replicate


def _class_rankings(
    accumulator: _Accumulator, rows: _Rows, labels: SparseLabels, levels: np.ndarray, in_class: np.ndarray, threads: int
) -> None:
    """MAP: one ranking per node."""
    draws, slices = accumulator.draws, _weight_slices(accumulator.weights)
    offsets, videos_of = labels.by_node
    positives = np.stack([  # (draws, nodes)
        np.bincount(labels.values, _in_draw(draws, draw)[labels.video_of], labels.nodes) for draw in range(draws.count)
    ])  # fmt: skip
    used = in_class & (positives > 0)
    sizes = np.stack([used.sum(axis=1), *((used & (levels == level)).sum(axis=1) for level in range(len(GROUPS) - 1))])
    lanes = [_ClassSums(draws, accumulator.weights.shape[1]) for _ in range(_LANES)]
    width = max(_LANES, _BLOCK_BYTES // (4 * max(1, len(labels))))
    for first in range(0, labels.nodes, width):
        last = min(first + width, labels.nodes)
        columns = rows.columns(first, last)

        def add(lane: int, first: int = first, last: int = last, columns: np.ndarray = columns) -> None:
            for node in range(first, last):
                videos = videos_of[offsets[node] : offsets[node + 1]]
                if node % _LANES == lane and len(videos):
                    groups = (0, 1 + int(levels[node]))
                    scale = _class_scale(used[:, node], positives[:, node], sizes[list(groups)], draws.count)
                    hits = np.zeros(len(labels), bool)
                    hits[videos] = True
                    ranking = rank_pairs(columns[node - first], hits)
                    _add_class(lanes[lane], ranking, videos, positives[:, node], scale, groups, in_class[node],
                               draws, slices, accumulator)  # fmt: skip

        in_threads(add, range(_LANES), threads)
    _finish_classes(accumulator, lanes, sizes)


def _in_draw(draws: Draws, draw: int) -> np.ndarray:
    mask = np.zeros(len(draws.videos), bool)
    mask[draws.members(draw)] = True
    return mask


def _class_scale(used: np.ndarray, positives: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """(2, draws): 1 / (P x classes x draws) for both groups of a node; 0 where the class has no part in the mean."""
    below = np.where(used, positives * sizes * count, 1)
    return np.where(used, 1 / np.maximum(below, 1), 0.0)


def _add_class(sums_of, ranking, videos, positives, scale, groups, counts, draws, slices, accumulator) -> None:
    offsets, members = draws.membership
    if counts:
        values = sums(ranking, offsets, members, draws.count) / np.maximum(positives, 1)
        add_influence(ranking, offsets, members, *scale, sums_of.psi[groups[0]], sums_of.psi[groups[1]])
        draw, owner = _draws_of(videos, offsets, members)
        for group, factor in zip(groups, scale, strict=True):
            np.subtract.at(sums_of.psi[group], owner, (values * factor)[draw])
            sums_of.values[group] += values * factor * np.maximum(positives, 1)
    mask = np.zeros(len(draws.videos))
    mask[videos] = 1
    total = accumulator.weighted(mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        exact = np.where(total > 0, _sweep_weights(ranking, draws, slices) / total, 0.0)
    for variant, group in ((variant, group) for variant in (0, 1) for group in groups if counts or variant == 1):
        sums_of.exact[variant, group] += exact
        sums_of.counted[variant, group] += total > 0


def _finish_classes(accumulator: _Accumulator, lanes: list[_ClassSums], sizes: np.ndarray) -> None:
    for group, defined in enumerate(sizes.all(axis=1)):
        cell = CELLS.index(("MAP", GROUPS[group]))
        if defined:
            accumulator.influence[cell] = sum(lane.psi[group] for lane in lanes)
            accumulator.values[cell] = sum(lane.values[group].sum() for lane in lanes)
        for variant, row in enumerate((cell, REPLICATED.index(ALL_CLASSES[group]))):
            exact = sum(lane.exact[variant, group] for lane in lanes)
            counted = sum(lane.counted[variant, group] for lane in lanes)
            with np.errstate(invalid="ignore", divide="ignore"):
                accumulator.replicates[row] = _mean(exact / counted)
    undefined = np.isnan(accumulator.values)
    accumulator.influence[undefined] = np.nan
