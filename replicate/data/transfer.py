"""One file over HTTP, whole or not at all: resumed where it stopped, checked before it gets its name.

Bytes go to `NAME.part`; beside it `NAME.part.json` notes which version of the file they belong to. A killed process
leaves both, and the next one goes on behind the last byte if the server still has that version. The file gets its name
by a rename, after its checksum was right and its bytes were flushed to the disk.

A wrong checksum has two causes that want two answers. The way damages data: another attempt may succeed. The server
has another file than the plan says: none will. They are told apart by the server's own checksum where it gives one,
else by whether two whole transfers brought the same wrong file.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import google_crc32c
import requests

from replicate.data.web import (
    NETWORK_ERRORS,
    AttemptError,
    BrokenTransferError,
    ChangedUpstreamError,
    Client,
    StoppedError,
    Tries,
    Version,
    content_range,
    describe,
)
from replicate.errors import DataError, IncompleteRun
from replicate.record import read_json, write_json

CHUNK = 1 << 18
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(IncompleteRun):
    """There is no room for the rest."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        url: where it is.
        path: where it goes.
        md5: hex digest that it must have; None: what the server says of it must do.
        encoding: the Accept-Encoding of its requests. "identity" everywhere, but "gzip" for an archive in a cloud
            store: one stored with that encoding would else be decompressed on the way, without Range and checksum.
    """

    url: str
    path: Path
    md5: str | None = None
    encoding: str = "identity"


def fetch(
    remote: Remote,
    client: Client,
    received: Callable[[int], None] = lambda count: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Bring a file to its place, however often the connection breaks.

    Args:
        remote: what to fetch.
        client: how.
        received: called with the number of bytes that came; a negative one when bytes are given up.
        note: called with a sentence when something happened that did no harm but should be known.

    Returns:
        Hex MD5 of the file.

    Raises:
        UnavailableError, ChangedUpstreamError: asking again is no use.
        BrokenTransferError, DiskFullError: the same command goes on where this one stopped.
        DataError: the place cannot be written to, or another process writes to it.
        StoppedError: another thread asked everything to end.
    """
    tries = Tries(client, remote.url)
    wrong: list[str] = []
    with Part(remote, received, note) as part:
        while True:
            try:
                if not part.whole:
                    _attempt(part, client)
            except AttemptError as failure:
                tries.failed(failure, part.offset)
                continue
            fault = part.fault()
            if not fault:
                return part.finish()
            _judge(part, fault, wrong, client.patience.broken)


def _attempt(part: "Part", client: Client) -> None:
    """Ask for what is missing and append it.

    Raises:
        AttemptError: it did not all come.
    """
    remote, offset = part.remote, part.offset
    headers = {"Accept-Encoding": remote.encoding}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if part.version.validator:
            headers["If-Range"] = part.version.validator
    with client.request("GET", remote.url, **headers) as answer:
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding not in ("identity", remote.encoding):
            raise AttemptError(f"the server sends the file in an encoding ({coding}) that was not asked for")
        if answer.status_code == 416:
            _not_satisfiable(part, answer)
            return
        version = Version.of(answer)
        changed = part.version.differs(version) if offset else ""
        if changed:
            part.note(f"{remote.url}: changed upstream while it was being fetched ({changed}); begun again")
        if answer.status_code == 206:
            if changed or content_range(answer)[0] != offset:
                part.restart()
                raise AttemptError("the server sent another part of the file than it was asked for")
        else:  # the whole file: nothing was there, the server knows no ranges, or has a new version
            part.restart(version)
        part.append(answer, client)


def _not_satisfiable(part: "Part", answer: requests.Response) -> None:
    """416: the part is all there is, or does not belong to the file that the server has now."""
    size = content_range(answer)[1]
    if part.offset and size == part.offset:
        part.whole = True
        return
    had = part.offset
    part.restart()
    raise AttemptError(
        f"the server's file has {'fewer' if size is None else size} bytes, the part had {had}; begun again"
    )


def _judge(part: "Part", fault: str, wrong: list[str], limit: int) -> None:
    """After a whole transfer with a wrong checksum: begin again, or say why that is no use.

    Args:
        part: the transfer.
        fault: what is wrong, as a sentence's end.
        wrong: MD5 of every such transfer so far; this one's is added.
        limit: so many of them are enough.
    """
    remote, got = part.remote, part.md5
    if got in wrong or (remote.md5 and part.version.md5 == got):
        proof = "by the server's own checksum it arrived whole" if got not in wrong else "it arrived the same twice"
        part.discard()
        remedy = "its plan and files disagree, so try another --mirror, or wait"
        raise ChangedUpstreamError(f"{remote.url}: changed upstream: {proof}, but {fault}; {remedy}")
    wrong.append(got)
    part.restart()
    if len(wrong) >= limit:
        part.discard()
        raise BrokenTransferError(
            f"{remote.url}: broken transfer: {fault}, {limit} times, each time otherwise; something on the way damages "
            "data (a proxy?); the same command tries again"
        )


