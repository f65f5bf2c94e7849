"""One file over a failing network: for every fault, what is injected and what comes of it (listed in docs/download.md).

A file that is fetched is compared byte for byte with what the server holds; a transfer that fails must leave no file
under the final name.
"""

import email.utils
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import requests
from patience import wait_until

from replicate.data import transfer, web
from replicate.data.transfer import DiskFullError, Remote, fetch, part_path
from replicate.data.web import (
    BrokenTransferError,
    ChangedUpstreamError,
    Patience,
    UnavailableError,
    Version,
    content_range,
    retry_after,
)
from replicate.errors import DataError
from tests.http_faults import QUICK, Fault, FaultyServer, File, Hasty

SIZE = 1 << 20
CONTENT = bytes(os.urandom(SIZE))
MD5 = hashlib.md5(CONTENT).hexdigest()
OTHER = bytes(os.urandom(SIZE - 7777))


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


@dataclass
class Case:
    """A row of the table in docs/download.md: a fault, what comes of it, and how to tell."""

    fault: str
    outcome: str
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    error: type[Exception] | None = None
    says: str = ""
    ranges: list[str | None] | None = None  # Range of each GET
    file: dict = field(default_factory=dict)
    plan: bool = True  # whether the MD5 is known beforehand
    then: bytes = CONTENT  # what is on the disk in the end
    noted: str = ""
    waits: float | None = None  # the longest wait is at least this
    patience: Patience = QUICK


def part(first: int) -> str:
    return f"bytes={first}-"


