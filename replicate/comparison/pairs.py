"""The compare stage: paired differences between columns and their baselines, with what sampling noise says of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.columns import in_table_order, pairs
from replicate.comparison.cells import Cells, differences
from replicate.comparison.examples import examples
from replicate.evaluate.bootstrap import BLOCK, deviations, weight_vectors
from replicate.evaluate.influence import CELLS, measure_column
from replicate.evaluate.protocol import Protocol
from replicate.evaluation import Pool, in_one_file
from replicate.schema import CompareRecord, EvaluateRecord, InfluenceCheck, read_record
from replicate.scores import open_scores

Progress = Callable[[float, float, str], None]
_EXACT_BYTES = 1 << 28  # of weights held at once when a cell is bootstrapped exactly


@dataclass(frozen=True)
class Evaluated:
    """What one column and seed left: the folder of its evaluate stage, and that of its scores."""

    measures: Path
    scores: Path

    def load(self, name: str) -> np.ndarray:
        """One of the arrays of the evaluate stage, memory-mapped."""
        return np.load(self.measures / f"{name}.npy", mmap_mode="r")

    @property
    def record(self) -> EvaluateRecord:
        """Its record."""
        return read_record(self.measures / "record.json", EvaluateRecord)


def compare_columns(
    evaluated: Mapping[tuple[str, int], Evaluated],
    pool: Pool,
    protocol: Protocol,
    paper: Mapping[tuple[str, str, str], float],
    names: Sequence[str],
    ids: np.ndarray,
    threads: int,
    progress: Progress,
) -> CompareRecord:
    """Compare every column with its baseline.

    Args:
        evaluated: (column, seed) -> what was evaluated; every column with the same seeds.
        pool: whom all were scored on.
        protocol: everything that was decided before.
        paper: (metric, level, column) -> the paper's increment.
        names: of the nodes.
        ids: (index rows,) bytes: of the videos.
        threads: how many compute at once; no result depends on it.
        progress: is told (done, total, message).
    """
    seeds = tuple(dict.fromkeys(seed for _, seed in evaluated))
    chosen = pairs(in_table_order(column for column, _ in evaluated))
    simulated = _bootstrap(chosen, seeds, evaluated, protocol, threads, progress) if chosen else []
    compared = []
    for number, (pair, of_pair) in enumerate(zip(chosen, simulated, strict=True)):
        progress(len(seeds) + number, len(seeds) + len(chosen), " and ".join(pair))
        compared.append(_cells(pair, seeds, evaluated, of_pair, pool, protocol, threads))
    return CompareRecord(
        protocol=protocol.to_dict(),
        protocol_hash=protocol.hash,
        seeds=seeds,
        conditional=len(seeds) == 1,
        videos=len(pool.draws.videos),
        replicates=protocol.bootstrap.replicates,
        influence_check=_check(compared, protocol),
        differences=tuple(differences(compared, pool.draws, protocol, paper)),
        examples=examples(evaluated, seeds[0], pool, names, ids),
    )


def _check(compared: list[Cells], protocol: Protocol) -> InfluenceCheck | None:
    """How influence values and exact replicates agree over the primary cells; null where there is none."""
    rows = [CELLS.index((metric, "overall")) for metric in protocol.family.primary]
    primary = [cells for cells in compared if cells.column in protocol.family.pairs]
    gaps = np.array([cells.gaps[rows] for cells in primary]).ravel()
    correlations = np.array([cells.correlations[rows] for cells in primary]).ravel()
    known = ~np.isnan(gaps)
    if not known.any():
        return None
    return InfluenceCheck(
        replicates=protocol.bootstrap.exact_replicates,
        worst_ratio_gap=float(gaps[known].max()),
        worst_correlation=float(correlations[known].min()),
        fell_back=any(cells.exact[rows].any() for cells in primary),
    )


def _bootstrap(
    chosen: list[tuple[str, str]], seeds: tuple[int, ...], evaluated: Mapping[tuple[str, int], Evaluated],
    protocol: Protocol, threads: int, progress: Progress,
) -> np.ndarray:  # fmt: skip
    """(pairs, seeds, replicates, cells) deviations from the differences, all under the same weights of videos."""
    settings, found = protocol.bootstrap, []
    for number, seed in enumerate(seeds):
        progress(number, len(seeds) + len(chosen), f"{settings.replicates:,} replicates, seed {seed}")
        influence = np.concatenate(
            [
                evaluated[column, seed].load("influence") - evaluated[baseline, seed].load("influence")
                for column, baseline in chosen
            ]
        )
        simulated = deviations(influence, settings.seed, settings.replicates, threads)
        found.append(simulated.reshape(settings.replicates, len(chosen), len(CELLS)))
    return np.stack(found).transpose(2, 0, 1, 3)


def _cells(
    pair: tuple[str, str], seeds: tuple[int, ...], evaluated: Mapping[tuple[str, int], Evaluated],
    simulated: np.ndarray, pool: Pool, protocol: Protocol, threads: int,
) -> Cells:  # fmt: skip
    """All cells of one pair; replicates become exact where influence values are not good enough."""
    settings = protocol.bootstrap
    both = [tuple(evaluated[column, seed] for column in pair) for seed in seeds]
    values = np.stack([one.load("values") - other.load("values") for one, other in both])  # (seeds, cells)
    exact = np.stack([one.load("replicates") - other.load("replicates") for one, other in both])  # (seeds, rows, repl.)
    tested = exact[:, : len(CELLS), : settings.exact_replicates].mean(axis=0)
    gaps, correlations = _agreement(simulated[:, : settings.exact_replicates].mean(axis=0).T, tested)
    falls_back = gaps > settings.tolerance
    if falls_back.any():
        simulated = simulated.copy()
        for number, (one, other) in enumerate(both):
            anew = _exact(one, pool, protocol, threads) - _exact(other, pool, protocol, threads)
            simulated[number][:, falls_back] = (anew - values[number][:, None])[falls_back].T
    return Cells(
        *pair, tuple((one.record, other.record) for one, other in both), values, simulated, falls_back,
        gaps, correlations, exact[:, len(CELLS) :],
        perr=tuple(np.mean([each[side].load("perr") for each in both], axis=0) for side in (0, 1)),
        first=tuple(np.array(both[0][side].load("first")) for side in (0, 1)),
    )  # fmt: skip


def _agreement(influence: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per cell, how far the standard errors are apart, relatively, and how replicates on the same weights correlate.

    Both arrays are (cells, replicates). Where neither varies they agree; a cell that is undefined gives NaN.
    """
    spread, other = influence.std(axis=1, ddof=1), exact.std(axis=1, ddof=1)
    covariance = ((influence - influence.mean(axis=1, keepdims=True)) * exact).sum(axis=1) / (influence.shape[1] - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = np.where((spread == 0) & (other == 0), 0.0, np.abs(spread / other - 1))
        correlations = np.where((spread == 0) & (other == 0), 1.0, covariance / (spread * other))
    return gaps, correlations


def _exact(each: Evaluated, pool: Pool, protocol: Protocol, threads: int) -> np.ndarray:
    """(cells, replicates) float64: every replicate by ranking under its weights."""
    settings, videos = protocol.bootstrap, len(pool.draws.videos)
    at_once, parts = max(BLOCK, _EXACT_BYTES // videos // BLOCK * BLOCK), []
    with in_one_file(open_scores(each.scores), each.measures) as logits:
        for first in range(0, settings.replicates, at_once):
            weights = weight_vectors(videos, settings.seed, min(at_once, settings.replicates - first), first)
            found = measure_column(logits, pool.sampled(), pool.levels, pool.draws, pool.classes, weights, threads)
            parts.append(found.replicates[: len(CELLS)])
    return np.concatenate(parts, axis=1)[:, : settings.replicates]
