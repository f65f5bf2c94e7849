"""The evaluate stage: every metric of one column on every draw and on the pool, and what the comparison needs of it."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from replicate.data.labels import LabelStore
from replicate.data.splits import Split
from replicate.errors import DataError
from replicate.evaluate.bootstrap import weight_vectors
from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluate.influence import CELLS, GROUPS, ColumnMeasures, measure_column
from replicate.evaluate.metrics import TOP_K, Evaluation, check_finite, evaluate
from replicate.evaluate.protocol import Protocol
from replicate.evaluate.threads import in_threads
from replicate.evaluate.video_ranks import average_precision_block
from replicate.record import atomic_file
from replicate.schema import LEVELS, Cell, ClassSet, EvaluateRecord, Metric, Support
from replicate.scores import Scores, StoredScores, open_scores

Progress = Callable[[float, float, str], None]

METRICS: tuple[Metric, ...] = ("GAP", "MAP", "PERR", "Hit@1", "GAP uncapped", "MAP@20", "MAP all classes")
ARRAYS = ("influence", "values", "replicates", "perr", "first")  # of ColumnMeasures, one .npy file each
VIDEO_PRECISION = "video_average_precision.npy"  # (pool,) float32
_ROWS = 1 << 13
_AGREEMENT = 1e-9  # between two independent computations of the same value


@dataclass(frozen=True)
class Pool:
    """The videos that are scored, their labels, and the test draws among them.

    Attributes:
        rows: (videos,) int64 rows of the index.
        labels: of the pool, in its order.
        draws: positions into the pool.
        disjoint: no video is in two draws.
        levels: (nodes,) level of each node.
        classes: nodes that MAP averages over, by the protocol's rule.
    """

    rows: np.ndarray
    labels: SparseLabels
    draws: Draws
    disjoint: bool
    levels: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, store: LabelStore, split: Split, levels: np.ndarray, protocol: Protocol) -> "Pool":
        """From what the labels and split stages wrote."""
        labels = SparseLabels.take(store.offsets, store.values, split.pool, store.nodes)
        draws = Draws(split.draws)
        expected = np.bincount(labels.values, minlength=store.nodes) * draws.size / len(labels)
        classes = np.flatnonzero(expected >= protocol.classes.min_positives)
        return cls(split.pool, labels, draws, split.disjoint, np.asarray(levels, np.int64), classes)

    def sampled(self) -> SparseLabels:
        """Labels of the union of the draws."""
        return SparseLabels.take(self.labels.offsets, self.labels.values, self.draws.videos, self.labels.nodes)


def evaluate_column(
    scores: Path, pool: Pool, protocol: Protocol, column: str, seed: int, out: Path, threads: int, progress: Progress
) -> EvaluateRecord:
    """Evaluate one column and write the arrays that its comparisons need into `out`.

    Args:
        scores: folder of a predict stage.
        pool: whom to score.
        protocol: class rule, and how many exact replicates to keep.
        column, seed: names for the record.
        out: gets one .npy file per name in `ARRAYS`, and each pool video's own average precision.
        threads: how many compute at once; no result depends on it.
        progress: is told (done, total, message).

    Raises:
        DataError: the scores are not of this pool, or not finite.
    """
    opened = open_scores(scores)
    expected = (len(pool.labels), pool.labels.nodes)
    if tuple(opened.shape) != expected:
        raise DataError(f"{scores} holds scores of shape {tuple(opened.shape)}, the pool is {expected}; predict again")
    with in_one_file(opened, out) as logits:
        check_finite(logits)
        steps = pool.draws.count + 3
        evaluations = []
        for draw in range(pool.draws.count):
            progress(draw, steps, f"draw {draw + 1} of {pool.draws.count}")
            rows = pool.draws.positions[draw]
            labels = SparseLabels.take(pool.labels.offsets, pool.labels.values, rows, pool.labels.nodes)
            evaluations.append(_evaluate(_rows(logits, rows), labels, pool, threads))
        progress(steps - 3, steps, "pool")
        whole = _evaluate(logits, pool.labels, pool, threads)
        progress(steps - 2, steps, "influence values")
        settings = protocol.bootstrap
        weights = weight_vectors(len(pool.draws.videos), settings.seed, settings.exploratory_replicates)
        measures = measure_column(logits, pool.sampled(), pool.levels, pool.draws, pool.classes, weights, threads)
        measures = replace(measures, replicates=measures.replicates[:, : settings.exploratory_replicates])
        _check_agreement(measures, evaluations, column)
        progress(steps - 1, steps, "single videos")
        _save(out / VIDEO_PRECISION, _video_precision(logits, pool.labels, threads))
    for name in ARRAYS:
        _save(out / f"{name}.npy", getattr(measures, name))
    return _record(column, seed, pool, protocol, evaluations, whole)


def _evaluate(scores: np.ndarray, labels: SparseLabels, pool: Pool, threads: int) -> Evaluation:
    return evaluate(scores, labels.dense(0, len(labels)), pool.levels, pool.classes, threads=threads)


def _rows(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions) and (np.diff(positions) == 1).all():
        return scores[first : last + 1]  # a view
    return scores[positions]


@contextlib.contextmanager
def in_one_file(scores: Scores, out: Path) -> Iterator[np.ndarray]:
    """(videos, nodes) float32, memory-mapped; an ensemble's are computed once, into a file that goes away again."""
    if isinstance(scores, StoredScores):
        yield scores.logits
        return
    path = out / ".logits.npy.part"
    try:
        logits = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=scores.shape)
        for begin in range(0, len(logits), _ROWS):
            logits[begin : begin + _ROWS] = scores.read(slice(begin, begin + _ROWS))
        yield logits
    finally:
        path.unlink(missing_ok=True)


