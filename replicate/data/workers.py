"""Processes that read batches, beside the one that trains. What they give does not depend on how many there are.

Reading a video is copying and checksums, which need no interpreter, and some hundred steps of Python, which hold it: a
thread takes those from the training, which itself is Python that launches work on a GPU (measured by
`python -m benchmarks.reading`). Batch number b is read by process b mod N, straight into memory that both processes
share; only its place and the videos' lengths travel through a pipe.
"""

import collections
import contextlib
import ctypes
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import numpy as np

from replicate.data.batches import RecordSource, Source
from replicate.data.buffers import Allocate, Buffers
from replicate.errors import IncompleteRun

SLOTS = 2  # batches that a process reads or that wait to be taken from it

Read = tuple[np.ndarray, np.ndarray]


class _Worker(NamedTuple):
    """A reading process: its pipe, and the memory of each of its slots."""

    process: Any
    pipe: Connection
    slots: list[np.ndarray]


class ReadingProcesses:
    """A source whose batches several processes read. They start with the first batch and end with this object, or with
    the process that holds it, however that ends.

    Where Python allows no processes (in a daemon, as workers of a Dask cluster that somebody else started are), this
    process reads the same batches.
    """

    def __init__(self, source: Source, processes: int, video_bytes: int, allocate: Allocate | None = None):
        """
        Args:
            source: what they read; it is pickled, its memory-mapped arrays by the names of their files.
            processes: how many.
            video_bytes: at most so many belong to one video.
            allocate: memory that batches are given in; by default memory that is used again.
        """
        self.source, self.processes, self.video_bytes = source, processes, video_bytes
        self._allocate = allocate or Buffers().take
        self._workers: list[_Worker] = []
        self._videos = 0  # that a slot has room for
        self._stop: weakref.finalize | None = None

    def read(self, rows: np.ndarray) -> Read:
        """(features, lengths) of the rows, as in Batch, read by this process."""
        return self.source.read(rows)

    def stream(self, parts: Sequence[np.ndarray]) -> Iterator[Read]:
        """(features, lengths) of the rows of each part, in order.

        Raises:
            IncompleteRun: a process was killed.
            RecordError: whatever the source raises.
        """
        if multiprocessing.current_process().daemon:
            yield from map(self.read, parts)
            return
        self._make_room(max((len(rows) for rows in parts), default=0))
        asked = iter(enumerate(parts))
        under_way: collections.deque[tuple[_Worker, int]] = collections.deque()
        try:
            for number, rows in (next(asked, (0, None)) for _ in range(SLOTS * self.processes)):
                if rows is not None:
                    under_way.append(self._ask(number, rows))
            while under_way:
                worker, slot = under_way.popleft()
                result = self._taken(_answer(worker), worker.slots[slot])
                number, rows = next(asked, (0, None))
                if rows is not None:
                    under_way.append(self._ask(number, rows))
                yield result
        except IncompleteRun:
            under_way.clear()
            self.close()
            raise
        finally:  # when left early: what is under way must not be taken for the next stream's
            self._forget(under_way)

    def _forget(self, under_way: Iterable[tuple[_Worker, int]]) -> None:
        try:
            for worker, _ in under_way:
                _answer(worker)
        except IncompleteRun:
            self.close()

    def close(self) -> None:
        """End the processes; the next stream starts others."""
        if self._stop is not None:
            self._stop()
        self._workers, self._videos, self._stop = [], 0, None

    def _make_room(self, videos: int) -> None:
        """Start the processes, with slots for so many videos."""
        if videos <= self._videos:
            return
        self.close()
        context, pickled = multiprocessing.get_context("spawn"), _pickled(self.source)
        self._stop = weakref.finalize(self, _end, self._workers)
        for number in range(self.processes):
            mine, other = context.Pipe()
            memory = [context.RawArray(ctypes.c_char, max(1, videos * self.video_bytes)) for _ in range(SLOTS)]
            process = context.Process(
                target=_serve, args=(pickled, other, memory), daemon=True, name=f"read batches {number}"
            )
            process.start()
            other.close()
            self._workers.append(_Worker(process, mine, [_bytes_of(each) for each in memory]))
        self._videos = videos

    def _ask(self, number: int, rows: np.ndarray) -> tuple[_Worker, int]:
        """Have a part read; where its answer will come from."""
        worker, slot = self._workers[number % self.processes], number // self.processes % SLOTS
        try:
            worker.pipe.send((slot, rows))
        except OSError:
            raise _killed(worker) from None
        return worker, slot

    def _taken(self, answer: Any, slot: np.ndarray) -> Read:
        """A batch in memory of its own, so that its slot is free for the next."""
        if isinstance(answer, Exception):
            raise answer
        shape, dtype, lengths = answer
        features = self._allocate(shape, dtype)
        np.copyto(features, slot[: features.nbytes].view(dtype).reshape(shape))
        return features, lengths


def _answer(worker: _Worker) -> Any:
    """What a process says next.

    Raises:
        IncompleteRun: it says nothing more.
    """
    wait([worker.pipe, worker.process.sentinel])
    try:
        if worker.pipe.poll():
            return worker.pipe.recv()
    except (EOFError, OSError):
        pass
    raise _killed(worker)


def _killed(worker: _Worker) -> IncompleteRun:
    worker.process.join(5.0)
    remedy = "issue the same command again to resume, with fewer of them by --set reading.workers=N"
    reason = f"a process that reads videos ended with exit code {worker.process.exitcode}"
    return IncompleteRun(f"{reason}, perhaps for want of memory; {remedy}")


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.kill()  # it holds nothing that must be put away, and ignores other signals
    for worker in workers:
        worker.process.join()


def _bytes_of(memory: Any) -> np.ndarray:
    return np.frombuffer(memory, np.uint8)


class _Pickler(pickle.Pickler):
    """Pickles memory-mapped arrays by name: they may be larger than memory."""

    def reducer_override(self, found: Any) -> Any:
        if type(found) is np.memmap and isinstance(found.base, mmap.mmap):
            order = "C" if found.flags.c_contiguous else "F"
            return np.memmap, (found.filename, found.dtype, "r", found.offset, found.shape, order)
        return NotImplemented


def _pickled(source: Source) -> bytes:
    file = BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(source)
    return file.getvalue()


def _serve(pickled: bytes, pipe: Connection, memory: list[Any]) -> None:
    """A reading process: read what is asked for until nobody asks any more.

    An interrupt of the terminal and Slurm's SIGTERM reach every process; the one that started the others decides what
    becomes of them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True, name="end with parent").start()
    source, slots = pickle.loads(pickled), [_bytes_of(each) for each in memory]
    with contextlib.suppress(EOFError, OSError):
        while True:
            slot, rows = pipe.recv()
            pipe.send(_read(source, rows, slots[slot]))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _read(source: Source, rows: np.ndarray, slot: np.ndarray) -> Any:
    """Read into the slot; (shape, dtype, lengths), or what went wrong."""

    def within(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return slot[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    try:
        if isinstance(source, RecordSource):
            source.allocate = within
        features, lengths = source.read(rows)
        if features.size and not np.may_share_memory(features, slot):
            np.copyto(within(features.shape, features.dtype), features)
    except Exception as error:  # raised again where the batch is awaited
        return error
    return features.shape, features.dtype.str, lengths
