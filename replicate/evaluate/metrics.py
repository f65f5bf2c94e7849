"""The four metrics of Table 1 as plain definitions: GAP, MAP, PERR and Hit@1. Arrays in, fractions out.

Everywhere, scores are (videos, nodes) float32 or float64, one row per video, and labels are bool of the same shape.
Only the order of scores matters, so logits and probabilities give the same values as long as they rank alike; rank on
logits, because rounded probabilities tie.

Tie rule, the same in every function here, in the weighted metrics and in the influence values:
- within one video, equal scores are ordered by node index, lowest first (top k, PERR, Hit@1);
- within a pooled ranking (all pairs for GAP, one class for MAP), equal scores form one group, and precision is taken at
  the end of the group, so that no order of videos can change the value.
"""

from typing import Literal

import numpy as np

from replicate.errors import DataError

Unlabelled = Literal["skip", "zero"]
METRICS = ("GAP", "MAP", "PERR", "Hit@1")
TOP_K = 20
_BLOCK = 1 << 22  # values looked at together, to bound what a step needs beside the matrix


class UndefinedMetric(DataError):
    """A metric has no value on these videos: nothing there is positive. Never reported as 0."""


def gap(scores: np.ndarray, labels: np.ndarray, top_k: int | None = TOP_K) -> float:
    """Global average precision: one ranking of all (video, node) pairs.

    Args:
        scores: (videos, nodes) float.
        labels: (videos, nodes) bool.
        top_k: pairs kept per video, its highest; None keeps all. Positives that are cut still count in the denominator.

    Raises:
        UndefinedMetric: no label is positive.
        DataError: a score is not finite.
        ValueError: shapes or types do not fit.

    Source: the evaluation of the YouTube-8M challenge, section 4.1 of the paper.
    """
    scores, labels = checked(scores, labels)
    positives = int(labels.sum())
    if not positives:
        raise UndefinedMetric(f"GAP is undefined: none of {len(labels)} videos has a positive label")
    if top_k is None:
        return average_precision(scores.ravel(), labels.ravel(), positives)
    keep = top_nodes(scores, top_k)
    return average_precision(scores[keep], labels[keep], positives)


def mean_average_precision(
    scores: np.ndarray, labels: np.ndarray, top_k: int | None = None, classes: np.ndarray | None = None
) -> float:
    """MAP: average precision of each node's own ranking of videos, averaged over nodes.

    Args:
        scores: (videos, nodes) float.
        labels: (videos, nodes) bool.
        top_k: only pairs among the video's `top_k` highest enter a ranking; None: all (the starter code of the
            YouTube-8M challenge cuts at 20 here, too). Positives that are cut count in the denominator.
        classes: node indices to average over; None: all. Nodes without a positive have no average precision and are
            left out.

    Raises:
        UndefinedMetric: none of the classes has a positive.
        DataError: a score is not finite.
        ValueError: shapes or types do not fit.
    """
    scores, labels = checked(scores, labels)
    positives = labels.sum(axis=0)
    chosen = np.arange(scores.shape[1]) if classes is None else np.asarray(classes, dtype=np.int64)
    chosen = chosen[positives[chosen] > 0]
    if not len(chosen):
        raise UndefinedMetric(f"MAP is undefined: no class has a positive among {len(labels)} videos")
    keep = None if top_k is None else top_nodes(scores, top_k)
    values = np.empty(len(chosen))
    for number, node in enumerate(chosen):
        rows = slice(None) if keep is None else keep[:, node]
        values[number] = average_precision(scores[rows, node], labels[rows, node], int(positives[node]))
    return float(values.mean())


