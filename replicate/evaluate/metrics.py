"""The four metrics of Table 1: GAP, MAP, PERR and Hit@1. Arrays in, fractions out; pure and deterministic.

Everywhere, scores are (videos, nodes) float32 or float64, one row per video, and labels are bool of the same shape.
Only the order of scores matters, so logits and probabilities give the same values as long as they rank alike; rank on
logits, because rounded probabilities tie. Sums are in float64.

Tie rule, the same in every function here, in the weighted metrics and in the influence values:
- within one video, equal scores are ordered by node index, lowest first (top k, PERR, Hit@1);
- within a pooled ranking (all pairs for GAP, one class for MAP), equal scores form one group, and precision is taken at
  the end of the group, so that no order of videos can change the value.

Definitions: facts, section A, which says what the starter code of the YouTube-8M challenge computes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from replicate.errors import DataError
from replicate.evaluate import ranking

Unlabelled = Literal["skip", "zero"]
OVERALL = "overall"
TOP_K = 20
_BLOCK = 1 << 22  # values looked at together, to bound what a step needs beside the matrix


class UndefinedMetric(DataError):
    """A metric has no value on these videos: nothing there is positive. Never reported as 0."""


@dataclass(frozen=True)
class Evaluation:
    """Every metric of one score matrix.

    Attributes:
        values: by level ("overall", "0", "1", ...), then by metric: "GAP", "MAP", "PERR", "Hit@1", and beside them
            "GAP uncapped", "MAP@20", "MAP all classes". Fractions; None where the metric is undefined.
        class_average_precision: (nodes,) float64: of each node's own ranking, uncapped; NaN without a positive.
    """

    values: dict[str, dict[str, float | None]]
    class_average_precision: np.ndarray


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

    Source: section 4.1 of the paper; facts, section A.
    """
    scores, labels = checked(scores, labels)
    if not labels.any():
        raise UndefinedMetric(f"GAP is undefined: none of {len(labels)} videos has a positive label")
    levels, tops = _one_level(scores, labels, top_k)
    counts = ranking.count_pooled(scores, labels, levels, tops, {0: tops}, threads=1)
    return _pooled(counts, ranking.TOP_OF_VIDEO)


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
        ValueError: shapes, types or indices do not fit.

    Source: section 4.1 of the paper; facts, section A.
    """
    scores, labels = checked(scores, labels)
    chosen = checked_classes(classes, scores.shape[1])
    if not labels[:, chosen].any():
        raise UndefinedMetric(f"MAP is undefined: no class has a positive among {len(labels)} videos")
    levels, tops = _one_level(scores, labels, top_k)
    values = ranking.class_average_precision(scores, labels, levels, tops, {0: tops}, threads=1)
    return _mean_over_classes(values[chosen, ranking.TOP_OF_VIDEO])


def perr(scores: np.ndarray, labels: np.ndarray, unlabelled: Unlabelled = "skip") -> float:
    """Precision at equal recall rate: of a video's g highest nodes the share that is positive, g = its positives.

    Args:
        scores: (videos, nodes) float.
        labels: (videos, nodes) bool.
        unlabelled: videos without a positive are left out ("skip") or count as 0 ("zero", the starter code's way).

    Raises:
        UndefinedMetric: no video is left.
        DataError: a score is not finite.
        ValueError: shapes, types or the policy do not fit.

    Source: section 4.1 of the paper, erratum 36; facts, section A.
    """
    scores, labels = checked(scores, labels)
    return _defined("PERR", _perr(_one_level(scores, labels, 1)[1], unlabelled), len(labels))


def hit_at_1(scores: np.ndarray, labels: np.ndarray, unlabelled: Unlabelled = "skip") -> float:
    """Share of videos whose highest node is positive.

    Args, errors, source: as `perr`.
    """
    scores, labels = checked(scores, labels)
    return _defined("Hit@1", _hit_at_1(_one_level(scores, labels, 1)[1], unlabelled), len(labels))


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    levels: np.ndarray,
    classes: np.ndarray | None = None,
    unlabelled: Unlabelled = "skip",
    threads: int = 1,
) -> Evaluation:
    """All metrics, overall and by level, capped and uncapped, at once.

    A level's values are those of the functions above on the level's columns alone, its cap the 20 highest of its own
    nodes. Memory beside scores and labels: about 110 bytes per positive and thread, 90 per video, and 150 per video and
    thread for a few columns at a time; less than the scores where positives are as sparse as here.

    Args:
        scores: (videos, nodes) float.
        labels: (videos, nodes) bool.
        levels: (nodes,) int, not negative: the level of each node.
        classes: node indices that MAP and MAP@20 average over; None: all. "MAP all classes" always takes all.
        unlabelled: for PERR and Hit@1, as there.
        threads: how many compute at once; the values do not depend on it.

    Raises:
        DataError: a score is not finite.
        ValueError: shapes, types, indices or the policy do not fit.
    """
    scores, labels = checked(scores, labels)
    classes, levels = checked_classes(classes, scores.shape[1]), np.asarray(levels)
    if levels.shape != scores.shape[1:] or levels.dtype.kind not in "iu" or levels.min() < 0:
        raise ValueError(f"levels must be {scores.shape[1]} integers, none negative, not {levels.dtype} {levels.shape}")
    members = {int(level): np.flatnonzero(levels == level) for level in np.unique(levels)}
    everything = np.arange(scores.shape[1])
    tops = ranking.rank_videos(scores, labels, everything, TOP_K, threads)
    level_tops = {level: ranking.rank_videos(scores, labels, nodes, TOP_K, threads) for level, nodes in members.items()}
    arguments = (scores, labels, levels, tops, level_tops, threads)
    pooled = ranking.count_pooled(*arguments) if labels.any() else {}
    averages = ranking.class_average_precision(*arguments)

    def values(nodes: np.ndarray, own: ranking.Tops, counts: dict[int, ranking.Tally], cap: int) -> dict:
        chosen = np.intersect1d(nodes, classes)
        return {
            "GAP": _pooled(counts, cap),
            "MAP": _mean_over_classes(averages[chosen, ranking.ANY]),
            "PERR": _perr(own, unlabelled),
            "Hit@1": _hit_at_1(own, unlabelled),
            "GAP uncapped": _pooled(counts, ranking.ANY),
            "MAP@20": _mean_over_classes(averages[chosen, cap]),
            "MAP all classes": _mean_over_classes(averages[nodes, ranking.ANY]),
        }

    result = {OVERALL: values(everything, tops, pooled, ranking.TOP_OF_VIDEO)}
    for level, nodes in members.items():
        counts = {level: pooled[level]} if pooled else {}
        result[str(level)] = values(nodes, level_tops[level], counts, ranking.TOP_OF_LEVEL)
    return Evaluation(result, averages[:, ranking.ANY])


def _one_level(scores: np.ndarray, labels: np.ndarray, top_k: int | None) -> tuple[np.ndarray, ranking.Tops]:
    nodes = scores.shape[1]
    if top_k is not None and (not isinstance(top_k, int | np.integer) or top_k < 1):
        raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}")
    tops = ranking.rank_videos(scores, labels, np.arange(nodes), top_k or nodes, threads=1)
    return np.zeros(nodes, np.int64), tops


def _pooled(counts: dict[int, ranking.Tally], variant: int) -> float | None:
    pairs = sum(each.pairs[variant] for each in counts.values())
    hits = sum(each.hits[variant] for each in counts.values())
    positives = sum(int(each.hits[ranking.ANY].sum()) for each in counts.values())
    return ranking.average_precision_of(pairs, hits, positives) if positives else None


def _mean_over_classes(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _perr(tops: ranking.Tops, unlabelled: Unlabelled) -> float | None:
    return _mean_over_videos(tops.found / np.maximum(tops.wanted, 1), tops.wanted > 0, unlabelled)


def _hit_at_1(tops: ranking.Tops, unlabelled: Unlabelled) -> float | None:
    return _mean_over_videos(tops.first.astype(np.float64), tops.wanted > 0, unlabelled)


def _mean_over_videos(values: np.ndarray, labelled: np.ndarray, unlabelled: Unlabelled) -> float | None:
    if unlabelled not in ("skip", "zero"):
        raise ValueError(f"unlabelled must be 'skip' or 'zero', not {unlabelled!r}")
    counted = values[labelled] if unlabelled == "skip" else values
    return float(counted.mean()) if len(counted) else None


def _defined(name: str, value: float | None, videos: int) -> float:
    if value is None:
        raise UndefinedMetric(f"{name} is undefined: none of {videos} videos has a positive label")
    return value


def checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays, contiguous, once their shapes, types and values are fit to be ranked.

    Raises:
        DataError: a score is not finite; names the first one.
        ValueError: shapes or types do not fit.
    """
    scores, labels = np.ascontiguousarray(scores), np.ascontiguousarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape or not scores.shape[1]:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must be (videos, nodes), both alike")
    if scores.dtype not in (np.float32, np.float64) or labels.dtype != np.bool_:
        raise ValueError(f"scores must be float32 or float64 and labels bool, not {scores.dtype} and {labels.dtype}")
    if scores.size > np.iinfo(np.int32).max:
        raise ValueError(f"scores {scores.shape} are more pairs than can be counted (2**31 - 1); give fewer videos")
    check_finite(scores)
    return scores, labels


def checked_classes(classes: np.ndarray | None, nodes: int) -> np.ndarray:
    """Node indices to average over; None: all.

    Raises:
        ValueError: not a list of different node indices.
    """
    chosen = np.arange(nodes) if classes is None else np.asarray(classes)
    if not chosen.size:
        chosen = chosen.astype(np.int64)  # an empty list has no integers to tell its type by
    whole = chosen.dtype.kind in "iu"  # a mask of bools would be read as the indices 0 and 1
    different = whole and chosen.ndim == 1 and len(np.unique(chosen)) == len(chosen)
    if not different or ((chosen < 0) | (chosen >= nodes)).any():
        raise ValueError(f"classes must be different node indices below {nodes}")
    return chosen


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


def _row_blocks(scores: np.ndarray) -> list[slice]:
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    return [slice(begin, begin + step) for begin in range(0, len(scores), step)]
