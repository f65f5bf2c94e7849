"""From replicates to the records of differences: families, adjustments, seeds, cross-checks, equivalence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from replicate.evaluate import statistics
from replicate.evaluate.draws import Draws
from replicate.evaluate.influence import ALL_CLASSES, CELLS, GROUPS
from replicate.evaluate.protocol import Protocol
from replicate.schema import Cell, CrossCheck, Difference, Equivalence, EvaluateRecord, Family, SeedNoise

Place = tuple[str, str]  # metric, level
BESIDE = "stands beside the headline metric and is not tested"


@dataclass(frozen=True)
class Cells:
    """Replicates of one column minus its baseline in all cells.

    Attributes:
        records: per seed, the column's and the baseline's.
        values: (seeds, cells) differences, in the order of `CELLS`; NaN where undefined.
        simulated: (seeds, replicates, cells) deviations from them.
        exact: (cells,) bool: replicates by ranking anew.
        gaps, correlations: (cells,) how well influence values and exact replicates agree.
        all_classes: (seeds, levels, fewer replicates) exact differences of MAP over all classes.
        perr, first: of column and baseline, (groups, videos) float64: each video's PERR (mean over seeds), and Hit@1 of
            the first seed.
    """

    column: str
    baseline: str
    records: tuple[tuple[EvaluateRecord, EvaluateRecord], ...]
    values: np.ndarray
    simulated: np.ndarray
    exact: np.ndarray
    gaps: np.ndarray
    correlations: np.ndarray
    all_classes: np.ndarray
    perr: tuple[np.ndarray, np.ndarray]
    first: tuple[np.ndarray, np.ndarray]

    def replicated(self, number: int) -> bool:
        """Whether all replicates of a cell have a value: those that were tried, and those that are used."""
        return not (np.isnan(self.gaps[number]) or np.isnan(self.simulated[:, :, number]).any())


@dataclass(frozen=True)
class _Tested:
    """One cell with its replicates, mean over seeds."""

    cells: Cells
    place: Place
    family: Family
    value: float
    simulated: np.ndarray
    exact: bool

    @property
    def error(self) -> float:
        return float(self.simulated.std(ddof=1))


def differences(
    compared: list[Cells], draws: Draws, protocol: Protocol, paper: Mapping[tuple[str, str, str], float]
) -> Iterator[Difference]:
    """A record for every pair, metric and level.

    Args:
        compared: replicates of every pair, under the same weights.
        draws: the test draws.
        protocol: families, levels, margins.
        paper: (metric, level, column) -> the paper's increment.
    """
    results: dict[tuple[str, Place], tuple[_Tested, statistics.FamilyTest, int]] = {}
    tested = [each for cells in compared for each in _tested(cells, protocol)]
    for family in ("primary", "secondary"):
        members = [each for each in tested if each.family == family]
        _test_family(members, protocol.alpha, results)
    _test_alone([each for each in tested if each.family == "exploratory"], protocol.alpha, results)
    for cells in compared:
        for cell in cells.records[0][0].cells:
            place = (cell.metric, cell.level)
            yield _difference(cells, place, results.get((cells.column, place)), draws, protocol, paper)


def _tested(cells: Cells, protocol: Protocol) -> Iterator[_Tested]:
    for number, place in enumerate(CELLS):
        defined = not np.isnan(cells.values[:, number]).any() and cells.replicated(number)
        if defined and _supported(cells.records[0][0], place, protocol):
            value, simulated = cells.values[:, number].mean(), cells.simulated[:, :, number].mean(axis=0)
            family = _family(cells.column, place, protocol)
            yield _Tested(cells, place, family, float(value), simulated, bool(cells.exact[number]))
    for number, place in enumerate(ALL_CLASSES):
        value = _mean_difference(cells, place)
        replicates = cells.all_classes[:, number].mean(axis=0)
        if value is not None and not np.isnan(replicates).any():
            yield _Tested(cells, place, "exploratory", value, replicates - value, True)


def _supported(record: EvaluateRecord, place: Place, protocol: Protocol) -> bool:
    """Whether a draw may be expected to hold enough positives; MAP's own class set sees to that for MAP."""
    metric, level = place
    support = next(each for each in record.support if each.level == level)
    count = support.positives if metric == "GAP" else support.videos
    return metric == "MAP" or count * record.draw_size / record.videos >= protocol.classes.min_positives


