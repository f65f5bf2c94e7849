"""Polite HTTP: what a server says of a file, how long to wait for it, when to give up.

Names of errors tell causes apart: what is gone or changed upstream stays so however often it is asked for (exit code
2); what broke on the way may come whole the next time (exit code 4).
"""

import base64
import email.utils
import random
import re
import threading
import time
from dataclasses import dataclass, replace

import requests
import urllib3.exceptions

from replicate import __version__
from replicate.errors import DataError, IncompleteRun

TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # a later attempt may succeed
USER_AGENT = f"temporal-coherence-replication/{__version__}"
# Read from a response's stream, network faults come as urllib3's errors; before that, as those of requests.
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)
_STRONG_ETAG = re.compile(r'"[^"]*"')
_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")


class UnavailableError(DataError):
    """The server does not have the file, refuses it, or answers with something that is no file."""


class ChangedUpstreamError(DataError):
    """The server's file is not the one that was promised or begun."""


class BrokenTransferError(IncompleteRun):
    """The way to the server failed too often; the same command goes on where it stopped."""


class StoppedError(Exception):
    """Another thread asked everything to end."""


class AttemptError(Exception):
    """One attempt failed; another may succeed. `asked`: seconds that the server asks to wait, if it does."""

    def __init__(self, reason: str, asked: float | None = None):
        super().__init__(reason)
        self.asked = asked


