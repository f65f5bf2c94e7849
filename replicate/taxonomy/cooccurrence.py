"""Does a label's node fit the company it keeps? A test of the label map on real label sets, blind to all votes.

For labels i != j of the same videos, with n videos each, n_ij together and N videos in all, the company's weight is

    w_ij = n_ij * max(0, log(n_ij N / (n_i n_j)))    if n_ij >= 3, else 0,

the pair's contribution to the mutual information where the two attract each other: companions as frequent as by chance
count nothing. At level 0 a label's company is shared out over the tops of its companions; at level l >= 1 over the
siblings of the label's own node at that level, companions elsewhere left out. A label is contradicted where a rival
holds at least MARGIN more of the company than the label's own group. This is evidence, not proof: a label's company is
also its context (a pan is seen with food), so every hit is judged by a reader before the map changes.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from replicate.errors import DataError
from replicate.record import write_text
from replicate.taxonomy.statistics import read_label_sets
from replicate.taxonomy.tree import DEEPEST, Taxonomy, data_folder, load_yt8m

LEAST_TOGETHER, MARGIN = 3, 0.25
COLUMNS = ("label_index", "level", "node", "own_share", "rival", "rival_share")


@dataclass(frozen=True)
class Contradiction:
    """A label whose company lives in a rival group: its own group's share of the company and the rival's."""

    label: int
    level: int
    node: str
    own_share: float
    rival: str
    rival_share: float


def count_together(offsets: np.ndarray, values: np.ndarray, labels: int) -> scipy.sparse.csr_array:
    """(labels, labels) int64: videos that carry both labels; the diagonal counts the videos of each."""
    shape = (len(offsets) - 1, labels)
    carried = scipy.sparse.csr_array((np.ones(len(values), np.int64), values, offsets), shape=shape)
    return scipy.sparse.csr_array(carried.T @ carried)


def company_weights(together: scipy.sparse.csr_array, videos: int) -> scipy.sparse.csr_array:
    """(labels, labels) float64: w_ij of the module's formula, zero on the diagonal."""
    pairs = together.tocoo()
    own = together.diagonal()
    apart = (pairs.row != pairs.col) & (pairs.data >= LEAST_TOGETHER)
    row, column, count = pairs.row[apart], pairs.col[apart], pairs.data[apart].astype(np.float64)
    lift = count * videos / (own[row].astype(np.float64) * own[column])
    return scipy.sparse.csr_array((count * np.maximum(np.log(lift), 0), (row, column)), shape=together.shape)


def ancestor_at(taxonomy: Taxonomy, level: int) -> np.ndarray:
    """(nodes,) number of each node's ancestor at a level of a tree, -1 for nodes above that level."""
    found = np.full(len(taxonomy.names), -1, np.int64)
    for node in range(len(taxonomy.names)):
        at = node
        while taxonomy.levels[at] > level:
            at = taxonomy.parents[at][0]
        if taxonomy.levels[at] == level:
            found[node] = at
    return found


def find_contradictions(taxonomy: Taxonomy, weights: scipy.sparse.csr_array) -> list[Contradiction]:
    """Labels whose company lives under another top, or under a sibling of their node, widest margin first.

    Args:
        taxonomy: a tree (one parent per node) with a node for every label.
        weights: of `company_weights`.
    """
    labels = len(taxonomy.label_nodes)
    found = []
    for level in range(DEEPEST + 1):
        group = ancestor_at(taxonomy, level)[taxonomy.label_nodes]
        grouped = np.flatnonzero(group >= 0)
        membership = scipy.sparse.csr_array(
            (np.ones(len(grouped)), (grouped, group[grouped])), shape=(labels, len(taxonomy.names))
        )
        company = scipy.sparse.csr_array(weights @ membership)
        for label in grouped:
            start, end = company.indptr[label : label + 2]
            groups, shares = company.indices[start:end], company.data[start:end]
            if level:
                above = taxonomy.parents[group[label]]
                beside = np.array([taxonomy.parents[each] == above for each in groups], bool)
                groups, shares = groups[beside], shares[beside]
            if shares.sum() == 0:
                continue
            shares = shares / shares.sum()
            own = float(shares[groups == group[label]].sum())
            best = int(np.argmax(shares))
            if groups[best] != group[label] and shares[best] - own >= MARGIN:
                node, rival = taxonomy.names[group[label]], taxonomy.names[groups[best]]
                found.append(Contradiction(int(label), level, node, own, rival, float(shares[best])))
    return sorted(found, key=lambda each: (each.own_share - each.rival_share, each.level, each.label))


def company_text(together: scipy.sparse.csr_array, names: Sequence[str], label: int, companions: int = 3) -> str:
    """The figures that adjudication.csv quotes: share of a label's videos that carry each of its closest companions.

    Closest by the cosine n_ij / sqrt(n_i n_j), among those that share at least LEAST_TOGETHER videos.
    """
    own = together.diagonal()
    start, end = together.indptr[label : label + 2]
    close = [
        (count / np.sqrt(float(own[label]) * float(own[other])), names[other] or f"label {other}", count / own[label])
        for other, count in zip(together.indices[start:end], together.data[start:end], strict=True)
        if other != label and count >= LEAST_TOGETHER
    ]
    close.sort(reverse=True)
    figures = ", ".join(f"{name} {share:.2f}" for _, name, share in close[:companions])
    return f"Share of its {own[label]} videos with: {figures}"


def compute_contradictions(label_sets: Path, folder: Path | None = None, check: bool = False) -> list[Contradiction]:
    """Write cooccurrence.csv, what the label map leaves contradicted; with `check` compare the committed one.

    Args:
        label_sets: Parquet file with a list column `labels`, one row per video.
        folder: the taxonomy's folder; the committed one if missing.
        check: compare instead of write.

    Raises:
        DataError: the label sets are unreadable, or with `check` the committed file differs.
    """
    folder = folder or data_folder()
    taxonomy = load_yt8m(folder)
    offsets, values = read_label_sets(label_sets)
    together = count_together(offsets, values, len(taxonomy.label_nodes))
    found = find_contradictions(taxonomy, company_weights(together, len(offsets) - 1))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in found:
        writer.writerow([f"{value:.3f}" if isinstance(value, float) else value for value in astuple(each)])
    path = folder / "cooccurrence.csv"
    if not check:
        write_text(path, text.getvalue())
    elif not path.is_file() or path.read_text(encoding="utf-8") != text.getvalue():
        raise DataError(f"{path} is not what label map and label sets give; recompute it")
    return found
