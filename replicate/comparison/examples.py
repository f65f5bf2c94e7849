"""Figure 9: videos on which the coherent ensemble and the baseline's differ most."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replicate.evaluation import VIDEO_PRECISION, Pool
from replicate.schema import Example, Prediction
from replicate.scores import open_scores

BASELINE, COHERENT = "base_ens", "tc_ens"
EACH_WAY = 2
LIKELY = 0.3


def examples(
    evaluated: Mapping[tuple[str, int], Any], seed: int, pool: Pool, names: Sequence[str], ids: np.ndarray
) -> tuple[Example, ...]:
    """The videos of the pool whose average precision gains most, and those that lose most, two each, gains first.

    Ties go to the first position in the pool; a video without change is no example. A prediction lists the highest
    nodes, as many as the video has positives, and any further one with a probability of at least 0.3.

    Args:
        evaluated: (column, seed) -> folders `measures` and `scores`.
        seed: the one that is shown.
        pool, names, ids: as in `compare_columns`.
    """
    if (BASELINE, seed) not in evaluated or (COHERENT, seed) not in evaluated:
        return ()
    folders = [evaluated[column, seed] for column in (BASELINE, COHERENT)]
    before, after = (np.load(each.measures / VIDEO_PRECISION).astype(np.float64) for each in folders)
    change = np.nan_to_num(after - before)
    best, worst = np.argsort(-change, kind="stable")[:EACH_WAY], np.argsort(change, kind="stable")[:EACH_WAY]
    chosen = [video for video in best if change[video] > 0] + [video for video in worst if change[video] < 0]
    scores = [open_scores(each.scores) for each in folders]
    return tuple(_example(int(video), float(change[video]), scores, pool, names, ids) for video in chosen)


def _example(video: int, change: float, scores: list, pool: Pool, names: Sequence[str], ids: np.ndarray) -> Example:
    truth = pool.labels.values[pool.labels.offsets[video] : pool.labels.offsets[video + 1]]
    before, after = (_prediction(each.read(np.array([video]))[0], len(truth), names) for each in scores)
    return Example(
        video=bytes(ids[pool.rows[video]]).decode("utf-8", "replace"),
        change=change,
        truth=tuple(names[node] for node in truth),
        baseline=before,
        coherent=after,
    )


def _prediction(logits: np.ndarray, positives: int, names: Sequence[str]) -> tuple[Prediction, ...]:
    probability = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    order = np.argsort(-probability, kind="stable")
    shown = [node for place, node in enumerate(order) if place < positives or probability[node] >= LIKELY]
    return tuple(Prediction(node=names[node], probability=float(probability[node])) for node in shown)
