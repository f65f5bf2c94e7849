"""Claims: the index says where every record lies and what it is; a killed build goes on; what cannot be used stops it
with file, record and byte, or is left out and listed, up to a number; verifying lists every fault in one pass; several
processes write, list and refuse the same as one; memory does not grow with the number of shards."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import psutil
import pytest
from patience import PATIENCE, wait_for_the_end_of, wait_until
from records import TWO, flip, sequence, video, write

from replicate.data import index as indexing
from replicate.data.batches import RecordSource
from replicate.data.index import Index, build_index, find_shards
from replicate.data.tfrecord import FOOTER, HEADER, RecordError, iterate_records
from replicate.data.verify import verify
from replicate.errors import DataError
from replicate.record import read_json

IDS = [["a0", "a1", "a2"], ["b0"], ["c0", "c1"]]
NAMES = ["part0.tfrecord", "part1.tfrecord", "part2.tfrecord"]


@pytest.fixture
def corpus(tmp_path):
    """Three shards; video "x<n>" of part p has n + p + 1 frames and the labels n and 5."""
    for shard, (name, ids) in enumerate(zip(NAMES, IDS, strict=True)):
        payloads = [video(each, (int(each[1]), 5), frames=int(each[1]) + shard + 1) for each in ids]
        write(tmp_path / "data" / name, payloads)
    return tmp_path / "data"


def build(corpus, out, **options) -> Index:
    build_index(TWO, corpus, find_shards(corpus, ["*.tfrecord"]), out, **options)
    return Index.open(out, corpus)


def test_every_record_is_found_and_described(corpus, tmp_path):
    index = build(corpus, tmp_path / "index")
    ids = [name for names in IDS for name in names]
    assert index.count == 6
    assert [name.decode() for name in index.ids] == ids
    assert index.shard.tolist() == [0, 0, 0, 1, 2, 2]
    assert index.record.tolist() == [0, 1, 2, 0, 0, 1]
    assert index.frames.tolist() == [1, 2, 3, 2, 3, 4]
    assert [index.labels(row).tolist() for row in range(6)] == [[0, 5], [1, 5], [2, 5], [0, 5], [0, 5], [1, 5]]
    source = RecordSource(index, TWO, 6)
    assert [source.record(row).id for row in range(6)] == ids


def test_shards_are_listed_with_their_hashes(corpus, tmp_path):
    index = build(corpus, tmp_path / "index")
    for shard, name, ids in zip(index.shards, NAMES, IDS, strict=True):
        content = (corpus / name).read_bytes()
        assert shard == {
            "name": name, "bytes": len(content), "records": len(ids), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def many(folder, shards=12):
    """Shards of unequal length; the second is far longer than any other, so that it is the last to be read."""
    for shard in range(shards):
        count = 150 if shard == 1 else 1 + shard
        payloads = [video(f"{shard}-{n}", (n % 10, 7), frames=1 + n % 6) for n in range(count)]
        write(folder / f"s{shard:02d}.tfrecord", payloads)
    return find_shards(folder, ["*.tfrecord"])


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_nothing(tmp_path, processes):
    many(tmp_path / "data")
    build(tmp_path / "data", tmp_path / "one")
    seen = []
    build(tmp_path / "data", tmp_path / "several", processes=processes, progress=lambda *event: seen.append(event))
    assert tree(tmp_path / "several") == tree(tmp_path / "one")
    done = [event[0] for event in seen]
    assert done == sorted(done) and seen[-1][0] == seen[-1][1] == sum(
        path.stat().st_size for path in (tmp_path / "data").iterdir()
    )


def test_columns_are_written_as_numpy_writes_them(corpus, tmp_path):
    index = build(corpus, tmp_path / "index")
    for name in indexing.COLUMNS:
        np.save(tmp_path / "column.npy", np.array(getattr(index, name)))
        assert (tmp_path / "column.npy").read_bytes() == (tmp_path / "index" / f"{name}.npy").read_bytes()


def test_an_index_of_nothing_is_empty(tmp_path):
    build_index(TWO, tmp_path, [], tmp_path / "index")
    index = Index.open(tmp_path / "index", tmp_path)
    assert index.count == 0 and index.label_offsets.tolist() == [0]


def test_joining_holds_one_part_at_a_time(tmp_path):
    records, shards = 20_000, 30
    columns = {
        "record": np.arange(records, dtype=np.int32), "offset": np.arange(records), "ids": np.full(records, b"abcd"),
        "frames": np.ones(records, np.int16), "label_counts": np.full(records, 3),
        "label_values": np.zeros(3 * records, np.int16),
    }  # fmt: skip
    (tmp_path / "parts").mkdir()
    for shard in range(shards):
        np.savez(tmp_path / "parts" / f"{shard:06d}.npz", **columns)
    summaries = [indexing._Part(records, 3 * records, 4, [], "")] * shards
    tracemalloc.start()
    indexing._join(tmp_path / "parts", summaries, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written = sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    assert peak < written / 6


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_build_goes_on_and_ends_the_same(corpus, tmp_path, monkeypatch, killed_at):
    build(corpus, tmp_path / "whole")
    real, read = indexing.scan.scan, []

    def die(spec, shard, most_faults):
        if len(read) == killed_at and "killed" not in read:
            read.append("killed")
            raise KeyboardInterrupt
        read.append(os.path.basename(shard.path))
        return real(spec, shard, most_faults)

    monkeypatch.setattr(indexing.scan, "scan", die)
    with pytest.raises(KeyboardInterrupt):
        build(corpus, tmp_path / "index")
    assert not (tmp_path / "index" / "index.json").exists()
    build(corpus, tmp_path / "index")
    assert [name for name in read if name != "killed"] == NAMES  # no shard is read twice
    assert tree(tmp_path / "index") == tree(tmp_path / "whole")


def start_and_wait(corpus, out, held, startup):
    """A build by two processes in a process of its own, once it has written all parts but one, which it never does.

    Args:
        held: name of the shard whose reading does not end.
        startup: a new folder, whose `sitecustomize` Python runs first in each of the processes.
    """
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(f"""
import os, time
from replicate.data import scan
real = scan.scan
def scanned(spec, shard, most_faults):
    while os.path.basename(shard.path) == {held!r}:
        time.sleep(0.05)
    return real(spec, shard, most_faults)
