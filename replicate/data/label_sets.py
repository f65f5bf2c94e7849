"""Aggregate figures of real label sets, from which the synthetic corpus draws: how often each label occurs, and how often
each combination of the most frequent labels. Derived once from genuine YouTube-8M label sets; the test derives them again."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

LABELS, FREQUENT, LEAST = 3862, 100, 10


def read_label_sets(path: Path) -> list[np.ndarray]:
    """Label indices of every video of a Parquet file with a column `labels`."""
    return list(pd.read_parquet(path, columns=["labels"])["labels"])


def label_counts(sets: list[np.ndarray]) -> np.ndarray:
    """(LABELS,) int64, in how many videos each label occurs."""
    return np.bincount(np.concatenate(sets), minlength=LABELS)


def frequent_set_counts(sets: list[np.ndarray]) -> list[tuple[tuple[int, ...], int]]:
    """Combinations of the FREQUENT most frequent labels that occur in at least LEAST videos, most frequent first."""
    counts = label_counts(sets)
    frequent = set(np.lexsort((np.arange(LABELS), -counts))[:FREQUENT].tolist())
    combinations = Counter(tuple(sorted(label for label in each.tolist() if label in frequent)) for each in sets)
    combinations.pop((), None)
    kept = [(labels, count) for labels, count in combinations.items() if count >= LEAST]
    return sorted(kept, key=lambda item: (-item[1], item[0]))


def as_csv(rows: list[tuple[tuple[int, ...], int]]) -> str:
    """The text of label_sets.csv."""
    return "labels,videos\n" + "".join(f"{' '.join(map(str, labels))},{count}\n" for labels, count in rows)