class Part:
    """The unfinished file on the disk, the version that it belongs to, and the checksums of its bytes so far."""

    def __init__(self, remote: Remote, received: Callable[[int], None], note: Callable[[str], None]):
        self.remote = remote
        self.note = note
        self.offset = 0
        self.version = Version()
        self.whole = False
        self._received = received
        self.path = part_path(remote.path)
        self._memo = self.path.with_name(f"{self.path.name}.json")

    @property
    def md5(self) -> str:
        """Hex MD5 of the bytes so far."""
        return self._md5.hexdigest()

    def __enter__(self) -> "Part":
        with _disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            self._forget()
            begun = self._read_memo()
            if begun is None:
                self.restart()
                return self
            self.version = begun
            while chunk := self._file.read(CHUNK):
                self._count(chunk)
            self.whole = self.offset == begun.size
            if begun.size is not None and self.offset > begun.size:
                self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self):
        """The part, locked; never one that was renamed while it was waited for."""
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise DataError(f"{self.path}: another process is fetching this file; wait for it, or end it") from None
            except OSError:
                return file  # a file system without locks: the checksum still finds two writers
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            file.close()

    def _read_memo(self) -> Version | None:
        """The version that the bytes belong to; None if they cannot be gone on with."""
        try:
            memo = read_json(self._memo)
            version = Version(**memo["version"])
            url, md5 = memo["url"], memo["md5"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if md5 != self.remote.md5:
            self.note(
                f"{self.remote.url}: changed upstream since it was begun (its checksum in the plan is new); begun again"
            )
            return None
        if url != self.remote.url:
            version = version.elsewhere()
        return version if version.validator or md5 or version.md5 or version.crc32c else None

    def restart(self, version: Version | None = None) -> None:
        """Give up what is there; what comes next belongs to `version`."""
        if self.offset:
            self._received(-self.offset)
        with _disk(self.path):
            self._file.seek(0)
            self._file.truncate()
            self._forget()
            if version is not None:
                self.version = version
                memo = {"url": self.remote.url, "md5": self.remote.md5, "version": asdict(version)}
                write_json(self._memo, memo)

    def _forget(self) -> None:
        self.offset, self.whole, self.version = 0, False, Version()
        self._md5, self._crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()

    def _count(self, chunk: bytes) -> None:
        self._md5.update(chunk)
        self._crc32c.update(chunk)
        self.offset += len(chunk)

    def append(self, answer: requests.Response, client: Client) -> None:
        """Write the bytes of an answer as they come.

        Raises:
            AttemptError: they stopped early.
            DiskFullError: there is no room for them; nothing is written then.
        """
        size = self.version.size
        free = shutil.disk_usage(self.path.parent).free
        if size is not None and size - self.offset > free:
            raise _no_room(self.path, size - self.offset, free)
        while chunk := self._next(answer):
            if client.stop.is_set():
                raise StoppedError
            with _disk(self.path):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) :]
            self._count(chunk)
            self._received(len(chunk))
        if size is not None and self.offset != size:
            reached = self.offset
            if reached > size:
                self.restart()
            raise AttemptError(f"{reached} of {size} bytes came")
        self.whole = True

    def _next(self, answer: requests.Response) -> bytes:
        """What has arrived, at most CHUNK bytes; a larger read would lose what it holds when the connection breaks."""
        try:
            return answer.raw.read1(CHUNK, decode_content=False)
        except NETWORK_ERRORS as error:
            raise AttemptError(f"{describe(error)} at byte {self.offset}") from None

    def fault(self) -> str:
        """What is wrong with the bytes of a whole transfer; empty if nothing is."""
        expected = self.remote.md5 or self.version.md5
        source = "the plan" if self.remote.md5 else "the server"
        if expected:
            return "" if self.md5 == expected else f"its MD5 is {self.md5}, by {source} {expected}"
        crc32c = b64encode(self._crc32c.digest()).decode()
        if self.version.crc32c and crc32c != self.version.crc32c:
            return f"its CRC32C is {crc32c}, by the server {self.version.crc32c}"
        return ""

    def finish(self) -> str:
        """Give the file its name; its hex MD5."""
        with _disk(self.path):
            os.fsync(self._file.fileno())
            os.replace(self.path, self.remote.path)
            self._memo.unlink(missing_ok=True)
            folder = os.open(self.remote.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return self.md5

    def discard(self) -> None:
        """Leave nothing behind."""
        self._memo.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def part_path(path: Path) -> Path:
    """Where a file grows."""
    return path.with_name(f"{path.name}.part")


def _no_room(path: Path, needed: int, free: int) -> DiskFullError:
    sizes = f"{needed / 1e9:.2f} GB are to come and {free / 1e9:.2f} GB are free"
    return DiskFullError(f"{path.parent}: the disk is full: {sizes}; make room and issue the same command again")


@contextlib.contextmanager
def _disk(path: Path):
    """What the disk refuses becomes a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _no_room(path, 0, shutil.disk_usage(path.parent).free) from None
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
