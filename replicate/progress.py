"""Tell a person how far the work is: live bars with the time left on a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import astuple, dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """What happened to a job: 'start', 'step' (done of total), 'end' (seconds), 'fail' or 'note' (message)."""

    label: str
    kind: str
    done: float = 0.0
    total: float = 0.0
    message: str = ""
    seconds: float = 0.0

    def as_list(self) -> list[str | float]:
        """The event as plain values, for the way between processes: Dask's scheduler adds keys to a dictionary."""
        return list(astuple(self))


class Listener(Protocol):
    """Is told what will run and what happens."""

    def expect(self, labels: list[str]) -> None: ...

    def notify(self, event: Event) -> None: ...


def duration(seconds: float) -> str:
    """'7 s', '3 min 20 s', '2 h 5 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


class PlainLines:
    """One line per start and end, and one every half minute of a long job; for files and continuous integration."""

    interval = 30.0

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._spoken: dict[str, float] = {}
        self._total = self._ended = 0

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def expect(self, labels: list[str]) -> None:
        """Note how many jobs there will be."""
        self._total = len(labels)

    def notify(self, event: Event) -> None:
        """Print what happened, steps only when enough time has passed."""
        now = time.monotonic()
        if event.kind == "start":
            self._started[event.label] = self._spoken[event.label] = now
            self._say(f"start  {event.label}")
        elif event.kind == "step" and now - self._spoken.get(event.label, now) >= self.interval:
            self._spoken[event.label] = now
            left = time_left(now - self._started[event.label], event.done, event.total)
            share = f" {event.done / event.total:.0%}" if event.total else ""
            self._say(f"       {event.label}:{share}{left} {event.message}".rstrip())
        elif event.kind == "end":
            self._ended += 1
            self._say(f"done   {event.label} ({duration(event.seconds)}) [{self._ended}/{self._total}]")
        elif event.kind == "fail":
            self._say(f"FAILED {event.message}")
        elif event.kind == "note":
            self._say(f"NOTE   {event.label}: {event.message}")

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")  # at once: failures are said by another thread than what workers tell
        sys.stderr.flush()


def time_left(elapsed: float, done: float, total: float) -> str:
    """', 2 min 5 s left' by the pace so far; empty before there is a pace."""
    if done <= 0 or total <= 0:
        return ""
    return f", {duration(elapsed / done * max(0.0, total - done))} left"


class LiveBars:
    """A bar per running job and one for all of them."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.TextColumn("{task.description:<28}", markup=False), progress.BarColumn(),
            progress.TaskProgressColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[message]}", markup=False), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "LiveBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def expect(self, labels: list[str]) -> None:
        """Show the bar of all jobs."""
        if labels:
            self._tasks[""] = self._bars.add_task("all jobs", total=len(labels), message="")

    def notify(self, event: Event) -> None:
        """Open, move or close the job's bar; print what stays."""
        if event.kind == "start":
            self._tasks[event.label] = self._bars.add_task(event.label, total=None, message="")
        elif event.kind == "step" and event.label in self._tasks:
            task = self._tasks[event.label]
            self._bars.update(task, completed=event.done, total=event.total, message=event.message)
        elif event.kind == "end":
            self._close(event.label)
            self._bars.console.print(f"done   {event.label} ({duration(event.seconds)})", highlight=False)
        elif event.kind == "fail":
            self._close(event.label)
            self._bars.console.print(f"FAILED {event.message}", highlight=False, markup=False)
        elif event.kind == "note":
            self._bars.console.print(f"NOTE   {event.label}: {event.message}", highlight=False, markup=False)

    def _close(self, label: str) -> None:
        self._bars.advance(self._tasks[""])
        if label in self._tasks:
            self._bars.remove_task(self._tasks.pop(label))


def listener() -> LiveBars | PlainLines:
    """Bars where a person looks at a terminal, lines elsewhere."""
    return LiveBars() if sys.stderr.isatty() else PlainLines()
