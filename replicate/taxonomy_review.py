"""How right the label map is: a stratified sample of labels for a reader who has not seen the map, and its score.

The reader gets each label's name and description, the tree and the scope notes, and writes one node. A verdict is
`right` (the same node), `ancestor` (the map stays above the reader's node on the same path), `descendant` (the map goes
below it) or `other`. Shares come with Wilson score intervals (Wilson, 1927); the allocation is proportional, so the
plain share estimates the share of all named labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from replicate.errors import DataError
from replicate.taxonomy import Taxonomy, data_folder, load_yt8m, read_rows
from replicate.taxonomy_build import read_names

SAMPLE, SEED, VIDEO_STRATA = 400, 2020, 4
VERDICTS = ("right", "ancestor", "descendant", "other")
SHEET_COLUMNS = ("label_index", "judged_node")


@dataclass(frozen=True)
class Share:
    """A share of labels with its 95 % Wilson interval."""

    count: int
    labels: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, a fraction."""
        return self.count / self.labels


def draw_sample(taxonomy: Taxonomy, videos: Sequence[int], eligible: Sequence[int], size: int, seed: int) -> list[int]:
    """Labels to judge, stratified by the level of their node and by how many videos they have.

    Args:
        taxonomy: gives each label's level (four strata).
        videos: (labels,) videos of each label; cut into four equally large groups.
        eligible: labels that can be judged (a label without a name cannot).
        size: labels to draw; strata get shares proportional to their size, by largest remainder.
        seed: of the draw and of the order in which the labels are presented.

    Raises:
        DataError: there are fewer eligible labels than asked for.
    """
    eligible = np.asarray(sorted(eligible))
    if size > len(eligible):
        raise DataError(f"a review of {size} labels needs as many; {len(eligible)} are eligible")
    levels = taxonomy.levels[taxonomy.label_nodes[eligible]].astype(int)
    ranks = np.argsort(np.lexsort((eligible, np.asarray(videos)[eligible])))
    strata = levels * VIDEO_STRATA + ranks * VIDEO_STRATA // len(eligible)
    present, sizes = np.unique(strata, return_counts=True)
    exact = size * sizes / len(eligible)
    allotted = np.floor(exact).astype(int)
    allotted[np.argsort(allotted - exact, kind="stable")[: size - allotted.sum()]] += 1
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(eligible[strata == stratum], count, replace=False)
        for stratum, count in zip(present, allotted, strict=True)
    ]
    return generator.permutation(np.concatenate(drawn)).tolist()


def review_sample(folder: Path | None = None) -> list[int]:
    """The committed map's sample of 400 labels, in the order of the sheet."""
    folder = folder or data_folder()
    rows = read_rows(folder / "label_statistics.csv", ("label_index", "videos"))
    videos = [int(row["videos"]) for row in sorted(rows, key=lambda row: int(row["label_index"]))]
    named = [label for label, name in enumerate(read_names(folder)) if name]
    return draw_sample(load_yt8m(folder), videos, named, SAMPLE, SEED)


def verdict(mapped: str, judged: str) -> str:
    """How the map's node lies to the reader's: one of VERDICTS."""
    if mapped == judged:
        return "right"
    if judged.startswith(f"{mapped}:"):
        return "ancestor"
    return "descendant" if mapped.startswith(f"{judged}:") else "other"


def read_judgements(sheet: Path, taxonomy: Taxonomy) -> dict[int, str]:
    """The reader's node of each label on a filled sheet.

    Raises:
        DataError: a label occurs twice or is unknown, or a judged node is not in the tree.
    """
    nodes = set(taxonomy.names)
    judged: dict[int, str] = {}
    for row in read_rows(sheet, SHEET_COLUMNS):
        if not row["label_index"].isdigit() or int(row["label_index"]) >= len(taxonomy.label_nodes):
            raise DataError(f"{sheet}: {row['label_index']!r} is not a label index; see label_map.csv")
        label = int(row["label_index"])
        if label in judged:
            raise DataError(f"{sheet}: label {label} occurs twice; keep one judgement")
        if row["judged_node"] not in nodes:
            raise DataError(f"{sheet}: label {label} is judged {row['judged_node']!r}, which is not in nodes.csv")
        judged[label] = row["judged_node"]
    if not judged:
        raise DataError(f"{sheet} holds no judgement; fill the column judged_node")
    return judged


def wilson(count: int, labels: int, confidence: float = 0.95) -> Share:
    """Wilson's score interval of a binomial share."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = count / labels
    centre = (share + z * z / (2 * labels)) / (1 + z * z / labels)
    half = z / (1 + z * z / labels) * np.sqrt(share * (1 - share) / labels + z * z / (4 * labels**2))
    return Share(count, labels, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def score_review(sheet: Path, taxonomy: Taxonomy) -> dict[str, Share]:
    """Share of labels judged right, right in the top, on one path with the reader's node, and right per level.

    Args:
        sheet: CSV with columns label_index and judged_node.
        taxonomy: the map that is judged.
    """
    judged = read_judgements(sheet, taxonomy)
    mapped = {label: taxonomy.names[taxonomy.label_nodes[label]] for label in judged}
    verdicts = {label: verdict(mapped[label], judged[label]) for label in judged}
    counts = Counter(verdicts.values())
    same_top = sum(mapped[label].split(":")[0] == judged[label].split(":")[0] for label in judged)
    scores = {
        "right": wilson(counts["right"], len(judged)),
        "same path": wilson(len(judged) - counts["other"], len(judged)),
        "same top": wilson(same_top, len(judged)),
    }
    for level in range(4):
        members = [label for label in judged if mapped[label].count(":") == level]
        if members:
            right = sum(verdicts[label] == "right" for label in members)
            scores[f"right, level {level}"] = wilson(right, len(members))
    return scores
