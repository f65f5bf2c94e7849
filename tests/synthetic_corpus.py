"""A small synthetic corpus, what it is made from, and its frames as numbers, for tests of its format and statistics."""

from pathlib import Path

import numpy as np

from replicate.data.index import Index, build_index, find_shards
from replicate.data.spec import SPECS
from replicate.data.synthetic import synthesize
from replicate.taxonomy.tree import Taxonomy, frequent_labels, load_yt8m

SPEC = SPECS["yt8m"]
SEED = 7


def small_labels() -> list[int]:
    return frequent_labels(80)


def small_taxonomy() -> Taxonomy:
    return load_yt8m().restrict(small_labels())


def small_corpus(folder: Path) -> Index:
    """The index of a small corpus, both in a folder."""
    synthesize(folder, SEED, 60, 3, small_taxonomy(), small_labels(), 16)
    build_index(SPEC, folder, find_shards(folder, ["*.tfrecord"]), folder / "index")
    return Index.open(folder / "index", folder)


def dequantised(raw):
    return raw.astype(np.float64) * 4 / 255 + 4 / 512 - 2
