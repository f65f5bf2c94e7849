"""Claims: a batch holds exactly the records' bytes, cut and padded with zeros; both readers give the same batches;
a shard that changed is noticed."""

import dataclasses
import shutil
import threading

import numpy as np
import pytest
from records import TWO, flip, indexed, video, write

from replicate.data import batches as module
from replicate.data.batches import ArraySource, RecordSource, batches, epoch_order
from replicate.data.example import parse
from replicate.data.index import Index, build_index
from replicate.data.labels import LabelStore
from replicate.data.spec import SPECS
from replicate.data.tfrecord import RecordError, iterate_records

SHARDS = ["s0.tfrecord", "s1.tfrecord", "s2.tfrecord"]
VIDEOS = 12


@pytest.fixture
def corpus(tmp_path):
    return indexed(tmp_path)


@pytest.fixture
def labels():
    """Video n has the nodes n % 3 and 3."""
    values = np.array([[n % 3, 3] for n in range(VIDEOS)], np.int16).ravel()
    return LabelStore(np.arange(0, 2 * VIDEOS + 1, 2), values, 5)


def expected(index, rows, limit):
    """The batch by its definition, from the files."""
    records = [
        parse(TWO, payload, strided=False)
        for shard in index.shards
        for _, payload in iterate_records(index.root / shard["name"])
    ]
    lengths = [min(records[row].frames, limit) for row in rows]
    features = np.zeros((len(rows), max(lengths), 7), np.uint8)
    for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        for time in range(length):
            features[line, time] = [*records[row].features[0][time], *records[row].features[1][time]]
    return features, lengths


@pytest.mark.parametrize("limit", [6, 3, 1])
@pytest.mark.parametrize("reader", ["native", "tensorflow"])
def test_a_batch_is_its_records_cut_and_padded(corpus, labels, limit, reader):
    order = epoch_order(np.arange(VIDEOS), 0, 1)
    found = list(batches(RecordSource(corpus, TWO, limit, reader), labels, order, 5))
    assert [len(batch.rows) for batch in found] == [5, 5, 2]
    assert np.concatenate([batch.rows for batch in found]).tolist() == order.tolist()
    for batch in found:
        features, lengths = expected(corpus, batch.rows, limit)
        assert batch.features.dtype == np.uint8 and batch.lengths.dtype == np.int64 and batch.labels.dtype == bool
        assert np.array_equal(batch.features, features)
        assert batch.lengths.tolist() == lengths
        for line, row in enumerate(batch.rows):
            assert np.flatnonzero(batch.labels[line]).tolist() == [row % 3, 3]


def test_a_batch_is_padded_to_its_own_longest_video(corpus, labels):
    [batch] = batches(RecordSource(corpus, TWO, 6), labels, np.array([0, 6, 1]), 3)
    assert batch.features.shape == (3, 2, 7)


@pytest.mark.data
def test_both_readers_give_the_same_batches_of_real_records(data_dir, tmp_path):
    shutil.copy(data_dir / "yt8m_frame" / "genuine_SjJ3.tfrecord", tmp_path / "a.tfrecord")
    head = [payload for _, payload in iterate_records(data_dir / "audioset" / "eval.tfrecord")][:300]
    write(tmp_path / "b.tfrecord", head)
    for spec, name in ((SPECS["yt8m"], "a.tfrecord"), (SPECS["audioset"], "b.tfrecord")):
        build_index(spec, tmp_path, [name], tmp_path / spec.name)
        index = Index.open(tmp_path / spec.name, tmp_path)
        order = epoch_order(np.arange(index.count), 1, 2)
        native, other = (RecordSource(index, spec, 100, reader) for reader in ("native", "tensorflow"))
        for begin in range(0, index.count, 64):
            rows = order[begin : begin + 64]
            for mine, theirs in zip(native.read(rows), other.read(rows), strict=True):
                assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def test_a_source_of_vectors_has_one_frame_each():
    array = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features, lengths = ArraySource(array).read(np.array([4, 1]))
    assert np.array_equal(features[:, 0], array[[4, 1]]) and features.shape == (2, 1, 4)
    assert lengths.tolist() == [1, 1]


def test_parts_of_processes_are_the_batches(corpus, labels):
    """Also where a process has no video of a batch: of no frames, but of the right width."""
    source, order = RecordSource(corpus, TWO, 6), epoch_order(np.arange(VIDEOS), 0, 1)
    alone = list(batches(source, labels, order, 5))
    parts = [list(batches(source, labels, order, 5, rank=rank, ranks=3)) for rank in range(3)]
    for batch, *those in zip(alone, *parts, strict=True):
        features = np.zeros_like(batch.features)
        line = 0
        for part in those:
            features[line : line + len(part.rows), : part.features.shape[1]] = part.features
            line += len(part.rows)
        assert np.array_equal(features, batch.features)
        for name in ("rows", "lengths", "labels"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in those]), getattr(batch, name))
    assert parts[0][2].features.shape == (0, 0, 7) and parts[0][2].labels.shape == (0, 5)