def _family(column: str, place: Place, protocol: Protocol) -> Family:
    metric, level = place
    if column in protocol.family.pairs and metric in protocol.family.primary:
        if level == GROUPS[0]:
            return "primary"
        if level in protocol.family.secondary_levels:
            return "secondary"
    return "exploratory"


def _test_family(members: list[_Tested], alpha: float, results: dict) -> None:
    if not members:
        return
    values, errors = np.array([each.value for each in members]), np.array([each.error for each in members])
    test = statistics.max_t(values, errors, np.stack([each.simulated for each in members], axis=1), alpha)
    for number, each in enumerate(members):
        results[each.cells.column, each.place] = each, test, number


def _test_alone(members: list[_Tested], alpha: float, results: dict) -> None:
    """Every cell by itself; only Benjamini and Hochberg's adjustment looks at all of them."""
    tests = [
        statistics.max_t(np.array([each.value]), np.array([each.error]), each.simulated[:, None], alpha)
        for each in members
    ]
    adjusted = statistics.benjamini_hochberg(np.array([test.p[0] for test in tests]))
    for each, test, bh in zip(members, tests, adjusted, strict=True):
        results[each.cells.column, each.place] = each, statistics.with_bh(test, bh), 0


def _cell(record: EvaluateRecord, place: Place) -> Cell:
    return next(cell for cell in record.cells if (cell.metric, cell.level) == place)


def _per_draw(cells: Cells, place: Place) -> np.ndarray | None:
    """(seeds, draws) differences, or None where a column has no value."""
    found = [tuple(_cell(record, place).draws for record in both) for both in cells.records]
    if any(draws is None for both in found for draws in both):
        return None
    return np.array([np.subtract(*both) for both in found])


def _mean_difference(cells: Cells, place: Place) -> float | None:
    draws = _per_draw(cells, place)
    return None if draws is None else float(draws.mean())


def _difference(
    cells: Cells, place: Place, result: tuple | None, draws: Draws, protocol: Protocol, paper: Mapping
) -> Difference:
    per_draw = _per_draw(cells, place)
    pools = [[_cell(record, place).pool for record in both] for both in cells.records]
    known = {
        "column": cells.column, "baseline": cells.baseline, "metric": place[0], "level": place[1],
        "family": _family(cells.column, place, protocol),
        "draws": None if per_draw is None else tuple(per_draw.mean(axis=0)),
        "pool": None if None in sum(pools, []) else float(np.mean([one - other for one, other in pools])),
    }  # fmt: skip
    if per_draw is None or result is None:
        value = None if per_draw is None else float(per_draw.mean())
        absent = dict.fromkeys((
            "standard_error", "interval", "simultaneous", "p", "p_adjusted", "p_holm", "p_bh", "detectable", "method",
            "seeds", "check", "equivalence",
        ))  # fmt: skip
        return Difference(**known, **absent, difference=value, starred=False, reason=_reason(cells, place, protocol))
    companions = _companions(result[0], per_draw, draws, protocol, paper)
    return Difference(**known, **_test_fields(*result, protocol), **companions)


def _reason(cells: Cells, place: Place, protocol: Protocol) -> str:
    """Why a cell has no test."""
    found = [_cell(record, place) for both in cells.records for record in both]
    undefined = [cell.reason for cell in found if cell.draws is None]
    if undefined:
        return undefined[0] or ""
    if place in CELLS and _supported(cells.records[0][0], place, protocol):
        return "not tested: some replicates leave no positive there that the metric could count"
    if place in CELLS:
        return f"not tested: fewer than {protocol.classes.min_positives:g} expected positives per draw"
    return BESIDE


def _around(value: float, half: float) -> tuple[float, float]:
    return value - half, value + half