scan.scan = scanned
""")
    program = f"""
from pathlib import Path
from records import TWO
from replicate.data.index import build_index, find_shards
root = Path({str(corpus)!r})
build_index(TWO, root, find_shards(root, ["*.tfrecord"]), Path({str(out)!r}), processes=2)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(startup), *sys.path])}
    build = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, env=environment)
    others = len(list(corpus.iterdir())) - 1
    wait_until(lambda: len(list((out / "parts").glob("*.npz"))) == others or build.poll() is not None, "parts")
    assert build.poll() is None
    return build


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_killed_with_its_processes_it_goes_on_and_reads_no_shard_twice(tmp_path, monkeypatch, sent):
    corpus, out = tmp_path / "data", tmp_path / "index"
    names = many(corpus, 6)
    build(corpus, tmp_path / "whole")
    running = start_and_wait(corpus, out, names[4], tmp_path / "startup")
    readers = psutil.Process(running.pid).children()
    running.send_signal(sent)
    running.wait(PATIENCE)
    wait_for_the_end_of(readers)
    assert sorted(path.name for path in out.iterdir()) == ["parts"]
    assert sorted(path.name for path in (out / "parts").iterdir()) == [f"{n:06d}.npz" for n in (0, 1, 2, 3, 5)]
    real, read = indexing.scan.scan, []
    monkeypatch.setattr(
        indexing.scan, "scan", lambda *given: read.append(os.path.basename(given[1].path)) or real(*given)
    )
    build(corpus, out)
    assert read == [names[4]]
    assert tree(out) == tree(tmp_path / "whole")


