"""The taxonomy nodes of every video, ancestors included, in compressed rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.record import atomic_file, read_json, write_json
from replicate.taxonomy.tree import Taxonomy

BLOCK = 1 << 18  # videos whose ancestors are found at once


@dataclass(frozen=True)
class LabelStore:
    """Nodes of row r of the index: values[offsets[r] : offsets[r + 1]].

    Attributes:
        offsets: (videos + 1,) int64.
        values: int16 node numbers.
        nodes: size of the taxonomy.
    """

    offsets: np.ndarray
    values: np.ndarray
    nodes: int

    @classmethod
    def closed(cls, taxonomy: Taxonomy, label_offsets: np.ndarray, label_values: np.ndarray) -> "LabelStore":
        """The nodes of every video's labels and all their ancestors, block by block of videos.

        Args:
            taxonomy: the tree and the node of each label.
            label_offsets, label_values: the index's columns.

        Raises:
            DataError: a label is not one of the taxonomy's.
        """
        offsets, values = [np.zeros(1, np.int64)], [np.zeros(0, np.int16)]
        for begin in range(0, len(label_offsets) - 1, BLOCK):
            bounds = label_offsets[begin : begin + BLOCK + 1]
            ends, nodes = taxonomy.closed_nodes(bounds - bounds[0], label_values[bounds[0] : bounds[-1]])
            offsets.append(offsets[-1][-1] + ends[1:])
            values.append(nodes)
        return cls(np.concatenate(offsets), np.concatenate(values), len(taxonomy.names))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """(rows, nodes) bool, one line per asked row."""
        starts = np.asarray(self.offsets[rows])
        counts = np.asarray(self.offsets[np.asarray(rows) + 1]) - starts
        line = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        encoded = np.zeros((len(counts), self.nodes), bool)
        encoded[line, self.values[np.repeat(starts, counts) + within]] = True
        return encoded

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """(nodes,) int64: how many of the rows have each node."""
        starts, ends = np.asarray(self.offsets[rows]), np.asarray(self.offsets[np.asarray(rows) + 1])
        lengths = ends - starts
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.bincount(self.values[np.repeat(starts, lengths) + within], minlength=self.nodes)

    def save(self, folder: Path) -> None:
        """Write both columns and the number of nodes."""
        for name in ("offsets", "values"):
            with atomic_file(folder / f"{name}.npy") as file:
                np.save(file, getattr(self, name))
        write_json(folder / "labels.json", {"nodes": self.nodes})

    @classmethod
    def open(cls, folder: Path) -> "LabelStore":
        """Map what `save` wrote."""
        columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "values")}
        return cls(**columns, nodes=read_json(folder / "labels.json")["nodes"])
