"""TFRecord framing: length, its CRC, payload, its CRC. Every CRC is checked at every read.

A record is: uint64 length, uint32 masked CRC32C of the length's bytes, payload, uint32 masked CRC32C of the payload, all
little-endian. The mask rotates the CRC right by 15 bits and adds a constant.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from replicate.errors import DataError

HEADER, FOOTER = 12, 4
_MASK_DELTA = 0xA282EAD8
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")


class RecordError(DataError):
    """A record that cannot be used.

    Attributes:
        file: the shard's path.
        record: number of the record within the shard, from 0; None when the fault is the file's.
        offset: byte at which the record (or the faulty part of the file) begins; None when the fault is the file's.
        reason: what is wrong.
    """

    def __init__(self, file: str, record: int | None, offset: int | None, reason: str):
        self.file, self.record, self.offset, self.reason = file, record, offset, reason
        place = "" if record is None else f", record {record} at byte {offset}"
        super().__init__(f"{file}{place}: {reason}")

    def __reduce__(self):
        return type(self), (self.file, self.record, self.offset, self.reason)


def masked_crc(data: bytes | memoryview) -> int:
    """The masked CRC32C of some bytes, as TFRecord files store it."""
    crc = google_crc32c.value(data if isinstance(data, bytes) else bytes(data))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A payload as a whole record."""
    length = struct.pack("<Q", len(payload))
    return length + _CRC.pack(masked_crc(length)) + payload + _CRC.pack(masked_crc(payload))


def open_shard(path: Path) -> mmap.mmap:
    """Map a shard into memory.

    Raises:
        RecordError: the file is missing, empty, a folder, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise RecordError(str(path), None, None, "the file is empty; download it again") from None
    except OSError as error:
        raise RecordError(str(path), None, None, f"cannot be read: {error.strerror}") from None


def read_payload(shard: mmap.mmap, path: str, record: int, offset: int) -> bytes:
    """The payload of the record that begins at `offset`, both CRCs checked.

    Raises:
        RecordError: the record is truncated or a CRC does not match.
    """
    remaining = len(shard) - offset
    if remaining < HEADER:
        fault = "is not a TFRecord file" if offset == 0 else "the file ends within a record's header (truncated)"
        raise RecordError(path, record, offset, fault)
    length, crc = _LENGTH.unpack_from(shard, offset)
    if masked_crc(shard[offset : offset + 8]) != crc:
        fault = "is not a TFRecord file, or its first length is damaged" if offset == 0 else "CRC of the length differs"
        raise RecordError(path, record, offset, fault)
    if length > remaining - HEADER - FOOTER:
        raise RecordError(path, record, offset, f"the file ends within a record of {length} bytes (truncated)")
    begin = offset + HEADER
    payload = shard[begin : begin + length]
    if masked_crc(payload) != _CRC.unpack_from(shard, begin + length)[0]:
        raise RecordError(path, record, offset, "CRC of the data differs (flipped bits)")
    return payload


def iterate_records(path: Path) -> Iterator[tuple[int, bytes | RecordError]]:
    """(offset, payload) of every record of a shard, in order.

    A record whose data CRC fails is yielded as its error and reading goes on behind it, because its length is known to
    be right; after a damaged length nothing can be found any more, and that error ends the iteration.
    """
    shard = open_shard(path)
    offset = record = 0
    while offset < len(shard):
        try:
            item: bytes | RecordError = read_payload(shard, str(path), record, offset)
        except RecordError as error:
            item = error
        yield offset, item
        if isinstance(item, RecordError) and not item.reason.startswith("CRC of the data"):
            return
        offset += HEADER + _LENGTH.unpack_from(shard, offset)[0] + FOOTER
        record += 1
