"""Claims: a video's nodes are its labels' and their ancestors', whatever the size of the blocks they are found in."""

import numpy as np
import pytest

from replicate.data import labels as module
from replicate.data.labels import LabelStore
from replicate.errors import DataError
from replicate.taxonomy.tree import load_yt8m


@pytest.fixture(scope="module")
def taxonomy():
    return load_yt8m()


def label_sets(videos, seed=0):
    generator = np.random.default_rng(seed)
    sets = [np.sort(generator.choice(3862, generator.integers(1, 6), replace=False)) for _ in range(videos)]
    return np.cumsum([0, *map(len, sets)]), np.concatenate(sets).astype(np.int16), sets


def ancestors(taxonomy, node):
    return {node}.union(*(ancestors(taxonomy, parent) for parent in taxonomy.parents[node]))


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_blocks_change_nothing(taxonomy, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    offsets, values, sets = label_sets(50)
    store = LabelStore.closed(taxonomy, offsets, values)
    whole = taxonomy.closed_nodes(offsets, values)
    for made, expected in zip((store.offsets, store.values), whole, strict=True):
        assert made.dtype == expected.dtype and np.array_equal(made, expected)
    for video, labels in enumerate(sets):
        nodes = set().union(*(ancestors(taxonomy, int(taxonomy.label_nodes[label])) for label in labels))
        assert store.values[store.offsets[video] : store.offsets[video + 1]].tolist() == sorted(nodes)


def test_no_video_is_no_node(taxonomy):
    store = LabelStore.closed(taxonomy, np.zeros(1, np.int64), np.zeros(0, np.int16))
    assert store.offsets.tolist() == [0] and len(store.values) == 0


def test_a_label_of_another_vocabulary_is_refused(taxonomy):
    with pytest.raises(DataError, match="label 3862 is not among the taxonomy's 3862 labels"):
        LabelStore.closed(taxonomy, np.array([0, 1]), np.array([3862]))


def test_saved_and_opened_it_is_the_same(taxonomy, tmp_path):
    store = LabelStore.closed(taxonomy, *label_sets(9)[:2])
    store.save(tmp_path)
    opened = LabelStore.open(tmp_path)
    assert np.array_equal(opened.encode(np.arange(9)), store.encode(np.arange(9))) and opened.nodes == 640
