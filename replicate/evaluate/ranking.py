"""Ranks by counting: the compiled passes over a score matrix that all metrics share.

Average precision needs, for each positive, how many pairs and how many positives rank at or above it. So only the
positives are sorted, a few per video; every other score is counted at the highest positive that it reaches, found
through a table over the range of scores. One such sort serves a pooled ranking at every level, capped and uncapped, and
one per node its class ranking. Counts are integers, so neither threads nor blocks can change a result.

The kernels release the interpreter's lock; the callers run them in threads of their own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np

from replicate.evaluate.threads import in_threads

compiled = numba.njit(nogil=True, cache=True)

# What a pair may have to be to enter a ranking; the first axis of `Tally` arrays.
ANY, TOP_OF_VIDEO, TOP_OF_LEVEL = range(3)
_COLUMNS = 16  # nodes copied side by side: a cache line of float32
_ROWS = 64  # videos whose cache lines are copied before they are dropped


class Tops(NamedTuple):
    """Per video, what its own ranking of some nodes says; equal scores by node index, lowest first."""

    score: np.ndarray  # (videos,) of the last node kept
    node: np.ndarray  # (videos,) int32: that node; equal scores are kept up to it
    wanted: np.ndarray  # (videos,) int32: positives, g
    found: np.ndarray  # (videos,) int32: positives among the g highest
    first: np.ndarray  # (videos,) bool: the highest node is positive


class Ranking(NamedTuple):
    """The positives' scores, sorted, with a table that says where among them a score falls.

    The range of scores is cut into equal cells; `start[c]` counts the positives in the cells before c. The cell of a
    score grows with the score, so a search need only look within its own cell.
    """

    scores: np.ndarray  # (positives,) ascending
    start: np.ndarray  # (cells + 1,) int32
    origin: float  # half of the lowest score
    scale: float  # cells per half unit of score


class Tally(NamedTuple):
    """Counts at each positive of a ranking: scores that reach it and no higher one."""

    pairs: np.ndarray  # (3, positives) int32
    hits: np.ndarray  # (3, positives) int32: of them, labelled


def rank_videos(scores: np.ndarray, labels: np.ndarray, nodes: np.ndarray, top_k: int, threads: int) -> Tops:
    """Each video's ranking of `nodes`: where its `top_k` end, and how many positives its g highest hold.

    Args:
        scores: (videos, nodes) float, contiguous.
        labels: (videos, nodes) bool, contiguous.
        nodes: indices, ascending, at least one.
        top_k: nodes kept per video; from len(nodes) on all are kept.
        threads: how many rank at once.
    """
    videos = len(scores)
    tops = Tops(
        np.empty(videos, scores.dtype), np.empty(videos, np.int32),
        np.empty(videos, np.int32), np.empty(videos, np.int32), np.empty(videos, np.bool_),
    )  # fmt: skip

    def rank(rows: slice) -> None:
        _rank_videos(scores[rows], labels[rows], nodes, min(top_k, len(nodes)), Tops(*(each[rows] for each in tops)))

    bounds = np.linspace(0, videos, threads + 1).astype(int).tolist()
    in_threads(rank, [slice(begin, end) for begin, end in zip(bounds, bounds[1:], strict=False)], threads)
    return tops


@compiled
def select_highest(scores, nodes, places, best_score, best_node):
    """Put the `places` highest of a video's scores (nodes,) and their nodes into the first entries of `best_score` and
    `best_node`, highest first; equal scores keep the order of `nodes`. Returns how many there are."""
    filled = 0
    for node in nodes:
        score = scores[node]
        if filled < places:
            place = filled
            filled += 1
        elif score > best_score[places - 1]:
            place = places - 1
        else:
            continue
        while place > 0 and score > best_score[place - 1]:
            best_score[place], best_node[place] = best_score[place - 1], best_node[place - 1]
            place -= 1
        best_score[place], best_node[place] = score, node
    return filled


@compiled
def _rank_videos(scores, labels, nodes, top_k, tops):
    best_score = np.empty(len(nodes), scores.dtype)
    best_node = np.empty(len(nodes), np.int32)
    keep_all = top_k == len(nodes)
    for video in range(len(scores)):
        wanted = 0
        for node in nodes:
            wanted += labels[video, node]
        places = max(1, wanted) if keep_all else max(top_k, wanted)
        select_highest(scores[video], nodes, places, best_score, best_node)
        found = 0
        for place in range(wanted):
            found += labels[video, best_node[place]]
        tops.score[video] = -np.inf if keep_all else best_score[top_k - 1]
        tops.node[video] = -1 if keep_all else best_node[top_k - 1]
        tops.wanted[video] = wanted
        tops.found[video] = found
        tops.first[video] = labels[video, best_node[0]]


def ranking_of(positives: np.ndarray) -> Ranking:
    """Sort the scores of at least one positive and lay the table over them."""
    scores = np.sort(positives)
    cells = 1 << len(scores).bit_length()
    origin = 0.5 * float(scores[0])
    half_range = 0.5 * float(scores[-1]) - origin  # halves, so that it is finite for all finite scores
    scale = cells / half_range if half_range > cells * np.finfo(np.float64).tiny else 0.0
    start = np.zeros(cells + 1, np.int32)
    _count_cells(scores, start, origin, scale)
    return Ranking(scores, np.cumsum(start, dtype=np.int32), origin, scale)


@compiled
def _cell(score, cells, origin, scale):
    position = (0.5 * np.float64(score) - origin) * scale
    return cells - 1 if position >= cells else int(position)


@compiled
def _count_cells(scores, start, origin, scale):
    for score in scores:
        start[_cell(score, len(start) - 1, origin, scale) + 1] += 1


def empty_tally(ranking: Ranking) -> Tally:
    """Counts of nothing yet."""
    return Tally(np.zeros((3, len(ranking.scores)), np.int32), np.zeros((3, len(ranking.scores)), np.int32))


@compiled
def tally(scores, labels, node, video_tops, level_tops, ranking, counts):
    """Count one node's scores, in place.

    Args:
        scores: (videos,) float: the node's scores.
        labels: (videos,) bool.
        node: its index.
        video_tops: `Tops` of all nodes.
        level_tops: `Tops` of the nodes of its level.
        ranking: the `Ranking` that the scores enter.
        counts: its `Tally`.
    """
    lowest = ranking.scores[0]
    for video in range(len(scores)):
        score, hit = scores[video], labels[video]
        if score < lowest:
            continue
        place = _place(score, ranking)
        counts.pairs[ANY, place] += 1
        if hit:
            counts.hits[ANY, place] += 1
        if not _kept(score, node, level_tops.score[video], level_tops.node[video]):
            continue
        counts.pairs[TOP_OF_LEVEL, place] += 1
        if hit:
            counts.hits[TOP_OF_LEVEL, place] += 1
        # a node among the highest of its video is among the highest of its level
        if _kept(score, node, video_tops.score[video], video_tops.node[video]):
            counts.pairs[TOP_OF_VIDEO, place] += 1
            if hit:
                counts.hits[TOP_OF_VIDEO, place] += 1


@compiled
def _place(score, ranking):
    """The last positive that a score reaches; it reaches the first."""
    cell = _cell(score, len(ranking.start) - 1, ranking.origin, ranking.scale)
    low, high = ranking.start[cell], ranking.start[cell + 1]
    while low < high:
        middle = (low + high) >> 1
        if ranking.scores[middle] <= score:
            low = middle + 1
        else:
            high = middle
    return low - 1


@compiled
def _kept(score, node, last_score, last_node):
    return score > last_score or (score == last_score and node <= last_node)


def average_precision_of(pairs: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Average precision from counts at each positive, lowest first; equal scores are one group, taken at its end.

    Args:
        pairs: (positives,) int: scores that reach this positive and no higher one.
        hits: (positives,) int: of them, labelled.
        positives: denominator.
    """
    ranked, hits = np.cumsum(pairs[::-1], dtype=np.int64), hits[::-1]
    found = np.cumsum(hits, dtype=np.int64)
    counted = hits > 0
    return float(np.sum(hits[counted] * (found[counted] / ranked[counted])) / positives)


