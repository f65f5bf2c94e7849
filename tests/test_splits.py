"""Claims: a split has exactly the videos that are asked for, each in one role; it depends on ids and seed alone; draws
are disjoint where the pool allows, and else said not to be; what does not fit is refused with a sentence."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.data import splits
from replicate.data.splits import Split, make_split, rank
from replicate.errors import ConfigurationError


def ids(count):
    return np.array([f"v{number:04d}".encode() for number in range(count)])


def sizes(split):
    return len(split.train), len(split.tune), len(split.pool)


AMOUNTS = st.integers(1, 40) | st.floats(0.01, 0.6) | st.just("rest")


@settings(max_examples=300)
@given(st.integers(3, 120), st.integers(0, 9), AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 4), st.integers(1, 20))
def test_counts_are_exact_or_refused(total, seed, train, tune, pool, draws, size):
    wanted = [train, tune, pool]
    counts = [round(each * total) if isinstance(each, float) else each for each in wanted]
    if counts.count("rest") == 1:
        counts[counts.index("rest")] = total - sum(each for each in counts if each != "rest")
    possible = "rest" not in counts and min(counts) >= 1 and sum(counts) <= total and size <= counts[2]
    if not possible:
        with pytest.raises(ConfigurationError, match="^split"):
            make_split(ids(total), seed, train, tune, pool, draws, size)
        return
    split = make_split(ids(total), seed, train, tune, pool, draws, size)
    assert list(sizes(split)) == counts
    rows = np.concatenate([split.train, split.tune, split.pool])
    assert len(set(rows.tolist())) == len(rows) and set(rows.tolist()) <= set(range(total))
    assert split.draws.shape == (draws, size)
    assert split.draws.min() >= 0 and split.draws.max() < counts[2]
    assert all(len(set(draw)) == size and list(draw) == sorted(draw) for draw in split.draws.tolist())
    assert split.disjoint == (draws * size <= counts[2])
    assert not split.disjoint or len(set(split.draws.ravel().tolist())) == draws * size


@settings(max_examples=50)
@given(st.permutations(range(60)), st.integers(0, 3))
def test_roles_follow_the_video_not_its_place(order, seed):
    names = ids(60)
    one = make_split(names, seed, 30, 10, "rest", 2, 10)
    two = make_split(names[list(order)], seed, 30, 10, "rest", 2, 10)
    for role in ("train", "tune", "pool"):
        assert names[getattr(one, role)].tolist() == names[list(order)][getattr(two, role)].tolist()
    assert np.array_equal(one.draws, two.draws)


def test_more_videos_leave_the_ranks_as_they_were():
    few, many = rank(ids(50), 3), rank(ids(500), 3)
    assert np.array_equal(few, many[:50])


def test_ids_of_equal_rank_are_ordered_by_themselves(monkeypatch):
    names = ids(200)[np.random.default_rng(0).permutation(200)]
    monkeypatch.setattr(splits, "rank", lambda given, seed: np.arange(len(given), dtype=np.uint64) % 7)
    order = splits._in_order_of_rank(names, 0)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(200), key=lambda row: (row % 7, names[row]))


def test_ranks_are_the_same_in_any_blocks(monkeypatch):
    whole = rank(ids(100), 2)
    for block in (1, 7, 100):
        monkeypatch.setattr(splits, "_BLOCK", block)
        assert np.array_equal(rank(ids(100), 2), whole)


def test_ranks_are_the_keyed_hash_of_the_id():
    expected = hashlib.blake2b(b"v0001", digest_size=8, key=b"split 4").digest()
    assert rank(ids(2), 4)[1] == int.from_bytes(expected, "big")
    assert rank(ids(3), 0).tolist() == [13333825208822735487, 15969704726271172126, 17008038563417281536]


KNOWN = {
    "train": "81e816ecce4625e2d6e9c55ece5a0aa705d2f0a3a4d2e0718ab1f9bad8566554",
    "tune": "f012102405ba1be2866c58f8258d702530b51855d97c2d5981facd1b632a9f9d",
    "pool": "6614c8124ddc77ace6bcf7e5acc0eefc9995b4b9e7fa72a7d52039bd49710b3b",
    "draws": "0c3fc3e2e8b0514136a044efedc6d6aa32df05e1f58c8cca9cc665e1521f4c8c",
    "overlapping": "2cfae20f0a3b65e63cfbab655b0b9aa8d80d948da6fb82b418da297e4157037e",
}


def digest(rows):
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def test_known_splits():
    split = make_split(ids(1000), 0, 400, 100, "rest", 5, 100)
    assert split.disjoint
    assert {role: digest(getattr(split, role)) for role in ("train", "tune", "pool", "draws")} == {
        role: value for role, value in KNOWN.items() if role != "overlapping"
    }
    overlapping = make_split(ids(1000), 0, 400, 100, "rest", 5, 300)
    assert not overlapping.disjoint
    assert digest(overlapping.draws) == KNOWN["overlapping"]


def test_seeds_give_different_splits():
    trains = {tuple(make_split(ids(40), seed, 20, 5, "rest", 1, 5).train) for seed in range(20)}
    assert len(trains) == 20


def test_shares_are_of_all_videos_and_draws_of_the_pool():
    split = make_split(ids(1000), 0, 0.8, 0.0128, "rest", 5, 0.137)
    assert sizes(split) == (800, 13, 187)
    assert split.draws.shape == (5, 26)


def test_a_dataset_that_comes_divided_stays_divided():
    names = ids(100)
    material = np.arange(0, 100, 3)
    split = make_split(names, 1, "rest", 4, "rest", 2, 10, training_rows=material)
    assert sizes(split) == (30, 4, 66)
    assert set(split.train) | set(split.tune) == set(material)
    assert not set(split.pool) & set(material)


def test_overlapping_draws_cover_the_pool_evenly():
    split = make_split(ids(60), 0, 20, 10, "rest", 2000, 20)
    assert not split.disjoint
    counts = np.bincount(split.draws.ravel(), minlength=30)
    assert abs(counts - 2000 * 20 / 30).max() < 6 * np.sqrt(2000 * 2 / 9)


@pytest.mark.parametrize(
    ("amounts", "sentence"),
    [
        ((50, 30, 40), r"split \(train 50, tune 30, pool 40\) asks for 120 videos, but there are 100; lower"),
        ((60, 40, "rest"), r"split \(train 60, tune 40, pool rest\) leaves no video for pool, but there are 100"),
        (("rest", 10, "rest"), "split: train and pool are both 'rest'; give one of them a count"),
        ((50, 10, 5), "split.draw_size is 10 videos, but the pool has 5; choose 1 to 5"),
        ((0.001, 10, "rest"), "leaves no video for train"),
    ],
)
def test_what_does_not_fit_is_a_sentence(amounts, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make_split(ids(100), 0, *amounts, 2, 10)


def test_a_video_with_two_roles_is_refused():
    for one, other in itertools.combinations(("train", "tune", "pool"), 2):
        roles = {"train": np.array([0, 1]), "tune": np.array([2]), "pool": np.array([3, 4])}
        roles[one] = np.append(roles[one], roles[other][0])
        with pytest.raises(ConfigurationError, match="a video has two roles"):
            splits._refuse_overlap(Split(**roles, draws=np.zeros((1, 1), np.int64), disjoint=True))


def test_saved_and_opened_it_is_the_same(tmp_path):
    for size in (10, 40):
        split = make_split(ids(100), 0, 30, 10, "rest", 2, size)
        split.save(tmp_path / str(size))
        opened = Split.open(tmp_path / str(size))
        for role in ("train", "tune", "pool", "draws"):
            assert np.array_equal(getattr(opened, role), getattr(split, role))
        assert opened.disjoint == split.disjoint
