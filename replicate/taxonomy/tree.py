"""The hierarchy of categories and the node of every label, as one small immutable object.

A node's level is its depth: 0 at the top. A video's positives are its labels' nodes and all their ancestors (section
4.4.1 of the paper).
"""

import csv
import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from replicate.errors import DataError

DEEPEST = 3
LABELS = 3862
REBUILD = "run `replicate taxonomy build`"


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """Nodes in a fixed order.

    Attributes:
        names: name of each node; for YouTube-8M the path "Top:Child:Grandchild".
        parents: numbers of each node's parents; a top has none, a node of AudioSet's ontology may have two.
        label_nodes: (labels,) int32, the node of each label index; -1 for a label that is left out. Read-only.
    """

    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]
    label_nodes: np.ndarray

    def __post_init__(self) -> None:
        nodes = np.array(self.label_nodes, np.int32)  # a copy, so that nobody else can change it
        nodes.setflags(write=False)
        object.__setattr__(self, "label_nodes", nodes)

    @cached_property
    def levels(self) -> np.ndarray:
        """(nodes,) int8, shortest depth; what lies deeper than 3 counts as level 3.

        Raises:
            DataError: the parents form a cycle.
        """
        depth = np.full(len(self.names), -1, np.int64)
        frontier = [node for node, parents in enumerate(self.parents) if not parents]
        children: list[list[int]] = [[] for _ in self.names]
        for node, parents in enumerate(self.parents):
            for parent in parents:
                children[parent].append(node)
        level = 0
        while frontier:
            depth[frontier] = level
            frontier = sorted({child for node in frontier for child in children[node] if depth[child] < 0})
            level += 1
        unreached = np.flatnonzero(depth < 0)
        if len(unreached):
            raise DataError(f"taxonomy: node {self.names[unreached[0]]!r} is its own ancestor; break the cycle")
        levels = np.minimum(depth, DEEPEST).astype(np.int8)
        levels.setflags(write=False)
        return levels

    @cached_property
    def closure(self) -> scipy.sparse.csr_array:
        """(nodes, nodes) bool: row n marks n and all its ancestors."""
        count = len(self.names)
        rows = [node for node, parents in enumerate(self.parents) for _ in parents]
        columns = [parent for parents in self.parents for parent in parents]
        step = scipy.sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(count, count))
        reached = scipy.sparse.eye_array(count, dtype=np.int32, format="csr")
        while True:
            further = ((reached + reached @ step) > 0).astype(np.int32).tocsr()
            if further.nnz == reached.nnz:
                return reached.astype(bool)
            reached = further

    def closed_nodes(self, label_offsets: np.ndarray, label_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of every video, ancestors included, in compressed rows.

        Args:
            label_offsets: (videos + 1,) int64.
            label_values: label indices; those of video v are label_values[label_offsets[v] : label_offsets[v + 1]].

        Returns:
            (offsets (videos + 1,) int64, node numbers int16 in ascending order within a video).

        Raises:
            DataError: a label is not one of the taxonomy's.
        """
        values = np.asarray(label_values, np.int64)
        offsets = np.asarray(label_offsets, np.int64)
        if len(values) and not 0 <= values.min() <= values.max() < len(self.label_nodes):
            raise DataError(f"label {values.max()} is not among the taxonomy's {len(self.label_nodes)} labels")
        nodes = self.label_nodes[values]
        kept = nodes >= 0
        counts = np.bincount(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[kept], minlength=len(offsets) - 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        shape = (len(offsets) - 1, len(self.names))
        assigned = scipy.sparse.csr_array((np.ones(kept.sum(), np.int32), nodes[kept], starts), shape=shape)
        closed = scipy.sparse.csr_array(assigned @ self.closure.astype(np.int32))
        closed.sort_indices()
        return closed.indptr.astype(np.int64), closed.indices.astype(np.int16)

    def encode(self, label_offsets: np.ndarray, label_values: np.ndarray) -> np.ndarray:
        """(videos, nodes) bool positives; arguments as for `closed_nodes`."""
        offsets, values = self.closed_nodes(label_offsets, label_values)
        encoded = np.zeros((len(offsets) - 1, len(self.names)), bool)
        encoded[np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), values] = True
        return encoded

    def restrict(self, labels: Iterable[int]) -> "Taxonomy":
        """Keep some labels, their nodes and these nodes' ancestors; label indices stay what they are."""
        labels = np.asarray(sorted(labels), np.int64)
        reached = self.closure[np.unique(self.label_nodes[labels])].sum(axis=0) > 0
        kept = np.flatnonzero(reached)
        number = np.full(len(self.names), -1, np.int32)
        number[kept] = np.arange(len(kept))
        label_nodes = np.full(len(self.label_nodes), -1, np.int32)
        label_nodes[labels] = number[self.label_nodes[labels]]
        parents = tuple(tuple(int(number[parent]) for parent in self.parents[node]) for node in kept)
        return Taxonomy(tuple(self.names[node] for node in kept), parents, label_nodes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "names": list(self.names),
            "parents": [list(parents) for parents in self.parents],
            "levels": self.levels.tolist(),
            "label_nodes": self.label_nodes.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Taxonomy":
        """What `to_dict` gave."""
        parents = tuple(tuple(each) for each in values["parents"])
        return cls(tuple(values["names"]), parents, np.array(values["label_nodes"], np.int32))


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with the given header.

    Raises:
        DataError: the file is missing, not UTF-8, no CSV, has another header, or a row that is too short.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from None
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; its header is {','.join(reader.fieldnames or ())}")
    short = [number for number, row in enumerate(rows, 1) if any(row[column] is None for column in columns)]
    if short:
        raise DataError(f"{path}: row {short[0]} below the header has too few columns; complete it")
    return rows


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...' with the known words closest to one that is not known, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}" if close else ""


def data_folder() -> Path:
    """Where the committed taxonomy lies."""
    return Path(str(resources.files("taxonomy_data")))


def tree(paths: Sequence[str], source: str) -> tuple[tuple[int, ...], ...]:
    """Parents of nodes given as paths.

    Raises:
        DataError: a path occurs twice, has no parent node, or has more than four levels.
    """
    number: dict[str, int] = {}
    for path in paths:
        if path in number:
            raise DataError(f"{source}: node {path!r} occurs twice; remove one")
        number[path] = len(number)
    parents = []
    for path in paths:
        above, colon, _ = path.rpartition(":")
        if colon and above not in number:
            raise DataError(f"{source}: node {path!r} has no parent {above!r}; add it")
        if path.count(":") > DEEPEST:
            raise DataError(f"{source}: node {path!r} is on a fifth level; the taxonomy has four")
        parents.append((number[above],) if colon else ())
    return tuple(parents)


def load_yt8m(folder: Path | None = None) -> Taxonomy:
    """The committed taxonomy of 640 nodes with the node of each of YouTube-8M's 3,862 labels.

    Raises:
        DataError: nodes.csv or label_map.csv is damaged.
    """
    folder = folder or data_folder()
    paths = [row["path"] for row in read_rows(folder / "nodes.csv", ("path", "scope"))]
    parents = tree(paths, str(folder / "nodes.csv"))
    number = {path: node for node, path in enumerate(paths)}
    source = folder / "label_map.csv"
    nodes: dict[int, int] = {}
    for row in read_rows(source, ("label_index", "node")):
        if not row["label_index"].isdigit() or int(row["label_index"]) in nodes:
            raise DataError(f"{source}: label {row['label_index']!r} is not a number or occurs twice; {REBUILD}")
        if row["node"] not in number:
            raise DataError(f"{source}: label {row['label_index']}: {row['node']!r} is not in nodes.csv; {REBUILD}")
        nodes[int(row["label_index"])] = number[row["node"]]
    missing = set(range(LABELS)) - nodes.keys()
    if missing or len(nodes) > LABELS:
        wrong = f"label {min(missing)} is missing" if missing else f"{len(nodes)} labels instead of {LABELS}"
        raise DataError(f"{source}: {wrong}; {REBUILD}")
    label_nodes = np.array([nodes[label] for label in range(LABELS)], np.int32)
    return Taxonomy(tuple(paths), parents, label_nodes)


def load_audioset(ontology: Path, classes: Path) -> Taxonomy:
    """AudioSet's ontology, cut to its 527 labels and their ancestors: 557 nodes, some with two parents.

    Args:
        ontology: ontology.json, a list of {"id", "name", "child_ids"}.
        classes: class_labels_indices.csv with index, mid and display_name.

    Raises:
        DataError: a file is unreadable, the ontology names unknown children or has a cycle, or a label is unknown,
            missing or listed twice.
    """
    try:
        entries = json.loads(Path(ontology).read_text(encoding="utf-8"))
        number = {entry["id"]: node for node, entry in enumerate(entries)}
        names = tuple(entry["name"] for entry in entries)
        children = [(node, child) for node, entry in enumerate(entries) for child in entry["child_ids"]]
    except (OSError, ValueError) as error:
        raise DataError(f"{ontology} cannot be read: {error}") from None
    except (TypeError, KeyError) as error:
        raise DataError(f"{ontology} is no list of entries with id, name and child_ids ({error})") from None
    if len(number) < len(entries):
        raise DataError(f"{ontology}: an id occurs twice among the {len(entries)} entries; remove one")
    parents: list[list[int]] = [[] for _ in entries]
    for node, child in children:
        if child not in number:
            raise DataError(f"{ontology}: {names[node]!r} has a child {child!r} that is not in the file; add it")
        parents[number[child]].append(node)
    label_nodes: dict[int, int] = {}
    for row in read_rows(classes, ("index", "mid", "display_name")):
        if not row["index"].isdigit() or int(row["index"]) in label_nodes:
            raise DataError(f"{classes}: index {row['index']!r} is not a number or occurs twice; keep one row")
        if row["mid"] not in number:
            raise DataError(f"{classes}: label {row['mid']} is not in {ontology}")
        label_nodes[int(row["index"])] = number[row["mid"]]
    missing = set(range(len(label_nodes))) - label_nodes.keys()
    if missing:
        raise DataError(f"{classes}: label {min(missing)} is missing; the indices must run from 0 without a gap")
    nodes = np.array([label_nodes[label] for label in range(len(label_nodes))], np.int32)
    whole = Taxonomy(names, tuple(map(tuple, parents)), nodes)
    _ = whole.levels  # a cycle is reported here, with the file at hand
    return whole.restrict(range(len(nodes)))


def frequent_labels(count: int) -> list[int]:
    """The `count` most frequent labels of YouTube-8M, by how often they occur in the real label sets.

    Raises:
        DataError: there are not so many labels.
    """
    rows = read_rows(data_folder() / "label_statistics.csv", ("label_index", "videos"))
    if count > len(rows):
        raise DataError(f"dataset.label_limit = {count}, but there are {len(rows)} labels; lower it, or 0 for all")
    rows.sort(key=lambda row: (-int(row["videos"]), int(row["label_index"])))
    return sorted(int(row["label_index"]) for row in rows[:count])