def count_pooled(
    scores: np.ndarray,
    labels: np.ndarray,
    levels: np.ndarray,
    video_tops: Tops,
    level_tops: dict[int, Tops],
    threads: int,
) -> dict[int, Tally]:
    """Counts at each positive of the one ranking of all pairs, by the level of the pair's node.

    The ranking of a level's pairs has the same positives in the same order and counts of 0 at those of other levels;
    the ranking of all pairs has the sum of all levels' counts.

    Args:
        scores, labels: (videos, nodes), at least one label positive.
        levels: (nodes,) int.
        video_tops: of all nodes.
        level_tops: by level, of its nodes.
        threads: how many count at once.
    """
    order = ranking_of(scores[labels])

    def count(nodes: np.ndarray) -> dict[int, Tally]:
        counts = {level: empty_tally(order) for level in level_tops}
        for node, values, hits in _columns(scores, labels, nodes):
            level = int(levels[node])
            tally(values, hits, node, video_tops, level_tops[level], order, counts[level])
        return counts

    parts = in_threads(count, np.array_split(np.arange(scores.shape[1]), threads), threads)
    for part in parts[1:]:
        for level, counts in part.items():
            parts[0][level].pairs[:] += counts.pairs
            parts[0][level].hits[:] += counts.hits
    return parts[0]


def class_average_precision(
    scores: np.ndarray,
    labels: np.ndarray,
    levels: np.ndarray,
    video_tops: Tops,
    level_tops: dict[int, Tops],
    threads: int,
) -> np.ndarray:
    """Average precision of each node's own ranking of videos: (nodes, 3) float64; NaN without a positive.

    Columns: all videos enter the ranking (ANY), or only those whose `TOP_OF_VIDEO` or `TOP_OF_LEVEL` holds the node.
    Arguments as `count_pooled`.
    """
    values = np.full((scores.shape[1], 3), np.nan)

    def count(nodes: np.ndarray) -> None:
        for node, column, hits in _columns(scores, labels, nodes):
            positives = np.count_nonzero(hits)
            if not positives:
                continue
            order = ranking_of(column[hits])
            counts = empty_tally(order)
            tally(column, hits, node, video_tops, level_tops[int(levels[node])], order, counts)
            values[node] = [average_precision_of(counts.pairs[k], counts.hits[k], positives) for k in range(3)]

    in_threads(count, np.array_split(np.arange(scores.shape[1]), threads), threads)
    return values


def _columns(scores: np.ndarray, labels: np.ndarray, nodes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for begin in range(0, len(nodes), _COLUMNS):
        chosen = nodes[begin : begin + _COLUMNS]
        columns, hits = (np.empty((len(chosen), len(scores)), each.dtype) for each in (scores, labels))
        _copy_columns(scores, chosen, columns)
        _copy_columns(labels, chosen, hits)
        yield from zip(chosen.tolist(), columns, hits, strict=True)


@compiled
def _copy_columns(matrix, nodes, columns):
    """Transpose some columns, few videos at a time, so that each cache line is read once: 5 times numpy's speed."""
    for begin in range(0, len(matrix), _ROWS):
        for number, node in enumerate(nodes):
            for video in range(begin, min(begin + _ROWS, len(matrix))):
                columns[number, video] = matrix[video, node]
