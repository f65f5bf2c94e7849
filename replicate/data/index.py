"""Where every record of a corpus lies: shard, offset, length, frames, id and labels, as memory-mapped columns.

Building reads every shard: both CRCs of every record, its format, and the shard's SHA-256 while the system still has it
in memory. Several processes share the shards, and what they write does not depend on how many. One part per shard is
written as it is done, so that a killed build goes on; the parts are then joined, one in memory at a time. Opening maps
the columns and reads nothing.
"""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from replicate.data import processes as pool
from replicate.data import scan
from replicate.data.remote import RemotePath
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, Shard
from replicate.errors import DataError
from replicate.record import atomic_file, canonical_json, read_json, write_json

COLUMNS = ("shard", "record", "offset", "frames", "ids", "label_offsets", "label_values")


def find_shards(root: Path | RemotePath, patterns: list[str]) -> list[str]:
    """Names (relative to `root`, sorted) of the files that match any of the glob patterns.

    Raises:
        DataError: a pattern matches nothing.
        IncompleteRun: a remote store did not answer.
    """
    names: set[str] = set()
    for pattern in patterns:
        found = root.matching(pattern) if isinstance(root, RemotePath) else glob.glob(pattern, root_dir=root)
        if not found:
            remedy = "is --data-dir the folder that holds the dataset (REPLICATE_DATA, where it is not given)?"
            raise DataError(f"no file under {root} matches {pattern!r}; {remedy}")
        names.update(found)
    return sorted(names)


def sizes_of(root: Path | RemotePath, shards: list[str]) -> list[int]:
    """Bytes of each shard; 0 of a file that is not there, which reading it then says."""
    if isinstance(root, RemotePath):
        try:
            return root.sizes(shards)
        except OSError as error:
            raise RecordError(str(root), None, None, f"cannot be read: {error.strerror}") from None
    return [os.path.getsize(root / name) if os.path.exists(root / name) else 0 for name in shards]


@dataclass(frozen=True)
class _Part:
    """What is kept in memory of an indexed shard.

    Attributes:
        records, labels: how many.
        id_width: bytes of the longest id.
        faults: what was left out, one {"file", "record", "offset", "reason"} each. With more than may be left out,
            reading stopped behind the first too many, and nothing was written.
        sha256: of the shard.
    """

    records: int
    labels: int
    id_width: int
    faults: list[dict[str, Any]]
    sha256: str


def build_index(
    spec: DatasetSpec,
    root: Path | RemotePath,
    shards: list[str],
    out: Path,
    max_corrupt: int = 0,
    progress: Callable[..., None] | None = None,
    processes: int = 1,
) -> list[dict[str, Any]]:
    """Index a corpus into the folder `out`.

    Args:
        spec: the dataset.
        root: folder that the names in `shards` are relative to.
        shards: names of TFRecord files; records are numbered in this order.
        out: receives one .npy file per column and index.json.
        max_corrupt: so many unusable records are left out and listed; one more is an error.
        progress: called with (bytes done, bytes in all, message).
        processes: how many read shards at once; result and error are the same for any number.

    Returns:
        What was left out: one {"file", "record", "offset", "reason"} per record, in order.

    Raises:
        RecordError: the first unusable record beyond `max_corrupt`, or two records with the same id.
        IncompleteRun: a reading process was killed.
    """
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    sizes = sizes_of(root, shards)
    total = sum(sizes)
    skipped: list[dict[str, Any]] = []
    table, summaries, read = [], [], 0
    work = partial(_index_shard, spec, root, parts, max_corrupt)
    try:
        with pool.in_order(work, enumerate(shards), processes) as results:
            for name, size, part in zip(shards, sizes, results, strict=True):
                allowed = max_corrupt - len(skipped)
                if len(part.faults) > allowed:
                    raise _beyond(root, part.faults[allowed], allowed)
                skipped += part.faults
                table.append({"name": name, "bytes": size, "sha256": part.sha256, "records": part.records})
                summaries.append(part)
                read += size
                if progress:
                    progress(read, total, name)
    finally:
        for unfinished in parts.glob(".*.part"):  # of processes that were stopped
            unfinished.unlink(missing_ok=True)
    _join(parts, summaries, out)
    _refuse_duplicates(root, shards, {name: np.load(out / f"{name}.npy", mmap_mode="r") for name in COLUMNS})
    write_json(out / "index.json", {"dataset": spec.name, "shards": table, "skipped": skipped})
    shutil.rmtree(parts)
    return skipped


