"""Paired bootstrap over videos: weights of videos and the replicates that they give."""

import functools

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


def block_weights(videos: int, seed: int, block: int):
    """Yield (rows, BLOCK) uint8 weights of one block of replicates, a few videos at a time.

    The vector of a replicate depends on `videos`, `seed` and its number alone, so that any can be made again.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, block])))
    table = _weight_table()
    for begin in range(0, videos, _ROWS):
        rows = min(_ROWS, videos - begin)
        yield table[generator.integers(0, 1 << 16, (rows, BLOCK), np.uint16)]


def weight_vectors(videos: int, seed: int, replicates: int) -> np.ndarray:
    """(videos, replicates) uint8: the weights of the first replicates."""
    blocks = [np.concatenate(list(block_weights(videos, seed, block))) for block in range(-(-replicates // BLOCK))]
    return np.ascontiguousarray(np.concatenate(blocks, axis=1)[:, :replicates])


def deviations(influence: np.ndarray, seed: int, replicates: int, threads: int = 1) -> np.ndarray:
    """(replicates, cells) float64: sum_v (w_v - 1) psi_v under every vector of weights.

    Args:
        influence: (cells, videos) float32.
        seed: of the weights.
        replicates: how many.
        threads: how many blocks are simulated at once; the result does not depend on it.
    """
    cells, videos = influence.shape

    def simulate(block: int) -> np.ndarray:
        total, begin = np.zeros((BLOCK, cells)), 0
        for weights in block_weights(videos, seed, block):
            part = influence[:, begin : begin + len(weights)]
            begin += len(weights)
            total += (weights.astype(np.float32) - np.float32(1)).T @ part.T
        return total

    blocks = in_threads(simulate, range(-(-replicates // BLOCK)), threads)
    return np.concatenate(blocks)[:replicates]
