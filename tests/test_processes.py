"""Claims: results come in the order of the tasks from any number of processes; the first failure in that order is the
one raised; tasks are taken only so far ahead; processes work where `multiprocessing` allows none; a killed one is a
sentence; none outlives the block, nor its parent."""

import contextlib
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from patience import PATIENCE, wait_for_the_end_of, wait_until

from replicate.data.processes import AHEAD, WORTH_A_PROCESS, in_order, processes_for
from replicate.errors import ConfigurationError, IncompleteRun


def children():
    """Processes that this one started to serve tasks."""
    return [each for each in psutil.Process().children() if "processes import serve" in " ".join(words_of(each))]


def words_of(process):
    """Of its command line; none of one that has ended, as another test's child may have at any moment."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_are_in_order(processes):
    with in_order(math.sqrt, [n * n for n in range(40)], processes) as results:
        assert list(results) == list(range(40))
    assert not children()


def test_the_work_is_done_elsewhere_by_so_many():
    with in_order(os.getppid, [], 3) as results:
        assert list(results) == []
        wait_until(lambda: len(children()) == 3, "three processes")  # one just begun has no words yet
    with in_order(eval, ["__import__('os').getpid()"] * 20, 2) as results:
        assert os.getpid() not in set(results)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_first_failure_in_order_is_raised(processes):
    slow_then_bad = "__import__('time').sleep(0.5) or 1 / 0"
    with (
        pytest.raises(ZeroDivisionError),
        in_order(eval, ["1", slow_then_bad, "[][0]", "nothing"], processes) as results,
    ):
        list(results)
    assert not children()


def test_own_errors_arrive_as_they_were():
    raises = "(_ for _ in ()).throw(__import__('replicate.errors').errors.ConfigurationError('a sentence'))"
    with pytest.raises(ConfigurationError, match="^a sentence$"), in_order(eval, [raises], 2) as results:
        list(results)


def test_tasks_are_taken_only_so_far_ahead():
    taken = itertools.count()
    with in_order(abs, (next(taken) for _ in range(1000)), 2) as results:
        for _ in range(5):
            next(results)
        assert next(taken) <= 5 + 2 * AHEAD


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_printed_is_whole_lines_and_not_taken_for_an_answer(unbuffered, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    words = [f"word{n}" for n in range(400)]
    with in_order(print, words, 2) as results:
        assert list(results) == [None] * len(words)
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(words)


def test_a_killed_process_is_a_sentence():
    sentence = "a process that reads or writes shards was killed, .* --set run.workers=N$"
    with pytest.raises(IncompleteRun, match=sentence), in_order(time.sleep, [0, 600, 600], 2) as results:
        next(results)
        for child in children():
            child.kill()
        list(results)
    assert not children()


def test_leaving_the_block_ends_what_is_under_way():
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), in_order(time.sleep, [0, 600, 600, 600], 2) as results:
        next(results)
        raise KeyboardInterrupt
    assert not children() and time.monotonic() - begin < PATIENCE


def daemon(answers):
    with in_order(math.sqrt, [4, 9], 2) as results:
        answers.put(list(results))


def test_a_daemon_may_have_them_too():
    """Workers of Dask are daemons, to which `multiprocessing` gives no children."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=daemon, args=(answers,), daemon=True)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0 and answers.get() == [2, 3]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_none_outlives_its_parent(sent):
    program = """
import time
from replicate.data.processes import in_order
with in_order(time.sleep, [0, 600, 600], 2) as results:
    next(results)
    print("ready", flush=True)
    list(results)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    )
    assert parent.stdout.readline() == b"ready\n"
    started = psutil.Process(parent.pid).children()
    assert len(started) == 2
    parent.send_signal(sent)
    parent.wait(PATIENCE)
    wait_for_the_end_of(started)


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize(
    ("workers", "sizes", "expected"),
    [
        (4, [WORTH_A_PROCESS] * 10, 4),
        (4, [WORTH_A_PROCESS] * 3, 3),  # a shard is read by one
        (4, [1000] * 100, 1),  # starting another takes longer than reading
        (4, [], 1),
        (1, [WORTH_A_PROCESS] * 10, 1),
        (0, [WORTH_A_PROCESS] * 10_000, len(os.sched_getaffinity(0))),
    ],
)
def test_as_many_as_are_allowed_and_worth_it(workers, sizes, expected):
    assert processes_for(workers, sizes) == expected