@dataclass(frozen=True)
class Patience:
    """How long to try. Times in seconds.

    Attributes:
        attempts: in a row that bring no new byte, before a transfer counts as broken.
        broken: whole transfers with a wrong checksum.
        first_wait, longest_wait: after a failed attempt; doubled each time, times a jitter in [0.5, 1).
        longest_asked: a Retry-After beyond it ends the transfer instead of waiting.
        connect, read: limits of one connection and of one silence within an answer.
        seed: of the jitter, which also depends on the address.
    """

    attempts: int = 6
    broken: int = 3
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: float = 900.0
    connect: float = 10.0
    read: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Version:
    """What a server says of a file. None: it does not say.

    Attributes:
        size: bytes.
        etag: a strong entity tag; weak ones cannot vouch for bytes and are left out.
        modified: Last-Modified, verbatim.
        md5: hex, from Google Cloud Storage's X-Goog-Hash.
        crc32c: of the same source, base64.
    """

    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    md5: str | None = None
    crc32c: str | None = None

    @classmethod
    def of(cls, response: requests.Response) -> "Version":
        """The version that a whole (200), partial (206) or HEAD answer is of."""
        headers = response.headers
        length = headers.get("Content-Length", "")
        stated = int(length) if _NUMBER.fullmatch(length) else None
        size = content_range(response)[1] if response.status_code == 206 else stated
        etag = headers.get("ETag", "")
        sums = dict(part.strip().split("=", 1) for part in headers.get("X-Goog-Hash", "").split(",") if "=" in part)
        try:
            md5 = base64.b64decode(sums.get("md5", ""), validate=True).hex() or None
        except ValueError:
            md5 = None
        etag = etag if _STRONG_ETAG.fullmatch(etag) else None
        return cls(size, etag, headers.get("Last-Modified"), md5, sums.get("crc32c"))

    @property
    def validator(self) -> str | None:
        """For If-Range."""
        return self.etag or self.modified

    def differs(self, other: "Version") -> str:
        """In what two answers cannot be of the same version, for people; empty if they can."""
        for name in ("size", "etag", "md5", "crc32c", "modified"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine is not None and its is not None and mine != its:
                return f"{name} {mine} became {its}"
        return ""

    def elsewhere(self) -> "Version":
        """The version without what two mirrors may state differently for the same bytes."""
        return replace(self, etag=None, modified=None)


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """(first byte, size of the file) of a Content-Range header; None for what it does not tell."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        return None, None
    first, size = match.groups()
    return int(first) if first else None, int(size) if size != "*" else None


class Client:
    """HTTP for several threads: a connection pool for each, one pause for all when a server asks for it."""

    def __init__(self, patience: Patience | None = None, stop: threading.Event | None = None):
        """
        Args:
            patience: limits and waits.
            stop: set by whoever wants every thread to end; they then raise StoppedError.
        """
        self.patience = patience or Patience()
        self.stop = stop or threading.Event()
        self._local = threading.local()
        self._resume_at = 0.0  # on the monotonic clock; all threads wait until then

    def request(self, method: str, url: str, **headers: str) -> requests.Response:
        """The streamed answer to one request, its status one of 2xx or 416.

        Raises:
            AttemptError: no answer, or one that asks to try later.
            UnavailableError: any other status, or a web page instead of a file.
        """
        self.wait(self._resume_at - time.monotonic())
        limits = self.patience.connect, self.patience.read
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"} | headers
        try:
            answer = self._session.request(method, url, headers=headers, stream=True, timeout=limits)
        except NETWORK_ERRORS as error:
            raise AttemptError(describe(error)) from None
        if answer.status_code < 300 or answer.status_code == 416:
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                answer.close()
                raise UnavailableError(
                    f"{url}: a web page came instead of the file; is a proxy or a login page in between?"
                )
            return answer
        answer.close()
        if answer.status_code in TRANSIENT:
            asked = retry_after(answer.headers.get("Retry-After"))
            if asked and asked <= self.patience.longest_asked:
                self._resume_at = max(self._resume_at, time.monotonic() + asked)
            raise AttemptError(f"the server answers {answer.status_code} {answer.reason}", asked)
        remedy = "try another --mirror" if answer.status_code in (404, 410) else "the server refuses it"
        raise UnavailableError(f"{url}: HTTP {answer.status_code} {answer.reason}; {remedy}")

    def wait(self, seconds: float) -> None:
        """Sleep, unless everything should end."""
        if self.stop.wait(max(0.0, seconds)):
            raise StoppedError

    @property
    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def text(self, url: str, limit: int) -> str:
        """A small text file, whole.

        Raises:
            UnavailableError: it is not there, longer than `limit` bytes, or no UTF-8.
            BrokenTransferError: it could not be had.
        """
        tries = Tries(self, url)
        while True:
            try:
                with self.request("GET", url) as answer:
                    content = answer.raw.read(limit + 1, decode_content=False)
                    if len(content) <= limit and answer.raw.length_remaining:
                        raise AttemptError(f"the answer ended {answer.raw.length_remaining} bytes early")
                    break
            except NETWORK_ERRORS as error:
                tries.failed(AttemptError(describe(error)))
            except AttemptError as failure:
                tries.failed(failure)
        if len(content) > limit:
            raise UnavailableError(f"{url}: more than {limit} bytes; that cannot be the expected file")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise UnavailableError(f"{url}: is not UTF-8 text; that cannot be the expected file") from None

    def size(self, url: str) -> int | None:
        """Bytes of a file by a HEAD request; None if the server does not say. One attempt, as nothing hangs on it."""
        try:
            with self.request("HEAD", url) as answer:
                return Version.of(answer).size
        except (AttemptError, UnavailableError):
            return None


class Tries:
    """Counts the attempts at one address that bring nothing new; waits longer after each."""

    def __init__(self, client: Client, url: str):
        self._client, self._url = client, url
        self._jitter = random.Random(f"{client.patience.seed} {url}")
        self._furthest = self._fruitless = 0

    def failed(self, failure: AttemptError, reached: int = 0) -> None:
        """Wait before the next attempt.

        Args:
            failure: why the last one failed.
            reached: bytes of the file that are there now; a new high-water mark starts the count anew.

        Raises:
            BrokenTransferError: it was one too many, or the server asks for more time than patience allows.
        """
        patience = self._client.patience
        self._fruitless = 0 if reached > self._furthest else self._fruitless + 1
        self._furthest = max(self._furthest, reached)
        resume = "the same command goes on from there" if reached else "the same command tries again"
        if failure.asked and failure.asked > patience.longest_asked:
            raise BrokenTransferError(f"{self._url}: {failure} and asks to wait {failure.asked:.0f} s; {resume} later")
        if self._fruitless >= patience.attempts:
            times = f"{self._fruitless} attempts in a row brought nothing new"
            raise BrokenTransferError(f"{self._url}: {times} beyond byte {reached} (the last: {failure}); {resume}")
        wait = min(patience.longest_wait, patience.first_wait * 2 ** max(0, self._fruitless - 1))
        self._client.wait(max(failure.asked or 0.0, wait * self._jitter.uniform(0.5, 1.0)))


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number of them or a date; None if it is neither."""
    if value is None:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def describe(error: Exception) -> str:
    """A network error in a few words, without the chain of objects that its text usually is."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    text = str(error)
    if "NameResolution" in text:
        return "the server's name cannot be resolved"
    if "refused" in text:
        return "the connection was refused"
    return "the connection broke"
