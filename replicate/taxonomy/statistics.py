"""What the taxonomy makes of 980,029 real label sets: statistics.csv per node and label_set_statistics.json overall.

Both files are small, committed, and rebuilt by `compute_statistics`; a test on the real files fails if they differ.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from replicate.errors import DataError
from replicate.record import write_text
from replicate.taxonomy.tree import DEEPEST, Taxonomy, data_folder, load_yt8m, read_rows

DRAW = 128_000  # test videos per draw (section 4.2)
CAP = 20  # GAP looks at 20 predictions per video
NODE_COLUMNS = ("path", "level", "labels", "training_videos", "positives", "expected_per_draw")


def read_label_sets(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Label sets of a Parquet file with a list column `labels`, as (offsets int64, label indices int64).

    Raises:
        DataError: the file is unreadable or has no such column.
    """
    try:
        column = pyarrow.parquet.read_table(path, columns=["labels"])["labels"].combine_chunks()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
    if len(column) == 0:
        raise DataError(f"{path} holds no label sets")
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets, column.values.to_numpy().astype(np.int64)


def read_training_videos(vocabulary: Path, labels: int) -> np.ndarray:
    """(labels,) int64: TrainVideoCount of the official vocabulary file.

    Raises:
        DataError: the file lists other labels than 0..labels-1, once each.
    """
    counts = np.full(labels, -1, np.int64)
    for row in read_rows(vocabulary, ("Index", "TrainVideoCount")):
        if not row["Index"].isdigit() or int(row["Index"]) >= labels or counts[int(row["Index"])] >= 0:
            raise DataError(f"{vocabulary}: Index {row['Index']!r} is unknown or occurs twice (0..{labels - 1})")
        counts[int(row["Index"])] = int(row["TrainVideoCount"])
    if (counts < 0).any():
        raise DataError(f"{vocabulary}: label {int(np.argmin(counts))} is missing")
    return counts


def node_statistics(
    taxonomy: Taxonomy, training_videos: np.ndarray, offsets: np.ndarray, values: np.ndarray
) -> list[dict[str, Any]]:
    """One row per node with NODE_COLUMNS.

    `labels` counts labels assigned to the node itself. `training_videos` sums the vocabulary's counts over all labels
    at or under the node (a video with two of them counts twice). `positives` counts videos of the real label sets in
    which the node is positive (each once); `expected_per_draw` is the same per 128,000 videos.
    """
    own = np.bincount(taxonomy.label_nodes, minlength=len(taxonomy.names))
    at_node = np.bincount(taxonomy.label_nodes, weights=training_videos, minlength=len(taxonomy.names))
    under = taxonomy.closure.astype(np.int64).T @ at_node.astype(np.int64)
    closed_offsets, closed = taxonomy.closed_nodes(offsets, values)
    positives = np.bincount(closed, minlength=len(taxonomy.names))
    return [
        {
            "path": name,
            "level": int(taxonomy.levels[node]),
            "labels": int(own[node]),
            "training_videos": int(under[node]),
            "positives": int(positives[node]),
            "expected_per_draw": f"{positives[node] * DRAW / (len(closed_offsets) - 1):.1f}",
        }
        for node, name in enumerate(taxonomy.names)
    ]


def label_set_statistics(taxonomy: Taxonomy, offsets: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Labels and nodes per video, share of videos with a positive at each level, positives beyond the 20th, support.

    `positives_beyond_cap` counts what a metric over the top 20 of a video can never reach; `least_support` is the
    fewest videos of any node of a level.
    """
    node_offsets, nodes = taxonomy.closed_nodes(offsets, values)
    videos = len(node_offsets) - 1
    per_video, labels = np.diff(node_offsets), np.diff(offsets)
    owner = np.repeat(np.arange(videos), per_video)
    levels = taxonomy.levels[nodes]
    support = np.bincount(nodes, minlength=len(taxonomy.names))
    by_level = []
    for level in range(DEEPEST + 1):
        of_level = support[taxonomy.levels == level]
        counts = np.bincount(owner[levels == level], minlength=videos)
        by_level.append(
            {
                "level": level,
                "nodes": len(of_level),
                "videos_with_a_positive": int((counts > 0).sum()),
                "share_of_videos_with_a_positive": float((counts > 0).mean()),
                "positives_per_video": float(counts.mean()),
                "least_support": int(of_level.min()),
                "median_support": float(np.median(of_level)),
                "greatest_support": int(of_level.max()),
            }
        )
    return {
        "videos": videos,
        "labels_per_video": summary(labels),
        "nodes_per_video": summary(per_video),
        "positives_beyond_cap": int(np.maximum(per_video - CAP, 0).sum()),
        "videos_at_cap": int((per_video == CAP).sum()),
        "levels": by_level,
    }


def summary(counts: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation (population), least and greatest of counts."""
    return {
        "mean": float(counts.mean()),
        "sd": float(counts.std()),
        "least": int(counts.min()),
        "greatest": int(counts.max()),
    }


def compute_statistics(
    label_sets: Path, vocabulary: Path, folder: Path | None = None, check: bool = False
) -> dict[str, Any]:
    """Write statistics.csv and label_set_statistics.json, or with `check` compare them with the committed ones.

    Args:
        label_sets: Parquet file with a list column `labels`, one row per video.
        vocabulary: the official vocabulary file (columns Index and TrainVideoCount are read).
        folder: the taxonomy's folder; the committed one if missing.
        check: compare instead of write.

    Returns:
        The content of label_set_statistics.json.

    Raises:
        DataError: an input is damaged, or with `check` a committed file differs.
    """
    folder = folder or data_folder()
    taxonomy = load_yt8m(folder)
    offsets, values = read_label_sets(label_sets)
    text = io.StringIO()
    writer = csv.DictWriter(text, NODE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    counts = read_training_videos(vocabulary, len(taxonomy.label_nodes))
    writer.writerows(node_statistics(taxonomy, counts, offsets, values))
    overall = label_set_statistics(taxonomy, offsets, values)
    overall_text = json.dumps(overall, sort_keys=True, indent=1) + "\n"
    for name, made in (("statistics.csv", text.getvalue()), ("label_set_statistics.json", overall_text)):
        path = folder / name
        if not check:
            write_text(path, made)
        elif not path.is_file() or path.read_text(encoding="utf-8") != made:
            raise DataError(f"{path} is not what label map and label sets give; recompute it")
    return overall
