"""Time of `Taxonomy.encode` on one million label sets, and how many times a plain loop over parents takes as long.

    python benchmarks/taxonomy.py [LABEL_SETS.parquet]

Label sets are drawn with replacement from the file (labels_2018.parquet of the real data), or, without one, label by
label by how often each occurs. The loop runs on a hundredth of them and is scaled up; both give the same positives.
"""

import sys
import time
from pathlib import Path

import numpy as np

from replicate.taxonomy.statistics import read_label_sets
from replicate.taxonomy.tree import Taxonomy, data_folder, load_yt8m, read_rows

VIDEOS, PART, REPEATS = 1_000_000, 100, 3


def draw(source: Path | None, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(offsets, labels) of VIDEOS label sets."""
    if source is None:
        rows = read_rows(data_folder() / "label_statistics.csv", ("label_index", "videos"))
        weights = np.array([int(row["videos"]) for row in sorted(rows, key=lambda row: int(row["label_index"]))])
        counts = np.clip(generator.poisson(2.0, VIDEOS) + 1, 1, 20)
        labels = generator.choice(len(weights), counts.sum(), p=weights / weights.sum())
        return np.concatenate([[0], np.cumsum(counts)]), labels
    offsets, values = read_label_sets(source)
    videos = generator.integers(0, len(offsets) - 1, VIDEOS)
    counts = np.diff(offsets)[videos]
    starts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    return starts, values[np.repeat(offsets[videos], counts) + within]


def encode_by_loop(taxonomy: Taxonomy, offsets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What `encode` computes, one label at a time."""
    encoded = np.zeros((len(offsets) - 1, len(taxonomy.names)), bool)
    for video in range(len(offsets) - 1):
        for label in labels[offsets[video] : offsets[video + 1]]:
            pending = [int(taxonomy.label_nodes[label])]
            while pending:
                node = pending.pop()
                encoded[video, node] = True
                pending += taxonomy.parents[node]
    return encoded


def main() -> None:
    """Print seconds and ratio."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    taxonomy = load_yt8m()
    offsets, labels = draw(source, np.random.default_rng(0))
    taxonomy.encode(offsets[:2], labels[: offsets[1]])  # the closure is computed once
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        encoded = taxonomy.encode(offsets, labels)
        seconds.append(time.perf_counter() - start)
    part = offsets[: VIDEOS // PART + 1]
    start = time.perf_counter()
    looped = encode_by_loop(taxonomy, part, labels[: part[-1]])
    loop = PART * (time.perf_counter() - start)
    if not np.array_equal(looped, encoded[: VIDEOS // PART]):
        sys.exit("encode and the loop differ")
    best = min(seconds)
    print(f"label sets: {'drawn from ' + source.name if source else 'drawn label by label'}")
    print(f"encode: {VIDEOS:,} label sets, {encoded.sum():,} positives")
    print(f"encode: {best:.2f} s (best of {REPEATS}; worst {max(seconds):.2f})")
    print(f"plain loop: {loop:.1f} s (scaled from {VIDEOS // PART:,}); ratio {loop / best:.1f}")


if __name__ == "__main__":
    main()
