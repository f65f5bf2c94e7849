"""SIGTERM, which Slurm, Kubernetes and others send some seconds before SIGKILL: work that can be left at a step, and
gone on with there, puts its end off until then."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

EXIT_CODE = 128 + signal.SIGTERM
GRACE = 25  # seconds: Slurm and Kubernetes leave 30 unless told otherwise

_asked = threading.Event()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Inside, SIGTERM ends this process by SystemExit at the next `look`, when the block ends, or at once after GRACE
    seconds without either. In another thread than the main one, which hears no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        try:
            look()
        finally:
            _asked.clear()


def _ask(*_: Any) -> None:
    """Once: the same signal may come from several sides, as from Slurm and from a launcher that Slurm ends."""
    if not _asked.is_set():
        _asked.set()
        signal.signal(signal.SIGALRM, lambda *_: os._exit(EXIT_CODE))
        signal.alarm(GRACE)


def look() -> None:
    """
    Raises:
        SystemExit: SIGTERM came. What is still to be put away may take its time.
    """
    if _asked.is_set():
        signal.alarm(0)
        raise SystemExit(EXIT_CODE)
