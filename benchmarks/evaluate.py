"""How long all metrics of one column take, beside scikit-learn for MAP and a plain loop over videos.

python -m benchmarks.evaluate --videos 128000 --nodes 640

Labels and scores are random with the shape of real ones: about four positives per video, frequencies that fall like 1 /
rank within a level, scores that rank most positives high. Compilation is not timed. Memory is the peak of the resident
set while `evaluate` runs, over what stood before scores and labels were made; so it contains them.
"""

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from sklearn.metrics import average_precision_score

from replicate.evaluate import metrics
from replicate.hardware.meters import ProcessMeter

NODES_PER_LEVEL = (18, 159, 254, 209)  # proportions of the 640 nodes
POSITIVES_PER_LEVEL = (1.2, 1.4, 1.0, 0.5)  # per video
BLOCK = 4096  # videos made at a time


def make_example(videos: int, nodes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores float32 and labels bool (videos, nodes), levels (nodes,)."""
    rng = np.random.default_rng(seed)
    bounds = np.round(np.cumsum((0, *NODES_PER_LEVEL)) * nodes / sum(NODES_PER_LEVEL)).astype(int)
    levels = np.repeat(np.arange(4), np.diff(bounds))
    frequency = np.empty(nodes)
    for level, share in enumerate(POSITIVES_PER_LEVEL):
        members = np.flatnonzero(levels == level)
        falling = 1 / np.arange(1, len(members) + 1)
        frequency[members] = np.minimum(share * falling / falling.sum(), 0.6)
    prior = np.log(frequency / (1 - frequency)).astype(np.float32)
    scores, labels = np.empty((videos, nodes), np.float32), np.empty((videos, nodes), bool)
    for begin in range(0, videos, BLOCK):
        rows = slice(begin, begin + BLOCK)
        labels[rows] = rng.random(labels[rows].shape, dtype=np.float32) < frequency
        scores[rows] = 2 * rng.standard_normal(labels[rows].shape, dtype=np.float32) + prior - 3 + 7 * labels[rows]
    return scores, labels, levels


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result) of a call."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def scikit_learn_map(scores: np.ndarray, labels: np.ndarray) -> float:
    """Uncapped MAP over nodes with a positive."""
    filled = np.flatnonzero(labels.any(axis=0))
    return float(np.mean([average_precision_score(labels[:, node], scores[:, node]) for node in filled]))


def video_by_video(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Capped GAP, PERR and Hit@1 by a loop over videos: the 20 highest, the g highest, the first."""
    top_k = min(metrics.TOP_K, scores.shape[1])
    kept_scores, kept_hits, precisions, hits = [], [], [], []
    for row, truth in zip(scores, labels, strict=True):
        top = np.argpartition(row, -top_k)[-top_k:]
        kept_scores.append(row[top])
        kept_hits.append(truth[top])
        wanted = np.count_nonzero(truth)
        if wanted:
            precisions.append(truth[np.argpartition(row, -wanted)[-wanted:]].mean())
            hits.append(truth[row.argmax()])
    pooled = np.concatenate(kept_hits)[np.argsort(-np.concatenate(kept_scores), kind="stable")]
    precision = np.cumsum(pooled) / np.arange(1, len(pooled) + 1)
    gap = float(precision[pooled].sum() / labels.sum())
    return {"GAP": gap, "PERR": float(np.mean(precisions)), "Hit@1": float(np.mean(hits))}


@click.command()
@click.option("--videos", default=128_000, show_default=True)
@click.option("--nodes", default=640, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(videos: int, nodes: int, threads: int) -> None:
    """Print seconds, ratios and peak memory of the evaluation of one column."""
    metrics.evaluate(*make_example(64, nodes), threads=threads)
    memory = ProcessMeter()
    scores, labels, levels = make_example(videos, nodes)
    with memory:
        ours, result = timed(lambda: metrics.evaluate(scores, labels, levels, threads=threads))
    overall = result.values[metrics.OVERALL]
    learn, learn_map = timed(lambda: scikit_learn_map(scores, labels))
    groups = [np.ones(nodes, bool), *(levels == level for level in range(4))]
    loop, looped = timed(lambda: [video_by_video(scores[:, group], labels[:, group]) for group in groups])
    map_gap = abs(learn_map - overall["MAP all classes"])
    loop_gap = max(abs(a[name] - b[name]) for a, b in zip(looped, result.values.values(), strict=True) for name in a)

    click.echo(f"{videos} videos x {nodes} nodes, {labels.sum() / videos:.2f} positives per video, {threads} threads")
    click.echo(", ".join(f"{name} {value:.4f}" for name, value in overall.items()))
    click.echo(f"{'':52}{'seconds':>9}{'ratio':>8}  largest difference")
    click.echo(f"{'ours: 7 metrics x (overall, 4 levels)':52}{ours:9.2f}{1:8.1f}")
    click.echo(f"{'scikit-learn: uncapped MAP, overall':52}{learn:9.2f}{learn / ours:8.1f}  {map_gap:.0e}")
    click.echo(f"{'loop over videos: GAP, PERR, Hit@1 x (overall, 4)':52}{loop:9.2f}{loop / ours:8.1f}  {loop_gap:.0e}")
    click.echo(
        f"peak memory: {(memory.peak - memory.before) / scores.nbytes:.2f} times the score matrix, which is in it"
    )


if __name__ == "__main__":
    main()