def test_a_resumed_epoch_goes_on_with_the_next_record(corpus, labels):
    source, order = RecordSource(corpus, TWO, 6), epoch_order(np.arange(VIDEOS), 0, 1)
    whole = list(batches(source, labels, order, 5))
    for done in range(4):
        rest = list(batches(source, labels, order, 5, done=done))
        assert [batch.rows.tolist() for batch in rest] == [batch.rows.tolist() for batch in whole[done:]]
        assert all(np.array_equal(a.features, b.features) for a, b in zip(rest, whole[done:], strict=True))


def test_memory_is_used_again_only_when_nobody_holds_it(corpus):
    source = RecordSource(corpus, TWO, 6)
    view = source.read(np.array([11, 5]))[0][1, 2:]
    kept = view.copy()
    others = [source.read(np.array([11, row]))[0] for row in range(VIDEOS)]
    assert np.array_equal(view, kept), "a view keeps its batch's memory"
    assert len({other.__array_interface__["data"][0] for other in others}) == VIDEOS
    del view, others
    again = source.read(np.array([5, 0]))[0]
    addresses = [again.__array_interface__["data"][0]]
    assert np.array_equal(again, expected(corpus, [5, 0], 6)[0]), "padding is zero in used memory, too"
    for _ in range(VIDEOS):
        again = source.read(np.array([5, 0]))[0]
        addresses.append(again.__array_interface__["data"][0])
    assert len(set(addresses)) <= 4, "memory is used again"


def test_more_shards_than_may_be_open(corpus, labels, monkeypatch):
    monkeypatch.setattr(module, "OPEN_SHARDS", 2)
    source = RecordSource(corpus, TWO, 6)
    rows = np.array([0, 4, 8, 1, 5, 9, 2, 6, 10])
    features, lengths = source.read(rows)
    assert len(source._shards) == 2
    assert np.array_equal(features, expected(corpus, rows, 6)[0])


def test_a_shard_of_another_size_is_noticed(corpus):
    path = corpus.root / SHARDS[1]
    write(path, [video(f"v{n:02d}", frames=6) for n in range(4, 8)])
    message = r"s1.tfrecord: has \d+ bytes, and had \d+ when it was indexed; restore the file"
    with pytest.raises(RecordError, match=message):
        RecordSource(corpus, TWO, 6).record(4)


@pytest.mark.parametrize(
    ("row", "videos"),
    [
        (6, [("w04", 5), ("w05", 6), ("w06", 1), ("w07", 2)]),  # of the same lengths
        (4, [("v04", 6), ("v05", 5), ("v06", 1), ("v07", 2)]),  # the same video with another length
    ],
)
def test_other_videos_at_the_same_places_are_noticed(corpus, row, videos):
    write(corpus.root / SHARDS[1], [video(name, frames=frames) for name, frames in videos])
    message = rf"s1.tfrecord, record {row - 4} at byte \d+: is another video than when it was indexed"
    with pytest.raises(RecordError, match=message):
        RecordSource(corpus, TWO, 6).record(row)


def readers():
    """Threads that read batches, those of other tests too."""
    return {thread for thread in threading.enumerate() if thread.name == "read batches"}


def test_damage_after_indexing_is_noticed(corpus, labels):
    flip(corpus.root / SHARDS[2], int(corpus.offset[9]) + 40)
    source, before = RecordSource(corpus, TWO, 6), readers()
    with pytest.raises(RecordError, match="s2.tfrecord, record 1 at byte .*CRC of the data differs"):
        list(batches(source, labels, np.arange(VIDEOS), 4))
    assert not readers() - before


def test_another_format_after_indexing_is_noticed(corpus):
    other = dataclasses.replace(TWO, label_count=1)
    with pytest.raises(RecordError, match="s0.tfrecord, record 0 at byte 0: label 1 is out of range 0..0"):
        RecordSource(corpus, other, 6).record(0)


def test_a_consumer_that_stops_early_leaves_no_thread(corpus, labels):
    before = readers()
    feed = batches(RecordSource(corpus, TWO, 6), labels, np.tile(np.arange(VIDEOS), 50), 2)
    next(feed)
    assert len(readers() - before) == 1
    feed.close()
    assert not readers() - before


def test_labels_are_encoded_row_by_row(tmp_path):
    generator = np.random.default_rng(3)
    sets = [np.sort(generator.choice(9, generator.integers(0, 5), replace=False)) for _ in range(20)]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in sets])])
    store = LabelStore(offsets, np.concatenate(sets).astype(np.int16), 9)
    store.save(tmp_path)
    rows = generator.integers(0, 20, 33)
    for opened in (store, LabelStore.open(tmp_path)):
        encoded = opened.encode(rows)
        assert encoded.shape == (33, 9) and encoded.dtype == bool
        assert [np.flatnonzero(line).tolist() for line in encoded] == [sets[row].tolist() for row in rows]
