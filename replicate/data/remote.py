"""Shards on remote stores, through fsspec: gs://, s3://, http(s)://, memory:// and whatever else it has a package for.

What is not there, or may not be read, is an OSError whose text says what to do. What broke on the way is tried again,
and then an IncompleteRun: the same command may succeed later.
"""

import errno
import fnmatch
import glob
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from replicate.errors import ConfigurationError, DataError, IncompleteRun

MANIFEST = "shards.txt"  # at the root of what is served by HTTP, which has no listing
WAITS = (1.0, 2.0, 4.0)  # seconds before further attempts
CONNECT, SILENCE = 10.0, 60.0  # seconds until an HTTP server counts as not there, or as having stopped
AT_ONCE, AHEAD = 1 << 19, 1 << 23  # bytes fetched when a record is read alone, and when a shard is read through
HTTP = ("http", "https")
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
CREDENTIALS = {
    "gcsfs": "log in by `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3fs": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemotePath:
    """A folder or file of a remote store; `path / name` lies within, as with pathlib.

    Attributes:
        url: with its protocol.
    """

    url: str

    @classmethod
    def of(cls, url: str) -> "RemotePath":
        """Where --data-dir points.

        Raises:
            ConfigurationError: there is no such protocol, or its package is not installed.
        """
        import fsspec

        path = cls(url.rstrip("/"))
        try:
            fsspec.get_filesystem_class(path.protocol)
        except ImportError as error:
            raise path._lacks(error) from None
        except ValueError:
            remedy = "use gs://, s3://, http:// or https://, or a local disk"
            raise ConfigurationError(f"{path}: fsspec knows no {path.protocol}://; {remedy}") from None
        return path

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def protocol(self) -> str:
        """What stands before ://."""
        return self.url.partition("://")[0]

    def is_file(self) -> bool:
        """Whether there is such a file."""
        try:
            return bool(self.sizes([""]))
        except OSError:
            return False

    def opened(self) -> "RemoteFile":
        """The file, to read parts of it.

        Raises:
            OSError: it is not there, or may not be read.
            IncompleteRun: the store did not answer.
        """
        return RemoteFile(self, self.sizes([""])[0])

    def sizes(self, names: list[str]) -> list[int]:
        """Bytes of each of the files within. Errors as of `opened`."""
        found = self._patiently(lambda filesystem, root: filesystem.sizes(_within(root, names)))
        for name, size in zip(names, found, strict=True):
            if size is None:
                what = f"{name or 'the file'}: the server does not say how large it is"
                raise OSError(errno.EINVAL, f"{what}; copy the shards to a disk, or use another server")
        return found

    def parts(self, names: list[str], begins: list[int], ends: list[int]) -> list[bytes]:
        """Bytes begin to end - 1 of each of the files within, several at a time. Errors as of `opened`."""
        found = self._patiently(
            lambda filesystem, root: filesystem.cat_ranges(_within(root, names), begins, ends, on_error="raise")
        )
        if any(len(part) > end - begin for part, begin, end in zip(found, begins, ends, strict=True)):
            reason = "the server sends whole files where parts are asked for"
            raise OSError(errno.EINVAL, f"{reason}; use one that answers Range requests, or copy the shards to a disk")
        return found

    def matching(self, pattern: str) -> list[str]:
        """Names of the files within that match a glob pattern. Over HTTP, those that shards.txt lists.

        Raises:
            DataError: there is no listing.
            IncompleteRun: the store did not answer.
        """
        if not glob.has_magic(pattern):
            return [pattern]
        if self.protocol in HTTP:
            return [name for name in self._listed() if _matches(name, pattern)]
        return self._patiently(
            lambda filesystem, root: [
                path[len(root) :].lstrip("/") for path in filesystem.glob(f"{root}/{pattern}")
            ]
        )  # fmt: skip

    def _listed(self) -> list[str]:
        try:
            manifest = (self / MANIFEST).opened()
            text = manifest.pread(manifest.size, 0).decode()
        except (OSError, UnicodeDecodeError):
            raise DataError(
                f"{self} cannot be listed over HTTP; put a file {MANIFEST} there with one name per line, or name every "
                "shard in the profile's dataset.shards instead of patterns"
            ) from None
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _lacks(self, error: ImportError) -> ConfigurationError:
        package = PACKAGES.get(self.protocol)
        remedy = f"pip install {package}" if package else str(error)
        return ConfigurationError(f"{self}: a package for {self.protocol}:// is not installed; {remedy}")

    def _patiently(self, work: Callable[[Any, str], Result]) -> Result:
        """What `work` returns, given fsspec's filesystem and the path there; tried again while it fails for reasons
        that may pass."""
        import fsspec

        for wait in (*WAITS, None):
            try:
                options = _http_options() if self.protocol in HTTP else {}
                return work(*fsspec.core.url_to_fs(self.url, **options))  # it keeps one filesystem for all who ask
            except ImportError as error:
                raise self._lacks(error) from None
            except Exception as error:
                cause = error
                if self.protocol in HTTP and isinstance(error.__cause__, Exception):
                    cause = error.__cause__  # fsspec calls whatever goes wrong there FileNotFoundError
                self._refuse(cause)
                if wait is None:
                    said = (str(cause).strip() or "no answer").splitlines()[0]
                    what = f"cannot be reached after {len(WAITS) + 1} attempts ({type(cause).__name__}: {said})"
                    remedy = "issue the same command again to resume"
                    raise IncompleteRun(f"{self}: {what}; look after the network, and {remedy}") from None
                time.sleep(wait)
        raise AssertionError

    def _refuse(self, cause: Exception) -> None:
        """Raise what no further attempt would change."""
        status = getattr(cause, "status", None)
        if isinstance(cause, PermissionError) or status in (401, 403):
            remedy = CREDENTIALS.get(PACKAGES.get(self.protocol, ""), "look after your access rights")
            raise OSError(errno.EACCES, f"access is refused; {remedy}") from None
        if isinstance(cause, FileNotFoundError) or status in (404, 410):
            asked = getattr(getattr(cause, "request_info", None), "real_url", None)
            missing = asked or getattr(cause, "filename", None) or cause
            raise OSError(errno.ENOENT, f"there is no {missing}; is --data-dir what holds the dataset?") from None


class RemoteFile:
    """Parts of a remote file. Whoever reads on from where the last part ended is given more at a time.

    Attributes:
        path: where it lies.
        size: bytes.
        held: (begin, bytes) of parts that were fetched in advance, whole records each.
    """

    def __init__(self, path: RemotePath, size: int):
        self.path, self.size = path, size
        self.held: list[tuple[int, bytes]] = []
        self._begin, self._data = 0, b""
        self._sha256, self._hashed = hashlib.sha256(), 0

    def pread(self, size: int, begin: int) -> bytes:
        """At most `size` bytes from `begin` on; at least those of the record there that was fetched in advance.

        Raises:
            OSError: the file may not be read any more.
            IncompleteRun: the store did not answer.
        """
        end = min(begin + size, self.size)
        for first, data in self.held:
            if first <= begin < first + len(data):
                return data[begin - first : end - first]
        at = begin - self._begin
        if not 0 <= at <= end - self._begin <= len(self._data):
            reads_on = 0 <= at <= len(self._data)
            left = self._data[at:] if reads_on else b""
            self._data = left + self._read_on(begin + len(left), max(end, begin + (AHEAD if reads_on else AT_ONCE)))
            self._begin, at = begin, 0
        return self._data[at : at + end - begin]

    def fetch(self, begin: int, end: int) -> bytes:
        """Bytes begin to end - 1, or to the end of the file. Errors as of `pread`."""
        [data] = self.path.parts([""], [begin], [min(end, self.size)])
        return data

    def _read_on(self, begin: int, end: int) -> bytes:
        """Fetch, and hash what follows what was hashed."""
        data = self.fetch(begin, end)
        if begin == self._hashed:
            self._sha256.update(data)
            self._hashed += len(data)
        return data

    def sha256(self) -> str:
        """Hex. What was read from the file's begin on is not fetched again. Errors as of `pread`."""
        while self._hashed < self.size:
            if not self._read_on(self._hashed, self._hashed + AHEAD):
                raise OSError(errno.EIO, "the file has become shorter while it was read")
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Let go of what was fetched."""
        self.held, self._data = [], b""


def _within(root: str, names: list[str]) -> list[str]:
    return [f"{root}/{name}" if name else root for name in names]


def _http_options() -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _matches(name: str, pattern: str) -> bool:
    """As glob: a star does not reach over a slash."""
    names, patterns = name.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))
