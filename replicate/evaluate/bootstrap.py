"""Paired bootstrap over videos: weights of videos and the replicates that they give."""

import functools
from collections.abc import Iterator

import numpy as np

from replicate.evaluate.threads import in_threads

BLOCK = 64  # replicates that share one stream of random numbers
_ROWS = 1 << 13

# How many of 65,536 equally likely numbers stand for each weight 0, 1, 2, ...: Poisson with mean 1, rounded such that
# mean and variance are exactly 1.
WEIGHT_COUNTS = (24109, 24110, 12055, 4017, 1005, 201, 34, 4, 1)


@functools.cache
def _weight_table() -> np.ndarray:
    return np.repeat(np.arange(len(WEIGHT_COUNTS), dtype=np.uint8), WEIGHT_COUNTS)


def _draw_block(videos: int, seed: int, block: int, table: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (rows, BLOCK) values table[weight] of one block of replicates, a few videos at a time.

    The vector of a replicate depends on `videos`, `seed` and its number alone, so that any can be made again.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, block])))
    for begin in range(0, videos, _ROWS):
        yield np.take(table, generator.integers(0, 1 << 16, (min(_ROWS, videos - begin), BLOCK), np.uint16))


def weight_vectors(videos: int, seed: int, replicates: int, first: int = 0) -> np.ndarray:
    """(videos, replicates) uint8: weights of replicate `first`, a multiple of BLOCK, and of those after it, at least as
    many as are asked for."""
    weights = np.empty((videos, -(-replicates // BLOCK) * BLOCK), np.uint8)
    for column in range(0, weights.shape[1], BLOCK):
        begin = 0
        for part in _draw_block(videos, seed, (first + column) // BLOCK, _weight_table()):
            weights[begin : begin + len(part), column : column + BLOCK] = part
            begin += len(part)
    return weights


def deviations(influence: np.ndarray, seed: int, replicates: int, threads: int = 1) -> np.ndarray:
    """(replicates, cells) float64: sum_v (w_v - 1) psi_v under every vector of weights.

    Args:
        influence: (cells, videos) float32.
        seed: of the weights.
        replicates: how many.
        threads: how many blocks are simulated at once; the result does not depend on it.
    """
    cells, videos = influence.shape
    centred = _weight_table().astype(np.float32) - 1

    def simulate(block: int) -> np.ndarray:
        total, begin = np.zeros((cells, BLOCK)), 0
        for weights in _draw_block(videos, seed, block, centred):
            total += influence[:, begin : begin + len(weights)] @ weights
            begin += len(weights)
        return total

    blocks = in_threads(simulate, range(-(-replicates // BLOCK)), threads)
    return np.concatenate(blocks, axis=1)[:, :replicates].T
