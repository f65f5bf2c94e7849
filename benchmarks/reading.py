"""Batches for training: by a thread or by processes, and the memory that reading takes.

    python -m benchmarks.reading [--videos 1000] [--workers 0,1,2,4]

Records are of YouTube-8M's frame-level format, of random content, in shards that the system holds in memory; batches
are of 128 videos in a random order. For each number of reading workers (0: a thread of the training's own process):

- videos per second, of the clock: what a training that does nothing else would get here;
- processor time that the training's own process spends per 1,000 videos, which training cannot use;
- how much longer a loop of Python takes in the main thread meanwhile, than alone: a thread that reads holds the
  interpreter that launches work on a GPU. Only a machine with a core to spare for every reader can tell.

Then the memory that belongs to the reading process and its workers alone is looked at after some videos and after four
times as many others. Exit code 1 if batches of workers differ from those of the thread, or if memory grew by more than
a tenth of what was read.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks import reader
from replicate.data.batches import RecordSource, Source, batches
from replicate.data.index import Index, build_index
from replicate.data.order import epoch_order
from replicate.data.spec import SPECS
from replicate.data.workers import ReadingProcesses
from replicate.predict import Unlabelled

SPEC, BATCH, SHARDS, REPEATS = SPECS["yt8m"], 128, 5, 3
LOOP = 200_000  # steps of the loop that runs beside the readers


def corpus(folder: Path, videos: int) -> Index:
    """Shards of so many videos each, and their index."""
    names = [f"{number}.tfrecord" for number in range(SHARDS)]
    for number, name in enumerate(names):
        reader.write_random(folder / name, videos, number)
    build_index(SPEC, folder, names, folder / "index")
    return Index.open(folder / "index", folder)


def sources(index: Index, counts: list[int]) -> Iterator[tuple[int, Source]]:
    """What reads, by number of workers; started before it is timed."""
    for count in counts:
        records = RecordSource(index, SPEC, SPEC.frame_limit)
        yield count, ReadingProcesses(records, count, records.video_bytes) if count else records


def exhaust(source: Source, order: np.ndarray) -> int:
    """Read all batches; a checksum that any other byte or order would change."""
    total = 0
    for number, batch in enumerate(batches(source, Unlabelled(), order, BATCH), start=1):
        total += number * int(batch.features[:, ::50].sum()) + int(batch.rows[0])
    return total


def loop() -> float:
    """Seconds of some Python that needs nothing but the interpreter."""
    started, steps = time.perf_counter(), iter(range(LOOP))
    while next(steps, None) is not None:
        pass
    return time.perf_counter() - started


def beside(work: Callable[[], object]) -> float:
    """How many times as long the loop takes while `work` goes on in another thread."""
    alone = min(loop() for _ in range(REPEATS))
    thread = threading.Thread(target=work)
    thread.start()
    times = []
    while thread.is_alive():
        times.append(loop())
    thread.join()
    return float(np.median(times[:-1] or times)) / alone


def resident(source: Source) -> float:
    """Bytes in memory that belong to this process and the source's workers alone."""
    processes = [psutil.Process(), *psutil.Process().children()] if isinstance(source, ReadingProcesses) else [
        psutil.Process()
    ]  # fmt: skip
    return sum(process.memory_full_info().uss for process in processes)


def measure(index: Index, counts: list[int]) -> bool:
    """Print a line per number of workers; whether all read the same."""
    first = np.flatnonzero(index.shard == 0)
    order = np.tile(epoch_order(first, 0, 1), 3)
    print(f"{'workers':>7} {'videos/s':>9} {'own ms per 1,000':>17} {'Python beside':>14}")
    sums = set()
    for count, source in sources(index, counts):
        sums.add(exhaust(source, order))
        clock, own = float("inf"), float("inf")
        for _ in range(REPEATS):
            started, processor = time.perf_counter(), time.process_time()
            for _batch in batches(source, Unlabelled(), order, BATCH):
                pass
            clock = min(clock, time.perf_counter() - started)
            own = min(own, time.process_time() - processor)
        slower = beside(lambda source=source: [None for _ in batches(source, Unlabelled(), order, BATCH)])
        print(f"{count:>7} {len(order) / clock:9,.0f} {own / len(order) * 1e6:17,.0f} {slower:13.1f}x")
        if count:
            source.close()
    return len(sums) == 1


def memory(index: Index, counts: list[int]) -> bool:
    """Print memory after the first shard and after all; whether it is flat."""
    flat = True
    for count, source in sources(index, counts):
        first, rest = np.flatnonzero(index.shard == 0), np.flatnonzero(index.shard > 0)
        exhaust(source, np.tile(epoch_order(first, 0, 1), SHARDS))  # as long, so that all buffers are there
        before = resident(source)
        exhaust(source, epoch_order(rest, 0, 1))
        grown = resident(source) - before
        more = sum(shard["bytes"] for shard in index.shards[1:])
        flat &= grown < more / 10
        print(f"{count} workers: {before / 1e6:,.0f} MB, after {more / 1e6:,.0f} MB more {grown / 1e6:+,.0f} MB")
        if count:
            source.close()
    return flat


def main() -> None:
    """Measure, print, judge."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--videos", type=int, default=reader.VIDEOS, help="of each of five shards")
    options.add_argument("--workers", default="0,1,2,4", help="numbers to compare")
    given = options.parse_args()
    counts = [int(each) for each in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        index = corpus(Path(folder), given.videos)
        same, flat = measure(index, counts), memory(index, counts[:2])
    print(f"batches {'are the same' if same else 'DIFFER'}, memory {'is flat' if flat else 'GROWS'}")
    sys.exit(not (same and flat))


if __name__ == "__main__":
    main()
