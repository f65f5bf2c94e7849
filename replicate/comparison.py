"""The compare stage: paired differences between columns and their baselines, with what sampling noise says of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.columns import in_table_order, pairs
from replicate.comparison_cells import Cells, differences
from replicate.comparison_examples import examples
from replicate.evaluate.bootstrap import deviations, weight_vectors
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
    compared, gaps, correlations, fell_back = [], [], [], False
    for number, (column, baseline) in enumerate(chosen):
        progress(number, len(chosen), f"{column} and {baseline}")
        both = [(evaluated[column, seed], evaluated[baseline, seed]) for seed in seeds]
        cells = _bootstrap(column, baseline, both, pool, protocol, threads)
        compared.append(cells)
        if column in protocol.family.pairs:
            rows = [CELLS.index((metric, "overall")) for metric in protocol.family.primary]
            gaps += list(cells.gaps[rows])
            correlations += list(cells.correlations[rows])
            fell_back |= bool(cells.exact[rows].any())
    return CompareRecord(
        protocol=protocol.to_dict(),
        protocol_hash=protocol.hash,
        seeds=seeds,
        conditional=len(seeds) == 1,
        videos=len(pool.draws.videos),
        replicates=protocol.bootstrap.replicates,
        influence_check=_check(gaps, correlations, fell_back, protocol),
        differences=tuple(differences(compared, pool.draws, protocol, paper)),
        examples=examples(evaluated, seeds[0], pool, names, ids),
    )


def _check(gaps: list[float], correlations: list[float], fell_back: bool, protocol: Protocol) -> InfluenceCheck | None:
    known = [gap for gap in gaps if not np.isnan(gap)]
    if not known:
        return None
    return InfluenceCheck(
        replicates=protocol.bootstrap.exact_replicates,
        worst_ratio_gap=float(max(known)),
        worst_correlation=float(np.nanmin(correlations)),
        fell_back=fell_back,
    )


def _bootstrap(
    column: str, baseline: str, both: list[tuple[Evaluated, Evaluated]], pool: Pool, protocol: Protocol, threads: int
) -> Cells:
    """Replicates of one pair in all cells, by influence values, exact where those are not good enough."""
    settings, videos = protocol.bootstrap, len(pool.draws.videos)
    values = np.stack([one.load("values") - other.load("values") for one, other in both])  # (seeds, cells)
    simulated = np.stack([
        deviations(np.nan_to_num(one.load("influence") - other.load("influence")), settings.seed, settings.replicates,
                   threads)
        for one, other in both
    ])  # (seeds, replicates, cells)
    exact = np.stack([one.load("replicates") - other.load("replicates") for one, other in both])  # (seeds, rows, repl.)
    tested = exact[:, : len(CELLS), : settings.exact_replicates].mean(axis=0) - values.mean(axis=0)[:, None]
    gaps, correlations = _agreement(simulated.mean(axis=0)[: settings.exact_replicates].T, tested)
    falls_back = gaps > settings.tolerance
    if falls_back.any():
        for number, (one, other) in enumerate(both):
            first, second = (_exact(each, pool, settings, videos, threads) for each in (one, other))
            simulated[number][:, falls_back] = (first - second)[falls_back].T - values[number, falls_back]
    all_classes = np.stack([each[len(CELLS) :] for each in exact])
    return Cells(
        column, baseline, tuple((one.record, other.record) for one, other in both), values, simulated, falls_back,
        gaps, correlations, all_classes,
        perr=tuple(np.mean([pair[side].load("perr") for pair in both], axis=0) for side in (0, 1)),
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


def _exact(each: Evaluated, pool: Pool, settings, videos: int, threads: int) -> np.ndarray:
    """(cells, replicates) float64: every replicate by ranking anew under its weights."""
    at_once = max(64, _EXACT_BYTES // videos)
    weights = weight_vectors(videos, settings.seed, settings.replicates)
    with in_one_file(open_scores(each.scores), each.measures) as logits:
        parts = [
            measure_column(
                logits, pool.sampled(), pool.levels, pool.draws, pool.classes,
                weights[:, begin : begin + at_once], threads,
            ).replicates[: len(CELLS)]  # fmt: skip
            for begin in range(0, settings.replicates, at_once)
        ]
    return np.concatenate(parts, axis=1)
