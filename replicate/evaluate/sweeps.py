"""Compiled sweeps over a sorted ranking: influence values and weighted replicates of average precision.

A ranking lists (video, hit) pairs by descending score; equal scores form one group, and ranks are taken at its end.
Draws are walked together: every pair counts in each draw that its video belongs to. With w_v the weight of video v, T_i
the weight of hits and C_i that of all pairs ranked at or above the group of i, P the weight of all positives,

    AP(w) = 1/P sum over hits i of w_i T_i / C_i,
    psi_v = dAP/dw_v at w = 1
          = 1/P [sum over pairs k of v of (hit_k (T_k / C_k + A_k) - B_k) - AP p_v],

where A_k and B_k sum 1/C_i and T_i/C_i^2 over the hits i in the group of k or below, and p_v counts the positives of v.
"""

from typing import NamedTuple

import numba
import numpy as np

compiled = numba.njit(nogil=True, cache=True)


class Ranking(NamedTuple):
    """Pairs by descending score, cut after the group of the last hit, which nothing below can change."""

    video: np.ndarray  # (pairs,) int32
    hit: np.ndarray  # (pairs,) bool
    end: np.ndarray  # (pairs,) bool: the last of its group of equal scores


def rank_pairs(scores: np.ndarray, hits: np.ndarray, per_video: int = 1) -> Ranking:
    """Sort pairs.

    Args:
        scores: (pairs,) float32, finite; NaN marks a place without a pair.
        hits: (pairs,) bool.
        per_video: pairs p to p + per_video - 1 belong to video p // per_video.
    """
    keys = np.sort(_keys(scores, hits))
    return Ranking(*_unpack(keys, hits, per_video))


@compiled
def _keys(scores, hits):
    """uint64 keys that sort by descending score, then by index; only of pairs at or above the lowest hit."""
    lowest = np.float32(np.inf)
    for k in range(len(scores)):
        if hits[k] and scores[k] < lowest:
            lowest = scores[k]
    count = 0
    for k in range(len(scores)):
        count += scores[k] >= lowest
    keys = np.empty(count, np.uint64)
    bits = scores.view(np.uint32)
    place = 0
    for k in range(len(scores)):
        if scores[k] >= lowest:
            word = bits[k] if scores[k] != 0 else np.uint32(0)  # -0.0 equals 0.0
            descending = word if word >> np.uint32(31) else ~(word | np.uint32(0x80000000))
            keys[place] = (np.uint64(descending) << np.uint64(32)) | np.uint64(k)
            place += 1
    return keys


@compiled
def _unpack(keys, hits, per_video):
    count = len(keys)
    video, hit, end = np.empty(count, np.int32), np.empty(count, np.bool_), np.empty(count, np.bool_)
    for place in range(count):
        index = np.int64(keys[place] & np.uint64(0xFFFFFFFF))
        video[place] = index // per_video
        hit[place] = hits[index]
        end[place] = place + 1 == count or keys[place] >> np.uint64(32) != keys[place + 1] >> np.uint64(32)
    return video, hit, end


@compiled
def sums(ranking, offsets, members, draws):
    """(draws,) float64: sum over hits of T / C, the numerator of AP, in every draw."""
    below, hits_below = np.zeros(draws, np.int64), np.zeros(draws, np.int64)
    pending = np.zeros(draws, np.int64)
    result = np.zeros(draws)
    for k in range(len(ranking.video)):
        video = ranking.video[k]
        for place in range(offsets[video], offsets[video + 1]):
            below[members[place]] += 1
            pending[members[place]] += ranking.hit[k]
        if ranking.end[k]:
            for draw in range(draws):
                if pending[draw]:
                    hits_below[draw] += pending[draw]
                    result[draw] += pending[draw] * (hits_below[draw] / below[draw])
                    pending[draw] = 0
    return result


@compiled
def add_influence(ranking, offsets, members, scale, also_scale, out, also_out):
    """Add the part of the influence values that the ranking gives, without - AP p_v / P, to two sums.

    Args:
        ranking: of all draws together.
        offsets, members: draws of every video in compressed rows.
        scale, also_scale: (draws,) factor of each draw in either sum, 1 / P with whatever average follows.
        out, also_out: (videos,) float64, changed in place.
    """
    draws = len(scale)
    pairs, hits = np.zeros(draws, np.int64), np.zeros(draws, np.int64)
    for k in range(len(ranking.video)):
        video = ranking.video[k]
        for place in range(offsets[video], offsets[video + 1]):
            pairs[members[place]] += 1
            hits[members[place]] += ranking.hit[k]
    inverse, ratio = np.zeros(draws), np.zeros(draws)  # A and B of the formula
    group_pairs, group_hits = np.zeros(draws, np.int64), np.zeros(draws, np.int64)
    stop = len(ranking.video)
    while stop > 0:
        start = stop - 1
        while start > 0 and not ranking.end[start - 1]:
            start -= 1
        for k in range(start, stop):
            video = ranking.video[k]
            for place in range(offsets[video], offsets[video + 1]):
                group_pairs[members[place]] += 1
                group_hits[members[place]] += ranking.hit[k]
        for k in range(start, stop):  # each draw once: its counters are folded in by the first pair that it has
            video = ranking.video[k]
            for place in range(offsets[video], offsets[video + 1]):
                draw = members[place]
                if group_hits[draw] > 0:
                    inverse[draw] += group_hits[draw] / pairs[draw]
                    ratio[draw] += group_hits[draw] * (hits[draw] / pairs[draw]) / pairs[draw]
                    group_hits[draw] = -group_hits[draw]
        for k in range(start, stop):
            video = ranking.video[k]
            for place in range(offsets[video], offsets[video + 1]):
                draw = members[place]
                value = -ratio[draw]
                if ranking.hit[k]:
                    value += hits[draw] / pairs[draw] + inverse[draw]
                out[video] += value * scale[draw]
                also_out[video] += value * also_scale[draw]
        for k in range(start, stop):
            video = ranking.video[k]
            for place in range(offsets[video], offsets[video + 1]):
                draw = members[place]
                pairs[draw] -= group_pairs[draw]
                hits[draw] += group_hits[draw]
                group_pairs[draw] = group_hits[draw] = 0
        stop = start


@compiled
def weighted_sums(ranking, offsets, members, weights, draws):
    """(draws, replicates) float64: sum over hits of w T / C, for every column of weights (videos, replicates) uint8."""
    lanes = weights.shape[1]
    below, hits_below = np.zeros((draws, lanes), np.int32), np.zeros((draws, lanes), np.int32)
    pending, waits = np.zeros((draws, lanes), np.int32), np.zeros(draws, np.bool_)
    result = np.zeros((draws, lanes))
    for k in range(len(ranking.video)):
        video = ranking.video[k]
        for place in range(offsets[video], offsets[video + 1]):
            draw = members[place]
            for lane in range(lanes):
                below[draw, lane] += weights[video, lane]
            if ranking.hit[k]:
                waits[draw] = True
                for lane in range(lanes):
                    pending[draw, lane] += weights[video, lane]
        if ranking.end[k]:
            for draw in range(draws):
                if waits[draw]:
                    waits[draw] = False
                    for lane in range(lanes):
                        hits_below[draw, lane] += pending[draw, lane]
                        if below[draw, lane] > 0:
                            precision = hits_below[draw, lane] / below[draw, lane]
                            result[draw, lane] += pending[draw, lane] * precision
                        pending[draw, lane] = 0
    return result
