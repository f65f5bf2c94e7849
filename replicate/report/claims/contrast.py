"""Any figure made of Table 1's cells, with an interval: over test draws and, with several seeds, over trainings too.

The draws hold different videos, so a figure computed anew on each of them varies as it would over other videos: a t
interval over disjoint draws covers new videos (94.9 % in simulation). Overlapping draws get a wider one. Draws of one
trained model say nothing of another training; seeds do, and an interval here spans both: half-widths add in squares.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from replicate.evaluate.statistics import joined
from replicate.report.records import Records
from replicate.schema import Difference, Interval

TEST_NOISE = "test videos"
ALPHA, POWER = 0.05, 0.8  # as in the protocol (tested)
BOTH_NOISES = "test videos and training seeds"


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty.

    Attributes:
        effect: the figure.
        interval: 95 %; None where nothing was repeated.
        wide: as `interval`, for several figures at once (Bonferroni); equals `interval` for a single one.
        detectable: the smallest true effect that would be found with power .8.
        noise: what the interval speaks of.
    """

    effect: float
    interval: Interval | None
    wide: Interval | None
    detectable: float | None
    noise: str


Figure = Callable[[Callable[[str, str, str], float]], float]


def contrast(records: Records, figure: Figure, among: int = 1) -> Estimate:
    """Compute a figure on every draw of every seed and summarise.

    Args:
        figure: given `score(column, metric, level)` of one draw of one seed, the figure.
        among: how many figures are looked at together; widens `wide`.

    Raises:
        KeyError: a cell that the figure needs is undefined on these data; its argument is the reason.
    """
    values = np.array([[figure(score) for score in _scores(records, seed)] for seed in records.run.seeds])
    first = next(iter(records.evaluate.values()))
    return summarise(values, share=0.0 if first.disjoint else first.draw_size / first.videos, among=among)


def _scores(records: Records, seed: int) -> list[Callable[[str, str, str], float]]:
    def of_draw(draw: int) -> Callable[[str, str, str], float]:
        def score(column: str, metric: str, level: str) -> float:
            cell = records.cell(column, seed, metric, level)
            if cell.draws is None:
                raise KeyError(cell.reason)
            return cell.draws[draw]

        return score

    return [of_draw(draw) for draw in range(records.run.split["draws"])]


def summarise(values: np.ndarray, share: float = 0.0, among: int = 1) -> Estimate:
    """The mean of (seeds, draws) values, and what its interval spans.

    Args:
        share: a draw's share of the pool, where draws overlap at random; 0 for disjoint draws.
        among: see contrast.
    """
    effect = float(values.mean())
    seeds, draws = values.shape
    spreads = []
    if draws > 1:
        factor = 1 / draws + (share / (1 - share) if share else 0.0)
        spreads.append((math.sqrt(values.mean(axis=0).var(ddof=1) * factor), draws - 1))
    if seeds > 1:
        spreads.append((values.mean(axis=1).std(ddof=1) / math.sqrt(seeds), seeds - 1))
    if not spreads:
        return Estimate(effect, None, None, None, TEST_NOISE)
    return Estimate(
        effect=effect,
        interval=_around(effect, math.hypot(*(stats.t.ppf(1 - ALPHA / 2, df) * error for error, df in spreads))),
        wide=_around(effect, math.hypot(*(stats.t.ppf(1 - ALPHA / 2 / among, df) * error for error, df in spreads))),
        detectable=math.hypot(*((stats.t.ppf(1 - ALPHA / 2, df) + stats.t.ppf(POWER, df)) * e for e, df in spreads)),
        noise=BOTH_NOISES if seeds > 1 else TEST_NOISE,
    )


def _around(effect: float, half: float) -> Interval:
    return float(effect - half), float(effect + half)


def of_difference(found: Difference, among: int = 1) -> Estimate:
    """A paired difference with its simultaneous interval, joined with the one over seeds where there are several.

    Args:
        among: see contrast; the simultaneous interval is wide enough already, the one over seeds is not.
    """
    bounds = found.simultaneous or found.interval
    over_videos = Estimate(found.difference, bounds, bounds, found.detectable, TEST_NOISE)
    if found.seeds is None:
        return over_videos
    low, high = found.seeds.interval
    df = len(found.seeds.differences) - 1
    ratio = float(stats.t.ppf(1 - ALPHA / 2 / among, df) / stats.t.ppf(1 - ALPHA / 2, df))
    wide = _around(found.seeds.mean, ratio * (high - low) / 2)
    return spanning(over_videos, Estimate(found.difference, (low, high), wide, found.seeds.detectable, ""))


def spanning(over_videos: Estimate, over_seeds: Estimate) -> Estimate:
    """One figure whose interval spans what other videos and what other trainings would move."""
    effect = over_videos.effect
    return Estimate(
        effect=effect,
        interval=joined(effect, over_videos.interval, over_seeds.interval),
        wide=joined(effect, over_videos.wide, over_seeds.wide),
        detectable=math.hypot(over_videos.detectable, over_seeds.detectable),
        noise=BOTH_NOISES,
    )