def damage(corpus):
    """A flipped bit in a1's frames and a label out of range in c0."""
    begin = [offset for offset, _ in iterate_records(corpus / NAMES[0])][1]
    flip(corpus / NAMES[0], begin + HEADER + 30)
    write(corpus / NAMES[2], [video("c0", (10,)), video("c1", (1, 5), frames=4)])
    return [
        {"file": NAMES[0], "record": 1, "offset": begin, "reason": "CRC of the data differs (flipped bits)"},
        {"file": NAMES[2], "record": 0, "offset": 0, "reason": "label 10 is out of range 0..9"},
    ]


def test_an_unusable_record_stops_the_build_with_its_place_and_remedies(corpus, tmp_path):
    damage(corpus)
    with pytest.raises(RecordError) as caught:
        build(corpus, tmp_path / "index")
    error = caught.value
    assert (error.file, error.record) == (str(corpus / NAMES[0]), 1)
    place = f"{corpus / NAMES[0]}, record 1 at byte {error.offset}: "
    assert str(error).startswith(f"{place}CRC of the data differs (flipped bits); download the file again")
    assert str(error).endswith("allow more by --max-corrupt")
    with pytest.raises(RecordError, match="part2.tfrecord, record 0 at byte 0: label 10 is out of range"):
        build(corpus, tmp_path / "index", max_corrupt=1)


@pytest.mark.parametrize("processes", [1, 3])
def test_the_fault_that_is_one_too_many_is_the_same_for_any_number_of_processes(tmp_path, processes):
    """Shard 1 has the first two faults and is read last of all: later shards know nothing of them."""
    names = many(tmp_path / "data", 6)
    wrong = [(1, 50), (1, 149), (3, 2), (5, 0)]
    for shard, record in wrong:
        path = tmp_path / "data" / names[shard]
        flip(path, [offset for offset, _ in iterate_records(path)][record] + HEADER + 30)
    for allowed, (shard, record) in enumerate(wrong):
        before = sum(earlier == shard for earlier, _ in wrong[:allowed])
        said = rf"{names[shard]}, record {record} at byte \d+: CRC of the data differs \(flipped bits\)"
        said += rf" \({before} before it in this file were skipped\)" if before else ""
        with pytest.raises(RecordError, match=rf"{said}; download the file again, .* allow more by --max-corrupt$"):
            build(tmp_path / "data", tmp_path / f"index{allowed}", max_corrupt=allowed, processes=processes)
        assert [path.name for path in (tmp_path / f"index{allowed}").iterdir()] == ["parts"]
        assert not list((tmp_path / f"index{allowed}" / "parts").glob(".*"))
    build(tmp_path / "data", tmp_path / "index", max_corrupt=len(wrong), processes=processes)
    skipped = read_json(tmp_path / "index" / "index.json")["skipped"]
    assert [(fault["file"], fault["record"]) for fault in skipped] == [(names[shard], n) for shard, n in wrong]


def test_parts_of_a_more_generous_build_do_not_widen_what_is_allowed(corpus, tmp_path):
    expected = damage(corpus)
    (corpus / NAMES[2]).rename(tmp_path / "later")
    with pytest.raises(RecordError, match="part2.tfrecord: cannot be read: No such file"):
        build_index(TWO, corpus, NAMES, tmp_path / "index", max_corrupt=1)
    (tmp_path / "later").rename(corpus / NAMES[2])
    with pytest.raises(RecordError, match=f"record 1 at byte {expected[0]['offset']}: CRC of the data"):
        build(corpus, tmp_path / "index", max_corrupt=0)


def test_allowed_faults_are_left_out_and_listed_and_numbers_stay(corpus, tmp_path):
    expected = damage(corpus)
    skipped = build_index(TWO, corpus, NAMES, tmp_path / "index", max_corrupt=2)
    assert skipped == expected == read_json(tmp_path / "index" / "index.json")["skipped"]
    index = Index.open(tmp_path / "index", corpus)
    assert [name.decode() for name in index.ids] == ["a0", "a2", "b0", "c1"]
    assert index.record.tolist() == [0, 2, 0, 1]
    source = RecordSource(index, TWO, 6)
    assert [source.record(row).id for row in range(4)] == ["a0", "a2", "b0", "c1"]
    assert [shard["records"] for shard in index.shards] == [2, 1, 1]


