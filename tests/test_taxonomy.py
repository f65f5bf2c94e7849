"""Claims: the tree is the paper's, closure and encoding are right, AudioSet's ontology fits, bad input gets a sentence.

Oracles: paths split by hand, a plain loop over parents, the counts that the paper and AudioSet's files state.
"""

import json

import numpy as np
import pytest

from replicate.errors import DataError
from replicate.taxonomy.statistics import read_label_sets
from replicate.taxonomy.tree import Taxonomy, frequent_labels, load_audioset, load_yt8m, read_rows, tree

PAPER_TOPS = {
    *("MovieOrTV", "Science", "Home&Garden", "Music", "Art", "Game", "Fitness", "Beauty", "Toy", "Fashion", "Books"),
    *("Transport", "PublicServices", "Travel", "Electronics", "Animals", "Sports", "Food"),
}
PAPER_PATHS = {
    *("Art:Drawing", "Art:Painting", "Art:PerformanceArt", "Game:VideoGame", "Game:VideoGame:Action"),
    *("Game:VideoGame:Adventure", "Game:VideoGame:Adventure:Interactive", "MovieOrTV:Action", "MovieOrTV:Adventure"),
    *("MovieOrTV:Drama", "MovieOrTV:Drama:Comedy", "Music:MusicInstrument", "Music:Concert", "Music:Concert:Choir"),
    *("Music:Concert:Orchestra", "Sports:Water", "Sports:Water:Swimming"),
}


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_yt8m()


def diamond() -> Taxonomy:
    """Two tops, a node with two parents, and a chain of six nodes."""
    names = ("a", "b", "ab", "c1", "c2", "c3", "c4")
    parents = ((), (), (0, 1), (0,), (3,), (4,), (5,))
    return Taxonomy(names, parents, np.array([2, 6, 0, 1], np.int32))


def test_the_tree_is_the_papers(taxonomy):
    assert len(taxonomy.names) == 640 and len(taxonomy.label_nodes) == 3862
    assert np.bincount(taxonomy.levels).tolist() == [18, 141, 313, 168]
    assert {name for name in taxonomy.names if ":" not in name} == PAPER_TOPS
    assert len(PAPER_PATHS) == 17 and set(taxonomy.names) >= PAPER_PATHS


def test_the_sims_are_one_node(taxonomy):
    assert {taxonomy.names[taxonomy.label_nodes[label]] for label in (242, 459, 470, 1331, 1364, 3623, 3674)} == {
        "Game:VideoGame:Simulation:TheSims"
    }


def test_every_leaf_has_a_label(taxonomy):
    inner = {parent for parents in taxonomy.parents for parent in parents}
    leaves = set(range(640)) - inner
    assert leaves <= set(taxonomy.label_nodes.tolist())


def test_closure_is_the_path_and_its_prefixes(taxonomy):
    closure = taxonomy.closure
    for node, name in enumerate(taxonomy.names):
        words = name.split(":")
        expected = {":".join(words[: end + 1]) for end in range(len(words))}
        assert {taxonomy.names[other] for other in closure[[node]].nonzero()[1]} == expected


def test_two_parents_and_deep_chains():
    taxonomy = diamond()
    assert taxonomy.levels.tolist() == [0, 0, 1, 1, 2, 3, 3]
    encoded = taxonomy.encode(np.array([0, 1, 1, 3]), np.array([0, 1, 3]))
    assert encoded.astype(int).tolist() == [[1, 1, 1, 0, 0, 0, 0], [0] * 7, [1, 1, 0, 1, 1, 1, 1]]


def test_encode_is_the_loop_over_parents(taxonomy):
    generator = np.random.default_rng(3)
    counts = generator.integers(0, 6, 200)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    values = generator.integers(0, 3862, counts.sum())
    encoded = taxonomy.encode(offsets, values)
    for video in range(len(counts)):
        expected = set()
        for label in values[offsets[video] : offsets[video + 1]]:
            pending = [int(taxonomy.label_nodes[label])]
            while pending:
                node = pending.pop()
                expected.add(node)
                pending += taxonomy.parents[node]
        assert set(np.flatnonzero(encoded[video])) == expected


def test_closed_nodes_ascend_and_agree_with_encode(taxonomy):
    offsets, nodes = taxonomy.closed_nodes(np.array([0, 2, 2, 5]), np.array([5, 3000, 7, 8, 2000]))
    encoded = taxonomy.encode(np.array([0, 2, 2, 5]), np.array([5, 3000, 7, 8, 2000]))
    for video in range(3):
        assert nodes[offsets[video] : offsets[video + 1]].tolist() == np.flatnonzero(encoded[video]).tolist()


def test_restrict_keeps_indices_and_ancestors(taxonomy):
    labels = frequent_labels(80)
    small = taxonomy.restrict(labels)
    assert len(small.label_nodes) == 3862 and (small.label_nodes >= 0).sum() == 80
    for label in labels:
        assert small.names[small.label_nodes[label]] == taxonomy.names[taxonomy.label_nodes[label]]
    assert {name.rpartition(":")[0] for name in small.names if ":" in name} <= set(small.names)
    left_out = np.flatnonzero(small.label_nodes < 0)[:1]
    assert not small.encode(np.array([0, 1]), left_out).any()
    mixed = small.closed_nodes(np.array([0, 2]), np.concatenate([labels[:1], left_out]))[1]
    assert mixed.tolist() == small.closed_nodes(np.array([0, 1]), np.array(labels[:1]))[1].tolist()


