"""Where every record of a corpus lies: shard, offset, length, frames, id and labels, as memory-mapped columns.

Building reads every byte once: both CRCs of every record, its format, and each shard's SHA-256. One part per shard is
written as it is done, so that a killed build goes on; the parts are then merged. Opening maps the columns and reads
nothing.
"""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replicate.data.example import FormatError, Record, parse
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, iterate_records, open_shard
from replicate.errors import DataError
from replicate.record import atomic_file, read_json, write_json

COLUMNS = ("shard", "offset", "frames", "ids", "label_offsets", "label_values")
_ENDS = 1 << 16


def find_shards(root: Path, patterns: list[str]) -> list[str]:
    """Names (relative to `root`, sorted) of the files that match any of the glob patterns.

    Raises:
        DataError: a pattern matches nothing.
    """
    names: set[str] = set()
    for pattern in patterns:
        found = glob.glob(pattern, root_dir=root)
        if not found:
            raise DataError(f"no file under {root} matches {pattern!r}; is --data-dir the folder that holds the dataset?")
        names.update(found)
    return sorted(names)


def fingerprint(root: Path, shards: list[str]) -> list[tuple[str, int, str]]:
    """(name, bytes, SHA-256 of the first and last 64 KiB) of each shard: cheap enough to ask at every command.

    It tells corpora apart; it does not find a flipped bit in the middle, which the CRC of each read does.
    """
    rows = []
    for name in shards:
        try:
            with open(root / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                ends = hashlib.sha256(file.read(_ENDS))
                file.seek(max(0, size - _ENDS))
                ends.update(file.read(_ENDS))
        except OSError as error:
            raise RecordError(str(root / name), None, None, f"cannot be read: {error.strerror}") from None
        rows.append((name, size, ends.hexdigest()))
    return rows


def build_index(
    spec: DatasetSpec,
    root: Path,
    shards: list[str],
    out: Path,
    max_corrupt: int = 0,
    progress: Callable[..., None] | None = None,
) -> None:
    """Index a corpus into the folder `out`.

    Args:
        spec: the dataset.
        root: folder that the names in `shards` are relative to.
        shards: names of TFRecord files; records are numbered in this order.
        out: receives one .npy file per column and index.json.
        max_corrupt: so many unusable records are left out and listed; one more is an error.
        progress: called with (bytes done, bytes in all, message).

    Raises:
        RecordError: the first unusable record beyond `max_corrupt`.
        DataError: two records have the same id.
    """
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    sizes = [(root / name).stat().st_size for name in shards]
    skipped: list[dict[str, Any]] = []
    for number, name in enumerate(shards):
        part = parts / f"{number:06d}.npz"
        if not part.exists():
            columns, faults, checksum = _read_shard(spec, root, name, max_corrupt - len(skipped))
            with atomic_file(part) as file:
                np.savez(file, **columns, faults=np.array(faults, dtype=object), sha256=np.array(checksum))
        skipped += np.load(part, allow_pickle=True)["faults"].tolist()
        if progress:
            progress(sum(sizes[: number + 1]), sum(sizes), name)
    if len(skipped) > max_corrupt:
        raise RecordError(*(skipped[max_corrupt][key] for key in ("file", "record", "offset", "reason")))
    table = _merge(parts, shards, sizes, out)
    _refuse_duplicates(np.load(out / "ids.npy", mmap_mode="r"))
    write_json(out / "index.json", {"dataset": spec.name, "shards": table, "skipped": skipped})
    shutil.rmtree(parts)


def _read_shard(spec: DatasetSpec, root: Path, name: str, may_skip: int) -> tuple[dict[str, np.ndarray], list, str]:
    offsets, frames, ids, labels, faults = [], [], [], [], []
    for record, (offset, payload) in enumerate(iterate_records(root / name)):
        found = examine(spec, str(root / name), record, offset, payload)
        if isinstance(found, RecordError):
            if len(faults) >= may_skip:
                raise found
            faults.append({"file": name, "record": record, "offset": offset, "reason": found.reason})
            continue
        offsets.append(offset)
        frames.append(found.frames)
        ids.append(found.id.encode())
        labels.append(found.labels)
    shard = open_shard(root / name)
    columns = {
        "offset": np.array(offsets, np.int64),
        "frames": np.array(frames, np.int16),
        "ids": np.array(ids, dtype=bytes) if ids else np.zeros(0, "S1"),
        "label_counts": np.array([len(each) for each in labels], np.int64),
        "label_values": np.concatenate([*labels, np.zeros(0, np.int64)]).astype(np.int16),
    }
    return columns, faults, hashlib.sha256(shard).hexdigest()


def examine(
    spec: DatasetSpec, file: str, record: int, offset: int, payload: bytes | RecordError
) -> Record | RecordError:
    """A record's content, or what is wrong with it."""
    if isinstance(payload, RecordError):
        return payload
    try:
        return parse(spec, payload)
    except FormatError as error:
        return RecordError(file, record, offset, str(error))


def _merge(parts: Path, shards: list[str], sizes: list[int], out: Path) -> list[dict[str, Any]]:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("shard", "offset", "frames", "ids", "counts", "values")}
    table = []
    for number, name in enumerate(shards):
        with np.load(parts / f"{number:06d}.npz", allow_pickle=True) as part:
            count = len(part["offset"])
            columns["shard"].append(np.full(count, number, np.int32))
            columns["offset"].append(part["offset"])
            columns["frames"].append(part["frames"])
            columns["ids"].append(part["ids"])
            columns["counts"].append(part["label_counts"])
            columns["values"].append(part["label_values"])
            table.append({"name": name, "bytes": sizes[number], "sha256": str(part["sha256"]), "records": count})
    label_offsets = np.concatenate([[0], np.cumsum(np.concatenate(columns.pop("counts")))]).astype(np.int64)
    merged = {name: np.concatenate(values) for name, values in columns.items()}
    merged |= {"label_offsets": label_offsets, "label_values": merged.pop("values")}
    for name, values in merged.items():
        with atomic_file(out / f"{name}.npy") as file:
            np.save(file, values)
    return table


def _refuse_duplicates(ids: np.ndarray) -> None:
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        message = f"the id {twice[0].decode()!r} occurs twice ({len(twice)} such records)"
        raise DataError(f"{message}; a video must not be both trained and tested on, so remove the repeated shards")


@dataclass(frozen=True)
class Index:
    """An opened index. Rows are numbered 0 .. count - 1 in shard order.

    Attributes:
        root: folder that the shards' names are relative to.
        shards: one {"name", "bytes", "sha256", "records"} per shard.
        shard: (count,) int32, number of the row's shard.
        offset: (count,) int64, byte at which the row's record begins.
        frames: (count,) int16.
        ids: (count,) fixed-width bytes.
        label_offsets: (count + 1,) int64; labels of row r are label_values[label_offsets[r] : label_offsets[r + 1]].
        label_values: int16 label indices.
    """

    root: Path
    shards: list[dict[str, Any]]
    shard: np.ndarray
    offset: np.ndarray
    frames: np.ndarray
    ids: np.ndarray
    label_offsets: np.ndarray
    label_values: np.ndarray

    @classmethod
    def open(cls, folder: Path, root: Path) -> "Index":
        """Map an index into memory."""
        columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        return cls(root, read_json(folder / "index.json")["shards"], **columns)

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.offset)

    def labels(self, row: int) -> np.ndarray:
        """Label indices of one row."""
        return self.label_values[self.label_offsets[row] : self.label_offsets[row + 1]]
