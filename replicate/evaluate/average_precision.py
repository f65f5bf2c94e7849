"""Average precision of one ranking under weights of videos: its derivative, and its exact value.

Equal scores form one group, and ranks are taken at its end, as in the metrics. With w_v the weight of video v, T_i the
weight of hits and C_i that of all pairs that reach the score of hit i, and P the weight of all positives,

    AP(w) = 1/P sum over hits i of w_i T_i / C_i,
    psi_v = dAP/dw_v at w = 1
          = 1/P [sum over pairs k of v of (hit_k (T_k / C_k + A_k) - B_k) - AP p_v],

where A_k and B_k sum 1/C_i and T_i / C_i^2 over the hits i that pair k reaches, and p_v counts the positives of v. Both
need no order of the pairs, only the highest hit that each one reaches.
"""

from typing import NamedTuple

import numba
import numpy as np

from replicate.evaluate import ranking

compiled = numba.njit(nogil=True, cache=True)
WIDTH = 32  # replicates counted at once; a constant, so that the loops over them become vector instructions


class Placed(NamedTuple):
    """The pairs of a ranking, each at the highest hit that it reaches; hits are numbered by ascending score."""

    place: np.ndarray  # (pairs,) int32: -1 below all hits
    pairs: np.ndarray  # (hits,) int64: pairs placed there; of equal hits the last has all
    hits: np.ndarray  # (hits,) int64: of them, hits


def place_pairs(scores: np.ndarray, hits: np.ndarray) -> Placed:
    """Place pairs.

    Args:
        scores: (pairs,) float32; NaN stands where there is no pair.
        hits: (pairs,) bool, at least one.
    """
    order = ranking.ranking_of(scores[hits])
    placed = Placed(np.empty(len(scores), np.int32), *(np.zeros(len(order.scores), np.int64) for _ in range(2)))
    _place(scores, hits, order, placed)
    return placed


_place_of = ranking._place


@compiled
def _place(scores, hits, order, placed):
    lowest = order.scores[0]
    for pair in range(len(scores)):
        if not scores[pair] >= lowest:
            placed.place[pair] = -1
            continue
        place = _place_of(scores[pair], order)
        placed.place[pair] = place
        placed.pairs[place] += 1
        placed.hits[place] += hits[pair]


class Influence(NamedTuple):
    """What a ranking says, before division by its positives."""

    total: float  # sum over hits of T / C
    of_hit: np.ndarray  # (hits,) float64: T / C + A - B at each place
    of_miss: np.ndarray  # (hits,) float64: - B


def influence(placed: Placed) -> Influence:
    """The sum whose share of the positives is AP, and its derivative by place."""
    reaching, hits_reaching = (np.cumsum(each[::-1])[::-1] for each in (placed.pairs, placed.hits))
    precision = hits_reaching / reaching
    inverse, ratio = np.cumsum(placed.hits / reaching), np.cumsum(placed.hits * precision / reaching)
    return Influence(float((placed.hits * precision).sum()), precision + inverse - ratio, -ratio)


@compiled
def add_influence(placed, hits, videos, per_video, of, rows, scales, out):
    """Add scale x the derivative of a ranking's sum to out[row, video], for all its pairs and some rows.

    Args:
        placed, hits: of the pairs.
        videos: (pairs / per_video,) int: pairs p to p + per_video - 1 are of videos[p // per_video].
        of: `Influence`.
        rows, scales: of equal length.
        out: (rows, videos of the union) float64, changed in place.
    """
    for number in range(len(videos)):
        value = 0.0
        for pair in range(number * per_video, (number + 1) * per_video):
            place = placed.place[pair]
            if place >= 0:
                value += of.of_hit[place] if hits[pair] else of.of_miss[place]
        if value != 0.0:
            for k in range(len(rows)):
                out[rows[k], videos[number]] += value * scales[k]


@compiled
def weighted_totals(placed, hits, videos, per_video, weights):
    """Sum over hits of w T / C, and of w, under each column of `weights` (videos of the union, WIDTH) uint8.

    Returns:
        ((WIDTH,) float64, (WIDTH,) int32).
    """
    bins = len(placed.pairs)
    pairs, hit_weights = np.zeros((bins, WIDTH), np.int32), np.zeros((bins, WIDTH), np.int32)
    for number in range(len(videos)):
        video = videos[number]
        for pair in range(number * per_video, (number + 1) * per_video):
            place = placed.place[pair]
            if place >= 0:
                for lane in range(WIDTH):
                    pairs[place, lane] += weights[video, lane]
                if hits[pair]:
                    for lane in range(WIDTH):
                        hit_weights[place, lane] += weights[video, lane]
    reaching, hits_reaching = np.zeros(WIDTH, np.int32), np.zeros(WIDTH, np.int32)
    total = np.zeros(WIDTH)
    for place in range(bins - 1, -1, -1):
        for lane in range(WIDTH):
            reaching[lane] += pairs[place, lane]
            hits_reaching[lane] += hit_weights[place, lane]
        if placed.hits[place]:
            for lane in range(WIDTH):
                total[lane] += hit_weights[place, lane] * (hits_reaching[lane] / max(reaching[lane], 1))
    return total, hits_reaching
