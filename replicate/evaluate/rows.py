"""Rows of a pool's score matrix that the draws use, read in blocks: a memory-mapped matrix stays on the disk."""

import numpy as np

from replicate.evaluate.average_precision import compiled

BLOCK = 1 << 13  # videos at a time
_NODES, _VIDEOS = 16, 512  # a tile of a transpose: a cache line of scores, as many videos as stay in the cache


class Rows:
    """The rows `videos` of a (pool videos, nodes) float32 matrix."""

    def __init__(self, scores: np.ndarray, videos: np.ndarray):
        if scores.dtype != np.float32:
            raise ValueError(f"scores must be float32, not {scores.dtype}")
        self._scores, self._videos = np.asarray(scores), videos

    def __len__(self) -> int:
        return len(self._videos)

    def block(self, begin: int) -> np.ndarray:
        """(at most BLOCK, nodes) float32, contiguous: rows from `begin` on."""
        return self._scores[self._videos[begin : begin + BLOCK]]

    def columns(self, first: int, out: np.ndarray) -> None:
        """Fill `out`, (nodes, rows) float32, with the scores of consecutive nodes from `first` on, node by node."""
        _transpose(self._scores, self._videos, first, out)


@compiled
def _transpose(scores, videos, first, columns):
    """Tile by tile, so that each cache line is read once."""
    for begin in range(0, len(videos), _VIDEOS):
        end = min(begin + _VIDEOS, len(videos))
        for node in range(0, len(columns), _NODES):
            for number in range(node, min(node + _NODES, len(columns))):
                for place in range(begin, end):
                    columns[number, place] = scores[videos[place], first + number]
