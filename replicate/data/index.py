"""Where every record of a corpus lies: shard, offset, length, frames, id and labels, as memory-mapped columns.

Building reads every shard: both CRCs of every record, its format, and the shard's SHA-256 while the system still has it
in memory. One part per shard is written as it is done, so that a killed build goes on; the parts are then merged.
Opening maps the columns and reads nothing.
"""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replicate.data.example import FormatError, Record, parse
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, iterate_records
from replicate.errors import DataError
from replicate.record import atomic_file, canonical_json, file_digest, read_json, write_json

COLUMNS = ("shard", "record", "offset", "frames", "ids", "label_offsets", "label_values")
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
            remedy = "is --data-dir the folder that holds the dataset?"
            raise DataError(f"no file under {root} matches {pattern!r}; {remedy}")
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
) -> list[dict[str, Any]]:
    """Index a corpus into the folder `out`.

    Args:
        spec: the dataset.
        root: folder that the names in `shards` are relative to.
        shards: names of TFRecord files; records are numbered in this order.
        out: receives one .npy file per column and index.json.
        max_corrupt: so many unusable records are left out and listed; one more is an error.
        progress: called with (bytes done, bytes in all, message).

    Returns:
        What was left out: one {"file", "record", "offset", "reason"} per record, in order.

    Raises:
        RecordError: the first unusable record beyond `max_corrupt`, or two records with the same id.
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
                np.savez(file, **columns, faults=np.array(canonical_json(faults)), sha256=np.array(checksum))
        with np.load(part) as done:
            skipped += json.loads(str(done["faults"]))
        if progress:
            progress(sum(sizes[: number + 1]), sum(sizes), name)
    table = _merge(parts, shards, sizes, out)
    _refuse_duplicates(root, shards, {name: np.load(out / f"{name}.npy", mmap_mode="r") for name in COLUMNS})
    write_json(out / "index.json", {"dataset": spec.name, "shards": table, "skipped": skipped})
    shutil.rmtree(parts)
    return skipped


def _read_shard(
    spec: DatasetSpec, root: Path, name: str, may_skip: int
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], str]:
    """(columns, skipped records, SHA-256) of one shard; RecordError when more than `may_skip` are unusable."""
    records, offsets, frames, ids, labels, faults = [], [], [], [], [], []
    for record, (offset, payload) in enumerate(iterate_records(root / name)):
        found = examine(spec, str(root / name), record, offset, payload)
        if isinstance(found, RecordError):
            if len(faults) >= may_skip:
                raise _beyond(found, len(faults))
            faults.append({"file": name, "record": record, "offset": offset, "reason": found.reason})
            continue
        records.append(record)
        offsets.append(offset)
        frames.append(found.frames)
        ids.append(found.id.encode())
        labels.append(found.labels)
    columns = {
        "record": np.array(records, np.int32),
        "offset": np.array(offsets, np.int64),
        "frames": np.array(frames, np.int16),
        "ids": np.array(ids, dtype=bytes) if ids else np.zeros(0, "S1"),
        "label_counts": np.array([len(each) for each in labels], np.int64),
        "label_values": np.concatenate([*labels, np.zeros(0, np.int64)]).astype(np.int16),
    }
    return columns, faults, file_digest(root / name)


def _beyond(fault: RecordError, skipped: int) -> RecordError:
    """The fault that is one too many, with the remedies."""
    before = f" ({skipped} before it in this file were skipped)" if skipped else ""
    remedy = "download the file again, list all faults with `replicate data verify`, or allow more by --max-corrupt"
    return RecordError(fault.file, fault.record, fault.offset, f"{fault.reason}{before}; {remedy}")


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
    stored = ("record", "offset", "frames", "ids", "label_counts", "label_values")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("shard", *stored)}
    table = []
    for number, name in enumerate(shards):
        with np.load(parts / f"{number:06d}.npz") as part:
            count = len(part["offset"])
            columns["shard"].append(np.full(count, number, np.int32))
            for column in stored:
                columns[column].append(part[column])
            table.append({"name": name, "bytes": sizes[number], "sha256": str(part["sha256"]), "records": count})
    merged = {name: np.concatenate(values) for name, values in columns.items()}
    merged["label_offsets"] = np.concatenate([[0], np.cumsum(merged.pop("label_counts"))]).astype(np.int64)
    for name, values in merged.items():
        with atomic_file(out / f"{name}.npy") as file:
            np.save(file, values)
    return table


def _refuse_duplicates(root: Path, shards: list[str], columns: dict[str, np.ndarray]) -> None:
    """A video that occurs twice could be both trained and tested on; the later record is the fault."""
    order = np.argsort(columns["ids"], kind="stable")
    ordered = columns["ids"][order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        row, earlier = int(order[twice + 1].min()), int(order[twice[order[twice + 1].argmin()]])
        place = shards[columns["shard"][earlier]], columns["record"][earlier]
        reason = repeated_id(columns["ids"][row].decode(), *place)
        reason += f" ({len(twice)} such records); a video must have one role, so remove the repeated shards"
        path = str(root / shards[columns["shard"][row]])
        raise RecordError(path, int(columns["record"][row]), int(columns["offset"][row]), reason)


def repeated_id(video: str, file: str, record: int) -> str:
    """What is wrong with a record whose id another one has."""
    return f"the id {video!r} occurs before, in {file}, record {record}"


@dataclass(frozen=True)
class Index:
    """An opened index. Rows are numbered 0 .. count - 1 in shard order.

    Attributes:
        root: folder that the shards' names are relative to.
        shards: one {"name", "bytes", "sha256", "records"} per shard.
        shard: (count,) int32, number of the row's shard.
        record: (count,) int32, number of the row's record within its shard; skipped records have numbers too.
        offset: (count,) int64, byte at which the row's record begins.
        frames: (count,) int16.
        ids: (count,) fixed-width bytes.
        label_offsets: (count + 1,) int64; labels of row r are label_values[label_offsets[r] : label_offsets[r + 1]].
        label_values: int16 label indices.
    """

    root: Path
    shards: list[dict[str, Any]]
    shard: np.ndarray
    record: np.ndarray
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
