"""Claims: whatever the number of reading processes, batches are the same bytes in the same order; an error of theirs is
an error here; one that is killed is a sentence and not a hang; none outlives who started it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from patience import PATIENCE, wait_for_the_end_of
from records import TWO, flip, indexed
from test_batches import VIDEOS
from toy_corpus import corpus as toy_corpus

from replicate.data.batches import ArraySource, RecordSource, batches
from replicate.data.order import epoch_order, share
from replicate.data.tfrecord import RecordError
from replicate.data.views import ShuffledFrames
from replicate.data.workers import ReadingProcesses, _pickled
from replicate.errors import IncompleteRun

BYTES = 6 * TWO.width


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def index(folder):
    return indexed(folder)


@pytest.fixture(scope="module")
def two(index):
    """Two processes, for several tests."""
    source = ReadingProcesses(RecordSource(index, TWO, 6), 2, BYTES)
    yield source
    source.close()


class Unlabelled:
    def encode(self, rows):
        return np.zeros((len(rows), 0), bool)


def content(source, order, batch_size, **place):
    """Everything that batches say."""
    return [
        (batch.rows.tobytes(), batch.lengths.tobytes(), batch.features.shape, batch.features.tobytes())
        for batch in batches(source, Unlabelled(), order, batch_size, **place)
    ]


@pytest.mark.parametrize("batch_size", [5, 1, 12, 3])
def test_batches_are_the_same_bytes_in_the_same_order(index, two, batch_size):
    alone = RecordSource(index, TWO, 6)
    for epoch in (1, 2):
        order = epoch_order(np.arange(VIDEOS), 0, epoch)
        assert content(two, order, batch_size) == content(alone, order, batch_size)
    place = {"rank": 1, "ranks": 3, "done": 1}
    assert content(two, order, batch_size, **place) == content(alone, order, batch_size, **place)
    assert content(two, order[:0], batch_size) == []


def test_batches_may_be_kept(index, two):
    """More of them than processes have slots."""
    order = np.tile(np.arange(VIDEOS), 4)
    kept = list(two.stream(share(order, 2)))
    for (features, lengths), rows in zip(kept, share(order, 2), strict=True):
        again, same = RecordSource(index, TWO, 6).read(rows)
        assert np.array_equal(features, again) and np.array_equal(lengths, same)


def test_a_stream_that_is_left_early_leaves_nothing_for_the_next(index, two):
    order = np.tile(np.arange(VIDEOS), 4)
    for taken in (1, 3):
        feed = batches(two, Unlabelled(), order, 2)
        for _ in range(taken):
            next(feed)
        feed.close()
        assert content(two, order, 2) == content(RecordSource(index, TWO, 6), order, 2)


def test_a_killed_process_is_a_sentence_and_the_next_stream_has_others(index, two):
    order = np.tile(np.arange(VIDEOS), 40)
    feed = batches(two, Unlabelled(), order, 2)
    next(feed)
    os.kill(two._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(
        IncompleteRun, match=r"ended with exit code -9, perhaps for want of memory; .*reading.workers=N"
    ):
        list(feed)
    assert content(two, order, 100) == content(RecordSource(index, TWO, 6), order, 100)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_reach_all_processes_leave_those_that_read_at_work(index, two, sent):
    order = np.tile(np.arange(VIDEOS), 4)
    expected = content(RecordSource(index, TWO, 6), order, 2)
    assert content(two, order, 2) == expected
    before = [worker.process.pid for worker in two._workers]
    for pid in before:
        os.kill(pid, sent)
    assert content(two, order, 2) == expected
    assert [worker.process.pid for worker in two._workers] == before


class Dies(ShuffledFrames):
    """Ends its process in the middle of a read."""

    def read(self, rows):
        if 7 in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(rows)


def test_a_process_that_dies_while_it_reads_is_a_sentence(index):
    source = ReadingProcesses(Dies(RecordSource(index, TWO, 6), index.ids), 1, BYTES)
    read = []
    with pytest.raises(IncompleteRun, match="ended with exit code -9"):
        read += source.stream(share(np.arange(VIDEOS), 3))
    assert not source._workers


def test_views_are_read_by_processes_too(index):
    alone = ShuffledFrames(RecordSource(index, TWO, 6), index.ids)
    source = ReadingProcesses(alone, 1, BYTES)
    assert content(source, np.arange(VIDEOS), 5) == content(alone, np.arange(VIDEOS), 5)
    source.close()


def test_damage_is_the_reading_processs_error(tmp_path):
    index = indexed(tmp_path)
    flip(index.root / "s2.tfrecord", int(index.offset[9]) + 40)
    source = ReadingProcesses(RecordSource(index, TWO, 6), 1, BYTES)
    with pytest.raises(RecordError, match="s2.tfrecord, record 1 at byte .*CRC of the data differs") as caught:
        list(batches(source, Unlabelled(), np.arange(VIDEOS), 4))
    assert (caught.value.record, caught.value.offset) == (1, index.offset[9])
    assert len(list(source.stream(share(np.arange(8), 4)))) == 2, "the process goes on with what is whole"
    source.close()


def test_memory_mapped_arrays_travel_by_name(index, tmp_path):
    np.save(tmp_path / "states.npy", np.arange(3 << 20, dtype=np.float32).reshape(-1, 4))
    source = ArraySource(np.load(tmp_path / "states.npy", mmap_mode="r"))
    assert len(_pickled(source)) < 1000 and len(_pickled(RecordSource(index, TWO, 6))) < 10_000
    toy, _ = toy_corpus()
    assert len(_pickled(toy)) > toy.features.nbytes


HOLDER = """
import os, signal, sys
sys.path.insert(0, "tests")
if __name__ == "__main__":
    import numpy as np
    from records import TWO
    from pathlib import Path
    from replicate.data.batches import RecordSource
    from replicate.data.index import Index
    from replicate.data.workers import ReadingProcesses
    folder = Path(sys.argv[1])
    source = ReadingProcesses(RecordSource(Index.open(folder / "index", folder / "data"), TWO, 6), 1, 6 * TWO.width)
    next(source.stream([np.arange(3)] * 5))
    print(*(worker.process.pid for worker in source._workers), flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "exit"])
def test_no_process_outlives_who_started_it(index, folder, tmp_path, end):
    (tmp_path / "holder.py").write_text(HOLDER)
    command = [sys.executable, str(tmp_path / "holder.py"), str(folder), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=os.getcwd())
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    started = [int(word) for word in done.stdout.split()]
    assert started
    wait_for_the_end_of(started)
