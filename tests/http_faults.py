"""A local HTTP server that fails in the ways that servers and networks fail.

It serves files with ETag, Last-Modified, Range and If-Range as a good server does. Before a good answer, each address
works off a list of faults, one per GET; `log` remembers every request.
"""

import email.utils
import hashlib
import socket
import sys
import threading
import time
from base64 import b64encode
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from replicate.data.download import Sources
from replicate.data.web import Client, Patience

QUICK = Patience(attempts=4, longest_asked=10_000)


class Hasty(Client):
    """Notes how long it should have waited, and does not."""

    def __init__(self, patience: Patience = QUICK):
        super().__init__(patience)
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        super().wait(0)
        if seconds > 0:
            self.waits.append(seconds)


@dataclass
class File:
    """What is served under one path."""

    content: bytes
    etag: bool = True  # a strong one, the content's digest
    modified: bool = True
    weak: bool = False  # the ETag is marked weak
    goog_md5: bool = False  # X-Goog-Hash, as Google Cloud Storage sends it
    encoding: str = ""  # Content-Encoding that the file is stored with
    chunked: bool = False  # a whole file is sent without telling its length beforehand

    @property
    def tag(self) -> str:
        return f'{"W/" * self.weak}"{hashlib.sha256(self.content).hexdigest()[:16]}"'

    @property
    def date(self) -> str:
        return email.utils.formatdate(1.5e9 + int(hashlib.sha256(self.content).hexdigest()[:6], 16), usegmt=True)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one GET. Fields at their defaults go right.

    Attributes:
        status, headers: answer with this instead of a file.
        silent: close the connection without an answer.
        drop: close it after so many bytes of the body, its announced length notwithstanding.
        stall: after `drop` bytes there is silence until the client goes, instead of closing at once.
        truncate: announce and send only so many bytes, as if the file ended there.
        flip: position in the file of a byte that arrives with all bits inverted.
        ignore_range: send the whole file though a part was asked for.
        shift: send a part that begins so many bytes later than asked for.
        ignore_if_range: send the part though the version is another.
        page: a web page, status 200.
        encoding: a Content-Encoding that nobody asked for.
        content: from now on the file is this; the fault is not used up by an answer, which follows at once.
    """

    status: int = 0
    headers: dict = field(default_factory=dict)
    silent: bool = False
    drop: int | None = None
    stall: bool = False
    truncate: int | None = None
    flip: int | None = None
    ignore_range: bool = False
    shift: int = 0
    ignore_if_range: bool = False
    page: bool = False
    encoding: str = ""
    content: bytes | None = None


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    agent: str | None
    accept_encoding: str | None


class QuietServer(ThreadingHTTPServer):
    """A thread for each connection. A client that goes away is no error to print: it could come among the lines that a
    later test looks at."""

    daemon_threads = True
    request_queue_size = 64  # clients may connect faster than threads are started

    def handle_error(self, *connection: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*connection)


class FaultyServer:
    """Use as a context manager; `url` is its address without a slash at the end."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}  # a fault that is never used up
        self.log: list[Request] = []
        self.sent = 0  # bytes of bodies
        self.pace = 0.0  # seconds per 16 KiB of body
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def sources(self) -> Sources:
        """Where downloads find this server's files."""
        return Sources(
            plan=self.url + "/plans/{level}_{part}.json",
            shard=self.url + "/{mirror}/{level}/{part}/{name}",
            archive=self.url + "/{mirror}/features.tar.gz",
            classes=self.url + "/classes.csv",
            ontology=self.url + "/ontology.json",
        )

    def gets(self, path: str) -> list[Request]:
        """The GETs of one path, in order."""
        return [each for each in self.log if each.method == "GET" and each.path == path]

    def fault(self, path: str) -> Fault:
        """The fault that the next GET of a path meets."""
        waiting = self.faults[path]
        return waiting.popleft() if waiting else self.always.get(path, Fault())

    def _handler(server):  # noqa: N805 - `self` is the handler's within
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._remember()
                file = server.files.get(self.path)
                self._start(200 if file else 404, file, len(file.content) if file else 0)

            def do_GET(self) -> None:
                self._remember()
                fault = server.fault(self.path)
                if fault.content is not None:
                    server.files[self.path].content = fault.content
                file = server.files.get(self.path)
                if fault.silent:
                    self._break()
                elif fault.status:
                    self._start(fault.status, None, 0, fault.headers)
                elif fault.page:
                    self._start(200, None, 6, {"Content-Type": "text/html"})
                    self.wfile.write(b"<html>")
                elif file is None:
                    self._start(404, None, 0)
                else:
                    self._serve(file, fault)

            def _remember(self) -> None:
                get = self.headers.get
                found = get("Range"), get("If-Range"), get("User-Agent"), get("Accept-Encoding")
                server.log.append(Request(self.command, self.path, *found))

            def _serve(self, file: File, fault: Fault) -> None:
                content, first = file.content, self._first(file, fault)
                if fault.flip is not None:
                    content = content[: fault.flip] + bytes([content[fault.flip] ^ 255]) + content[fault.flip + 1 :]
                size = len(content)
                if first is not None and first >= size:
                    self._start(416, None, 0, {"Content-Range": f"bytes */{size}"})
                    return
                headers = (
                    {"Content-Encoding": fault.encoding or file.encoding} if fault.encoding or file.encoding else {}
                )
                if first is None:
                    body = content[: fault.truncate]
                    self._start(200, file, len(body), headers)
                else:
                    first += fault.shift
                    body = content[first:]
                    headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
                    self._start(206, file, len(body), headers)
                self._send(body, fault)

            def _first(self, file: File, fault: Fault) -> int | None:
                """First byte of the part to send; None for the whole file."""
                asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
                if not asked or fault.ignore_range:
                    return None
                current = condition in (None, file.tag if file.etag and not file.weak else None, file.date)
                return int(asked.removeprefix("bytes=").rstrip("-")) if current or fault.ignore_if_range else None

            def _start(self, status: int, file: File | None, length: int, headers: dict | None = None) -> None:
                self.send_response(status)
                self._chunked = bool(file) and file.chunked and status == 200
                length_or_not = ("Transfer-Encoding", "chunked") if self._chunked else ("Content-Length", str(length))
                self.send_header(*length_or_not)
                if file and file.etag:
                    self.send_header("ETag", file.tag)
                if file and file.modified:
                    self.send_header("Last-Modified", file.date)
                if file and file.goog_md5:
                    self.send_header("X-Goog-Hash", "crc32c=AAAAAA==")
                    self.send_header("X-Goog-Hash", f"md5={b64encode(hashlib.md5(file.content).digest()).decode()}")
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()

            def _send(self, body: bytes, fault: Fault) -> None:
                cut = len(body) if fault.drop is None else min(fault.drop, len(body))
                try:
                    for start in range(0, cut, 1 << 14):
                        piece = body[start : min(cut, start + (1 << 14))]
                        server.sent += len(piece)  # before the client can know of it
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self._chunked else piece)
                        time.sleep(server.pace)
                except OSError:
                    return  # the client is gone
                if self._chunked and fault.drop is None:
                    self.wfile.write(b"0\r\n\r\n")
                if fault.drop is not None:
                    self.wfile.flush()
                    if fault.stall:
                        with suppress(OSError):
                            self.connection.recv(1)
                    self._break()

            def _break(self) -> None:
                """Close as a crash does, whatever was announced."""
                self.close_connection = True
                with suppress(OSError):  # the client was first
                    self.connection.shutdown(socket.SHUT_RDWR)

        return Handler