def test_it_cannot_be_changed():
    nodes = np.array([2, 6, 0, 1], np.int32)
    taxonomy = Taxonomy(diamond().names, diamond().parents, nodes)
    nodes[0] = 1
    assert taxonomy.label_nodes[0] == 2
    for array in (taxonomy.label_nodes, taxonomy.levels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        taxonomy.names = ()


def test_dict_round_trip(taxonomy):
    again = Taxonomy.from_dict(taxonomy.to_dict())
    assert again.names == taxonomy.names and again.parents == taxonomy.parents
    assert (again.label_nodes == taxonomy.label_nodes).all() and again.label_nodes.dtype == np.int32


def test_frequent_labels_are_the_most_frequent():
    assert frequent_labels(3) == [0, 1, 2]
    with pytest.raises(DataError, match="label_limit = 4000"):
        frequent_labels(4000)


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["A", "A:B", "A:B"], "'A:B' occurs twice"),
        (["A", "B:C"], "'B:C' has no parent 'B'"),
        (["A", "A:B", "A:B:C", "A:B:C:D", "A:B:C:D:E"], "fifth level"),
    ],
)
def test_bad_trees_get_a_sentence(paths, sentence):
    with pytest.raises(DataError, match=sentence):
        tree(paths, "nodes.csv")


def test_a_cycle_gets_a_sentence():
    with pytest.raises(DataError, match="'b' is its own ancestor; break the cycle"):
        _ = Taxonomy(("a", "b", "c"), ((), (2,), (1,)), np.array([0])).levels


def test_an_unknown_label_gets_a_sentence(taxonomy):
    with pytest.raises(DataError, match="label 3862 is not among the taxonomy's 3862 labels"):
        taxonomy.encode(np.array([0, 1]), np.array([3862]))


def test_not_utf8_and_missing_columns_get_a_sentence(tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_bytes(b"path,scope\nCaf\xe9,x\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(path, ("path",))
    path.write_text("node,scope\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'path'"):
        read_rows(path, ("path",))
    path.write_text("path,scope\nA,x\nB\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2 below the header has too few columns"):
        read_rows(path, ("path", "scope"))
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv", ("path",))


def write_audioset(folder, entries, classes="0,/a,A\n1,/b,B\n"):
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (folder / "ontology.json").write_text(text, encoding="utf-8")
    (folder / "classes.csv").write_text("index,mid,display_name\n" + classes, encoding="utf-8")
    return folder / "ontology.json", folder / "classes.csv"


def entry(name: str, *children: str) -> dict:
    return {"id": f"/{name}", "name": name.upper(), "child_ids": [f"/{child}" for child in children]}


def test_an_ontology_with_two_parents_is_cut_to_its_labels(tmp_path):
    entries = [entry("a", "c"), entry("b", "c", "d"), entry("c"), entry("d")]
    taxonomy = load_audioset(*write_audioset(tmp_path, entries, "1,/c,C\n0,/a,A\n"))
    assert taxonomy.names == ("A", "B", "C") and taxonomy.parents == ((), (), (0, 1))
    assert taxonomy.label_nodes.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("entries", "classes", "sentence"),
    [
        ("[", "0,/a,A\n", "cannot be read"),
        ([{"id": "/a"}], "0,/a,A\n", "no list of entries with id, name and child_ids"),
        ([entry("a", "z")], "0,/a,A\n", "'A' has a child '/z' that is not in the file"),
        ([entry("a"), entry("a")], "0,/a,A\n", "an id occurs twice"),
        ([entry("a", "b"), entry("b", "a")], "0,/a,A\n", "is its own ancestor; break the cycle"),
        ([entry("a")], "0,/q,Q\n", "label /q is not in"),
        ([entry("a")], "0,/a,A\n0,/a,A\n", "index '0' is not a number or occurs twice"),
        ([entry("a")], "0,/a,A\n2,/a,A\n", "label 1 is missing"),
    ],
)
def test_a_damaged_ontology_gets_a_sentence(tmp_path, entries, classes, sentence):
    with pytest.raises(DataError, match=sentence):
        load_audioset(*write_audioset(tmp_path, entries, classes))


@pytest.mark.data
def test_audioset_ontology(data_dir):
    folder = data_dir / "audioset"
    taxonomy = load_audioset(folder / "ontology.json", folder / "class_labels_indices.csv")
    assert len(taxonomy.label_nodes) == 527 and (taxonomy.label_nodes >= 0).all()
    assert np.bincount(taxonomy.levels).tolist() == [7, 42, 270, 238]
    assert any(len(parents) == 2 for parents in taxonomy.parents)
    speech = taxonomy.names.index("Speech")
    assert taxonomy.label_nodes[0] == speech
    above = {taxonomy.names[node] for node in taxonomy.closure[[speech]].nonzero()[1]}
    assert above == {"Speech", "Human voice", "Human sounds"}


@pytest.mark.data
def test_real_label_sets_reach_every_node(data_dir, taxonomy):
    offsets, values = read_label_sets(data_dir / "yt8m_labels" / "labels_2018.parquet")
    node_offsets, nodes = taxonomy.closed_nodes(offsets, values)
    assert len(node_offsets) == 980_030 and np.diff(node_offsets).min() == 1
    assert np.bincount(nodes, minlength=640).min() > 0