def test_a_shard_without_a_usable_record_may_be_left_out(corpus, tmp_path):
    write(corpus / NAMES[1], [video("b0", (10,))])
    index = build(corpus, tmp_path / "index", max_corrupt=1)
    assert index.shards[1]["records"] == 0 and index.count == 5


@pytest.mark.parametrize("processes", [1, 2])
def test_a_file_that_cannot_be_read_at_all_is_never_left_out(corpus, tmp_path, processes):
    (corpus / NAMES[1]).write_bytes(b"")
    with pytest.raises(RecordError, match="part1.tfrecord: the file is empty"):
        build(corpus, tmp_path / "index", max_corrupt=100, processes=processes)
    (corpus / NAMES[1]).unlink()
    with pytest.raises(RecordError, match="part1.tfrecord: cannot be read: No such file or directory$"):
        build_index(TWO, corpus, NAMES, tmp_path / "index", max_corrupt=100, processes=processes)


def test_an_id_that_occurs_twice_is_refused_with_both_places(corpus, tmp_path):
    shutil.copy(corpus / NAMES[0], corpus / "part3.tfrecord")
    message = (
        r"part3.tfrecord, record 0 at byte 0: the id 'a0' occurs before, in part0.tfrecord, record 0 \(3 such records\)"
    )
    with pytest.raises(RecordError, match=message):
        build(corpus, tmp_path / "index")


def test_a_pattern_that_matches_nothing_is_named(corpus):
    with pytest.raises(DataError, match=r"no file under .* matches 'train/\*'; is --data-dir"):
        find_shards(corpus, ["*.tfrecord", "train/*"])


BAD = {
    "frames0.tfrecord": (lambda: [video("z0", frames=0)], "record 0 at byte 0: has zero frames"),
    "frames7.tfrecord": (lambda: [video("z1", frames=7)], "record 0 at byte 0: has 7 frames, more than 6"),
    "key.tfrecord": (
        lambda: [sequence({"id": [b"z2"], "labels": [1]}, {"rgb": [[bytes(5)]]})],
        "record 0 at byte 0: has no frames under key 'audio'",
    ),
    "label.tfrecord": (lambda: [video("z3", labels=(3, 10))], "record 0 at byte 0: label 10 is out of range 0..9"),
    "width.tfrecord": (
        lambda: [sequence({"id": [b"z4"], "labels": [1]}, {"rgb": [[bytes(4)]], "audio": [[bytes(2)]]})],
        "record 0 at byte 0: frame 0 of 'rgb' has 4 values, not 5 values",
    ),
}


