"""What tells one corpus from another, at every command: names, sizes, and digests of the shards' ends.

Digests of files that lie on a disk are remembered, as git's index remembers those of a working tree: a file whose size,
times and inode are what they were is not opened again. YouTube-8M's 7,688 shards have a gigabyte of ends, and a disk
with seeks. What is remembered saves reading and decides nothing: it never gets into a key.
"""

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replicate.data.remote import RemotePath
from replicate.data.tfrecord import RecordError
from replicate.record import read_json, write_json

MEMORY = ".fingerprints.json"
_ENDS = 1 << 16  # bytes
_ASKED_AT_ONCE = 256  # files of a remote store
# A file that changed so shortly before it was read may change again without its times telling: they may be as coarse as
# two seconds, and a network disk may answer for a minute with what it knows. git calls such entries racy.
_RACY = 60 * 10**9  # nanoseconds

Fingerprint = list[tuple[str, int, str]]


def fingerprint(root: Path | RemotePath, shards: list[str], memory: Path | None = None) -> Fingerprint:
    """(name, bytes, SHA-256 of the first and last 64 KiB) of each shard. A corpus has the same one wherever it lies.

    It tells corpora apart; it does not find a flipped bit in the middle, which the CRC of each read does.

    Args:
        root: the data directory.
        shards: names of files there.
        memory: a folder that remembers what was found of local files; if it does not exist, all are read.

    Raises:
        RecordError: a shard is missing, or may not be read.
        IncompleteRun: a remote store did not answer.
    """
    try:
        if isinstance(root, RemotePath):
            return [(name, size, hashlib.sha256(both).hexdigest()) for name, size, both in _remote_ends(root, shards)]
        return _local(root, shards, memory / MEMORY if memory and memory.is_dir() else None)
    except OSError as error:
        raise RecordError(error.filename or str(root), None, None, f"cannot be read: {error.strerror}") from None


def _local(root: Path, shards: list[str], memory: Path | None) -> Fingerprint:
    known = _remembered(memory)
    found, news = [], {}
    for name in shards:
        path = str((root / name).absolute())
        stamp, noted, digest = known.get(path, (None, 0, ""))
        described = os.stat(path)
        if not (stat.S_ISREG(described.st_mode) or stat.S_ISDIR(described.st_mode)):
            raise OSError(errno.EINVAL, "it is no regular file", path)  # opening a pipe would wait for its writer
        now = _stamp(described)
        if now != stamp or noted - max(now[1:3]) <= _RACY:
            noted = time.time_ns()  # before it is read
            now, digest = _read(path)
            news[path] = now, noted, digest
        found.append((name, now[0], digest))
    if memory and news:
        with contextlib.suppress(OSError):  # a full disk, or somebody else's run: the files are read next time, too
            write_json(memory, known | news)
    return found


def _remembered(memory: Path | None) -> dict[str, tuple[tuple[int, ...], int, str]]:
    """Path -> (stamp, nanosecond of the clock before it was read, digest)."""
    try:
        entries: dict[str, Any] = read_json(memory) if memory else {}
        return {
            path: (tuple(map(int, stamp)), int(noted), str(digest)) for path, (stamp, noted, digest) in entries.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):  # none, or damaged
        return {}


def _stamp(described: os.stat_result) -> tuple[int, ...]:
    """Bytes, time of change, time of change of whatever is told of it, inode. Not the device: its number may differ
    after the next mount."""
    return described.st_size, described.st_mtime_ns, described.st_ctime_ns, described.st_ino


def _read(path: str) -> tuple[tuple[int, ...], str]:
    """(stamp, digest of the ends) of a file."""
    with open(path, "rb") as file:
        described = os.fstat(file.fileno())
        both = file.read(_ENDS)
        file.seek(max(0, described.st_size - _ENDS))
        both += file.read(_ENDS)
    return _stamp(described), hashlib.sha256(both).hexdigest()


def _remote_ends(root: RemotePath, shards: list[str]) -> Iterator[tuple[str, int, bytes]]:
    """(name, bytes, first and last 64 KiB) of each file, of some at once."""
    sizes = root.sizes(shards)
    for at in range(0, len(shards), _ASKED_AT_ONCE):
        names, some = shards[at : at + _ASKED_AT_ONCE], sizes[at : at + _ASKED_AT_ONCE]
        begins = [begin for size in some for begin in (0, max(0, size - _ENDS))]
        ends = [end for size in some for end in (min(size, _ENDS), size)]
        parts = root.parts([name for name in names for _ in range(2)], begins, ends)
        for name, size, first, last in zip(names, some, parts[::2], parts[1::2], strict=True):
            yield name, size, first + last
