"""Waiting for what happens in other processes: as long as a busy machine may need, and no longer than until it has."""

import time
from collections.abc import Callable, Iterable

import psutil

PATIENCE = 240  # seconds


def wait_until(condition: Callable[[], object], what: str, every: float = 0.02) -> None:
    """Fail if a condition, looked at every so many seconds, does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(every)


def wait_for_the_end_of(processes: Iterable[psutil.Process | int]) -> None:
    """Fail if one of them lives on. One that nobody waits for, as in a container without an init, has ended too."""
    wait_until(lambda: not any(map(lives, processes)), f"the end of {processes}")


def lives(process: psutil.Process | int) -> bool:
    """Whether it, or the one of this number, still runs."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
