"""Do the tests keep their promises? Size, power and coverage by simulation, with few positives, too.

python -m benchmarks.simulate_tests --write docs/statistics.md

Two columns score videos drawn anew from one population, again and again, and are compared as the compare stage compares
them, and by exact replicates on the same weights. All is synthetic: a video's labels are independent, and a column's
score is noise that both share, noise of its own, and a strength if the label is positive. Nothing here is fitted to a
result of a real column.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np

from replicate.evaluate import statistics
from replicate.evaluate.bootstrap import deviations, weight_vectors
from replicate.evaluate.draws import Draws, SparseLabels
from replicate.evaluate.influence import CELLS, METRICS, measure_column
from replicate.evaluate.protocol import load_protocol
from replicate.record import write_text
from replicate.report.pages.parts import replace_part

DRAWS, DRAW_SIZE, REPLICATES = 5, 300, 499
OVERALL = [CELLS.index((metric, "overall")) for metric in METRICS]
FREQUENCIES = (0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06)  # at least 18 positives per class and draw are expected
EXPECTED_POSITIVES = (3, 5, 10, 20, 40)
PAPER_SHARE = 128_000 / 934_000  # of the pool in a draw of the paper


@dataclass(frozen=True)
class Setting:
    """One population and how it is sampled.

    Attributes:
        frequencies: of the labels.
        gain: what the second column's strength is above the first's.
        overlapping: draws are taken independently from a pool, as large as a draw of the paper is small in it.
    """

    frequencies: tuple[float, ...] = FREQUENCIES
    gain: float = 0.0
    overlapping: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one simulated comparison says of the four overall metrics; rows (metrics,), `influence` first, then `exact`.

    Attributes:
        difference: the statistic.
        value: of the first column.
        p: (2, metrics) two-sided, of each cell alone.
        adjusted: (2, metrics) step-down max-T.
        holm: (2, metrics).
        half: (2, metrics) half widths of the pointwise 95 % intervals.
        t_half: (2, metrics) of t over draws, as if disjoint, and corrected for overlap.
        closed: p of McNemar's test of Hit@1.
        gap: (metrics,) how far the standard errors are apart on the replicates that the compare stage checks.
    """

    difference: np.ndarray
    value: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    holm: np.ndarray
    half: np.ndarray
    t_half: np.ndarray
    closed: float
    gap: np.ndarray