def _index_shard(
    spec: DatasetSpec, root: Path | RemotePath, parts: Path, max_corrupt: int, task: tuple[int, str]
) -> _Part:
    """Read a shard and write its part, if an earlier build did not."""
    number, name = task
    path = _path_of(parts, number)
    if not path.exists():
        shard = Shard(root / name)
        scanned = scan.scan(spec, shard, max_corrupt)
        faults = [
            {"file": name, "record": fault.record, "offset": fault.offset, "reason": fault.reason}
            for fault in scanned.faults
        ]
        if len(faults) > max_corrupt:
            return _Part(0, 0, 0, faults, "")
        checksum = shard.sha256()
        with atomic_file(path) as file:
            np.savez(file, **scanned.columns, faults=np.array(canonical_json(faults)), sha256=np.array(checksum))
    with np.load(path) as part:
        ids, labels = part["ids"], part["label_values"]
        return _Part(len(ids), len(labels), ids.itemsize, json.loads(str(part["faults"])), str(part["sha256"]))


def _path_of(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.npz"


def _beyond(root: Path | RemotePath, fault: dict[str, Any], skipped: int) -> RecordError:
    """The fault that is one too many, with the remedies; so many before it in its file were allowed."""
    before = f" ({skipped} before it in this file were skipped)" if skipped else ""
    remedy = "download the file again, list all faults with `replicate data verify`, or allow more by --max-corrupt"
    reason = f"{fault['reason']}{before}; {remedy}"
    return RecordError(str(root / fault["file"]), fault["record"], fault["offset"], reason)


def _join(parts: Path, summaries: list[_Part], out: Path) -> None:
    """Write the columns, part after part."""
    records = sum(part.records for part in summaries)
    shapes = {name: (records,) for name in ("shard", "record", "offset", "frames", "ids")}
    shapes |= {"label_offsets": (records + 1,), "label_values": (sum(part.labels for part in summaries),)}
    width = max((part.id_width for part in summaries), default=1)
    types = {
        "shard": "<i4", "record": "<i4", "offset": "<i8", "frames": "<i2", "ids": f"S{width}",
        "label_offsets": "<i8", "label_values": "<i2",
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(atomic_file(out / f"{name}.npy")) for name in COLUMNS}
        for name, file in files.items():
            _write_header(file, types[name], shapes[name])
        labels = 0
        files["label_offsets"].write(np.int64(0).tobytes())
        for number, summary in enumerate(summaries):
            with np.load(_path_of(parts, number)) as part:
                ends = labels + np.cumsum(part["label_counts"])
                labels += summary.labels
                columns = {"shard": np.full(summary.records, number), "label_offsets": ends}
                columns |= {name: part[name] for name in COLUMNS if name not in columns}
            for name, file in files.items():
                file.write(columns[name].astype(types[name]).tobytes())


def _write_header(file: BinaryIO, kind: str, shape: tuple[int, ...]) -> None:
    """What numpy.save puts before an array's bytes."""
    description = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)


def _refuse_duplicates(root: Path | RemotePath, shards: list[str], columns: dict[str, np.ndarray]) -> None:
    """A video that occurs twice could be both trained and tested on; the later record is the fault."""
    rows, firsts = scan.repetitions(columns["ids"])
    if len(rows):
        row, first = rows[0], firsts[0]
        place = shards[columns["shard"][first]], columns["record"][first]
        reason = scan.repeated_id(columns["ids"][row].decode(), *place)
        reason += f" ({len(rows)} such records); a video must have one role, so remove the repeated shards"
        path = str(root / shards[columns["shard"][row]])
        raise RecordError(path, int(columns["record"][row]), int(columns["offset"][row]), reason)


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

    root: Path | RemotePath
    shards: list[dict[str, Any]]
    shard: np.ndarray
    record: np.ndarray
    offset: np.ndarray
    frames: np.ndarray
    ids: np.ndarray
    label_offsets: np.ndarray
    label_values: np.ndarray

    @classmethod
    def open(cls, folder: Path, root: Path | RemotePath) -> "Index":
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
