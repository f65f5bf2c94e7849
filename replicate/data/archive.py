"""AudioSet's feature archive: looked through for anything hostile first, then its parts joined into one file each.

A TFRecord file is a plain concatenation of records, so joining its files joins the records. Members are never extracted
under the names that the archive gives them; the look-through makes a tampered archive an error instead of a surprise.
"""

import contextlib
import gzip
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from replicate.data.spec import SPECS
from replicate.data.verify import verify
from replicate.errors import DataError

MEMBER = re.compile(r"audioset_v1_embeddings/(?P<part>\w+)/[\w-]+\.tfrecord")
LARGEST = 1 << 30  # bytes of one part; the genuine ones have 34 and 31 MB
SCRATCH = ".unpack"
_COPIED = 1 << 20


def unpack(archive: Path, folder: Path, parts: tuple[str, ...]) -> None:
    """Make `folder`/PART.tfrecord of the archive's members of each part, joined in the order of their names.

    Raises:
        DataError: the archive is damaged, holds a hostile member (nothing is written then), lacks a part, or its
            records are not AudioSet's; or the disk refuses.
    """
    found = look_through(archive, parts)
    places = {name: f"{number}.member" for number, name in enumerate(sorted(set().union(*found.values())))}
    scratch = folder / SCRATCH
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir(parents=True)
        _extract(archive, {name: scratch / place for name, place in places.items()})
        for part, names in found.items():
            with open(scratch / f"{part}.tfrecord", "wb") as joined:
                for name in sorted(names):
                    with open(scratch / places[name], "rb") as member:
                        shutil.copyfileobj(member, joined, _COPIED)
                joined.flush()
                os.fsync(joined.fileno())
        faults = verify(SPECS["audioset"], scratch, [f"{part}.tfrecord" for part in parts])
        if faults:
            raise DataError(f"{archive}: {len(faults)} of its records are no AudioSet records; the first: {faults[0]}")
        for part in parts:
            (scratch / f"{part}.tfrecord").replace(folder / f"{part}.tfrecord")
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def look_through(archive: Path, parts: tuple[str, ...]) -> dict[str, list[str]]:
    """Names of the members of each part, in the archive's order, after every member was looked at.

    Raises:
        DataError: a member could write elsewhere or is no plain file, occurs twice, or a part is missing or too large.
    """
    found: dict[str, list[str]] = {part: [] for part in parts}
    sizes = dict.fromkeys(parts, 0)
    seen: set[str] = set()
    with _open(archive) as members:
        for member in members:
            why = hostility(member)
            if member.isfile() and member.name in seen:
                why = "occurs twice"
            if why:
                raise DataError(f"{archive}: hostile archive: its member {member.name!r} {why}; nothing was unpacked")
            seen.add(member.name)
            match = MEMBER.fullmatch(member.name)
            if member.isfile() and match and match["part"] in found:
                found[match["part"]].append(member.name)
                sizes[match["part"]] += member.size
    for part in parts:
        if not found[part]:
            raise DataError(
                f"{archive}: has no member audioset_v1_embeddings/{part}/*.tfrecord; is it the right archive?"
            )
        if sizes[part] > LARGEST:
            raise DataError(f"{archive}: hostile archive: {part} would have {sizes[part]} bytes; nothing was unpacked")
    return found


def hostility(member: tarfile.TarInfo) -> str:
    """Why a member is refused, as a sentence's end; empty for plain files and folders with harmless names."""
    if member.issym() or member.islnk():
        return "is a link"
    if member.issparse() or not (member.isfile() or member.isdir()):
        return "is no plain file"
    return hostile_path(member.name)


def hostile_path(name: str) -> str:
    """Why a name must not become a path, as a sentence's end; empty for a harmless one."""
    if not name:
        return "has no name"
    if "\0" in name:
        return "contains a NUL"
    if "\\" in name:
        return "contains a backslash"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is absolute"
    if ".." in name.split("/"):
        return "leads out of its folder"
    return ""


def _extract(archive: Path, places: dict[str, Path]) -> None:
    with _open(archive) as members:
        for member in members:
            if member.isfile() and member.name in places:
                with open(places[member.name], "wb") as file:
                    shutil.copyfileobj(members.extractfile(member), file, _COPIED)


@contextlib.contextmanager
def _open(archive: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream: forwards only, so that nothing is decompressed twice.

    It is read to its very end, for gzip's checksum stands there, and tarfile takes a damaged header for the end.
    """
    try:
        with gzip.open(archive) as content, tarfile.open(fileobj=content, mode="r|") as members:
            yield members
            while rest := content.read(_COPIED):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("a header in its middle is not readable")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{archive}: is damaged ({error}); delete it and issue the same command again") from None