def simulate(setting: Setting, rng: np.random.Generator, videos: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels, and the scores of both columns."""
    labels = rng.random((videos, len(setting.frequencies))) < setting.frequencies
    shared = rng.standard_normal(labels.shape)
    scores = [
        shared + 0.6 * rng.standard_normal(labels.shape) + strength * labels for strength in (1.5, 1.5 + setting.gain)
    ]
    return labels, [each.astype(np.float32) for each in scores]


def positions_of(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """(draws, draw size) positions into the pool."""
    if not setting.overlapping:
        return np.arange(DRAWS * DRAW_SIZE).reshape(DRAWS, DRAW_SIZE)
    pool = round(DRAW_SIZE / PAPER_SHARE)
    return np.stack([np.sort(rng.permutation(pool)[:DRAW_SIZE]) for _ in range(DRAWS)])


def compare(task: tuple[Setting, int]) -> Outcome:
    """One comparison, a pure function of setting and number."""
    setting, number = task
    protocol = load_protocol()
    rng = np.random.default_rng([protocol.bootstrap.seed, number])
    positions = positions_of(setting, rng)
    labels, scores = simulate(setting, rng, positions.max() + 1)
    draws, levels = Draws(positions), np.zeros(labels.shape[1], np.int64)
    sampled, classes = SparseLabels.of(labels[draws.videos]), np.arange(labels.shape[1])
    weights = weight_vectors(len(draws.videos), number, REPLICATES)
    first, second = (measure_column(each, sampled, levels, draws, classes, weights) for each in scores)
    difference = (second.values - first.values)[OVERALL]
    by_influence = deviations((second.influence - first.influence)[OVERALL], number, REPLICATES)
    by_rank = (second.replicates - first.replicates)[OVERALL, :REPLICATES].T - difference
    tests = [
        statistics.max_t(difference, each.std(axis=0, ddof=1), each.copy(), protocol.alpha)
        for each in (by_influence, by_rank)
    ]
    checked = protocol.bootstrap.exact_replicates
    gap = np.abs(by_influence[:checked].std(axis=0) / by_rank[:checked].std(axis=0) - 1)
    hits = second.first[0], first.first[0]
    eligible = ~np.isnan(hits[0])
    return Outcome(
        difference=difference,
        value=first.values[OVERALL],
        p=np.stack([test.p for test in tests]),
        adjusted=np.stack([test.adjusted for test in tests]),
        holm=np.stack([test.holm for test in tests]),
        half=np.stack(
            [
                test.critical * each.std(axis=0, ddof=1)
                for test, each in zip(tests, (by_influence, by_rank), strict=True)
            ]
        ),
        t_half=_t_half(scores, labels, draws, protocol.alpha),
        closed=statistics.mcnemar(*(each[eligible] for each in hits))[0],
        gap=gap,
    )


def _t_half(scores: list[np.ndarray], labels: np.ndarray, draws: Draws, alpha: float) -> np.ndarray:
    from replicate.evaluate.metrics import evaluate

    levels = np.zeros(labels.shape[1], np.int64)
    found = [
        [evaluate(each[draw], labels[draw], levels).values["overall"] for each in scores] for draw in draws.positions
    ]
    values = np.array([[[each[metric] for metric in METRICS] for each in both] for both in found])
    halves = np.empty((2, len(METRICS)))
    for row, overlap in enumerate((0.0, draws.overlap)):
        for column, differences in enumerate((values[:, 1] - values[:, 0]).T):
            low, high = statistics.t_interval(differences, overlap, alpha)
            halves[row, column] = (high - low) / 2
    return halves


class Outcomes:
    """Many comparisons in one setting, each array with them in front."""

    def __init__(self, outcomes: Iterable[Outcome]):
        self.all = list(outcomes)

    def __getattr__(self, name: str) -> np.ndarray:
        return np.stack([getattr(each, name) for each in self.all])

    def covered(self, halves: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Share of intervals difference +- half that hold the truth."""
        return (np.abs(self.difference - truth) <= halves).mean(axis=0)


def percent(share: float, count: int) -> str:
    """A share with its Monte Carlo standard error, in percent."""
    return f"{100 * share:.1f} ± {100 * np.sqrt(share * (1 - share) / count):.1f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def size_and_power(null: Outcomes, effect: Outcomes) -> str:
    """Rejections at 5 %."""

    def cells(rejected: Callable[[Outcomes], np.ndarray]) -> list[str]:
        """From (comparisons, 2) bool of each setting."""
        return [percent(share, len(each.all)) for each in (null, effect) for share in rejected(each).mean(axis=0)]

    rows = [[metric, *cells(lambda each, k=k: each.p[:, :, k] <= 0.05)] for k, metric in enumerate(METRICS)]
    rows.append(["any of the four, max-T", *cells(lambda each: (each.adjusted <= 0.05).any(axis=2))])
    rows.append(["any of the four, Holm", *cells(lambda each: (each.holm <= 0.05).any(axis=2))])
    closed = cells(lambda each: each.closed[:, None] <= 0.05)
    rows.append(["Hit@1, McNemar", closed[0], "", closed[1], ""])
    header = ["rejected at 5 %, in percent", "size, influence", "size, exact", "power, influence", "power, exact"]
    return table(header, rows)


def coverage(settings: dict[str, Outcomes]) -> str:
    """Coverage of the expected difference on new videos."""
    rows = []
    for title, each in settings.items():
        truth, n = each.difference.mean(axis=0), len(each.all)
        halves = np.concatenate([each.half, each.t_half], axis=1).swapaxes(0, 1)
        for k, metric in enumerate(METRICS):
            rows.append([title, metric, *(percent(each.covered(half, truth)[k], n) for half in halves)])
    header = ["draws", "metric", "bootstrap, influence", "bootstrap, exact", "t over draws", "t, overlap corrected"]
    return table(header, rows)


def few_positives(found: dict[int, Outcomes], truth: dict[int, float]) -> str:
    """MAP with few positives per class."""
    place, rows = METRICS.index("MAP"), []
    for positives, each in found.items():
        n = len(each.all)
        spread = each.difference[:, place].std(ddof=1)
        errors = each.half[:, :, place].mean(axis=0) / 1.96
        rows.append([
            str(positives), *(percent((each.p[:, row, place] <= 0.05).mean(), n) for row in (0, 1)),
            *(f"{error / spread:.2f}" for error in errors),
            f"{100 * (each.gap[:, place] > load_protocol().bootstrap.tolerance).mean():.0f}",
            f"{100 * (each.value[:, place].mean() - truth[positives]):+.1f}",
        ])  # fmt: skip
    header = ["expected positives per class and draw", "size, influence", "size, exact", "error / true, influence",
              "error / true, exact", "falls back, percent", "MAP above its value on many videos, points"]  # fmt: skip
    return table(header, rows)


def large_sample_map(setting: Setting) -> float:
    """MAP of the first column on very many videos."""
    from replicate.evaluate.metrics import mean_average_precision

    labels, scores = simulate(setting, np.random.default_rng(1), 200_000)
    return mean_average_precision(scores[0], labels)


@click.command()
@click.option("--comparisons", default=1_000, show_default=True, help="twice as many for size, half with few positives")
@click.option("--workers", default=2, show_default=True)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="put the tables into this page")
def main(comparisons: int, workers: int, write: Path | None) -> None:
    """Print size, power and coverage."""
    null, effect = Setting(), Setting(gain=0.06)
    rare = {m: Setting(frequencies=(m / DRAW_SIZE,) * len(FREQUENCIES)) for m in EXPECTED_POSITIVES}
    with ProcessPoolExecutor(workers) as pool:

        def run(setting: Setting, count: int) -> Outcomes:
            tasks = [(setting, number) for number in range(count)]
            return Outcomes(pool.map(compare, tasks, chunksize=20))

        at_null, at_effect = run(null, 2 * comparisons), run(effect, comparisons)
        overlapping = run(replace(effect, overlapping=True), comparisons)
        few = {positives: run(setting, comparisons // 2) for positives, setting in rare.items()}
    truth = {positives: large_sample_map(setting) for positives, setting in rare.items()}
    text = "\n\n".join([
        f"Simulated comparisons: {2 * comparisons:,} for size, {comparisons:,} for power and for each coverage, "
        f"{comparisons // 2:,} for each row of the last table; each has {DRAWS} draws of {DRAW_SIZE} videos, "
        f"{len(FREQUENCIES)} classes and {REPLICATES} replicates. ± is the Monte Carlo standard error. All synthetic.",
        "**Size** (equally good columns) **and power** (one is better), disjoint draws:",
        size_and_power(at_null, at_effect),
        "**Coverage** of 95 % intervals, in percent, for the expected difference on new videos:",
        coverage({"disjoint": at_effect, "overlapping": overlapping}),
        "**Few positives per class**, MAP, equally good columns:",
        few_positives(few, truth),
    ])  # fmt: skip
    click.echo(text)
    if write:
        write_text(write, replace_part(write.read_text(encoding="utf-8"), "simulation", text))


if __name__ == "__main__":
    main()
