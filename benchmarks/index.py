"""An index of YouTube-8M's size, and the reading that leads to one: seconds, memory, bytes per second.

    python -m benchmarks.index [--records 5001275 --shards 7688] [--megabytes 400]

First part: what a build leaves behind when it is killed after its last shard is generated, with ids of the real form
and label sets drawn from the committed statistics. Issued again, the build joins it; the index is then opened, its
labels are closed under ancestors, and its videos are split as the paper's profile says, test draws included.

Second part: shards of random content in YouTube-8M's two formats, which the system holds in memory, are indexed and
verified by one process and by two. Beside it stands what can hardly be beaten: reading the same files by as many
processes for their SHA-256 alone. The best of some repeats counts, taken in turn: of elapsed time, and of the processor
time of all processes, in which what else runs on the machine plays little part.

Memory is the largest resident set, of all processes together, in a fresh process and beyond what that holds before: in
the second part on these files and on a quarter of them. Everything lies in a temporary folder and follows from --seed.
Exit code 1 if opening takes a second or more, or the draws are not disjoint.
"""

import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from tabulate import tabulate

from replicate.data import label_sets
from replicate.data.index import Index, build_index, find_shards
from replicate.data.labels import LabelStore
from replicate.data.messages import Example, SequenceExample
from replicate.data.processes import in_order
from replicate.data.spec import SPECS
from replicate.data.splits import Split, make_split
from replicate.data.tfrecord import frame
from replicate.data.verify import verify
from replicate.profile_files import load_profile
from replicate.record import file_digest
from replicate.taxonomy.tree import load_yt8m

RECORDS, SHARDS = 5_001_275, 7_688  # train and validate of the 2018 release, whose counts the paper's split has
LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)
ID_WIDTH, PLACEHOLDER = 4, b"<id>"  # letters of a real id, and what stands for it
SHORTEST, LONGEST = 120, 300  # frames
REPEATS, SHARD_BYTES, TEMPLATES = 3, 12_000_000, 32
MEGABYTE = 1e6


class PeakMemory:
    """The largest sum of the resident sets of this process and those it started while the block runs, sampled."""

    def __enter__(self) -> "PeakMemory":
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        this = psutil.Process()
        own = this.cmdline()
        while not self._done.is_set():
            size = this.memory_info().rss
            for child in this.children():
                try:
                    if child.cmdline() != own:  # else a fork of this one that is not yet a process of its own
                        size += child.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self.bytes = max(self.bytes, size)
            self._done.wait(0.01)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@dataclass(frozen=True)
class Measured:
    """A call: elapsed seconds, processor seconds of all processes, bytes of memory beyond what was held, its result."""

    seconds: float
    processor: float
    memory: int
    result: Any


def timed(work: Callable[[], Any]) -> Measured:
    """Call and measure all but memory, because looking at it takes time as well."""
    begin, used = time.perf_counter(), processor_seconds()
    result = work()
    return Measured(time.perf_counter() - begin, processor_seconds() - used, 0, result)


def measured(work: Callable[[], Any]) -> Measured:
    """Call and measure."""
    before = psutil.Process().memory_info().rss
    with PeakMemory() as peak:
        made = timed(work)
    return replace(made, memory=max(0, peak.bytes - before))


def processor_seconds() -> float:
    """Of this process and those it started that have ended."""
    return sum(psutil.Process().cpu_times()[:4])


def in_fresh_process(work: Callable[[], Any]) -> Measured:
    """Call and measure where nothing else was done before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measured, work).result()


def random_ids(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count,) different ids."""
    codes = generator.choice(len(LETTERS) ** ID_WIDTH, count, replace=False)
    digits = codes[:, None] // len(LETTERS) ** np.arange(ID_WIDTH) % len(LETTERS)
    return LETTERS[digits].view(f"S{ID_WIDTH}").ravel()


def leave_parts(root: Path, out: Path, records: int, shards: int, seed: int) -> list[str]:
    """Write what a build leaves behind that is killed after its last shard; the shards' names. The shards themselves
    are empty files: nothing reads them any more."""
    generator = np.random.default_rng(seed)
    ids, frames = random_ids(generator, records), generator.integers(SHORTEST, LONGEST + 1, records)
    combinations = [np.array(each, np.int16) for each in label_sets.committed()]
    videos = np.array(list(label_sets.committed().values()), np.float64)
    chosen = generator.choice(len(combinations), records, p=videos / videos.sum())
    bounds = np.linspace(0, records, shards + 1).astype(np.int64)
    names = [f"train{shard:04d}.tfrecord" for shard in range(shards)]
    (out / "parts").mkdir(parents=True)
    for shard, name in enumerate(names):
        (root / name).touch()
        rows = slice(bounds[shard], bounds[shard + 1])
        labels = [combinations[each] for each in chosen[rows]]
        sizes = frames[rows] * SPECS["yt8m"].width
        np.savez(
            out / "parts" / f"{shard:06d}.npz", record=np.arange(len(labels), dtype=np.int32),
            offset=np.cumsum(sizes) - sizes, frames=frames[rows].astype(np.int16), ids=ids[rows],
            label_counts=np.array(list(map(len, labels))), label_values=np.concatenate(labels),
            faults=np.array("[]"), sha256=np.array(generator.bytes(32).hex()),
        )  # fmt: skip
    return names


