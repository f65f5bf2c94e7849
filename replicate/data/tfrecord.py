"""TFRecord framing: length, its CRC, payload, its CRC. Every CRC is checked at every read.

A record is: uint64 length, uint32 masked CRC32C of the length's bytes, payload, uint32 masked CRC32C of the payload;
all little-endian. The mask rotates the CRC right by 15 bits and adds a constant.

Local shards are read by `pread`, not mapped into memory: a file that shrinks or a disk that fails is then an error with
a sentence instead of a signal that kills the process, and the memory in use does not grow with what was read.
"""

import os
import re
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from replicate.data.remote import RemoteFile, RemotePath
from replicate.errors import DataError
from replicate.record import file_digest

HEADER, FOOTER = 12, 4
_MASK_DELTA = 0xA282EAD8
_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_WINDOW = 1 << 13  # bytes fetched at once: several short records, or the footer of a long one and the next header
_SEARCHED = 1 << 20  # bytes looked through at once for the next header
# Lengths below 2^24 but 0, wherever they stand: no record of these corpora is near 16 MB long.
_LIKELY_LENGTH = re.compile(rb"(?=(?!\0\0\0)[\s\S]{3}\0{5})")


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


def masked_crc(data: bytes) -> int:
    """The masked CRC32C of some bytes, as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A payload as a whole record."""
    length = struct.pack("<Q", len(payload))
    return length + _CRC.pack(masked_crc(length)) + payload + _CRC.pack(masked_crc(payload))


class LocalFile:
    """Parts of a file on this machine. Errors are OSErrors.

    Attributes:
        path: as it was named.
        size: bytes, when it was opened.
    """

    def __init__(self, path: Path | str):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which a pipe alone minds
        self.close = weakref.finalize(self, os.close, self._descriptor)
        os.pread(self._descriptor, 1, 0)  # a folder can be opened, but not read
        self.size = os.fstat(self._descriptor).st_size

    def pread(self, size: int, begin: int) -> bytes:
        """At most `size` bytes from `begin` on."""
        return os.pread(self._descriptor, size, begin)

    def sha256(self) -> str:
        """Hex."""
        return file_digest(Path(self.path))


class Shard:
    """An opened TFRecord file. Not for several threads at once.

    Attributes:
        path: as it was named.
        size: bytes, when it was opened.
    """

    def __init__(self, place: Path | str | RemotePath | RemoteFile):
        """
        Args:
            place: of the file, or the file itself.

        Raises:
            RecordError: the file is missing, empty, a folder, or may not be read.
            IncompleteRun: a remote store did not answer.
        """
        self.path = str(place.path if isinstance(place, RemoteFile) else place)
        try:
            if isinstance(place, RemotePath):
                place = place.opened()
            self._file = place if isinstance(place, RemoteFile) else LocalFile(place)
        except OSError as error:
            raise RecordError(self.path, None, None, f"cannot be read: {error.strerror}") from None
        self.size, self.close = self._file.size, self._file.close
        self._window, self._begin = b"", 0
        if self.size == 0:
            raise RecordError(self.path, None, None, "the file is empty; download it again")

    def payload(self, record: int, offset: int) -> bytes:
        """The payload of the record that begins at `offset`, both CRCs checked; `record` is its number, for messages.

        Raises:
            RecordError: the record is truncated, a CRC does not match, or the disk fails.
        """
        return self._payload(record, offset, self._length(record, offset))

    def records(self) -> Iterator[tuple[int, bytes | RecordError]]:
        """(offset, payload) of every record, in order.

        A record whose data CRC fails is yielded as its error, and reading goes on behind it, because its length is
        known to be right. Behind a damaged length it goes on where the next header with a right CRC is found; what lies
        between counts as one record.
        """
        offset = record = 0
        while offset < self.size:
            try:
                length = self._length(record, offset)
            except RecordError as error:
                found = self._next_header(record, offset, offset + 1)
                going_on = f"; reading goes on at byte {found}" if found < self.size else ""
                yield offset, RecordError(self.path, record, offset, error.reason + going_on)
                offset = found
            else:
                try:
                    item: bytes | RecordError = self._payload(record, offset, length)
                except RecordError as error:
                    item = error
                yield offset, item
                offset += HEADER + length + FOOTER
            record += 1

    def sha256(self) -> str:
        """Hex, of the whole file.

        Raises:
            RecordError: the disk fails.
        """
        try:
            return self._file.sha256()
        except OSError as error:
            raise RecordError(self.path, None, None, f"cannot be read: {error.strerror}") from None

    def _length(self, record: int, offset: int) -> int:
        remaining = self.size - offset
        if remaining < HEADER:
            fault = "is not a TFRecord file" if offset == 0 else "the file ends within a record's header (truncated)"
            raise RecordError(self.path, record, offset, fault)
        header = self._bytes(record, offset, 0, HEADER)
        length, crc = _LENGTH.unpack(header)
        if masked_crc(header[:8]) != crc:
            first = "is not a TFRecord file, or its first length is damaged"
            fault = first if offset == 0 else "CRC of the length differs (flipped bits)"
            raise RecordError(self.path, record, offset, fault)
        if length > remaining - HEADER - FOOTER:
            raise RecordError(self.path, record, offset, f"the file ends within a record of {length} bytes (truncated)")
        return length

    def _payload(self, record: int, offset: int, length: int) -> bytes:
        payload = self._bytes(record, offset, HEADER, length)
        if masked_crc(payload) != _CRC.unpack(self._bytes(record, offset, HEADER + length, FOOTER))[0]:
            raise RecordError(self.path, record, offset, "CRC of the data differs (flipped bits)")
        return payload

    def _bytes(self, record: int, offset: int, skipped: int, size: int) -> bytes:
        """`size` bytes of the record at `offset`, behind its first `skipped` ones: out of the window if they are in it,
        else it moves there; what is larger than a window is read alone."""
        begin = offset + skipped
        at = begin - self._begin
        if at < 0 or at + size > len(self._window):
            found = self._pread(record, offset, max(size, _WINDOW), begin)
            if len(found) < size:
                raise RecordError(self.path, record, offset, "the file has become shorter while it was read")
            if size >= _WINDOW:
                return found
            self._window, self._begin, at = found, begin, 0
        return self._window[at : at + size]

    def _pread(self, record: int, offset: int, size: int, begin: int) -> bytes:
        try:
            return self._file.pread(size, begin)
        except OSError as error:
            raise RecordError(self.path, record, offset, f"cannot be read: {error.strerror}") from None

    def _next_header(self, record: int, offset: int, begin: int) -> int:
        """Where the first header from `begin` on lies whose CRC is right; the file's size if there is none."""
        while begin < self.size:
            part = self._pread(record, offset, _SEARCHED + HEADER, begin)
            for likely in _LIKELY_LENGTH.finditer(part, 0, _SEARCHED + 8):
                at = likely.start()
                if len(part) - at < HEADER:
                    break
                if masked_crc(part[at : at + 8]) == _LENGTH.unpack_from(part, at)[1]:
                    return begin + at
            begin += _SEARCHED
        return self.size


def iterate_records(path: Path | RemotePath) -> Iterator[tuple[int, bytes | RecordError]]:
    """(offset, payload) of every record of a shard, in order; faulty records are yielded as their errors.

    Raises:
        RecordError: the file is missing, empty, a folder, or may not be read.
    """
    return Shard(path).records()
