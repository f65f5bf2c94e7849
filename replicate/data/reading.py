"""Puts together what gives a corpus's frames, and the order in which training asks for them."""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from replicate.data.batches import RecordSource, Source
from replicate.data.buffers import Allocate
from replicate.data.index import Index
from replicate.data.order import Order, epoch_order, shard_order
from replicate.data.prefetch import RemoteRecords
from replicate.data.remote import RemotePath
from replicate.data.spec import DatasetSpec
from replicate.data.views import ChosenModalities, ShuffledFrames
from replicate.data.workers import ReadingProcesses


def order_of(index: Index, order: Literal["global", "shards"], window: int) -> Order:
    """The order of training videos that `reading.order` and `reading.window` name."""
    if order == "global":
        return epoch_order
    return functools.partial(shard_order, shards=np.asarray(index.shard), window=window)


def source_of(
    index: Index,
    spec: DatasetSpec,
    frame_limit: int,
    reader: Literal["native", "tensorflow"] = "native",
    modalities: Sequence[str] = (),
    shuffled: bool = False,
    workers: int = 0,
    window: int = 0,
    allocate: Allocate | None = None,
) -> tuple[Source, tuple[int, ...]]:
    """What gives frames of rows, and the width of each of its modalities.

    Args:
        index, spec, frame_limit, reader: as of RecordSource.
        modalities: keys of those that are kept; none: all.
        shuffled: each video's frames come in a fixed order of their own.
        workers: processes that read; from a remote store, requests at a time.
        window: from a remote store, neighbouring records that are wanted within so many videos are fetched together.
        allocate: memory that batches are given in; by default memory that is used again.
    """
    far = isinstance(index.root, RemotePath)
    if far:
        records: RecordSource = RemoteRecords(index, spec, frame_limit, reader, workers, window)
    else:
        records = RecordSource(index, spec, frame_limit, reader)
    if allocate:
        records.allocate = allocate
    source: Source = records
    widths = tuple(feature.width for feature in spec.features)
    if modalities:
        source = ChosenModalities(source, spec.features, modalities)
        widths = source.widths
    if shuffled:
        source = ShuffledFrames(source, index.ids)
    if workers and not far:
        source = ReadingProcesses(source, workers, records.video_bytes, allocate)
    return source, widths