def join(root: Path, out: Path, names: list[str]) -> None:
    """Finish the build."""
    build_index(SPECS["yt8m"], root, names, out)


def open_index(root: Path, out: Path) -> tuple[int, int]:
    """(records, shards) of the index."""
    index = Index.open(out, root)
    return index.count, len(index.shards)


def close_labels(root: Path, out: Path) -> float:
    """Write the nodes of every video; how many one has on average."""
    index = Index.open(out, root)
    store = LabelStore.closed(load_yt8m(), index.label_offsets, index.label_values)
    store.save(out / "labels")
    return len(store.values) / index.count


def split(root: Path, out: Path) -> dict[str, Any]:
    """Divide the videos and draw the tests by the paper's numbers, scaled to the number of records."""
    index, wanted = Index.open(out, root), load_profile("paper").split
    train, tune, size = (round(each * index.count / RECORDS) for each in (wanted.train, wanted.tune, wanted.draw_size))
    made = make_split(index.ids, wanted.seed, train, tune, wanted.pool, wanted.draws, size)
    made.save(out / "split")
    return {"train": len(made.train), "tune": len(made.tune), "pool": len(made.pool)}


def open_split(out: Path) -> tuple[tuple[int, ...], bool]:
    """(shape of the draws, whether no video is in two of them)."""
    opened = Split.open(out / "split")
    return opened.draws.shape, opened.disjoint


def at_full_size(folder: Path, records: int, shards: int, seed: int) -> bool:
    """Print the first part; whether all is as it should be."""
    root, out = folder / "shards", folder / "index"
    root.mkdir()
    begin = time.perf_counter()
    names = leave_parts(root, out, records, shards, seed)
    click.echo(f"{records:,} records of {shards:,} shards, generated in {time.perf_counter() - begin:.0f} s")
    rows, results = [], {}
    for title, work in (
        ("join the parts, refuse repeated ids", partial(join, root, out, names)),
        ("open the index", partial(open_index, root, out)),
        ("close the labels under ancestors", partial(close_labels, root, out)),
        ("split, five draws", partial(split, root, out)),
        ("open the split", partial(open_split, out)),
    ):
        made = in_fresh_process(work)
        results[title] = made.result
        rows.append((title, f"{made.seconds:.3f}", f"{made.processor:.3f}", f"{made.memory / MEGABYTE:.0f}"))
        if title == "open the index":
            opening = made.seconds
    headers = ("", "seconds", "of processor", "MB of memory")
    click.echo(tabulate(rows, headers=headers, disable_numparse=True, colalign=("left", *["right"] * 3)))
    columns = sum(path.stat().st_size for path in out.glob("*.npy")) / MEGABYTE
    listing = (out / "index.json").stat().st_size / MEGABYTE
    shape, disjoint = results["open the split"]
    sizes = ", ".join(f"{role} {count:,}" for role, count in results["split, five draws"].items())
    click.echo(f"the columns have {columns:.0f} MB, index.json {listing:.1f} MB")
    click.echo(f"{results['close the labels under ancestors']:.2f} nodes per video; {sizes}")
    click.echo(f"{shape[0]} draws of {shape[1]:,}, {'disjoint' if disjoint else 'NOT disjoint'}")
    return results["open the index"] == (records, shards) and disjoint and opening < 1


def templates(kind: str, generator: np.random.Generator) -> list[tuple[bytes, bytes]]:
    """Records of a format, cut in two where their ids stand."""
    spec, cut = SPECS[kind], []
    for _ in range(TEMPLATES):
        message = SequenceExample() if spec.layout == "sequence" else Example()
        context = (message.context if spec.layout == "sequence" else message.features).feature
        context[spec.id_key].bytes_list.value.append(PLACEHOLDER)
        context[spec.label_key].int64_list.value.extend(generator.choice(spec.label_count, 3, replace=False).tolist())
        frames = int(generator.integers(SHORTEST, LONGEST + 1))
        for feature in spec.features:
            if spec.layout == "sequence":
                for _ in range(frames):
                    values = message.feature_lists.feature_list[feature.key].feature.add().bytes_list.value
                    values.append(generator.bytes(feature.width))
            else:
                context[feature.key].float_list.value.extend(generator.standard_normal(feature.width).tolist())
        before, _, after = message.SerializeToString(deterministic=True).partition(PLACEHOLDER)
        cut.append((before, after))
    return cut


