"""Read or write shards with several processes: results come in the order of the shards, and no process outlives who
started it.

Beyond copying and hashing, a record costs time in the interpreter, and the small ones of AudioSet and of YouTube-8M's
video level little else. Threads share one interpreter, so processes it is.

They are plain child processes that are spoken to through their standard input and output. Those of `multiprocessing`
may not be started by a Dask worker, which is a daemon, and when their parent is killed they go on, or leave semaphores
behind; these end when their input does, by whatever their parent ended.
"""

import collections
import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from replicate.errors import IncompleteRun
from replicate.hardware.accounting import usable_cores

AHEAD = 4  # tasks under way, or done and not yet taken, per process
WORTH_A_PROCESS = 1 << 27  # bytes; a process takes about as long to start as these take to read

Task, Result = TypeVar("Task"), TypeVar("Result")


def processes_for(workers: int, sizes: Iterable[int]) -> int:
    """How many processes read some shards.

    Args:
        workers: as `run.workers` says; 0 stands for the cores that may be used.
        sizes: bytes of the shards; few are not worth many processes.
    """
    sizes = list(sizes)
    allowed = workers or usable_cores()
    return max(1, min(allowed, len(sizes), 1 + sum(sizes) // WORTH_A_PROCESS))


@contextlib.contextmanager
def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Iterator[Result]]:
    """The results of `work` for each task, in the tasks' order, whatever the number of processes.

    Leaving the block with an exception ends the processes at once, in the middle of what they do.

    Args:
        work: a function that can be pickled; with one process it is called in this one.
        tasks: arguments that can be pickled.
        processes: how many work at once.

    Raises:
        IncompleteRun: a process was killed.
        Exception: what `work` raises, of the first task in order.
    """
    if processes == 1:
        yield map(work, tasks)
        return
    with contextlib.ExitStack() as stack:
        executor = ThreadPoolExecutor(processes)  # a thread waits for each process
        stack.callback(executor.shutdown, cancel_futures=True)
        idle: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(processes):
            idle.put(stack.enter_context(_child()))

        def ask(task: Task) -> Result:
            child = idle.get()
            try:
                return _ask(child, work, task)
            finally:
                idle.put(child)

        yield _results(executor, ask, tasks, AHEAD * processes)


def _results(executor: Executor, ask: Callable[[Task], Result], tasks: Iterable[Task], ahead: int) -> Iterator[Result]:
    waiting: collections.deque = collections.deque()
    for task in tasks:
        waiting.append(executor.submit(ask, task))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def _child() -> Iterator[subprocess.Popen]:
    """A process that serves until the block is left. It has a process group of its own, so that an interrupt of the
    terminal reaches its parent alone."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from replicate.data.processes import serve; serve()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):  # an unwritten task
                stream.close()


def _ask(child: subprocess.Popen, work: Callable[[Task], Result], task: Task) -> Result:
    try:
        pickle.dump((work, task), child.stdin)
        child.stdin.flush()
        done, answer = pickle.load(child.stdout)
    except (EOFError, OSError, pickle.UnpicklingError):  # the pipe is closed, perhaps in the middle of an answer
        remedy = "issue the same command again to resume, with fewer of them by --set run.workers=N"
        message = f"a process that reads or writes shards was killed, perhaps for want of memory; {remedy}"
        raise IncompleteRun(message) from None
    if not done:
        raise answer
    return answer


def serve() -> None:
    """What a child does: one task after the other, until its input ends."""
    tasks: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        with contextlib.suppress(EOFError):
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        os._exit(0)  # the main thread may be in the middle of a shard

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is printed must not get among the answers
    sys.stdout.reconfigure(line_buffering=True, write_through=False)  # whole lines, before the process is ended
    threading.Thread(target=listen, daemon=True, name="listen").start()
    while True:
        work, task = tasks.get()
        answers.write(pickle.dumps(_answer(work, task)))
        answers.flush()


def _answer(work: Callable[[Any], Any], task: Any) -> tuple[bool, Any]:
    """(True, result), or (False, what it raised)."""
    try:
        return True, work(task)
    except Exception as error:
        return False, error
