"""The joint frequencies of real labels, from which the synthetic corpus draws a video's labels.

`label_sets.csv` counts each combination of the FREQUENT most frequent labels among 980,029 genuine YouTube-8M videos.
A combination seen in fewer than LEAST videos is counted without its rarest label, and so on, until it is seen often
enough: every video stays counted, frequent labels keep their frequencies, rare ones lose a few per cent.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from replicate.data.spec import SPECS
from replicate.errors import ConfigurationError
from replicate.taxonomy.tree import read_rows

FREQUENT, LEAST = 300, 5
Combination = tuple[int, ...]


def read_label_sets(path: Path) -> list[np.ndarray]:
    """Label indices of every video of a Parquet file with a column `labels`."""
    return list(pd.read_parquet(path, columns=["labels"])["labels"])


def count_combinations(
    sets: Iterable[np.ndarray], frequent: int = FREQUENT, least: int = LEAST
) -> dict[Combination, int]:
    """Videos per combination of the most frequent labels, most frequent combination first.

    Args:
        sets: label indices of each video.
        frequent: so many labels are kept; a video with none of them is not counted.
        least: combinations of two or more labels in fewer videos lose their rarest label.
    """
    sets = list(sets)
    counts = np.bincount(np.concatenate(sets), minlength=SPECS["yt8m"].label_count)
    order = np.lexsort((np.arange(len(counts)), -counts))
    rank = {int(label): place for place, label in enumerate(order[:frequent])}
    kept = ([label for label in each.tolist() if label in rank] for each in sets)
    combinations = Counter(tuple(sorted(each, key=rank.get)) for each in kept)
    combinations.pop((), None)
    for size in range(max(map(len, combinations), default=0), 1, -1):
        for labels in [each for each, count in combinations.items() if len(each) == size and count < least]:
            combinations[labels[:-1]] += combinations.pop(labels)
    ordered = sorted(combinations.items(), key=lambda item: (-item[1], item[0]))
    return {tuple(sorted(labels)): count for labels, count in ordered}


def as_csv(combinations: dict[Combination, int]) -> str:
    """The text of label_sets.csv."""
    return "labels,videos\n" + "".join(f"{' '.join(map(str, each))},{count}\n" for each, count in combinations.items())


@cache
def committed() -> dict[Combination, int]:
    """The combinations of label_sets.csv with their counts."""
    rows = read_rows(Path(__file__).with_name("label_sets.csv"), ("labels", "videos"))
    return {tuple(map(int, row["labels"].split())): int(row["videos"]) for row in rows}


def combinations_of(labels: Iterable[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The real combinations cut to some labels; what is cut to nothing is left out.

    Args:
        labels: label indices, all among the FREQUENT most frequent.

    Returns:
        (int64 label indices in ascending order of each combination, share of each, which sum to 1).

    Raises:
        ConfigurationError: no label, or one whose joint frequencies are not known.
    """
    allowed = set(map(int, labels))
    known = {label for each in committed() for label in each}
    if not allowed:
        raise ConfigurationError("the synthetic corpus needs at least one label; set dataset.label_limit to 1 or more")
    if not allowed <= known:
        message = f"joint frequencies are known of the {len(known)} most frequent labels, not of {min(allowed - known)}"
        raise ConfigurationError(f"{message}; set dataset.label_limit to 1..{len(known)} for a synthetic corpus")
    cut: Counter = Counter()
    for each, count in committed().items():
        cut[tuple(label for label in each if label in allowed)] += count
    cut.pop((), None)
    counts = np.array(list(cut.values()), np.float64)
    return [np.array(each, np.int64) for each in cut], counts / counts.sum()