def write_corpus(root: Path, kind: str, size: float, seed: int) -> int:
    """Shards of about `size` bytes in all; how many records."""
    generator = np.random.default_rng(seed)
    cut = templates(kind, generator)
    count = round(size / np.mean([len(before) + ID_WIDTH + len(after) for before, after in cut]))
    per_shard = -(-count // round(size / SHARD_BYTES))
    ids = random_ids(generator, count).tolist()
    root.mkdir()
    for begin in range(0, count, per_shard):
        with open(root / f"shard{begin:07d}.tfrecord", "wb") as file:
            for number, video in enumerate(ids[begin : begin + per_shard], begin):
                before, after = cut[number % TEMPLATES]
                file.write(frame(before + video + after))
    return count


def read_plainly(kind: str, root: Path, processes: int) -> None:
    """What can hardly be beaten: every file's SHA-256."""
    with in_order(file_digest, sorted(root.iterdir()), processes) as results:
        for _ in results:
            pass


def index(kind: str, root: Path, processes: int) -> None:
    """Build an index and leave it."""
    with tempfile.TemporaryDirectory(dir=root.parent) as out:
        build_index(SPECS[kind], root, find_shards(root, ["*"]), Path(out), processes=processes)


def verify_all(kind: str, root: Path, processes: int) -> None:
    """List the faults, of which there is none."""
    if faults := verify(SPECS[kind], root, find_shards(root, ["*"]), processes=processes):
        raise SystemExit(f"the generated shards have faults; the first: {faults[0]}")


PLAIN = "plain reading + SHA-256"
ACTIONS = {PLAIN: read_plainly, "index": index, "verify": verify_all}


def at_work(folder: Path, size: float, seed: int) -> None:
    """Print the second part."""
    for kind, title, part in (("yt8m", "frame level", 1), ("yt8m-video", "video level", 4)):
        few, many = folder / f"{kind} few", folder / f"{kind} many"
        counts = write_corpus(few, kind, size / part, seed), write_corpus(many, kind, 4 * size / part, seed)
        megabytes = sum(path.stat().st_size for path in many.iterdir()) / MEGABYTE
        cases = [(name, processes) for processes in (1, 2) for name in ACTIONS]
        seconds, processor = dict.fromkeys(cases, np.inf), dict.fromkeys(cases, np.inf)
        for _ in range(REPEATS):
            for case in cases:
                made = timed(partial(ACTIONS[case[0]], kind, many, case[1]))
                seconds[case] = min(seconds[case], made.seconds)
                processor[case] = min(processor[case], made.processor)
        rows = []
        for name, processes in cases:
            case, plain = (name, processes), (PLAIN, processes)
            memory = [in_fresh_process(partial(ACTIONS[name], kind, root, processes)).memory for root in (few, many)]
            rows.append((
                name, processes, f"{megabytes / seconds[case]:.0f}", f"{seconds[name, 1] / seconds[case]:.2f}",
                f"{megabytes / processor[case]:.0f}", f"{processor[plain] / processor[case]:.2f}",
                *(f"{each / MEGABYTE:.0f}" for each in memory),
            ))  # fmt: skip
        click.echo(f"\n{title}: {counts[1]:,} records, {megabytes:.0f} MB")
        headers = (
            "", "processes", "MB/s", "x one process", "MB per processor second", "of plain reading's",
            *(f"MB of memory, {count:,} records" for count in counts),
        )  # fmt: skip
        align = ("left", *["right"] * (len(headers) - 1))
        click.echo(tabulate(rows, headers=headers, disable_numparse=True, colalign=align, maxheadercolwidths=12))


@click.command()
@click.option("--records", default=RECORDS, show_default=True, help="Of the generated index.")
@click.option("--shards", default=SHARDS, show_default=True, help="Of the generated index.")
@click.option("--megabytes", default=400, show_default=True, help="Of a quarter of the frame-level shards.")
@click.option("--seed", default=0, show_default=True)
def main(records: int, shards: int, megabytes: int, seed: int) -> None:
    """Print seconds, memory and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        fine = at_full_size(Path(folder), records, shards, seed)
        at_work(Path(folder), megabytes * MEGABYTE, seed)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
