"""Claims: a file is whole or absent, whatever happens while it is written; equal values give equal bytes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from patience import wait_until

from replicate import record


def test_exception_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    record.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), record.atomic_file(path) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_raised_not_swallowed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        record.write_text(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_kill_at_any_moment_leaves_old_or_new(tmp_path):
    """A writer that alternates two large contents is killed again and again; the file is always one of them."""
    program = (
        "import sys; from replicate import record\n"
        "while True:\n"
        "    for letter in 'ab': record.write_text(sys.argv[1], letter * 3_000_000)\n"
    )
    for attempt in range(4):
        path = tmp_path / f"file{attempt}"
        process = subprocess.Popen([sys.executable, "-c", program, str(path)])
        wait_until(path.exists, "the first content")
        time.sleep(0.05 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = path.read_text()
        assert len(text) == 3_000_000
        assert len(set(text)) == 1


def test_canonical_json_refuses_nan_and_ignores_order():
    assert record.digest({"a": 1, "b": [2]}) == record.digest({"b": [2], "a": 1})
    assert record.digest({"a": 1}) != record.digest({"a": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        record.canonical_json({"a": float("nan")})


def test_file_mode_follows_the_umask(tmp_path):
    record.write_text(tmp_path / "file", "x")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
