"""Every fault of a corpus in one pass."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from replicate.data import processes as pool
from replicate.data.index import sizes_of
from replicate.data.remote import RemotePath
from replicate.data.scan import Scanned, repeated_id, repetitions, scan
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, Shard


def verify(
    spec: DatasetSpec,
    root: Path | RemotePath,
    shards: list[str],
    progress: Callable[..., None] | None = None,
    processes: int = 1,
) -> list[RecordError]:
    """Read all shards to their ends and list what is wrong, in the order of shards and records.

    Behind a damaged length the next record is looked for; what lies between counts as one fault. Of every record its
    id, number and byte stay in memory, to tell which ids repeat.

    Args:
        spec: the dataset that the shards should hold.
        root: folder that the names in `shards` are relative to.
        shards: names of TFRecord files.
        progress: called with (bytes done, bytes in all, name).
        processes: how many read shards at once; the list is the same for any number.

    Raises:
        IncompleteRun: a reading process was killed.
    """
    sizes = sizes_of(root, shards)
    total = sum(sizes)
    faults: list[list[RecordError]] = []
    kept: list[tuple[np.ndarray, ...]] = []
    read = 0
    with pool.in_order(partial(_scan, spec, root), shards, processes) as results:
        for name, size, (columns, found) in zip(shards, sizes, results, strict=True):
            faults.append(found)
            kept.append(columns)
            read += size
            if progress:
                progress(read, total, name)
    _add_repetitions(root, shards, kept, faults)
    return [fault for each in faults for fault in each]


def _scan(spec: DatasetSpec, root: Path | RemotePath, name: str) -> tuple[tuple[np.ndarray, ...], list[RecordError]]:
    """((ids, record numbers, offsets), faults) of a shard; a file that cannot be read at all is a fault."""
    try:
        scanned: Scanned = scan(spec, Shard(root / name))
    except RecordError as error:
        return (np.zeros(0, "S1"), np.zeros(0, np.int32), np.zeros(0, np.int64)), [error]
    return tuple(scanned.columns[column] for column in ("ids", "record", "offset")), scanned.faults


def _add_repetitions(
    root: Path | RemotePath, shards: list[str], kept: list[tuple[np.ndarray, ...]], faults: list[list[RecordError]]
) -> None:
    """Put every record whose id an earlier one has among the faults of its shard, at its place."""
    begins = np.cumsum([0, *(len(ids) for ids, _, _ in kept)])
    rows, firsts = repetitions(np.concatenate([np.zeros(0, "S1"), *(ids for ids, _, _ in kept)]))
    touched = set()
    for row, first in zip(rows.tolist(), firsts.tolist(), strict=True):
        shard, earlier = (int(np.searchsorted(begins, place, "right")) - 1 for place in (row, first))
        ids, records, offsets = (column[row - begins[shard]] for column in kept[shard])
        reason = repeated_id(ids.decode(), shards[earlier], int(kept[earlier][1][first - begins[earlier]]))
        faults[shard].append(RecordError(str(root / shards[shard]), int(records), int(offsets), reason))
        touched.add(shard)
    for shard in touched:
        faults[shard].sort(key=lambda fault: fault.record)
