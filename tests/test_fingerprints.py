"""Claims: a corpus has one fingerprint whether or not its files are remembered; files that did not change are not
opened again; whatever changed is read, also where its times do not tell."""

import hashlib
import os
import time

import pytest
from patience import wait_until

from replicate.data import fingerprints
from replicate.data.fingerprints import MEMORY, fingerprint
from replicate.data.tfrecord import RecordError

NAMES = ["a b.tfrecord", "ü.tfrecord", "long.tfrecord"]
HOUR = 3600 * 10**9


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for name in NAMES:
        (root / name).write_bytes(name.encode() * (60_000 if name == NAMES[2] else 3))
        os.utime(root / name, ns=(HOUR, HOUR))  # so that a change has another time, however soon it comes
    return root


@pytest.fixture
def memory(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def later(monkeypatch):
    """The clock is an hour on: no file is as new as to be racy."""
    monkeypatch.setattr(fingerprints.time, "time_ns", lambda real=time.time_ns: real() + HOUR)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were read."""
    names = []
    real = fingerprints._read
    monkeypatch.setattr(fingerprints, "_read", lambda path: (names.append(os.path.basename(path)), real(path))[1])
    return names


def test_it_is_names_sizes_and_digests_of_ends(corpus, memory):
    expected = []
    for name in NAMES:
        content = (corpus / name).read_bytes()
        ends = content[:65536] + content[max(0, len(content) - 65536) :]
        expected.append((name, len(content), hashlib.sha256(ends).hexdigest()))
    assert fingerprint(corpus, NAMES) == fingerprint(corpus, NAMES, memory) == expected
    assert fingerprint(corpus, NAMES, memory) == expected


def test_files_that_did_not_change_are_not_opened(corpus, memory, later, opened):
    before = fingerprint(corpus, NAMES, memory)
    del opened[:]
    assert fingerprint(corpus, NAMES, memory) == before and not opened
    assert fingerprint(corpus, NAMES[:1], memory) == before[:1] and not opened
    assert fingerprint(corpus, NAMES) == before and opened == NAMES


def test_a_changed_file_is_read(corpus, memory, later, opened):
    before = fingerprint(corpus, NAMES, memory)
    del opened[:]
    content = bytearray((corpus / NAMES[1]).read_bytes())
    content[3] ^= 1
    (corpus / NAMES[1]).write_bytes(content)
    after = fingerprint(corpus, NAMES, memory)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert opened == [NAMES[1]]


def altered(path):
    """Other bytes, the same size and the same time of modification; the disk's clock, which may be coarse, went on."""
    stat = path.stat()
    path.write_bytes(path.read_bytes()[::-1])

    def went_on():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return path.stat().st_ctime_ns != stat.st_ctime_ns

    wait_until(went_on, "the disk's clock")


def test_a_change_that_hides_its_time_is_read(corpus, memory, later):
    before = fingerprint(corpus, NAMES, memory)
    altered(corpus / NAMES[0])
    assert fingerprint(corpus, NAMES, memory) == fingerprint(corpus, NAMES) != before


def test_a_file_that_another_replaced_is_read(corpus, memory, later, monkeypatch):
    """Of the same size and times, as far as the disk tells them; the inode is another."""
    monkeypatch.setattr(fingerprints, "_stamp", lambda stat: (stat.st_size, 7, 7, stat.st_ino))
    before = fingerprint(corpus, NAMES, memory)
    other = corpus / "other"
    other.write_bytes((corpus / NAMES[0]).read_bytes()[::-1])
    other.replace(corpus / NAMES[0])
    assert fingerprint(corpus, NAMES, memory) == fingerprint(corpus, NAMES) != before


def test_what_is_as_new_as_its_entry_is_read_again(corpus, memory, monkeypatch):
    """A second change within the grain of a coarse clock leaves the stamp as it was."""
    stamp = fingerprints._stamp((corpus / NAMES[0]).stat())
    monkeypatch.setattr(fingerprints, "_stamp", lambda stat: (stat.st_size, *stamp[1:]))
    before = fingerprint(corpus, NAMES, memory)
    (corpus / NAMES[0]).write_bytes((corpus / NAMES[0]).read_bytes()[::-1])
    assert fingerprint(corpus, NAMES, memory) == fingerprint(corpus, NAMES) != before


def test_a_touched_file_is_read_once_and_is_the_same(corpus, memory, later, opened):
    before = fingerprint(corpus, NAMES, memory)
    del opened[:]
    os.utime(corpus / NAMES[2], (1, 1))
    assert fingerprint(corpus, NAMES, memory) == before == fingerprint(corpus, NAMES, memory)
    assert opened == [NAMES[2]]


def test_a_pipe_is_refused_before_it_is_waited_for(corpus):
    os.mkfifo(corpus / "pipe.tfrecord")
    with pytest.raises(RecordError, match="pipe.tfrecord: cannot be read: it is no regular file"):
        fingerprint(corpus, ["pipe.tfrecord"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 3}', '{"x": [[1], 2]}', '{"x": [["a"], 2, ""]}', "\udcff"])
def test_a_damaged_memory_is_none(text, corpus, memory):
    (memory / MEMORY).write_bytes(text.encode(errors="surrogateescape"))
    assert fingerprint(corpus, NAMES, memory) == fingerprint(corpus, NAMES)


def test_corpora_are_remembered_beside_one_another(corpus, memory, later, opened, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / NAMES[0]).write_bytes(b"another")
    mine, its = fingerprint(corpus, NAMES, memory), fingerprint(other, NAMES[:1], memory)
    del opened[:]
    assert (fingerprint(corpus, NAMES, memory), fingerprint(other, NAMES[:1], memory)) == (mine, its)
    assert not opened and mine[0] != its[0]


def test_where_nothing_can_be_remembered_all_are_read(corpus, memory, monkeypatch):
    expected = fingerprint(corpus, NAMES)
    assert fingerprint(corpus, NAMES, memory / "not made yet") == expected
    assert not (memory / "not made yet").exists(), "looking writes nothing where no run is"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fingerprints, "write_json", full)
    assert fingerprint(corpus, NAMES, memory) == expected
