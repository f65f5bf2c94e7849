"""In which order an epoch reads its videos, and which of them each of several processes reads. Pure functions.

An order is computed whole before the first batch, from (rows, seed, epoch) and named options alone. So a training that
goes on in the middle of an epoch, or with another number of reading workers, meets the same batches; and processes that
train together agree on them without a word.
"""

from collections.abc import Callable

import numpy as np

Order = Callable[[np.ndarray, int, int], np.ndarray]  # (rows, seed, epoch) -> the rows in the epoch's order
_SHARDS, _WITHIN = 1, 2  # third words of the seeds of what `shard_order` draws


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows in the order of one epoch: a pure function of (rows, seed, epoch), equal for every model.

    Every order of all rows is equally likely. Sorts by the raw 64-bit output of Philox, which numpy guarantees to stay
    as it is, rather than use Generator.permutation, which it does not.
    """
    return np.asarray(rows)[np.argsort(_raw(len(rows), seed, epoch), kind="stable")]


def shard_order(rows: np.ndarray, seed: int, epoch: int, shards: np.ndarray, window: int) -> np.ndarray:
    """The rows shard after shard, in a random order of the shards, shuffled within a window: for disks and networks
    that are slow unless they read on from where they are.

    Shards come in a random order, and the rows of each as they lie in the file. Row number i of that sequence gets the
    sorting key i + window * u, with u uniform in [0, 1) and the row's own. So a row moves by less than `window` places,
    commonly by less than half of that, and at any time the next batch comes from about `window` consecutive rows. A
    window of 1 leaves the sequence as it is; one far above the number of rows is as random as `epoch_order`.

    Args:
        rows: (n,) rows of the index.
        seed, epoch: of the order.
        shards: (rows of the index,) the shard of each, as `Index.shard`.
        window: rows, from 1 to 2^31.
    """
    rows = np.sort(rows)
    _, shard = np.unique(np.asarray(shards)[rows], return_inverse=True)
    if not len(rows):
        return rows
    place = np.empty(int(shard.max()) + 1, np.int64)
    place[np.argsort(_raw(len(place), seed, epoch, _SHARDS), kind="stable")] = np.arange(len(place))
    sequence = rows[np.argsort(place[shard], kind="stable")]
    # In units of 2^-32 of a place, so that whole numbers are compared and no rounding can differ between machines.
    jitter = (_raw(len(rows), seed, epoch, _WITHIN) >> np.uint64(32)) * np.uint64(window)
    keys = (np.arange(len(rows), dtype=np.uint64) << np.uint64(32)) + jitter
    return sequence[np.argsort(keys, kind="stable")]


def share(order: np.ndarray, batch_size: int, rank: int = 0, ranks: int = 1, done: int = 0) -> list[np.ndarray]:
    """The rows of every batch that one of several processes reads.

    Batch number b of the epoch is rows b * batch_size to (b + 1) * batch_size of the order, whatever the number of
    processes; the last may be smaller. Each process takes a consecutive part of every batch, and the parts' sizes
    differ by one at most. So all processes take the same number of steps, and the parts of a step, in the order of
    ranks, are exactly the batch that a single process would train on. A part is empty where a batch has fewer rows than
    there are processes: such a process takes the step with a gradient of zeros.

    Args:
        order: the epoch's rows.
        batch_size: rows of a batch, of all processes together.
        rank, ranks: which process of how many.
        done: batches at the begin of the epoch that are left out, because a training goes on behind them.

    Returns:
        One array of rows per batch from number `done` on, views of `order`.
    """
    parts = []
    for begin in range(done * batch_size, len(order), batch_size):
        size = min(batch_size, len(order) - begin)
        parts.append(order[begin + size * rank // ranks : begin + size * (rank + 1) // ranks])
    return parts


def _raw(count: int, *seed: int) -> np.ndarray:
    """(count,) uint64, raw output of Philox."""
    return np.random.Philox(np.random.SeedSequence(list(seed))).random_raw(count)