CASES = [
    Case("the connection breaks in mid-file", "goes on behind the last byte",
         [Fault(drop=300_000), Fault(drop=400_000)], ranges=[None, part(300_000), part(700_000)]),
    Case("it breaks in mid-file, and the server never told the length", "goes on behind the last byte",
         [Fault(drop=1 << 18)], file={"chunked": True}, ranges=[None, part(1 << 18)]),
    Case("it breaks before any answer", "asks again", [Fault(silent=True)], ranges=[None, None]),
    Case("silence in mid-file", "gives up waiting after `read` seconds, goes on behind the last byte",
         [Fault(drop=100_000, stall=True)], ranges=[None, part(100_000)], patience=replace(QUICK, read=3.0)),
    Case("it breaks at the same byte every time", "given up after some attempts (exit code 4); the part stays",
         always=Fault(drop=0), faults=[Fault(drop=9)], error=BrokenTransferError,
         says="4 attempts in a row brought nothing new beyond byte 9"),
    Case("HTTP 500, 502, 503, 504, 408", "asks again, waiting longer each time", [Fault(500), Fault(503), Fault(408)],
         ranges=[None] * 4),
    Case("HTTP 429 with Retry-After in seconds", "waits as long as asked", [Fault(429, {"Retry-After": "77"})],
         waits=77),
    Case("HTTP 503 with Retry-After as a date", "waits until then",
         [Fault(503, {"Retry-After": email.utils.formatdate(time.time() + 9000, usegmt=True)})], waits=1800),
    Case("Retry-After beyond 15 minutes", "given up at once (exit code 4), with the time that was asked for",
         always=Fault(429, {"Retry-After": "86400"}), error=BrokenTransferError, says="asks to wait 86400 s",
         ranges=[None]),
    Case("HTTP 404 or 410", "given up at once (exit code 2): another mirror may have it", always=Fault(404),
         error=UnavailableError, says="HTTP 404 .*; try another --mirror", ranges=[None]),
    Case("HTTP 401 or 403", "given up at once (exit code 2)", always=Fault(403), error=UnavailableError,
         says="HTTP 403 .*; the server refuses it", ranges=[None]),
    Case("a web page instead of the file", "given up at once (exit code 2)", always=Fault(page=True),
         error=UnavailableError, says="a web page came instead of the file", ranges=[None]),
    Case("a redirect", "is followed", [Fault(302, {"Location": "/elsewhere"})]),
    Case("a byte is damaged on the way", "begins again", [Fault(flip=5)], ranges=[None, None]),
    Case("a byte is damaged before a break", "begins again after the wrong checksum", [Fault(flip=5, drop=500_000)],
         ranges=[None, part(500_000), None]),
    Case("damaged every time, each time otherwise", "broken transfer (exit code 4) after 3 wrong checksums",
         [Fault(flip=5), Fault(flip=6), Fault(flip=7)], error=BrokenTransferError, says="broken transfer: its MD5"),
    Case("the file on the server is not the plan's", "changed upstream (exit code 2) after two equal transfers",
         always=Fault(content=OTHER), error=ChangedUpstreamError, says="changed upstream: it arrived the same twice",
         ranges=[None, None]),
    Case("the same, and the server gives its own MD5", "changed upstream (exit code 2) after one transfer",
         always=Fault(content=OTHER), file={"goog_md5": True}, error=ChangedUpstreamError,
         says="by the server's own checksum it arrived whole", ranges=[None]),
    Case("damaged on the way, no plan, but the server gives an MD5", "begins again", [Fault(flip=9)], plan=False,
         file={"goog_md5": True}, ranges=[None, None]),
    Case("the file ends early and says so", "begins again after the wrong checksum", [Fault(truncate=1000)],
         ranges=[None, None]),
    Case("the server knows no Range", "begins again, whole", [Fault(drop=300_000), Fault(ignore_range=True)],
         ranges=[None, part(300_000)]),
    Case("it sends another part than asked for", "begins again", [Fault(drop=300_000), Fault(shift=10)],
         ranges=[None, part(300_000), None]),
    Case("HTTP 416 every time, without a Range", "given up (exit code 4)", always=Fault(416), error=BrokenTransferError,
         says="the server's file has fewer bytes"),
    Case("an encoding that nobody asked for", "asks again", [Fault(encoding="br")], ranges=[None, None]),
    Case("the file changes while it is fetched", "the new version, whole; a note says so",
         [Fault(drop=300_000), Fault(content=OTHER)], plan=False, then=OTHER, noted="changed upstream while",
         ranges=[None, part(300_000)]),
    Case("the same, and the server ignores If-Range", "never mixed: begins again, with a note",
         [Fault(drop=300_000), Fault(content=OTHER, ignore_if_range=True)], plan=False, then=OTHER,
         noted="changed upstream while", ranges=[None, part(300_000), None]),
    Case("the same, with a weak ETag and Last-Modified", "Last-Modified stands in for the ETag",
         [Fault(drop=300_000), Fault(content=OTHER)], plan=False, then=OTHER, file={"weak": True},
         noted="changed upstream while", ranges=[None, part(300_000)]),
    Case("the file changes to another one than the plan's", "changed upstream (exit code 2)",
         [Fault(drop=300_000), Fault(content=OTHER)], error=ChangedUpstreamError, says="changed upstream"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_a_fault_and_its_outcome(case, server, tmp_path):
    server.files["/f"] = File(CONTENT, **case.file)
    server.files["/elsewhere"] = File(CONTENT)
    server.faults["/f"].extend(case.faults)
    if case.always:
        server.always["/f"] = case.always
    path, client, notes, came = tmp_path / "f.tfrecord", Hasty(case.patience), [], []
    remote = Remote(f"{server.url}/f", path, MD5 if case.plan else None)
    if case.error:
        with pytest.raises(case.error, match=case.says) as raised:
            fetch(remote, client, came.append, notes.append)
        assert not path.exists()
        assert "\n" not in str(raised.value)
    else:
        assert fetch(remote, client, came.append, notes.append) == hashlib.md5(case.then).hexdigest()
        assert path.read_bytes() == case.then
        assert [each.name for each in tmp_path.iterdir()] == ["f.tfrecord"]
        assert sum(came) == len(case.then), "bytes that are given up are taken back from the count"
    if case.ranges is not None:
        assert [request.range for request in server.gets("/f")] == case.ranges
    if case.waits is not None:
        assert max(client.waits) >= case.waits
    assert bool(case.noted) == bool(notes) and all(case.noted in note for note in notes) or case.error


def test_the_page_lists_every_fault_and_outcome():
    page = (Path(__file__).parent.parent / "docs" / "download.md").read_text(encoding="utf-8")
    for case in CASES:
        assert f"| {case.fault} | {case.outcome} |" in page


def test_waits_grow_are_jittered_and_depend_on_seed_and_address_alone(server, tmp_path):
    def waits(seed: int, name: str) -> list[float]:
        client = Hasty(Patience(attempts=6, seed=seed))
        server.always[name] = Fault(500)
        with pytest.raises(BrokenTransferError):
            fetch(Remote(server.url + name, tmp_path / "f"), client)
        return client.waits

    first = waits(0, "/a")
    assert len(first) == 5
    for number, wait in enumerate(first):
        assert 0.5 * 2**number <= wait < 2**number
    assert waits(0, "/a") == first
    assert waits(1, "/a") != first and waits(0, "/b") != first


def test_a_pause_that_a_server_asks_for_holds_for_every_thread(server, tmp_path):
    server.files["/f"] = server.files["/g"] = File(b"x")
    server.faults["/f"].append(Fault(429, {"Retry-After": "5000"}))
    client = Hasty()
    with pytest.raises(web.AttemptError):
        client.request("GET", f"{server.url}/f")
    client.request("GET", f"{server.url}/g").close()
    assert 4000 < client.waits[-1] <= 5000


def test_a_given_up_transfer_goes_on_later(server, tmp_path):
    server.files["/f"] = File(CONTENT)
    server.faults["/f"].append(Fault(drop=SIZE // 2))
    server.always["/f"] = Fault(silent=True)
    remote = Remote(f"{server.url}/f", tmp_path / "f", MD5)
    with pytest.raises(BrokenTransferError, match="the same command goes on from there"):
        fetch(remote, Hasty())
    assert part_path(remote.path).stat().st_size == SIZE // 2
    server.always.clear()
    before = server.sent
    fetch(remote, Hasty())
    assert remote.path.read_bytes() == CONTENT
    assert server.sent - before == SIZE - SIZE // 2, "nothing comes twice"


def leave_part(server, path: Path, content: bytes, md5: str | None = None, **file) -> None:
    """What a killed transfer of `content` from /f leaves."""
    whole, server.files["/f"] = server.files.get("/f"), File(content, **file)
    server.always["/f"] = Fault(silent=True)
    server.faults["/f"].append(Fault(drop=len(content) - 1))
    with pytest.raises(BrokenTransferError):
        fetch(Remote(f"{server.url}/f", path, md5), Hasty())
    with open(part_path(path), "ab") as file:
        file.write(content[-1:])
    server.always.clear()
    server.log.clear()
    if whole:
        server.files["/f"] = whole


def forget(path: Path, *names: str) -> None:
    """Strike something out of the note beside a part."""
    memo = part_path(path).with_name(f"{path.name}.part.json")
    content = json.loads(memo.read_text())
    content["version"] |= dict.fromkeys(names)
    memo.write_text(json.dumps(content))


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    leave_part(server, tmp_path / "f", CONTENT, MD5)
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT and server.log == []


@pytest.mark.parametrize("known", (True, False), ids=("plan", "no plan"))
def test_416_for_a_whole_part_of_unknown_size_finishes_it(known, server, tmp_path):
    """A first answer without a length leaves a part whose end only the server knows."""
    leave_part(server, tmp_path / "f", CONTENT, MD5 if known else None)
    forget(tmp_path / "f", "size")
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5 if known else None), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [request.range for request in server.gets("/f")] == [part(SIZE)]


def test_416_for_a_part_of_an_older_and_longer_file_begins_again(server, tmp_path):
    leave_part(server, tmp_path / "f", CONTENT + b"more", MD5)
    forget(tmp_path / "f", "size", "etag", "modified")
    server.files["/f"] = File(CONTENT)
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [request.range for request in server.gets("/f")] == [part(SIZE + 4), None]


@pytest.mark.parametrize("damage", ("absent", "not JSON", "of another kind", "longer part"))
def test_a_part_whose_note_cannot_be_trusted_is_begun_again(damage, server, tmp_path):
    leave_part(server, tmp_path / "f", CONTENT, MD5)
    part = part_path(tmp_path / "f")
    memo = part.with_name("f.part.json")
    if damage == "absent":
        memo.unlink()
    elif damage == "longer part":
        part.write_bytes(CONTENT + b"more")
    else:
        memo.write_text("{" if damage == "not JSON" else '{"version": {"colour": 1}, "url": "", "md5": null}')
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [request.range for request in server.gets("/f")] == [None]


def test_a_part_of_a_file_without_any_mark_is_begun_again(server, tmp_path):
    """Without ETag, date or checksum nothing says that the server's file is still the one begun."""
    bare = {"etag": False, "modified": False}
    server.files["/f"] = File(OTHER, **bare)
    leave_part(server, tmp_path / "f", CONTENT, **bare)
    fetch(Remote(f"{server.url}/f", tmp_path / "f"), Hasty())
    assert (tmp_path / "f").read_bytes() == OTHER
    assert [request.range for request in server.gets("/f")] == [None]


def test_a_part_goes_on_at_another_mirror_if_the_plan_vouches_for_it(server, tmp_path):
    leave_part(server, tmp_path / "f", CONTENT, MD5)
    part_path(tmp_path / "f").write_bytes(CONTENT[:1000])
    server.files["/eu"] = File(CONTENT, etag=False, modified=False)
    fetch(Remote(f"{server.url}/eu", tmp_path / "f", MD5), Hasty())
    assert [(request.range, request.if_range) for request in server.gets("/eu")] == [(part(1000), None)]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_begun_under_another_plan_is_begun_again(server, tmp_path):
    leave_part(server, tmp_path / "f", OTHER, hashlib.md5(OTHER).hexdigest())
    server.files["/f"] = File(CONTENT)
    notes = []
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5), Hasty(), note=notes.append)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(notes) == 1 and "changed upstream" in notes[0]


@pytest.mark.parametrize("file, expected", (({}, "tag"), ({"weak": True}, "date"), ({"etag": False}, "date")), ids=str)
def test_what_vouches_for_a_version(file, expected, server, tmp_path):
    """A weak ETag must not stand in If-Range: it does not promise equal bytes."""
    server.files["/f"] = File(CONTENT, **file)
    server.faults["/f"].append(Fault(drop=5))
    fetch(Remote(f"{server.url}/f", tmp_path / "f"), Hasty())
    assert [each.if_range for each in server.gets("/f")] == [None, getattr(server.files["/f"], expected)]


def test_an_archive_stored_compressed_comes_as_it_is_stored(server, tmp_path):
    server.files["/f"] = File(CONTENT, encoding="gzip", goog_md5=True)
    fetch(Remote(f"{server.url}/f", tmp_path / "f", encoding="gzip"), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.log[0].accept_encoding == "gzip"
    assert server.log[0].agent.startswith("temporal-coherence-replication/")


def test_an_empty_file_is_a_file(server, tmp_path):
    server.files["/f"] = File(b"")
    fetch(Remote(f"{server.url}/f", tmp_path / "f"), Hasty())
    assert (tmp_path / "f").read_bytes() == b""


def test_two_processes_do_not_write_one_part(server, tmp_path):
    remote = Remote(f"{server.url}/f", tmp_path / "f")
    server.files["/f"] = File(CONTENT)
    with transfer.Part(remote, print, print), pytest.raises(DataError, match="another process is fetching this file"):
        fetch(remote, Hasty())
    fetch(remote, Hasty())


def test_no_room_for_a_file_is_found_before_its_first_byte(server, tmp_path, monkeypatch):
    server.files["/f"] = File(CONTENT)
    usage = transfer.shutil.disk_usage(tmp_path)._replace(free=SIZE - 1)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError, match="the disk is full"):
        fetch(Remote(f"{server.url}/f", tmp_path / "f"), Hasty())
    assert part_path(tmp_path / "f").stat().st_size == 0


@pytest.mark.parametrize("number, error", ((errno.ENOSPC, DiskFullError), (errno.EIO, DataError)))
def test_what_the_disk_refuses_is_a_sentence(number, error, server, tmp_path, monkeypatch):
    server.files["/f"] = File(CONTENT)

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    remote = Remote(f"{server.url}/f", tmp_path / "f", MD5)
    with monkeypatch.context() as patch:
        patch.setattr(transfer.os, "fsync", lambda descriptor: None)
        patch.setattr(transfer.Part, "finish", lambda part: refuse_at_end(part, refuse))
        with pytest.raises(error):
            fetch(remote, Hasty())
    assert not remote.path.exists()
    fetch(remote, Hasty())
    assert remote.path.read_bytes() == CONTENT


def refuse_at_end(part, refuse):
    with transfer._disk(part.path):
        refuse(0)


def test_a_killed_process_loses_nothing(server, tmp_path):
    """SIGKILL in mid-transfer, several times; the next process goes on behind the last byte."""
    server.files["/f"] = File(CONTENT)
    server.faults["/f"].extend([Fault(drop=300_000, stall=True)] * 3)
    program = textwrap.dedent(f"""
        from pathlib import Path
        from replicate.data.transfer import Remote, fetch
        from replicate.data.web import Client
        fetch(Remote("{server.url}/f", Path({str(tmp_path / "f")!r}), "{MD5}"), Client())
    """)
    reached = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent.parent)
        try:
            wait_until(lambda before=reached: size(part_path(tmp_path / "f")) > before, "more bytes")
        finally:
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        reached = size(part_path(tmp_path / "f"))
        assert not (tmp_path / "f").exists()
    fetch(Remote(f"{server.url}/f", tmp_path / "f", MD5), Hasty())
    assert (tmp_path / "f").read_bytes() == CONTENT
    asked = [request.range for request in server.gets("/f")]
    assert asked[0] is None and asked[-1] == part(reached) and len(asked) == 4


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("value", ["²", "-1", "9" * 5000, "", "1e3", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_headers_that_are_no_numbers_tell_nothing(value):
    answer = requests.Response()
    answer.status_code = 200
    answer.headers["Content-Length"] = value
    assert Version.of(answer).size is None
    answer.headers["Content-Range"] = f"bytes {value}-{value}/{value}"
    assert content_range(answer) == (None, None)
    assert not retry_after(value)