def _test_fields(each: _Tested, test: statistics.FamilyTest, number: int, protocol: Protocol) -> dict:
    alone = each.family == "exploratory"
    adjusted = None if alone else float(test.adjusted[number])
    critical = float(test.critical[number] if alone else test.simultaneous)
    return {
        "difference": each.value,
        "standard_error": each.error,
        "interval": _around(each.value, float(test.critical[number]) * each.error),
        "simultaneous": None if alone else _around(each.value, test.simultaneous * each.error),
        "p": float(test.p[number]),
        "p_adjusted": adjusted,
        "p_holm": None if alone else float(test.holm[number]),
        "p_bh": float(test.bh[number]),
        "detectable": statistics.detectable(each.error, critical, protocol.power),
        "method": "exact" if each.exact else "influence",
        "starred": each.family == "primary" and adjusted is not None and adjusted < protocol.alpha,
    }


def _companions(each: _Tested, per_draw: np.ndarray, draws: Draws, protocol: Protocol, paper: Mapping) -> dict:
    seeds = _seed_noise(each, per_draw, protocol)
    return {
        "seeds": seeds,
        "check": _cross_check(each, per_draw.mean(axis=0), draws, protocol),
        "equivalence": _equivalence(each, seeds, protocol, paper),
    }


def _seed_noise(each: _Tested, per_draw: np.ndarray, protocol: Protocol) -> SeedNoise | None:
    seeds = len(per_draw)
    if seeds < 2:
        return None
    values = [[_cell(record, each.place).mean for record in both] for both in each.cells.records]
    test = statistics.seed_test(*np.array(values).T, protocol.alpha, protocol.power)
    if each.place in CELLS:
        simulated = each.cells.simulated[:, :, CELLS.index(each.place)].T
    else:
        simulated = each.cells.all_classes[:, ALL_CLASSES.index(each.place)].T - per_draw.mean(axis=1)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([protocol.bootstrap.seed, seeds])))
    two_level = statistics.two_level_interval(per_draw.mean(axis=1), simulated, protocol.alpha, generator)
    return SeedNoise(
        differences=tuple(per_draw.mean(axis=1)), mean=test.mean, sd=test.sd, interval=test.interval, p=test.p,
        p_welch=test.p_welch, detectable=test.detectable, two_level_interval=two_level,
    )  # fmt: skip


def _cross_check(each: _Tested, draws_difference: np.ndarray, draws: Draws, protocol: Protocol) -> CrossCheck:
    metric, level = each.place
    paired = mcnemar = discordant = None
    if metric in ("PERR", "Hit@1"):
        column, baseline = (values[GROUPS.index(level)] for values in getattr(each.cells, _OF_VIDEO[metric]))
        eligible = ~np.isnan(column)
        paired = statistics.paired_t(column[eligible], baseline[eligible])
        if metric == "Hit@1":
            mcnemar, discordant = statistics.mcnemar(column[eligible], baseline[eligible])
    interval = None
    if len(draws_difference) > 1 and draws.overlap < 1:
        interval = statistics.t_interval(draws_difference, draws.overlap, protocol.alpha)
    return CrossCheck(paired_t_p=paired, mcnemar_p=mcnemar, discordant=discordant, draws_interval=interval)


_OF_VIDEO = {"PERR": "perr", "Hit@1": "first"}


def _equivalence(each: _Tested, seeds: SeedNoise | None, protocol: Protocol, paper: Mapping) -> Equivalence | None:
    metric, level = each.place
    increment = paper.get((metric, level, each.cells.column))
    if increment is None:
        return None
    rule = protocol.equivalence
    variance, degrees = each.error**2 + rule.paper_increment_sd**2, np.inf
    if seeds is not None:
        variance, degrees = variance + seeds.sd**2 / len(seeds.differences), len(seeds.differences) - 1
    margin = rule.margins[metric]
    test = statistics.equivalence(
        each.value - increment, float(np.sqrt(variance)), degrees, margin, rule.paper_rounding, protocol.alpha
    )
    return Equivalence(paper=increment, margin=margin, interval=test.interval, verdict=test.verdict)