def _check_agreement(measures: ColumnMeasures, evaluations: list[Evaluation], column: str) -> None:
    """The rankings behind the influence values must give the metrics themselves."""
    for (metric, group), value in zip(CELLS, measures.values, strict=True):
        draws = [each.values.get(group, {}).get(metric) for each in evaluations]
        if None in draws:
            continue
        if not abs(np.mean(draws) - value) <= _AGREEMENT:
            raise AssertionError(f"{column}, {metric} {group}: two ways give {np.mean(draws)!r} and {value!r}")


def _video_precision(logits: np.ndarray, labels: SparseLabels, threads: int) -> np.ndarray:
    result = np.empty(len(labels), np.float32)

    def fill(begin: int) -> None:
        block = np.ascontiguousarray(logits[begin : begin + _ROWS])
        average_precision_block(block, labels.offsets, labels.values, begin, result)

    in_threads(fill, range(0, len(labels), _ROWS), threads)
    return result


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_file(path) as file:
        np.save(file, array)


def _record(
    column: str, seed: int, pool: Pool, protocol: Protocol, draws: list[Evaluation], whole: Evaluation
) -> EvaluateRecord:
    precision = [None if np.isnan(value) else float(value) for value in whole.class_average_precision]
    return EvaluateRecord(
        column=column,
        seed=seed,
        videos=len(pool.labels),
        draw_size=pool.draws.size,
        disjoint=pool.disjoint,
        classes=tuple(_class_set(level, pool, protocol) for level in LEVELS),
        support=tuple(_support(level, pool) for level in LEVELS),
        cells=tuple(_cell(metric, level, draws, whole) for metric in METRICS for level in LEVELS),
        class_average_precision=tuple(precision),
    )


def _of_level(level: str, levels: np.ndarray) -> np.ndarray:
    return np.ones(len(levels), bool) if level == GROUPS[0] else levels == int(level)


def _class_set(level: str, pool: Pool, protocol: Protocol) -> ClassSet:
    nodes = _of_level(level, pool.levels)
    least = protocol.classes.min_positives
    return ClassSet(level=level, used=int(nodes[pool.classes].sum()), of=int(nodes.sum()), least_positives=least)


def _support(level: str, pool: Pool) -> Support:
    nodes = _of_level(level, pool.levels)
    per_video = np.bincount(pool.labels.video_of, nodes[pool.labels.values], minlength=len(pool.labels)).astype(int)
    return Support(
        level=level,
        nodes=int(nodes.sum()),
        positives=int(per_video.sum()),
        videos=int((per_video > 0).sum()),
        beyond_top=int(np.maximum(per_video - TOP_K, 0).sum()),
    )


def _cell(metric: Metric, level: str, draws: list[Evaluation], whole: Evaluation) -> Cell:
    values = [each.values.get(level, {}).get(metric) for each in draws]
    pool = whole.values.get(level, {}).get(metric)
    if None in values:
        without = sum(value is None for value in values)
        reason = f"undefined on {without} of {len(values)} draws: no positive there that the metric could count"
        return Cell(metric=metric, level=level, draws=None, mean=None, sd=None, pool=pool, reason=reason)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    reason = None if len(values) > 1 else "one draw has no standard deviation"
    return Cell(
        metric=metric, level=level, draws=tuple(values), mean=float(np.mean(values)), sd=sd, pool=pool, reason=reason
    )
