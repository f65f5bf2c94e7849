"""Who trains, who tunes, who tests: by rank of a keyed hash of the id, so that neither the order nor the number of
shards matters, and the same id always has the same rank."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import ConfigurationError
from replicate.record import atomic_file

Amount = int | float | str
_BLOCK = 1 << 16  # ids hashed at once


@dataclass(frozen=True)
class Split:
    """Rows of the index, by role.

    Attributes:
        train, tune, pool: row numbers (int64), each in order of rank.
        draws: (draws, draw_size) int64 positions into `pool`, each row of it in ascending order.
        disjoint: no video is in two draws.
    """

    train: np.ndarray
    tune: np.ndarray
    pool: np.ndarray
    draws: np.ndarray
    disjoint: bool

    def save(self, folder: Path) -> None:
        """Write one .npy file per role."""
        for name in ("train", "tune", "pool", "draws"):
            with atomic_file(folder / f"{name}.npy") as file:
                np.save(file, getattr(self, name))

    @classmethod
    def open(cls, folder: Path) -> "Split":
        """Read what `save` wrote."""
        roles = {name: np.load(folder / f"{name}.npy") for name in ("train", "tune", "pool", "draws")}
        drawn = np.zeros(len(roles["pool"]), bool)
        drawn[roles["draws"].ravel()] = True
        return cls(**roles, disjoint=np.count_nonzero(drawn) == roles["draws"].size)


def rank(ids: np.ndarray, seed: int) -> np.ndarray:
    """(n,) uint64 keys that order ids at random: BLAKE2b of the id, keyed with the seed.

    Args:
        ids: (n,) bytes.
        seed: names the order.
    """
    keyed = hashlib.blake2b(digest_size=8, key=f"split {seed}".encode())
    ranks = np.empty(len(ids), np.uint64)
    for begin in range(0, len(ids), _BLOCK):
        hashes = []
        for video in ids[begin : begin + _BLOCK].tolist():
            hashed = keyed.copy()
            hashed.update(video)
            hashes.append(hashed.digest())
        ranks[begin : begin + _BLOCK] = np.frombuffer(b"".join(hashes), ">u8")
    return ranks


def _in_order_of_rank(ids: np.ndarray, seed: int) -> np.ndarray:
    """(n,) int64 row numbers by rank; ids whose 64-bit ranks are equal, by themselves."""
    ranks = rank(ids, seed)
    order = np.argsort(ranks, kind="stable")
    ranked = ranks[order]
    if (ranked[1:] == ranked[:-1]).any():
        order = np.lexsort((ids, ranks))  # orders all the ids first, which takes longer than all the rest
    return order.astype(np.int64, copy=False)


def make_split(
    ids: np.ndarray,
    seed: int,
    train: Amount,
    tune: Amount,
    pool: Amount,
    draws: int,
    draw_size: int | float,
    training_rows: np.ndarray | None = None,
) -> Split:
    """Split a corpus.

    Args:
        ids: (n,) bytes, one per row of the index, all different.
        seed: names the order.
        train, tune, pool: counts of videos, shares of all videos, or "rest".
        draws, draw_size: number of test draws and videos in each (a share is one of the pool).
        training_rows: where a dataset comes divided: train and tune are taken from these rows, the pool from all
            others.

    Raises:
        ConfigurationError: the amounts do not fit the corpus.
    """
    order = _in_order_of_rank(ids, seed)
    if training_rows is None:
        counts = _counts({"train": train, "tune": tune, "pool": pool}, len(ids))
        inside, outside = order[: counts["train"] + counts["tune"]], order[counts["train"] + counts["tune"] :]
    else:
        material = np.zeros(len(ids), bool)
        material[training_rows] = True
        inside, outside = order[material[order]], order[~material[order]]
        counts = _counts({"train": train, "tune": tune}, len(inside)) | _counts({"pool": pool}, len(outside))
    rows = outside[: counts["pool"]]
    size = round(draw_size * len(rows)) if isinstance(draw_size, float) else draw_size
    chosen, disjoint = _draw(len(rows), draws, size, seed)
    tune_end = counts["tune"]
    split = Split(inside[tune_end : tune_end + counts["train"]], inside[:tune_end], rows, chosen, disjoint)
    _refuse_overlap(split)
    return split


def _counts(amounts: dict[str, Amount], total: int) -> dict[str, int]:
    counts = {
        name: round(amount * total) if isinstance(amount, float) else amount
        for name, amount in amounts.items()
        if amount != "rest"
    }
    taken = sum(counts.values())
    rest = [name for name in amounts if name not in counts]
    if len(rest) > 1:
        raise ConfigurationError(f"split: {' and '.join(rest)} are both 'rest'; give one of them a count")
    if rest:
        counts[rest[0]] = total - taken
    empty = [name for name, count in counts.items() if count < 1]
    if taken > total or empty:
        wanted = ", ".join(f"{name} {amount}" for name, amount in amounts.items())
        what = f"leaves no video for {empty[0]}" if empty and taken <= total else f"asks for {taken} videos"
        raise ConfigurationError(f"split ({wanted}) {what}, but there are {total}; lower split.train, tune or pool")
    return counts


def _draw(pool: int, draws: int, size: int, seed: int) -> tuple[np.ndarray, bool]:
    """Disjoint draws where the pool allows: the pool is in random order, so consecutive pieces are random draws.

    Otherwise each draw is of its own, by rank of raw output of Philox, which numpy guarantees to stay as it is.
    """
    if not 1 <= size <= pool:
        raise ConfigurationError(f"split.draw_size is {size} videos, but the pool has {pool}; choose 1 to {pool}")
    if draws * size <= pool:
        return np.arange(draws * size, dtype=np.int64).reshape(draws, size), True
    raw = np.random.Philox(np.random.SeedSequence([seed, 0x0D4A3])).random_raw((draws, pool))
    return np.sort(np.argsort(raw, axis=1, kind="stable")[:, :size], axis=1).astype(np.int64), False


def _refuse_overlap(split: Split) -> None:
    roles = (split.train, split.tune, split.pool)
    taken = np.zeros(1 + max(int(rows.max(initial=0)) for rows in roles), bool)
    for rows in roles:
        taken[rows] = True
    if np.count_nonzero(taken) != sum(map(len, roles)):
        raise ConfigurationError("split: a video has two roles; this is a fault of the program, not of the profile")
