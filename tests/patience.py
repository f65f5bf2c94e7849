"""Waiting for what happens in other processes: as long as a busy machine may need, and no longer than until it has."""

import time
from collections.abc import Callable, Collection
from typing import Any

import psutil

PATIENCE = 240  # seconds


def wait_until(condition: Callable[[], Any], what: str, every: float = 0.02) -> Any:
    """What a condition gives, looked at every so many seconds, once it is true; fail if it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(every)
    return found


def wait_for_the_end_of(processes: Collection[psutil.Process | int]) -> None:
    """Fail if one of them lives on. One that nobody waits for, as in a container without an init, has ended too."""
    wait_until(lambda: not any(map(lives, processes)), f"the end of {processes}")


def lives(process: psutil.Process | int) -> bool:
    """Whether it, or the one of this number, still runs."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
