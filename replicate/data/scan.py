"""What the records of one shard are: read to the shard's end, checked, described in columns."""

from dataclasses import dataclass

import numpy as np

from replicate.data.example import FormatError, Record, parse
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, Shard

COLUMNS = ("record", "offset", "frames", "ids", "label_counts", "label_values")


@dataclass(frozen=True)
class Scanned:
    """One shard.

    Attributes:
        columns: by the names in COLUMNS, one value per usable record: record (int32), offset (int64), frames (int16),
            ids (fixed-width bytes), label_counts (int64); and label_values (int16), all labels one after the other.
        faults: what is wrong with the others, in order.
    """

    columns: dict[str, np.ndarray]
    faults: list[RecordError]


def scan(spec: DatasetSpec, shard: Shard, most_faults: int | None = None) -> Scanned:
    """Read a shard; both CRCs and the format of every record are checked.

    Args:
        spec: the dataset that it should hold.
        shard: where to read.
        most_faults: reading stops behind the first fault beyond so many.
    """
    records, offsets, frames, ids, labels, faults = [], [], [], [], [], []
    for record, (offset, payload) in enumerate(shard.records()):
        found = examine(spec, shard.path, record, offset, payload)
        if isinstance(found, RecordError):
            faults.append(found)
            if most_faults is not None and len(faults) > most_faults:
                break
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
    return Scanned(columns, faults)


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


def repetitions(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose id an earlier row has, in ascending order, and for each the first row with that id.

    Args:
        ids: (n,) fixed-width bytes. Memory for a copy of them, and where ids repeat for their order, is needed.
    """
    ordered = np.sort(ids)
    if not (ordered[1:] == ordered[:-1]).any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    rows, first = order[~begins], first[~begins]
    ascending = np.argsort(rows)
    return rows[ascending], first[ascending]


def repeated_id(video: str, file: str, record: int) -> str:
    """What is wrong with a record whose id another one has."""
    return f"the id {video!r} occurs before, in {file}, record {record}"
