"""Claims: plain lines say what starts, ends and fails, and how far long jobs are; bars appear on a terminal alone;
whatever a message holds is printed as it is."""

import sys
from types import SimpleNamespace

import pytest

from replicate import progress
from replicate.progress import Event, LiveBars, PlainLines, duration, listener, time_left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_time_left_by_the_pace_so_far():
    assert time_left(60, 25, 100) == ", 3 min 0 s left"
    assert time_left(60, 100, 100) == ", 0 s left"
    assert time_left(60, 0, 100) == "" and time_left(60, 5, 0) == ""


def test_an_event_survives_the_way_between_processes():
    event = Event("train TC-RNN, seed 0", "step", 3, 7, "epoch 1", 2.5)
    assert Event(*event.as_list()) == event
    assert all(isinstance(value, str | int | float) for value in event.as_list())


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_plain_lines(capsys, clock):
    with PlainLines() as lines:
        lines.expect(["index", "train"])
        lines.notify(Event("index", "start"))
        for _ in range(4):
            clock[0] += 10
            lines.notify(Event("index", "step", clock[0] - 100, 80, "part 3"))
        lines.notify(Event("index", "note", message="left out 2 records [see there]"))
        lines.notify(Event("index", "end", seconds=40.2))
        lines.notify(Event("train", "start"))
        clock[0] += 31
        lines.notify(Event("train", "step", 0, 0))
        lines.notify(Event("train", "fail", message="train: out of memory"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "start  index",
        "       index: 38%, 50 s left part 3",  # half a minute after the start, and not before
        "NOTE   index: left out 2 records [see there]",
        "done   index (40 s) [1/2]",
        "start  train",
        "       train:",
        "FAILED train: out of memory",
    ]


def test_bars_print_what_stays(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with LiveBars() as bars:
        bars.expect(["index", "train [0]"])
        for label in ("index", "train [0]"):
            bars.notify(Event(label, "start"))
            bars.notify(Event(label, "step", 1, 4, "a [message] of [/it]"))
        bars.notify(Event("unknown", "step", 1, 4))
        bars.notify(Event("index", "note", message="[1] left out"))
        bars.notify(Event("index", "end", seconds=3))
        bars.notify(Event("train [0]", "fail", message="train [0]: no [memory]"))
    captured = capsys.readouterr()
    assert captured.out == ""
    for line in ("NOTE   index: [1] left out", "done   index (3 s)", "FAILED train [0]: no [memory]"):
        assert line in captured.err


@pytest.mark.parametrize(("terminal", "kind"), [(True, LiveBars), (False, PlainLines)])
def test_bars_are_for_terminals(terminal, kind, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert isinstance(listener(), kind)