def test_verify_lists_every_fault_in_one_pass(corpus):
    expected = []
    for name, (payloads, sentence) in BAD.items():
        write(corpus / name, payloads())
        expected.append(f"{name}, {sentence}")
    (corpus / "empty.tfrecord").touch()
    expected.append("empty.tfrecord: the file is empty; download it again")
    (corpus / "folder.tfrecord").mkdir()
    expected.append("folder.tfrecord: cannot be read: Is a directory")
    (corpus / "page.tfrecord").write_text("<html></html>" * 9)
    expected.append("page.tfrecord, record 0 at byte 0: is not a TFRecord file, or its first length is damaged")

    size = HEADER + len(video("d0")) + FOOTER
    flipped = "CRC of the data differs (flipped bits)"
    for name, byte, reason in (
        ("header", size + 2, f"CRC of the length differs (flipped bits); reading goes on at byte {2 * size}"),
        ("payload", size + HEADER + 5, flipped),
        ("footer", 2 * size - 1, flipped),
    ):
        write(corpus / f"{name}.tfrecord", [video(f"{name[0]}{number}") for number in range(3)])
        flip(corpus / f"{name}.tfrecord", byte)
        expected.append(f"{name}.tfrecord, record 1 at byte {size}: {reason}")
    write(corpus / "cut.tfrecord", [video(f"d{number}") for number in range(3)])
    os.truncate(corpus / "cut.tfrecord", 3 * size - 4)
    reason = f"the file ends within a record of {size - HEADER - FOOTER} bytes (truncated)"
    expected.append(f"cut.tfrecord, record 2 at byte {2 * size}: {reason}")
    write(corpus / "twice.tfrecord", [video("a1")])
    expected.append("twice.tfrecord, record 0 at byte 0: the id 'a1' occurs before, in part0.tfrecord, record 1")

    (corpus / "nowhere.tfrecord").symlink_to("missing")
    expected.append("nowhere.tfrecord: cannot be read: No such file or directory")

    shards = find_shards(corpus, ["*.tfrecord"])
    seen = []
    faults = verify(TWO, corpus, shards, lambda *event: seen.append(event))
    assert sorted(str(fault) for fault in faults) == sorted(f"{corpus}/{line}" for line in expected)
    whole = sum(os.path.getsize(corpus / name) for name in shards if name != "nowhere.tfrecord")
    assert [str(fault) for fault in verify(TWO, corpus, shards, processes=3)] == [str(fault) for fault in faults]
    assert seen[-1] == (whole, whole, "width.tfrecord")


@pytest.mark.parametrize("processes", [1, 3])
def test_repeated_ids_stand_among_the_other_faults_and_name_the_first(corpus, processes):
    write(corpus / "x.tfrecord", [video("a1"), video("n0", frames=7), video("b0"), video("a1"), video("n1")])
    write(corpus / "y.tfrecord", [video("n1", labels=(10,)), video("n1"), video("n2")])
    faults = verify(TWO, corpus, [*NAMES, "x.tfrecord", "y.tfrecord"], processes=processes)
    before = "occurs before, in"
    assert [f"{os.path.basename(fault.file)} {fault.record}: {fault.reason}" for fault in faults] == [
        f"x.tfrecord 0: the id 'a1' {before} part0.tfrecord, record 1",
        "x.tfrecord 1: has 7 frames, more than 6",
        f"x.tfrecord 2: the id 'b0' {before} part1.tfrecord, record 0",
        f"x.tfrecord 3: the id 'a1' {before} part0.tfrecord, record 1",
        "y.tfrecord 0: label 10 is out of range 0..9",
        f"y.tfrecord 1: the id 'n1' {before} x.tfrecord, record 4",
    ]
    offsets = [offset for offset, _ in iterate_records(corpus / "x.tfrecord")]
    assert [fault.offset for fault in faults[:4]] == offsets[:4]


def test_verify_finds_nothing_wrong_with_a_good_corpus(corpus):
    assert verify(TWO, corpus, NAMES) == []


def test_records_of_a_mixed_file_are_each_judged(corpus):
    lists = {"rgb": [[bytes(5)]], "audio": [[bytes(2)]]}
    payloads = [video("m0"), sequence({"labels": [1]}, lists), video("m2"), b"\xff" * 20]
    write(corpus / "mixed.tfrecord", payloads)
    faults = verify(TWO, corpus, ["mixed.tfrecord"])
    begin = HEADER + len(payloads[0]) + FOOTER
    assert [(fault.record, fault.reason) for fault in faults] == [
        (1, "has no id (key 'id')"), (3, "is not a SequenceExample"),
    ]  # fmt: skip
    assert faults[0].offset == begin


def test_label_columns_hold_what_records_hold(tmp_path):
    generator = np.random.default_rng(0)
    wanted = [np.sort(generator.choice(10, generator.integers(1, 6), replace=False)).tolist() for _ in range(40)]
    write(tmp_path / "data" / "x.tfrecord", [video(f"v{n}", labels) for n, labels in enumerate(wanted)])
    index = build(tmp_path / "data", tmp_path / "index")
    assert [index.labels(row).tolist() for row in range(40)] == wanted
