"""Claims: an order is a permutation, a pure function of (seed, epoch) that no version of numpy may change; shards are
read one after the other and a row moves by less than the window; processes read disjoint parts of every batch that are
together exactly the epoch, whatever their number; a resumed epoch goes on with the next record."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate.data.order import epoch_order, shard_order, share

SEEDS, EPOCHS = st.integers(0, 2**32 - 1), st.integers(1, 1000)


def corpus(counts, every=1):
    """Rows (every n-th of a corpus with so many records per shard) and the shard of each row of the corpus."""
    shards = np.repeat(np.arange(len(counts)), counts)
    return np.arange(0, len(shards), every), shards


corpora = st.builds(corpus, st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 3))


def digest(order):
    return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()


KNOWN = {  # the raw output of Philox is guaranteed to stay as it is
    (0, 1): "898072e28d15b7a66ffd03e473b9514a68f179be6a723ee21da240b41b80596c",  # 693, 882, 175, 819, ...
    (7, 3): "158cd891ddfebf4b372b0a0323c7ef6592c85f3ba587fd5e92de7f612ce61cd1",  # 899, 840, 953, 481, ...
}
KNOWN_SHARDS = "1ed9b02afcf2ead353e44a6bebbc2b890fecfee896296f617d2a6794e170bb8d"


@pytest.mark.parametrize(("seed", "epoch"), KNOWN)
def test_known_orders(seed, epoch):
    assert digest(epoch_order(np.arange(1000), seed, epoch)) == KNOWN[seed, epoch]


@given(SEEDS, EPOCHS, st.integers(1, 200))
def test_order_is_a_permutation_and_touches_no_global_state(seed, epoch, count):
    rows = np.arange(count) * 3 + 1
    np.random.seed(count)
    before = np.random.get_state()[1].tolist()
    order = epoch_order(rows, seed, epoch)
    assert np.array_equal(np.sort(order), rows)
    assert np.array_equal(order, epoch_order(rows, seed, epoch))
    assert np.random.get_state()[1].tolist() == before


def test_orders_of_seeds_and_epochs_differ():
    orders = {tuple(epoch_order(np.arange(50), seed, epoch)) for seed in range(6) for epoch in range(1, 7)}
    assert len(orders) == 36


def test_places_are_uniform():
    """Each of 12 rows is about equally often at each of 12 places: chi-squared, 121 degrees of freedom, p > 1e-6."""
    counts = np.zeros((12, 12))
    for epoch in range(3000):
        counts[np.arange(12), epoch_order(np.arange(12), 5, epoch)] += 1
    assert ((counts - 250) ** 2 / 250).sum() < 210


def test_a_known_order_of_shards():
    rows, shards = corpus([100] * 10)
    assert digest(shard_order(rows, 0, 1, shards, 64)) == KNOWN_SHARDS


@pytest.mark.parametrize("window", [1, 7, 64, 2**31])
def test_order_of_shards_by_its_definition(window):
    """In Python's whole numbers, which cannot overflow."""

    def raw(count, *seed):
        return np.random.Philox(np.random.SeedSequence(seed)).random_raw(count).tolist()

    rows, shards = corpus([5, 0, 9, 1, 12])
    drawn = dict(zip([0, 2, 3, 4], raw(4, 3, 9, 1), strict=True))  # shard 1 has no rows
    sequence = sorted(rows.tolist(), key=lambda row: (drawn[shards[row]], row))
    keys = [(place << 32) + (each >> 32) * window for place, each in enumerate(raw(len(rows), 3, 9, 2))]
    expected = [row for _, row in sorted(zip(keys, sequence, strict=True))]
    assert shard_order(rows, 3, 9, shards, window).tolist() == expected


@given(corpora, SEEDS, EPOCHS, st.integers(1, 400))
def test_shards_are_read_one_after_the_other_within_the_window(made, seed, epoch, window):
    rows, shards = made
    order = shard_order(rows, seed, epoch, shards, window)
    assert np.array_equal(np.sort(order), rows)
    sequence = shard_order(rows, seed, epoch, shards, 1)
    assert (np.diff(sequence)[np.diff(shards[sequence]) == 0] > 0).all(), "rows of a shard in the order of the file"
    assert np.count_nonzero(np.diff(shards[sequence])) == max(0, len(np.unique(shards[rows])) - 1), "each shard once"
    place = np.empty(len(shards), np.int64)
    place[sequence] = np.arange(len(rows))
    assert len(order) == 0 or np.abs(place[order] - np.arange(len(rows))).max() < window
    assert np.array_equal(order, shard_order(rows[::-1], seed, epoch, shards, window)), "whatever order rows came in"


def test_shards_of_seeds_and_epochs_come_in_different_orders():
    rows, shards = corpus([10] * 8)
    orders = {tuple(shards[shard_order(rows, seed, epoch, shards, 1)]) for seed in range(6) for epoch in range(1, 7)}
    assert len(orders) == 36


def test_a_window_mixes_as_it_says():
    """Displacements are about uniform over one window's width, and no two epochs shuffle alike."""
    rows, shards = corpus([5000])
    moved = np.argsort(shard_order(rows, 0, 1, shards, 400)) - rows
    middle = moved[400:-400]
    assert abs(middle.mean()) < 10 and 105 < middle.std() < 125, "uniform over 400 has a standard deviation of 115"
    assert not np.array_equal(moved, np.argsort(shard_order(rows, 0, 2, shards, 400)) - rows)


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 9), st.data())
def test_parts_of_all_processes_are_exactly_the_batches(count, batch_size, ranks, data):
    order = epoch_order(np.arange(count), 1, 1)
    alone = share(order, batch_size)
    assert [len(batch) for batch in alone] == [batch_size] * (count // batch_size) + [count % batch_size] * (
        count % batch_size > 0
    )
    together = [share(order, batch_size, rank, ranks) for rank in range(ranks)]
    for step, batch in enumerate(alone):
        parts = [each[step] for each in together]
        assert np.concatenate(parts).tolist() == batch.tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {len(each) for each in together} == {len(alone)}, "all processes take the same number of steps"
    done, rank = data.draw(st.integers(0, len(alone) + 1)), data.draw(st.integers(0, ranks - 1))
    resumed = share(order, batch_size, rank, ranks, done)
    assert [part.tolist() for part in resumed] == [part.tolist() for part in together[rank][done:]]
