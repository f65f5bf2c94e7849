"""How long significance takes at the scale of the paper, and how much memory.

python -m benchmarks.significance --videos 128000 --nodes 640 --columns 10 --draws 5 --replicates 9999

For every column: influence values and the exact replicates that the evaluate stage keeps, in 20 cells over all draws,
from a memory-mapped matrix. Then all pairs: bootstrap and step-down max-T in both families. Then, beside it, 1,000
exact replicates of one pair. Labels and scores are made as in `benchmarks.evaluate`, columns of one pair share most of
their noise; making them is not timed, nor is compilation. Memory is the peak of the resident set while the work runs,
over what stood before; pages of the memory-mapped scores that the system keeps are in it.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each matrix product: the replicates themselves run in threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np
import psutil

from benchmarks.evaluate import BLOCK, make_example
from replicate.evaluate import statistics
from replicate.evaluate.bootstrap import deviations, weight_vectors
from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluate.influence import CELLS, GROUPS, measure_column
from replicate.evaluate.protocol import load_protocol
from replicate.hardware.meters import ProcessMeter

PAIRS = 4
Column = tuple[np.ndarray, np.ndarray]  # values (cells,) and influence values (cells, videos) of a column


def make_base(path: Path, videos: int, nodes: int) -> tuple[SparseLabels, np.ndarray]:
    """Labels of all draws and the level of each node; the scores that all columns share go into a file."""
    scores = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(videos, nodes))
    offsets, values = [np.zeros(1, np.int64)], []
    for begin in range(0, videos, BLOCK):
        scores[begin : begin + BLOCK], labels, levels = make_example(min(BLOCK, videos - begin), nodes, seed=begin)
        sparse = SparseLabels.of(labels)
        offsets.append(offsets[-1][-1] + sparse.offsets[1:])
        values.append(sparse.values)
    return SparseLabels(np.concatenate(offsets), np.concatenate(values), nodes), levels


def write_scores(path: Path, base: Path, labels: SparseLabels, column: int) -> np.ndarray:
    """One column's scores as a memory-mapped file: the shared ones, noise of its own, more for labels by its number.

    The noise of a block is one table, shifted at random: it need not be good, but quick to make.
    """
    shared = np.load(base, mmap_mode="r")
    scores = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shared.shape)
    rng = np.random.default_rng([1, column])
    table = rng.standard_normal(2 * BLOCK * shared.shape[1], dtype=np.float32)
    for begin in range(0, len(shared), BLOCK):
        part = shared[begin : begin + BLOCK]
        shift = rng.integers(BLOCK * shared.shape[1])
        own = table[shift : shift + part.size].reshape(part.shape)
        scores[begin : begin + BLOCK] = part + own + np.float32(0.02 * column) * labels.dense(begin, begin + len(part))
    scores.flush()
    del scores
    return np.load(path, mmap_mode="r")


class Clock:
    """Seconds of the wall clock and of the processors, by name, and the peak of memory over all of them."""

    def __init__(self) -> None:
        self.peak = 0
        self.seconds: dict[str, float] = {}
        self.of_processors: dict[str, float] = {}

    def run(self, name, work):
        """The result of `work`, its time added under `name`."""
        begin, processors = time.perf_counter(), time.process_time()
        with ProcessMeter() as memory:
            result = work()
        self.peak = max(self.peak, memory.peak)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        self.of_processors[name] = self.of_processors.get(name, 0.0) + time.process_time() - processors
        return result


def family_tests(measured: list[Column], simulated: np.ndarray, alpha: float) -> list[statistics.FamilyTest]:
    """Primary and secondary family of the first pairs."""
    values = np.concatenate(
        [measured[2 * k + 1][0] - measured[2 * k][0] for k in range(simulated.shape[1] // len(CELLS))]
    )
    overall = np.array([group == GROUPS[0] for _, group in CELLS] * (len(values) // len(CELLS)))
    errors = simulated.std(axis=0, ddof=1)
    return [statistics.max_t(values[m], errors[m], simulated[:, m], alpha) for m in (overall, ~overall)]


@click.command()
@click.option("--videos", default=128_000, show_default=True, help="in each draw")
@click.option("--nodes", default=640, show_default=True)
@click.option("--columns", default=10, show_default=True)
@click.option("--draws", "draw_count", default=5, show_default=True)
@click.option("--replicates", default=9_999, show_default=True)
@click.option("--exact", default=1_000, show_default=True, help="exact replicates of one pair")
@click.option("--threads", default=2, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="for scores [default: the system's temporary folder]")
def main(
    videos: int, nodes: int, columns: int, draw_count: int, replicates: int, exact: int, threads: int,
    folder: Path | None,
) -> None:  # fmt: skip
    """Print seconds and peak memory of significance tests at the scale of the paper."""
    protocol, total = load_protocol(), videos * draw_count
    settings = protocol.bootstrap
    warm_up(nodes)
    draws = Draws(np.arange(total).reshape(draw_count, videos))
    clock, measured = Clock(), []
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory(dir=folder) as place:
        base = Path(place) / "base.npy"
        labels, levels = make_base(base, total, nodes)
        expected = np.bincount(labels.values, minlength=nodes) / draw_count
        classes = np.flatnonzero(expected >= protocol.classes.min_positives)
        weights = clock.run("weights", lambda: weight_vectors(total, settings.seed, settings.exploratory_replicates))
        paths = [Path(place) / f"{column}.npy" for column in range(columns)]
        for column, path in enumerate(paths):
            scores = write_scores(path, base, labels, column)
            work = (scores, labels, levels, draws, classes, weights, threads)
            found = clock.run("measures", lambda work=work: measure_column(*work))
            measured.append((found.values, found.influence))  # the compare stage reads no more
            if column > 1:
                path.unlink()
        del scores, work, weights, found
        pairs = min(PAIRS, columns // 2)
        influence = np.concatenate([measured[2 * k + 1][1] - measured[2 * k][1] for k in range(pairs)])
        simulated = clock.run("bootstrap", lambda: deviations(influence, settings.seed, replicates, threads))
        tests = clock.run("max-T", lambda: family_tests(measured, simulated, protocol.alpha))
        most = clock.peak - before
        checked = clock.run("exact", lambda: exact_pair(paths[:2], labels, levels, draws, classes, exact, threads))
    report(clock, measured, simulated, checked, tests, most / total / nodes / 4)
    click.echo(f"{columns} columns x {draw_count} draws of {videos:,} x {nodes} nodes, {len(classes)} classes in MAP, "
               f"{replicates:,} replicates, {threads} threads")  # fmt: skip


def warm_up(nodes: int) -> None:
    """Compile."""
    scores, labels, levels = make_example(64, nodes)
    draws = Draws(np.arange(64).reshape(2, 32))
    measure_column(scores, SparseLabels.of(labels), levels, draws, np.arange(nodes), weight_vectors(64, 0, 32))


def exact_pair(
    paths: list[Path], labels: SparseLabels, levels: np.ndarray, draws: Draws, classes: np.ndarray, exact: int,
    threads: int,
) -> np.ndarray:  # fmt: skip
    """(cells, replicates) exact differences of two columns."""
    weights = weight_vectors(len(labels), load_protocol().bootstrap.seed, exact)
    both = [
        measure_column(np.load(path, mmap_mode="r"), labels, levels, draws, classes, weights, threads) for path in paths
    ]
    return (both[1].replicates - both[0].replicates)[: len(CELLS), :exact]


def report(
    clock: Clock, measured: list[Column], simulated: np.ndarray, exact: np.ndarray,
    tests: list[statistics.FamilyTest], memory: float,
) -> None:  # fmt: skip
    """Print all."""
    for name, value in clock.seconds.items():
        click.echo(f"{name:12}{value:9.1f} s, {clock.of_processors[name]:.1f} s of processors")
    within = sum(value for name, value in clock.seconds.items() if name != "exact")
    click.echo(f"all but the exact check {within:.1f} s of 300, the exact check {clock.seconds['exact']:.1f} s of 120")
    click.echo(f"peak memory: {memory:.2f} times one column's scores on all draws")
    difference = measured[1][0] - measured[0][0]
    overall = [CELLS.index((metric, GROUPS[0])) for metric in ("GAP", "MAP", "PERR", "Hit@1")]
    count = min(exact.shape[1], len(simulated))
    for number, cell in enumerate(overall):
        by_influence, by_rank = simulated[:count, cell], exact[cell, :count] - difference[cell]
        click.echo(
            f"{CELLS[cell][0]:6} difference {100 * difference[cell]:7.4f} points, standard error: influence "
            f"{100 * by_influence.std(ddof=1):.4f}, exact {100 * by_rank.std(ddof=1):.4f}, correlation of replicates "
            f"{np.corrcoef(by_influence, by_rank)[0, 1]:.5f}, adjusted p {tests[0].adjusted[number]:.4f}"
        )


if __name__ == "__main__":
    main()
