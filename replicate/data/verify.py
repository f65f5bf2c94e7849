"""Every fault of a corpus in one pass."""

from collections.abc import Callable
from pathlib import Path

from replicate.data.index import examine, repeated_id
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, iterate_records


def verify(
    spec: DatasetSpec, root: Path, shards: list[str], progress: Callable[..., None] | None = None
) -> list[RecordError]:
    """Read all shards to their ends and list what is wrong.

    Behind a damaged length the next record is looked for; what lies between counts as one fault.

    Args:
        spec: the dataset that the shards should hold.
        root: folder that the names in `shards` are relative to.
        shards: names of TFRecord files.
        progress: called with (shards done, shards in all, name).
    """
    faults: list[RecordError] = []
    seen: dict[str, tuple[int, int]] = {}
    for number, name in enumerate(shards):
        path = str(root / name)
        try:
            for record, (offset, payload) in enumerate(iterate_records(root / name)):
                found = examine(spec, path, record, offset, payload)
                if isinstance(found, RecordError):
                    faults.append(found)
                elif found.id in seen:
                    shard, earlier = seen[found.id]
                    reason = repeated_id(found.id, shards[shard], earlier)
                    faults.append(RecordError(path, record, offset, reason))
                else:
                    seen[found.id] = number, record
        except RecordError as error:
            faults.append(error)
        if progress:
            progress(number + 1, len(shards), name)
    return faults
