"""Claims: framing is TensorFlow's; every flipped bit is found, in the record that it hits, and costs that record alone;
a file that is cut, missing, empty, a folder, forbidden, failing or shrinking is a sentence."""

import contextlib
import errno
import os
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import flip, write

from replicate.data.tfrecord import FOOTER, HEADER, RecordError, Shard, frame, iterate_records, masked_crc


def unmasked(masked: int) -> int:
    """The CRC behind the mask, as TensorFlow's header (tensorflow/core/lib/hash/crc32c.h) documents it."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"123456789", 0xE3069283),  # the check value of CRC-32C in the catalogue of parametrised CRCs
        (bytes(32), 0x8A9136AA),  # these three are from RFC 3720, section B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc_of_known_vectors(data, crc):
    assert unmasked(masked_crc(data)) == crc


PAYLOADS = [b"first", b"", bytes(range(256)) * 40, b"last one"]


def offsets(payloads):
    begins, at = [], 0
    for payload in payloads:
        begins.append(at)
        at += HEADER + len(payload) + FOOTER
    return begins


def test_framing_is_tensorflows(tmp_path):
    path = write(tmp_path / "x.tfrecord", PAYLOADS)
    assert path.read_bytes() == b"".join(frame(payload) for payload in PAYLOADS)
    assert list(iterate_records(path)) == list(zip(offsets(PAYLOADS), PAYLOADS, strict=True))


def test_records_are_found_at_their_offsets_in_any_order(tmp_path):
    shard = Shard(write(tmp_path / "x.tfrecord", PAYLOADS))
    for number in (3, 0, 2, 1, 2):
        assert shard.payload(number, offsets(PAYLOADS)[number]) == PAYLOADS[number]


LONG = [b"a" * 30, bytes(100), b"\x00\x01" * 6000, b"b" * 11, b"end"]


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_costs_its_record_alone(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.tfrecord"
    path.write_bytes(b"".join(map(frame, LONG)))
    begins = [*offsets(LONG), path.stat().st_size]
    hit = data.draw(st.integers(0, len(LONG) - 1))
    place = data.draw(st.integers(begins[hit], begins[hit + 1] - 1))
    flip(path, place, data.draw(st.integers(0, 7)))
    found = dict(enumerate(iterate_records(path)))
    assert len(found) == len(LONG)
    for number, (offset, item) in found.items():
        assert offset == begins[number]
        if number != hit:
            assert item == LONG[number]
            continue
        assert isinstance(item, RecordError)
        assert (item.record, item.offset) == (hit, begins[hit])
        if place < begins[hit] + HEADER:
            assert "length" in item.reason
            going_on = hit + 1 < len(LONG)
            assert item.reason.endswith(f"reading goes on at byte {begins[hit + 1]}") == going_on
        else:
            assert item.reason == "CRC of the data differs (flipped bits)"


@pytest.mark.parametrize("kept", range(1, sum(HEADER + FOOTER + len(p) for p in (b"abc", b"defgh"))))
def test_a_file_cut_anywhere_is_named_unless_cut_between_records(tmp_path, kept):
    payloads = [b"abc", b"defgh"]
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(b"".join(map(frame, payloads))[:kept])
    first = HEADER + len(payloads[0]) + FOOTER
    *whole, last = list(iterate_records(path))
    if kept == first:
        assert (whole, last) == ([], (0, b"abc"))
        return
    number = int(kept > first)
    assert whole == [(0, b"abc")][:number]
    offset, error = last
    assert isinstance(error, RecordError)
    assert (error.record, error.offset, offset) == (number, first * number, first * number)
    assert "truncated" in error.reason or "is not a TFRecord file" in error.reason


def test_all_faults_of_a_file_are_found(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, LONG))[:-5])
    begins = offsets(LONG)
    flip(path, begins[0] + 1)
    flip(path, begins[2] + HEADER + 9)
    items = [item for _, item in iterate_records(path)]
    assert [isinstance(item, RecordError) for item in items] == [True, False, True, False, True]
    assert [item.offset for item in items[::2]] == [begins[0], begins[2], begins[4]]
    assert "truncated" in items[4].reason


def test_what_is_no_record_file_says_so(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_text("<html>404 Not Found</html>\n" * 50)
    [(offset, error)] = iterate_records(path)
    assert offset == 0
    assert str(error) == f"{path}, record 0 at byte 0: is not a TFRecord file, or its first length is damaged"


def test_a_stretch_of_zeros_is_one_fault(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(b"before") + bytes(3 << 20) + frame(b"after"))
    items = [item for _, item in iterate_records(path)]
    assert items[0] == b"before" and items[2:] == [b"after"]
    assert "CRC of the length differs" in items[1].reason


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "pipe"])
def test_unusable_files_are_sentences(tmp_path, kind):
    path = tmp_path / "x.tfrecord"
    if kind == "empty":
        path.touch()
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    reason = {
        "missing": "No such file or directory", "empty": "the file is empty", "folder": "Is a directory",
        "pipe": "Illegal seek",
    }[kind]  # fmt: skip
    with pytest.raises(RecordError, match=f"x.tfrecord: .*{reason}") as caught:
        iterate_records(path)
    assert (caught.value.record, caught.value.offset) == (None, None)


def test_a_forbidden_file_is_a_sentence(tmp_path, monkeypatch):
    path = write(tmp_path / "x.tfrecord", PAYLOADS)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RecordError, match="x.tfrecord: cannot be read: Permission denied"):
        Shard(path)


def test_a_failing_disk_is_a_sentence_with_the_place(tmp_path, monkeypatch):
    shard = Shard(write(tmp_path / "x.tfrecord", PAYLOADS))
    real = os.pread

    def fail(descriptor, size, offset):
        if offset <= 10_000 < offset + size:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(RecordError, match="record 2 at byte 37: cannot be read: Input/output error"):
        shard.payload(2, offsets(PAYLOADS)[2])


def test_a_file_that_shrinks_while_it_is_read_is_a_sentence(tmp_path):
    path = write(tmp_path / "x.tfrecord", PAYLOADS)
    shard = Shard(path)
    os.truncate(path, 100)
    with pytest.raises(RecordError, match="has become shorter while it was read"):
        shard.payload(2, offsets(PAYLOADS)[2])


def test_errors_travel_between_processes():
    error = RecordError("shard", 3, 77, "is damaged")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.record, copy.offset) == ("shard, record 3 at byte 77: is damaged", 3, 77)


def opened(path):
    """How many descriptors of this process are the file's."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    return count


def test_closed_when_dropped(tmp_path):
    path = write(tmp_path / "x.tfrecord", PAYLOADS)
    records = iterate_records(path)
    next(records)
    assert opened(path) == 1
    del records
    for _ in range(20):
        list(iterate_records(path))
    assert opened(path) == 0
