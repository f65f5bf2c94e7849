"""Influence values and exact replicates of the four metrics, overall and per level, of one column on all test draws.

The influence value psi_v is the derivative of the statistic (the mean over the draws) with respect to the weight of
video v. To first order a bootstrap replicate is the statistic plus sum_v (w_v - 1) psi_v, which costs one product per
video instead of a ranking of all scores. Exact replicates weigh the same rankings instead, and check the first order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from replicate.evaluate.average_precision import add_influence, influence, place_pairs
from replicate.evaluate.class_influence import measure_classes
from replicate.evaluate.draws import Draws, DrawView, Sample, SparseLabels
from replicate.evaluate.metrics import TOP_K
from replicate.evaluate.rows import Rows
from replicate.evaluate.threads import in_threads
from replicate.evaluate.video_ranks import VideoRanks, rank_videos

GROUPS = ("overall", "0", "1", "2", "3")
METRICS = ("GAP", "MAP", "PERR", "Hit@1")
CELLS = tuple((metric, group) for metric in METRICS for group in GROUPS)  # the order of influence values
ALL_CLASSES = tuple(("MAP all classes", group) for group in GROUPS)
REPLICATED = CELLS + ALL_CLASSES  # the order of exact replicates


@dataclass(frozen=True)
class Measured:
    """One cell: `value` and `influence` (videos of the union,) of the mean over draws, NaN and zeros where a draw has
    none; `replicates` (replicates,), each the mean over the draws that its weights leave a positive."""

    value: float
    influence: np.ndarray
    replicates: np.ndarray


@dataclass(frozen=True)
class ColumnMeasures:
    """What a column's scores say about their own sampling noise.

    Attributes:
        influence: (cells, videos of the union) float32, in the order of `CELLS`.
        values: (cells,) float64: the statistic itself, the mean over draws; NaN where a draw leaves it undefined.
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
        weights: (videos of the union, replicates) uint8: `bootstrap.weight_vectors`, one for each exact replicate.
        threads: how many compute at once; the result does not depend on it.

    Source: harness anchors, section C4.
    """
    levels, rows = np.asarray(levels, np.int64), Rows(scores, draws.videos)
    sample = Sample(draws, labels, weights)
    ranks = rank_videos(rows, labels, levels, len(GROUPS), TOP_K, threads)
    measures = ColumnMeasures(
        np.zeros((len(CELLS), len(rows)), np.float32), np.full(len(CELLS), np.nan),
        np.full((len(REPLICATED), sample.replicates), np.nan), ranks.perr, ranks.first,
    )  # fmt: skip
    for cell, found in _from_videos(ranks, sample, levels, threads):
        number = CELLS.index(cell)
        measures.values[number] = found.value
        measures.influence[number] = found.influence
        measures.replicates[number] = found.replicates
    del ranks
    sums = measure_classes(rows, sample, levels, classes, len(GROUPS), threads)
    for group, name in enumerate(GROUPS):
        number = CELLS.index(("MAP", name))
        measures.values[number] = sums.values[group].mean()
        measures.influence[number] = sums.influence[group] if np.isfinite(measures.values[number]) else 0.0
        for variant, place in enumerate((("MAP", name), ("MAP all classes", name))):
            measures.replicates[REPLICATED.index(place)] = mean_over_draws(sums.replicates[variant, group])
    return measures


def mean_over_draws(replicates: np.ndarray) -> np.ndarray:
    """(replicates,) means of (draws, replicates) over the draws that have a value."""
    defined = ~np.isnan(replicates)
    with np.errstate(invalid="ignore"):
        return np.where(defined, replicates, 0.0).sum(axis=0) / defined.sum(axis=0)


def _from_videos(
    ranks: VideoRanks, sample: Sample, levels: np.ndarray, threads: int
) -> Iterator[tuple[tuple[str, str], Measured]]:
    """The cells that need no more than the top of each video."""
    for metric, values in (("PERR", ranks.perr), ("Hit@1", ranks.first)):
        for group, name in enumerate(GROUPS):
            yield (metric, name), _mean_over_videos(sample, values[group])

    def pooled(group: int) -> Measured:
        counted = sample.labels.values >= 0 if group == 0 else levels[sample.labels.values] == group - 1
        positives = np.bincount(sample.labels.video_of, counted, len(sample.labels))
        return _pooled(sample, ranks.score[group], ranks.hit[group], positives)

    for name, found in zip(GROUPS, in_threads(pooled, range(len(GROUPS)), threads), strict=True):
        yield ("GAP", name), found


def _mean_over_videos(sample: Sample, values: np.ndarray) -> Measured:
    """PERR or Hit@1: a mean over the videos of each draw that have a value."""
    psi, means, replicates = np.zeros(len(values)), [], []
    for view in sample.views:
        own = values[view.videos]
        eligible = ~np.isnan(own)
        filled = np.where(eligible, own, 0.0)
        count = eligible.sum()
        with np.errstate(invalid="ignore"):
            means.append(filled.sum() / count)
            psi[view.videos] += np.where(eligible, filled - means[-1], 0.0) / count / sample.draws.count
            sums, counts = sample.weighted_sums(view, np.stack([filled, eligible]))
            replicates.append(sums / counts)
    return _measured(means, psi, replicates)


def _measured(values: list[float], psi: np.ndarray, replicates: list[np.ndarray]) -> Measured:
    value = float(np.mean(values))
    return Measured(value, psi if np.isfinite(value) else np.zeros(len(psi)), mean_over_draws(np.stack(replicates)))


def _pooled(sample: Sample, scores: np.ndarray, hits: np.ndarray, positives: np.ndarray) -> Measured:
    """GAP: the videos' highest nodes in one ranking.

    Args:
        sample: the draws.
        scores: (videos of the union, kept nodes) float32, NaN where there is none.
        hits: the same, bool.
        positives: (videos of the union,) all positives, also those that are not kept.
    """
    psi, values, replicates = np.zeros((1, len(scores))), [], []
    for view in sample.views:
        total = positives[view.videos].sum()
        found = _pooled_draw(sample, view, scores[view.videos].ravel(), hits[view.videos].ravel(), psi, total)
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(np.float64(found[0]) / total)
            replicates.append(found[1] / sample.weighted_sums(view, positives[None, view.videos])[0])
            psi[0, view.videos] -= values[-1] * positives[view.videos] / total / sample.draws.count
    return _measured(values, psi[0], replicates)


def _pooled_draw(
    sample: Sample, view: DrawView, scores: np.ndarray, hits: np.ndarray, psi: np.ndarray, positives: float
) -> tuple[float, np.ndarray]:
    """(sum over hits of T / C, the same per replicate); adds its derivative to `psi`."""
    if not hits.any():
        return 0.0, np.zeros(sample.replicates)
    placed = place_pairs(scores, hits, view.videos)
    of = influence(placed)
    add_influence(placed, of, np.array([0]), np.array([1 / (positives * sample.draws.count)]), psi)
    return of.total, sample.replicated(placed)[0]
