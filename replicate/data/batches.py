"""From rows of the index to batches of uint8 frames, in an order that is a pure function of (seed, epoch)."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from replicate.data.buffers import Allocate, Buffers
from replicate.data.example import FormatError, Record, parse
from replicate.data.index import Index
from replicate.data.labels import LabelStore
from replicate.data.order import epoch_order, share
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, Shard

__all__ = ["ArraySource", "Batch", "RecordSource", "Source", "batches", "epoch_order", "stream"]

OPEN_SHARDS = 256  # at once; a process may commonly hold 1,024 files, and YouTube-8M has 3,844 shards
CHANGED = "restore the file, or issue the command again with the same --data-dir to index it afresh"


@dataclass(frozen=True)
class Batch:
    """Some videos, padded to the longest of them.

    Attributes:
        features: (batch, time, width) uint8 quantised frames, or float32 vectors with time = 1; zero beyond `lengths`.
        lengths: (batch,) int64, valid frames of each video.
        labels: (batch, nodes) bool.
        rows: (batch,) int64, rows of the index.
    """

    features: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


class Source(Protocol):
    """Whatever gives the frames of rows. One that does better knowing what comes next also has the method `stream`, as
    the function of that name."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features, lengths) of the rows, as in Batch."""


class RecordSource:
    """Reads records at random from their shards; both CRCs are checked at every read."""

    def __init__(
        self, index: Index, spec: DatasetSpec, frame_limit: int, reader: Literal["native", "tensorflow"] = "native"
    ):
        """
        Args:
            index: where records lie.
            spec: their format.
            frame_limit: longer videos are cut to their first so many frames.
            reader: "native", or "tensorflow" to parse with the independent reader.
        """
        self.index, self.spec, self.frame_limit = index, spec, frame_limit
        self.allocate: Allocate = Buffers().take
        self._shards: dict[int, Shard] = {}
        self._parse = parse
        if reader == "tensorflow":
            from replicate.data.tensorflow_reader import parse as parse_with_tensorflow

            self._parse = parse_with_tensorflow

    @property
    def video_bytes(self) -> int:
        """Bytes of the longest video in a batch."""
        return self.frame_limit * self.spec.width * np.dtype(self.spec.dtype).itemsize

    def __getstate__(self) -> dict[str, Any]:
        """For another process: without open files, and memory is the other's own."""
        return {**self.__dict__, "_shards": {}, "allocate": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "allocate": Buffers().take}

    def record(self, row: int) -> Record:
        """One whole record.

        Raises:
            RecordError: the shard changed since it was indexed, or is damaged.
        """
        number, offset = int(self.index.record[row]), int(self.index.offset[row])
        shard = self._shard(int(self.index.shard[row]))
        payload = shard.payload(number, offset)
        try:
            record = self._parse(self.spec, payload)
        except FormatError as error:
            raise RecordError(shard.path, number, offset, str(error)) from None
        if record.id.encode() != self.index.ids[row] or record.frames != self.index.frames[row]:
            raise RecordError(shard.path, number, offset, f"is another video than when it was indexed; {CHANGED}")
        return record

    def _shard(self, number: int) -> Shard:
        """An open shard; of those, the one used longest ago makes room for a new one."""
        shard = self._shards.pop(number, None)
        if shard is None:
            shard = self._checked(number, Shard(self.index.root / self.index.shards[number]["name"]))
            if len(self._shards) == OPEN_SHARDS:
                self._shards.pop(next(iter(self._shards))).close()
        self._shards[number] = shard
        return shard

    def _checked(self, number: int, shard: Shard) -> Shard:
        """The shard, if it is as large as it was."""
        size = self.index.shards[number]["bytes"]
        if shard.size != size:
            sizes = f"has {shard.size} bytes, and had {size} when it was indexed"
            raise RecordError(shard.path, None, None, f"{sizes}; {CHANGED}")
        return shard

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features, lengths) of the rows: modalities side by side, zero beyond each video's length."""
        lengths = np.minimum(self.index.frames[rows].astype(np.int64), self.frame_limit)
        features = self.allocate((len(rows), int(lengths.max(initial=0)), self.spec.width), self.spec.dtype)
        for line, row in enumerate(rows):
            length, column = lengths[line], 0
            features[line, length:] = 0
            for values in self.record(int(row)).features:
                width = values.shape[1]
                features[line, :length, column : column + width] = values[:length]
                column += width
        return features, lengths


class ArraySource:
    """Vectors that were computed before, one per row of the index."""

    def __init__(self, array: np.ndarray):
        """
        Args:
            array: (videos, width) float32, possibly memory-mapped.
        """
        self.array = array

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, 1, width) float32, and lengths of 1."""
        return np.asarray(self.array[rows])[:, None], np.ones(len(rows), np.int64)


def stream(source: Source, parts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(features, lengths) of the rows of each part, in order, in the way that is the source's best."""
    yield from source.stream(parts) if hasattr(source, "stream") else map(source.read, parts)


def batches(
    source: Source, labels: LabelStore, order: np.ndarray, batch_size: int, ahead: int = 2, rank: int = 0,
    ranks: int = 1, done: int = 0,
) -> Iterator[Batch]:  # fmt: skip
    """Batches of the rows in `order`; the last may be smaller. A thread reads up to `ahead` batches in advance.

    One of several processes gets its part of each, as `share` says; an empty part has no videos and no frames.

    Args:
        source, labels: frames and nodes by row.
        order, batch_size, rank, ranks, done: as in `share`.
        ahead: batches that wait in memory.

    Raises:
        RecordError: whatever the source raises, in the consumer's thread.
    """
    parts = share(order, batch_size, rank, ranks, done)
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def offer(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        read = stream(source, parts)
        try:
            for rows, (features, lengths) in zip(parts, read, strict=True):
                if not offer(Batch(features, lengths, labels.encode(rows), rows)):
                    break
            else:
                offer(None)
        except BaseException as error:  # handed to the consumer, who raises it
            offer(error)
        finally:
            read.close()

    thread = threading.Thread(target=produce, daemon=True, name="read batches")
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