def perr(scores: np.ndarray, labels: np.ndarray, unlabelled: Unlabelled = "skip") -> float:
    """Precision at equal recall rate: of a video's g highest nodes the share that is positive, g = its positives.

    Args:
        scores: (videos, nodes) float.
        labels: (videos, nodes) bool.
        unlabelled: videos without a positive are left out ("skip") or count as 0 ("zero", the starter code's way).

    Raises:
        UndefinedMetric: no video is left.
        DataError: a score is not finite.
        ValueError: shapes or types do not fit.
    """
    scores, labels = checked(scores, labels)
    wanted = labels.sum(axis=1)
    values = np.zeros(len(labels))
    for rows in _row_blocks(scores):
        order = np.argsort(-scores[rows], axis=1, kind="stable")
        found = np.take_along_axis(labels[rows], order, axis=1).cumsum(axis=1)
        last = np.maximum(wanted[rows] - 1, 0)[:, None]
        values[rows] = np.take_along_axis(found, last, axis=1)[:, 0] / np.maximum(wanted[rows], 1)
    return _mean_over_videos("PERR", np.where(wanted > 0, values, 0.0), wanted > 0, unlabelled)


def hit_at_1(scores: np.ndarray, labels: np.ndarray, unlabelled: Unlabelled = "skip") -> float:
    """Share of videos whose highest node is positive.

    Args, errors: as `perr`.
    """
    scores, labels = checked(scores, labels)
    hits = labels[np.arange(len(labels)), scores.argmax(axis=1)] if scores.size else np.zeros(len(labels))
    return _mean_over_videos("Hit@1", hits.astype(float), labels.any(axis=1), unlabelled)


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Non-interpolated average precision of one ranking, ties as one group.

    Args:
        scores: (pairs,) float, any order.
        hits: (pairs,) bool.
        positives: denominator, at least the number of hits; positives outside the ranking count too.
    """
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
    found = np.cumsum(hits[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) * (found / (ends + 1))) / positives)


def top_nodes(scores: np.ndarray, top_k: int) -> np.ndarray:
    """(videos, nodes) bool: each video's `top_k` highest nodes; of equal scores at the last place the lowest index."""
    nodes = scores.shape[1]
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if nodes <= top_k:
        return np.ones(scores.shape, bool)
    keep = np.empty(scores.shape, bool)
    for rows in _row_blocks(scores):
        block = scores[rows]
        last = np.partition(block, nodes - top_k, axis=1)[:, nodes - top_k, None]
        above, tied = block > last, block == last
        room = top_k - above.sum(axis=1, keepdims=True)
        keep[rows] = above | (tied & (tied.cumsum(axis=1) <= room))
    return keep


def checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays, once their shapes, types and values are fit to be ranked.

    Raises:
        DataError: a score is not finite; names the first one.
        ValueError: shapes or types do not fit.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must be (videos, nodes), both alike")
    if scores.dtype not in (np.float32, np.float64) or labels.dtype != np.bool_:
        raise ValueError(f"scores must be float32 or float64 and labels bool, not {scores.dtype} and {labels.dtype}")
    check_finite(scores)
    return scores, labels


def check_finite(scores: np.ndarray, first_video: int = 0) -> None:
    """Refuse NaN and infinite scores: they have no place in a ranking.

    Raises:
        DataError: names the first such video (counted from `first_video`) and node.
    """
    for rows in _row_blocks(scores):
        finite = np.isfinite(scores[rows])
        if not finite.all():
            row, node = np.argwhere(~finite)[0]
            video = first_video + rows.start + row
            raise DataError(
                f"scores: video {video}, node {node} is {scores[rows.start + row, node]}; a score that is not finite "
                "cannot be ranked, so the column must be predicted again"
            )


def _mean_over_videos(name: str, values: np.ndarray, labelled: np.ndarray, unlabelled: Unlabelled) -> float:
    if unlabelled not in ("skip", "zero"):
        raise ValueError(f"unlabelled must be 'skip' or 'zero', not {unlabelled!r}")
    counted = values[labelled] if unlabelled == "skip" else values
    if not len(counted):
        raise UndefinedMetric(f"{name} is undefined: none of {len(values)} videos has a positive label")
    return float(counted.mean())


def _row_blocks(scores: np.ndarray) -> list[slice]:
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    return [slice(begin, begin + step) for begin in range(0, len(scores), step)]
