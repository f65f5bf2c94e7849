"""Which labels adjudication had to look at, and that it did: each was changed (adjudication.csv) or kept (kept.csv).

A label has to be examined on these GROUNDS: its votes differ ("dissent"), a vote is marked low ("low"), it has no name
("nameless"), the annotators named it among the weak spots of weak_spots.csv ("weak spot"), or the co-occurrence test
contradicts the node of its votes or of the committed map ("company").
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import scipy.sparse

from replicate.errors import DataError
from replicate.taxonomy.build import decide, read_names, read_votes
from replicate.taxonomy.cooccurrence import company_weights, count_together, find_contradictions
from replicate.taxonomy.statistics import read_label_sets
from replicate.taxonomy.tree import LABELS, Taxonomy, data_folder, load_yt8m, read_rows

GROUNDS = ("dissent", "low", "nameless", "weak spot", "company")
WHYS = ("votes", "high", "minority", "context", "kin", "make", "genre", "franchise")
KEPT_COLUMNS = ("label_index", "grounds", "why", "rival", "rival_videos", "note")


def grounds_of_files(folder: Path | None = None) -> dict[int, set[str]]:
    """Labels that the committed files alone ask to examine, each with its grounds."""
    folder = folder or data_folder()
    paths = {row["path"] for row in read_rows(folder / "nodes.csv", ("path",))}
    grounds: dict[int, set[str]] = defaultdict(set)
    for label, votes in read_votes(folder, paths).items():
        if len(set(votes)) > 1:
            grounds[label].add("dissent")
    for file in sorted((folder / "annotations").glob("*.csv")):
        for row in read_rows(file, ("label_index", "confidence")):
            if row["confidence"] == "low":
                grounds[int(row["label_index"])].add("low")
    for label, name in enumerate(read_names(folder)):
        if not name:
            grounds[label].add("nameless")
    for file, ground in (("weak_spots.csv", "weak spot"), ("cooccurrence.csv", "company")):
        for row in read_rows(folder / file, ("label_index",)):
            grounds[int(row["label_index"])].add(ground)
    return dict(grounds)


def voted_taxonomy(folder: Path | None = None) -> Taxonomy:
    """The label map as the votes alone give it; where they give nothing, the committed node."""
    folder = folder or data_folder()
    taxonomy = load_yt8m(folder)
    number = {path: node for node, path in enumerate(taxonomy.names)}
    nodes = taxonomy.label_nodes.copy()
    for label, votes in read_votes(folder, set(number)).items():
        try:
            nodes[label] = number[decide(label, votes).node]
        except DataError:  # no majority at any level
            continue
    return Taxonomy(taxonomy.names, taxonomy.parents, nodes)


def voted_levels(folder: Path) -> np.ndarray:
    """(labels,) level of the node that the votes alone give; 0 where they give none."""
    paths = {row["path"] for row in read_rows(folder / "nodes.csv", ("path",))}
    levels = np.zeros(LABELS, np.int8)
    for label, votes in read_votes(folder, paths).items():
        try:
            levels[label] = decide(label, votes).node.count(":")
        except DataError:  # no majority at any level
            continue
    return levels


def contradicted_by_the_votes_map(label_sets: Path, folder: Path | None = None) -> set[int]:
    """Labels whose company contradicts the node that the votes alone give."""
    offsets, values = read_label_sets(label_sets)
    weights = company_weights(count_together(offsets, values, LABELS), len(offsets) - 1)
    return {each.label for each in find_contradictions(voted_taxonomy(folder), weights)}


def shares_of_videos(
    taxonomy: Taxonomy, offsets: np.ndarray, values: np.ndarray, pairs: list[tuple[int, str]]
) -> list[float]:
    """For each (label, node): the share of the label's videos that carry a label at or under the node."""
    shape = (len(offsets) - 1, len(taxonomy.label_nodes))
    carried = scipy.sparse.csr_array((np.ones(len(values), np.int32), values, offsets), shape=shape)
    by_label = carried.tocsc()
    number = {name: node for node, name in enumerate(taxonomy.names)}
    under = taxonomy.closure.tocsc()
    shares = []
    for label, node in pairs:
        videos = by_label.indices[by_label.indptr[label] : by_label.indptr[label + 1]]
        column = number[node]
        inside = np.zeros(len(taxonomy.names), bool)
        inside[under.indices[under.indptr[column] : under.indptr[column + 1]]] = True
        members = inside[taxonomy.label_nodes].astype(np.int32)
        shares.append(float((carried[videos] @ members > 0).mean()))
    return shares


def count_examined(folder: Path | None = None) -> tuple[int, int]:
    """(labels changed, labels kept).

    Raises:
        DataError: kept.csv names a label twice, one that was also changed, or gives no known reason; or a label that
            the committed files ask to examine is in neither file.
    """
    folder = folder or data_folder()
    changed = {int(row["label_index"]) for row in read_rows(folder / "adjudication.csv", ("label_index",))}
    kept: set[int] = set()
    for row in read_rows(folder / "kept.csv", KEPT_COLUMNS):
        label = int(row["label_index"])
        if label in kept or label in changed:
            raise DataError(f"{folder / 'kept.csv'}: label {label} occurs twice or was changed; keep one decision")
        unknown = set(row["grounds"].split("; ")) - set(GROUNDS)
        if unknown or row["why"] not in WHYS:
            raise DataError(f"{folder / 'kept.csv'}: label {label} has unknown grounds or reason; see WHYS and GROUNDS")
        kept.add(label)
    missed = sorted(grounds_of_files(folder).keys() - kept - changed)
    if missed:
        raise DataError(f"{folder / 'kept.csv'}: label {missed[0]} was not examined; {len(missed)} are missing")
    return len(changed), len(kept)


def check_shares(label_sets: Path, folder: Path | None = None) -> int:
    """Compare the shares in kept.csv with the real label sets; the number of rows that have shares.

    Args:
        label_sets: Parquet file with a list column `labels`, one row per video.
        folder: the taxonomy's folder; the committed one if missing.

    Raises:
        DataError: a share is another one; the sentence gives it.
    """
    folder = folder or data_folder()
    taxonomy, (offsets, values) = load_yt8m(folder), read_label_sets(label_sets)
    rows = [row for row in read_rows(folder / "kept.csv", KEPT_COLUMNS) if row["rival"]]
    shares = shares_of_videos(taxonomy, offsets, values, [(int(row["label_index"]), row["rival"]) for row in rows])
    for row, share in zip(rows, shares, strict=True):
        if row["rival_videos"] != f"{share:.2f}":
            raise DataError(f"{folder / 'kept.csv'}: label {row['label_index']} has {row['rival']} in {share:.2f}")
    return len(rows)
