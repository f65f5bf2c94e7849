"""Records of remote stores: fetched in time for their batch, neighbours together, several requests at once.

The rows of all batches are known beforehand, so what must be fetched is, too. Records that lie beside one another in a
shard and are wanted soon after one another are one request, a run; it is asked for before its first record is needed
and let go of after its last. In the order of shards that reads every byte once per epoch and holds about a window of
records; in the global order every record is a request of its own.

The training's own threads do this, not processes: what limits is the network, and threads share what was fetched.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np

from replicate.data.batches import RecordSource
from replicate.data.index import Index
from replicate.data.remote import RemoteFile
from replicate.data.spec import DatasetSpec
from replicate.data.tfrecord import RecordError, Shard

REQUESTS = 8  # at once, unless said otherwise
RUN, GAP = 1 << 23, 1 << 20  # bytes: of a run, but for its last record; between two records of a run


class Runs(NamedTuple):
    """Parts of shards, in the order of their first use.

    Attributes:
        shard, begin, end: (runs,) int64, which bytes of which shard.
        first, last: (runs,) int64, number of the first and last batch that needs them.
    """

    shard: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray


def plan(index: Index, parts: Sequence[np.ndarray], window: int) -> Runs:
    """What must be fetched for some batches.

    Args:
        index: where records lie.
        parts: the rows of each batch.
        window: neighbours join a run if they are read within fewer than so many records of one another.
    """
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    batch = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    place = np.argsort(rows, kind="stable")  # rows are numbered as records lie
    rows = rows[place]
    shard, begin, end = np.asarray(index.shard[rows], np.int64), np.asarray(index.offset[rows]), _ends(index, rows)
    new = np.ones(len(rows), bool)
    new[1:] = (
        (shard[1:] != shard[:-1])
        | (begin[1:] // RUN != begin[:-1] // RUN)
        | (begin[1:] - end[:-1] > GAP)
        | (np.abs(np.diff(place)) >= window)
    )
    starts = np.flatnonzero(new)
    if not len(starts):
        return Runs(*(np.zeros(0, np.int64) for _ in Runs._fields))
    first, last = (function.reduceat(batch[place], starts) for function in (np.minimum, np.maximum))
    runs = Runs(shard[starts], begin[starts], np.maximum.reduceat(end, starts), first, last)
    by_use = np.argsort(first, kind="stable")
    return Runs(*(values[by_use] for values in runs))


def _ends(index: Index, rows: np.ndarray) -> np.ndarray:
    """(rows,) int64, byte behind each record: where the next one begins, or the shard's end."""
    following = np.minimum(rows + 1, index.count - 1)
    same = (following > rows) & (index.shard[following] == index.shard[rows])
    sizes = np.array([shard["bytes"] for shard in index.shards], np.int64)
    return np.where(same, index.offset[following], sizes[index.shard[rows]])


class RemoteRecords(RecordSource):
    """Reads records from the shards of a remote store; both CRCs are checked at every read."""

    def __init__(
        self,
        index: Index,
        spec: DatasetSpec,
        frame_limit: int,
        reader: Literal["native", "tensorflow"] = "native",
        requests: int = 0,
        window: int = 0,
    ):
        """
        Args:
            index, spec, frame_limit, reader: as of RecordSource.
            requests: at once; 0 stands for 8.
            window: as of `plan`; memory for about so many records is needed.
        """
        super().__init__(index, spec, frame_limit, reader)
        self.requests, self.window = requests or REQUESTS, window
        self._files: dict[int, RemoteFile] = {}
        self._opening = threading.Lock()

    def stream(self, parts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(features, lengths) of the rows of each part, in order.

        Raises:
            RecordError: a record or shard cannot be used.
            IncompleteRun: the store did not answer.
        """
        runs = plan(self.index, parts, self.window)
        under_way: dict[int, Future[bytes]] = {}
        ending: dict[int, list[tuple[RemoteFile, tuple[int, bytes]]]] = defaultdict(list)
        asked = here = 0
        executor = ThreadPoolExecutor(self.requests, thread_name_prefix="fetch records")
        try:
            for number, rows in enumerate(parts):
                needed = int(np.searchsorted(runs.first, number, "right"))
                ahead = min(needed + 2 * self.requests, len(runs.first))
                for run in range(asked, ahead):
                    place = int(runs.shard[run]), int(runs.begin[run]), int(runs.end[run])
                    under_way[run] = executor.submit(self._fetch, *place)
                asked = ahead
                for run in range(here, needed):
                    held = int(runs.begin[run]), under_way.pop(run).result()
                    file = self._files[int(runs.shard[run])]
                    file.held.append(held)
                    ending[int(runs.last[run])].append((file, held))
                here = needed
                yield self.read(rows)
                for file, held in ending.pop(number, ()):
                    file.held.remove(held)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            for file in self._files.values():
                file.close()

    def _fetch(self, shard: int, begin: int, end: int) -> bytes:
        file = self._file(shard)
        try:
            return file.fetch(begin, end)
        except OSError as error:
            raise RecordError(str(file.path), None, None, f"cannot be read: {error.strerror}") from None

    def _file(self, number: int) -> RemoteFile:
        """The shard's file, opened once; several threads may ask."""
        file = self._files.get(number)
        if file is None:
            path = self.index.root / self.index.shards[number]["name"]
            try:
                file = path.opened()
            except OSError as error:
                raise RecordError(str(path), None, None, f"cannot be read: {error.strerror}") from None
            with self._opening:
                file = self._files.setdefault(number, file)
        return file

    def _shard(self, number: int) -> Shard:
        """An open shard; none is closed for another, as none takes much."""
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = self._checked(number, Shard(self._file(number)))
        return shard
