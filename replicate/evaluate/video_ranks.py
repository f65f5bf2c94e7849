"""What each video's own ranking says: its highest nodes overall and per level, PERR and Hit@1. Compiled."""

from typing import NamedTuple

import numpy as np

from replicate.evaluate.average_precision import compiled
from replicate.evaluate.draws import SparseLabels
from replicate.evaluate.ranking import select_highest
from replicate.evaluate.rows import BLOCK, Rows
from replicate.evaluate.threads import in_threads


class VideoRanks(NamedTuple):
    """Per group of nodes (0: all; 1 + l: level l) and video."""

    score: np.ndarray  # (groups, videos, top_k) float32, descending; NaN where there are fewer nodes
    hit: np.ndarray  # (groups, videos, top_k) bool
    perr: np.ndarray  # (groups, videos) float64: precision at equal recall rate; NaN without a positive
    first: np.ndarray  # (groups, videos) float64: 1 where the highest node is positive, else 0; NaN without a positive


def rank_videos(
    rows: Rows, labels: SparseLabels, levels: np.ndarray, groups: int, top_k: int, threads: int
) -> VideoRanks:
    """Rank the nodes of every video.

    Args:
        rows: scores of the videos.
        labels: of the same videos.
        levels: (nodes,) int64.
        groups: 1 + the number of levels.
        top_k: nodes that are kept.
        threads: how many rank at once.
    """
    ranks = VideoRanks(
        np.full((groups, len(rows), top_k), np.nan, np.float32), np.zeros((groups, len(rows), top_k), bool),
        *(np.full((groups, len(rows)), np.nan) for _ in range(2)),
    )  # fmt: skip
    nodes = _group_nodes(levels, groups)

    def rank(begin: int) -> None:
        _rank_block(rows.block(begin), labels.offsets, labels.values, *nodes, begin, ranks)

    in_threads(rank, range(0, len(rows), BLOCK), threads)
    return ranks


def _group_nodes(levels: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of every group in compressed rows: group 0 is all nodes, group 1 + l those of level l, each ascending."""
    lists = [np.arange(len(levels)), *(np.flatnonzero(levels == level) for level in range(groups - 1))]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    return offsets.astype(np.int64), np.concatenate(lists).astype(np.int64)


@compiled
def _rank_block(scores, label_offsets, label_values, group_offsets, node_lists, first_video, out):
    """Fill `out` for videos first_video ... of which `scores` (videos, nodes) are the scores."""
    groups, top_k = len(group_offsets) - 1, out.score.shape[2]
    positive = np.zeros(scores.shape[1], np.bool_)
    best_score, best_node = np.empty(scores.shape[1], np.float32), np.empty(scores.shape[1], np.int64)
    for row in range(len(scores)):
        video = first_video + row
        labels = label_values[label_offsets[video] : label_offsets[video + 1]]
        for node in labels:
            positive[node] = True
        for group in range(groups):
            nodes = node_lists[group_offsets[group] : group_offsets[group + 1]]
            wanted = 0
            for node in nodes:
                wanted += positive[node]
            filled = select_highest(scores[row], nodes, min(len(nodes), max(top_k, wanted)), best_score, best_node)
            for place in range(min(top_k, filled)):
                out.score[group, video, place] = best_score[place]
                out.hit[group, video, place] = positive[best_node[place]]
            if wanted:
                found = 0
                for place in range(wanted):
                    found += positive[best_node[place]]
                out.perr[group, video] = found / wanted
                out.first[group, video] = 1.0 if positive[best_node[0]] else 0.0
        for node in labels:
            positive[node] = False


@compiled
def average_precision_block(scores, label_offsets, label_values, first_video, out):
    """Fill out[first_video ...] with the average precision of each video's own ranking of all nodes, ties as one group;
    NaN without a positive."""
    for row in range(len(scores)):
        video = first_video + row
        labels = label_values[label_offsets[video] : label_offsets[video + 1]]
        total = 0.0
        for node in labels:
            reached = hits = 0
            for score in scores[row]:
                reached += score >= scores[row, node]
            for other in labels:
                hits += scores[row, other] >= scores[row, node]
            total += hits / reached
        out[video] = total / len(labels) if len(labels) else np.nan
