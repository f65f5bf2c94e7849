"""Several files at once, into one folder: which are there, whether there is room, how far it is.

A ledger in the folder (`.downloaded.jsonl`) remembers size, time and MD5 of what was fetched, so that the same command
issued again asks the disk for nothing but those. It is only appended to; several machines may fetch different files
into one folder, and a line that a crash cut off costs one checksum.
"""

import contextlib
import hashlib
import json
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replicate.data.transfer import DiskFullError, Remote, fetch, part_path
from replicate.data.web import ChangedUpstreamError, Client, StoppedError
from replicate.errors import DataError, IncompleteRun, ReplicateError
from replicate.progress import Event, Listener

LEDGER = ".downloaded.jsonl"
ASKED_FOR_SIZE = 16  # files whose size the server is asked for; the rest is taken to be like them
_NOTIFIED = 0.5  # seconds between two words about progress
_RATE_OVER = 20.0  # seconds over which the rate is taken


@dataclass
class Outcome:
    """What a batch did: names fetched, files that were there, bytes that came, sentences worth knowing."""

    fetched: list[str] = field(default_factory=list)
    present: int = 0
    received: int = 0
    notes: list[str] = field(default_factory=list)


class Ledger:
    """What was fetched into a folder: name -> MD5, bytes, time of change."""

    def __init__(self, folder: Path):
        self._path = folder / LEDGER
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[str, int, int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a crash cut off
                    entry = json.loads(line)
                    self._entries[entry["name"]] = entry["md5"], entry["bytes"], entry["mtime_ns"]

    def add(self, path: Path, md5: str) -> None:
        """Remember a file as it is now."""
        stat = path.stat()
        entry = {"name": path.name, "md5": md5, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        try:
            with self._lock, open(self._path, "a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(entry)}\n")  # behind a line that was cut off, begin a new one
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._entries[path.name] = md5, stat.st_size, stat.st_mtime_ns

    def confirm(self, remote: Remote) -> str:
        """See whether a file that is there is the one that would be fetched; a note, mostly empty.

        Raises:
            ChangedUpstreamError: it is what was fetched, and the plan now lists another.
            DataError: it is something else. It is never overwritten: it may be the only copy.
        """
        path, known = remote.path, self._entries.get(remote.path.name)
        again = "move it away to fetch it again"
        try:
            stat = path.stat()
            if known and known[1:] == (stat.st_size, stat.st_mtime_ns):
                if remote.md5 not in (None, known[0]):
                    versions = f"its MD5 is {known[0]}, by the plan it now is {remote.md5}"
                    raise ChangedUpstreamError(f"{path}: changed upstream since it was downloaded: {versions}; {again}")
                return ""
            if remote.md5 is None:
                return f"{path}: was there already and is kept; this command did not fetch it"
            with open(path, "rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
        except OSError as error:
            raise DataError(f"{path}: is there, but cannot be read: {error.strerror}; {again}") from None
        if md5 != remote.md5:
            cause = "it was changed on this disk since it was downloaded" if known else "damaged, or of another release"
            raise DataError(f"{path}: is not the plan's file (MD5 {md5}, by the plan {remote.md5}): {cause}; {again}")
        self.add(path, md5)
        return ""


def fetch_all(
    remotes: Sequence[Remote], client: Client, parallel: int, label: str, listener: Listener, extra: int = 0
) -> Outcome:
    """Bring files to their places, several at once.

    Args:
        remotes: files of one folder.
        client: how; its `stop` is set when the work ends early.
        parallel: transfers at the same time.
        label: what the work is called in messages.
        listener: told how far it is.
        extra: bytes of disk that are needed beside the files.

    Raises:
        DiskFullError: there is no room; found out before anything is fetched, as far as the server tells sizes.
        DataError, IncompleteRun: some files could not be had, the others are there.
    """
    folder = remotes[0].path.parent
    missing = [remote for remote in remotes if not remote.path.exists()]
    needed = needed_bytes(missing, client)
    check_room(folder, (needed or 0) + extra * bool(missing))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}") from None
    batch = _Batch(remotes, client, needed)
    listener.expect([label])
    listener.notify(Event(label, "start"))
    started = time.monotonic()
    batch.run(parallel, lambda *progress: listener.notify(Event(label, "step", *progress)))
    if batch.failures:
        raise batch.error()
    listener.notify(Event(label, "end", seconds=time.monotonic() - started))
    return batch.outcome


def needed_bytes(missing: Sequence[Remote], client: Client) -> int | None:
    """Bytes that are still to come, by the sizes that the server tells of some of the files; None if it tells none."""
    step = max(1, -(-len(missing) // ASKED_FOR_SIZE))
    sizes = [size for remote in missing[::step] if (size := client.size(remote.url)) is not None]
    if missing and not sizes:
        return None
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    begun = sum(part.stat().st_size for remote in missing if (part := part_path(remote.path)).exists())
    return max(0, round(mean * len(missing)) - begun)


def check_room(folder: Path, needed: int) -> None:
    """
    Raises:
        DiskFullError: the disk of `folder` (which need not exist) has less than `needed` bytes free.
    """
    free = shutil.disk_usage(existing(folder)).free
    if needed > free:
        sizes = f"about {needed / 1e9:.2f} GB are to come, {free / 1e9:.2f} GB are free"
        raise DiskFullError(
            f"{folder}: not enough room: {sizes}; make room, or take a smaller --shard or another folder"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return folder if folder.exists() else existing(folder.parent)


class _Batch:
    """Files on their way: threads take them one by one, the caller's thread counts and speaks."""

    def __init__(self, remotes: Sequence[Remote], client: Client, needed: int | None):
        self.outcome = Outcome()
        self.failures: list[ReplicateError] = []
        self._remotes, self._client, self._needed = remotes, client, needed
        self._ledger = Ledger(remotes[0].path.parent)
        self._waiting: queue.SimpleQueue[Remote] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Remote, bool | BaseException]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._untried = 0

    def run(self, parallel: int, speak) -> None:
        """Work until all is done, or too much failed in a row for the rest to be worth trying."""
        for remote in self._remotes:
            self._waiting.put(remote)
        threads = [threading.Thread(target=self._work, daemon=True, name=f"fetch {n}") for n in range(parallel)]
        for thread in threads:
            thread.start()
        left, in_a_row, rates = len(self._remotes), 0, _Rates()
        try:
            while left and not self._client.stop.is_set():
                for remote, result in self._finished():
                    left -= 1
                    in_a_row = in_a_row + 1 if isinstance(result, BaseException) else 0
                    self._enter(remote, result)
                    if isinstance(result, DiskFullError) or in_a_row >= max(3, parallel):
                        self._client.stop.set()
                self._speak(speak, len(self._remotes) - left, rates)
        except BaseException:
            self._client.stop.set()
            raise
        self._untried = left

    def _finished(self) -> Iterator[tuple[Remote, bool | BaseException]]:
        with contextlib.suppress(queue.Empty):
            yield self._done.get(timeout=_NOTIFIED)
            while True:
                yield self._done.get_nowait()

    def _enter(self, remote: Remote, result: bool | BaseException) -> None:
        if isinstance(result, ReplicateError):
            self.failures.append(result)
        elif isinstance(result, BaseException):
            raise result
        elif result:
            self.outcome.fetched.append(remote.path.name)
        else:
            self.outcome.present += 1

    def _work(self) -> None:
        while not self._client.stop.is_set():
            try:
                remote = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((remote, self._bring(remote)))
            except StoppedError:
                return
            except BaseException as error:  # whatever it is, the caller's thread must hear of it
                self._done.put((remote, error))

    def _bring(self, remote: Remote) -> bool:
        """Whether the file had to be fetched."""
        if remote.path.exists():
            self._note(self._ledger.confirm(remote))
            return False
        self._ledger.add(remote.path, fetch(remote, self._client, self._count, self._note))
        return True

    def _count(self, received: int) -> None:
        with self._lock:
            self.outcome.received += received

    def _note(self, sentence: str) -> None:
        if sentence:
            with self._lock:
                self.outcome.notes.append(sentence)

    def _speak(self, speak, done: int, rates: "_Rates") -> None:
        received, files = max(0, self.outcome.received), len(self._remotes)
        message = f"{rates.of(received) / 1e6:.1f} MB/s, {done} of {files} files"
        if self._needed:
            speak(float(min(received, self._needed)), float(self._needed), message)
        else:
            speak(float(done), float(files), message)

    def error(self) -> ReplicateError:
        """The failures in one sentence; the exit code says whether issuing the command again can help."""
        first = self.failures[0]
        if len(self._remotes) == 1:
            return first
        lasting = [each for each in self.failures if not isinstance(each, IncompleteRun)]
        kind = DataError if lasting else IncompleteRun
        rest = f" ({self._untried} others were then not tried)" if self._untried else ""
        first = lasting[0] if lasting else first
        return kind(f"{len(self.failures)} of {len(self._remotes)} files could not be had{rest}; one of them: {first}")


class _Rates:
    """Bytes per second over the last while."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def of(self, received: int) -> float:
        now = time.monotonic()
        self._seen.append((now, received))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        return max(0.0, (received - before) / max(1e-6, now - since))
