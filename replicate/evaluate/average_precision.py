"""Average precision of one ranking under weights of videos: its derivative, and its exact value.

Equal scores form one group, and ranks are taken at its end, as in the metrics. With w_v the weight of video v, T_i the
weight of hits and C_i that of all pairs that reach the score of hit i, and P the weight of all positives,

    AP(w) = 1/P sum over hits i of w_i T_i / C_i,
    psi_v = dAP/dw_v at w = 1
          = 1/P [sum over pairs k of v of (hit_k (T_k / C_k + A_k) - B_k) - AP p_v],

where A_k and B_k sum 1/C_i and T_i / C_i^2 over the hits i that pair k reaches, and p_v counts the positives of v. So
only hits are sorted; every other pair is placed at the highest hit that it reaches.
"""

from typing import NamedTuple

import numba
import numpy as np

from replicate.evaluate import ranking

compiled = numba.njit(nogil=True, cache=True)


class Placed(NamedTuple):
    """The pairs of a ranking that reach a hit, and the hits among them; hits are numbered by ascending score."""

    video: np.ndarray  # (pairs,) int32
    place: np.ndarray  # (pairs,) int32: the highest hit reached; of equal hits the last
    hit_video: np.ndarray  # (hits,) int32
    hit_place: np.ndarray  # (hits,) int32
    pairs: np.ndarray  # (hits,) int64: how many are at each place
    hits: np.ndarray  # (hits,) int64: of them, hits


class ByScore(NamedTuple):
    """The same by descending score: those at the k-th place from above are video[start[k] : start[k + 1]]."""

    start: np.ndarray
    video: np.ndarray
    hit_start: np.ndarray
    hit_video: np.ndarray


class Influence(NamedTuple):
    """What a ranking says, before division by its positives."""

    total: float  # sum over hits of T / C
    of_hit: np.ndarray  # (hits,) float64: T / C + A - B at each place
    of_miss: np.ndarray  # (hits,) float64: - B


def place_pairs(scores: np.ndarray, hits: np.ndarray, videos: np.ndarray) -> Placed:
    """Place pairs.

    Args:
        scores: (pairs,) float32; NaN stands where there is no pair.
        hits: (pairs,) bool, at least one.
        videos: (n,) int: the pairs are n equal runs, one per video.
    """
    order = ranking.ranking_of(scores[hits])
    inside = _inside(scores, order.scores[0])
    return Placed(*_place(scores, hits, inside, videos, len(scores) // len(videos), order))


@compiled
def _inside(scores, lowest):
    """Numbers of the pairs that reach the lowest hit. No branch, because none could be foreseen."""
    inside, count = np.empty(len(scores) + 1, np.int32), 0
    for pair in range(len(scores)):
        inside[count] = pair
        count += scores[pair] >= lowest
    return inside[:count]


_place_of = ranking._place


@compiled
def _place(scores, hits, inside, videos, per_video, order):
    count = len(order.scores)
    video, place = np.empty(len(inside), np.int32), np.empty(len(inside), np.int32)
    hit_video, hit_place = np.empty(count, np.int32), np.empty(count, np.int32)
    pairs_at, hits_at, found = np.zeros(count, np.int64), np.zeros(count, np.int64), 0
    for number in range(len(inside)):
        pair = inside[number]
        video[number], place[number] = videos[pair // per_video], _place_of(scores[pair], order)
        pairs_at[place[number]] += 1
        if hits[pair]:
            hit_video[found], hit_place[found] = video[number], place[number]
            hits_at[place[number]] += 1
            found += 1
    return video, place, hit_video, hit_place, pairs_at, hits_at


def influence(placed: Placed) -> Influence:
    """The sum whose share of the positives is AP, and its derivative by place."""
    reaching, hits_reaching = (np.cumsum(each[::-1])[::-1] for each in (placed.pairs, placed.hits))
    precision = hits_reaching / reaching
    inverse, ratio = np.cumsum(placed.hits / reaching), np.cumsum(placed.hits * precision / reaching)
    return Influence(float((placed.hits * precision).sum()), precision + inverse - ratio, -ratio)


@compiled
def add_influence(placed, of, rows, scales, out):
    """Add scale x the derivative of a ranking's sum to out[row, video], for all its pairs and some rows.

    Args:
        placed: the pairs.
        of: `Influence`.
        rows, scales: of equal length.
        out: (rows, videos) float64, changed in place.
    """
    for k in range(len(rows)):
        sums = out[rows[k]]
        for pair in range(len(placed.video)):
            sums[placed.video[pair]] += of.of_miss[placed.place[pair]] * scales[k]
        for hit in range(len(placed.hit_video)):
            place = placed.hit_place[hit]
            sums[placed.hit_video[hit]] += (of.of_hit[place] - of.of_miss[place]) * scales[k]


def by_score(placed: Placed) -> ByScore:
    """Sort the pairs by counting."""
    hits = _by_score(placed.hit_video, placed.hit_place, placed.hits)
    return ByScore(*_by_score(placed.video, placed.place, placed.pairs), *hits)


@compiled
def _by_score(video, place, counts):
    places = len(counts)
    start = np.zeros(places + 1, np.int64)
    for k in range(places):
        start[k + 1] = start[k] + counts[places - 1 - k]
    following, ordered = start[:-1].copy(), np.empty(len(video), np.int32)
    for number in range(len(video)):
        k = places - 1 - place[number]
        ordered[following[k]] = video[number]
        following[k] += 1
    return start, ordered


@compiled
def weighted_totals(ranked, weights, in_a_byte):
    """Sum over hits of w T / C, and of w, under each column of `weights`.

    A video's weights are fetched from anywhere in memory, which takes most of the time; so all replicates are counted
    in one walk down the ranking, first in bytes, of which a vector instruction adds the most.

    Args:
        ranked: `ByScore`.
        weights: (videos, replicates) uint8, contiguous.
        in_a_byte: how many weights of one replicate can be added before a byte overflows.

    Returns:
        ((replicates,) float64, (replicates,) int32).
    """
    lanes = weights.shape[1]
    reaching, hits_reaching, group = np.zeros(lanes, np.int32), np.zeros(lanes, np.int32), np.zeros(lanes, np.int32)
    total, part = np.zeros(lanes), np.empty(lanes, np.uint8)
    for k in range(len(ranked.start) - 1):
        for begin in range(ranked.start[k], ranked.start[k + 1], in_a_byte):
            part[:] = 0
            for number in range(begin, min(begin + in_a_byte, ranked.start[k + 1])):
                row = weights[ranked.video[number]]
                for lane in range(lanes):
                    part[lane] += row[lane]
            for lane in range(lanes):
                reaching[lane] += part[lane]
        if ranked.hit_start[k + 1] > ranked.hit_start[k]:
            group[:] = 0
            for number in range(ranked.hit_start[k], ranked.hit_start[k + 1]):
                row = weights[ranked.hit_video[number]]
                for lane in range(lanes):
                    group[lane] += row[lane]
            for lane in range(lanes):
                hits_reaching[lane] += group[lane]
                total[lane] += np.float64(group[lane]) * hits_reaching[lane] / max(np.float64(reaching[lane]), 1.0)
    return total, hits_reaching
