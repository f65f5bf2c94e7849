"""Claims: the map follows from votes and adjudication by the stated rule, the committed files are what code derives.

Oracles: decisions by hand; rebuilt text; on real files, statistics by a loop and figures quoted in the adjudication.
"""

import csv
import re
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from replicate.errors import DataError
from replicate.profile_files import load_profile
from replicate.steps import run_taxonomy
from replicate.taxonomy import build as taxonomy_build
from replicate.taxonomy.build import build, decide, label_map, read_adjudication, read_names, read_votes, settle
from replicate.taxonomy.cooccurrence import company_text, compute_contradictions, count_together
from replicate.taxonomy.statistics import compute_statistics, read_label_sets
from replicate.taxonomy.tree import LABELS, data_folder, load_yt8m, read_rows


@pytest.fixture
def copy(tmp_path) -> Path:
    """The committed taxonomy, to be damaged."""
    return Path(shutil.copytree(data_folder(), tmp_path / "taxonomy", ignore=shutil.ignore_patterns("*.py*")))


def replace_row(path: Path, number: int, **values: str) -> None:
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    rows[number].update(values)
    write_rows(path, rows)


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_the_committed_map_is_the_rebuilt_one():
    assert build(check=True).startswith("label_map.csv is what")
    assert (data_folder() / "label_map.csv").read_text(encoding="utf-8") == label_map()


def test_check_fails_on_any_other_map(copy):
    replace_row(copy / "label_map.csv", 5, node="Game")
    with pytest.raises(DataError, match="not what the annotations give"):
        build(copy, check=True)
    build(copy)
    assert (copy / "label_map.csv").read_text(encoding="utf-8") == label_map()


@pytest.mark.parametrize(
    ("votes", "node", "votes_for", "decided_by"),
    [
        (["A", "A", "A", "B", "B"], "A", 3, "majority"),
        (["A:B", "A:B", "A:C", "A:C", "D"], "A", 4, "ancestor"),
        (["A:B:C", "A:B:D", "A:B", "A:E", "F"], "A:B", 3, "ancestor"),
        (["A:B", "A:B", "A", "A", "C:D"], "A", 4, "ancestor"),
    ],
)
def test_rule_by_hand(votes, node, votes_for, decided_by):
    made = decide(7, votes)
    assert (made.node, made.votes_for, made.votes_cast, made.decided_by) == (node, votes_for, 5, decided_by)


def test_no_majority_at_any_level_needs_adjudication():
    votes = ["A", "A:B", "C", "C", "D"]
    with pytest.raises(DataError, match="label 7: no majority at any level .* it needs adjudication"):
        decide(7, votes)
    ruling = {"node": "A", "reason": "seen", "overrides": ""}
    made = settle(7, votes, ruling, "adjudication.csv")
    assert (made.node, made.votes_for, made.decided_by) == ("A", 2, "adjudication")


def test_a_ruling_must_name_what_it_overrides():
    ruling = {"node": "C", "reason": "seen", "overrides": "C"}
    with pytest.raises(DataError, match="overrides 'C', but the votes give 'A'"):
        settle(7, ["A"] * 5, ruling, "adjudication.csv")


def test_every_ruling_changes_the_votes_and_says_why():
    folder = data_folder()
    paths = {row["path"] for row in read_rows(folder / "nodes.csv", ("path",))}
    votes = read_votes(folder, paths)
    rulings = read_adjudication(folder, paths)
    assert len(rulings) > 100
    for label, ruling in rulings.items():
        assert ruling["node"] != ruling["overrides"] == decide(label, votes[label]).node
    reasons = [ruling["reason"] for ruling in rulings.values()]
    assert min(map(len, reasons)) > 60 and len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("annotations/annotator_2.csv", {"node": "Nowhere"}, "'Nowhere', which is not in nodes.csv"),
        ("annotations/annotator_2.csv", {"label_index": "x"}, "'x' is not a label index"),
        ("adjudication.csv", {"node": "Nowhere"}, "'Nowhere', which is not in nodes.csv"),
        ("adjudication.csv", {"label_index": "9999"}, "'9999' is not a label index"),
        ("adjudication.csv", {"reason": " "}, "has no reason"),
        ("labels.csv", {"label_index": "1"}, "label 0 is missing or out of order"),
    ],
)
def test_bad_rows_get_a_sentence(copy, file, values, sentence):
    replace_row(copy / file, 0, **values)
    with pytest.raises(DataError, match=sentence):
        build(copy)
    assert build(check=True), "the committed map is untouched"


def test_a_label_twice_or_missing_gets_a_sentence(copy):
    file = copy / "annotations" / "annotator_1.csv"
    rows = read_rows(file, ("label_index", "node"))
    write_rows(file, [*rows, rows[4]])
    with pytest.raises(DataError, match=rf"label {rows[4]['label_index']} occurs twice"):
        build(copy)
    write_rows(file, rows[:-1])
    with pytest.raises(DataError, match=rf"label {rows[-1]['label_index']} has no vote"):
        build(copy)
    rulings = read_rows(copy / "adjudication.csv", ("label_index",))
    write_rows(file, rows)
    write_rows(copy / "adjudication.csv", [*rulings, rulings[0]])
    with pytest.raises(DataError, match=rf"label {rulings[0]['label_index']} occurs twice; keep one decision"):
        build(copy)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("Animals", "node 'Animals' occurs twice"),
        ("Nowhere:Near", "node 'Nowhere:Near' has no parent 'Nowhere'"),
        ("Art:PerformanceArt:Dance:Ballet:Swan", "is on a fifth level"),
    ],
)
def test_a_damaged_tree_gets_a_sentence(copy, path, sentence):
    rows = read_rows(copy / "nodes.csv", ("path", "scope"))
    write_rows(copy / "nodes.csv", [*rows, {"path": path, "scope": "new"}])
    for read in (build, load_yt8m):
        with pytest.raises(DataError, match=sentence):
            read(copy)


def test_the_stage_refuses_a_map_that_differs(copy, monkeypatch, tmp_path):
    profile = load_profile("tiny")
    step = SimpleNamespace(profile=profile, data_dir=None, out=tmp_path / "out")
    step.out.mkdir()
    run_taxonomy(step)
    assert (step.out / "taxonomy.json").is_file()
    replace_row(copy / "label_map.csv", 5, node="Game")
    monkeypatch.setattr(taxonomy_build, "data_folder", lambda: copy)
    with pytest.raises(DataError, match="not what the annotations give"):
        run_taxonomy(step)


def test_scope_notes_do_not_name_one_thing_twice():
    """No phrase of a scope note stands in another node's, where a note is what precedes its arrows."""
    homonyms = {"mice", "brushes", "runways", "strokes", "boards", "characters", "all generations", "comic or film"}
    parted = {"visual novels"}  # the anime node says: those whose videos show the anime
    owners: dict[str, set[str]] = defaultdict(set)
    for row in read_rows(data_folder() / "nodes.csv", ("path", "scope")):
        named = re.sub(r"\([^)]*\)|[^;,]*->[^;]*", "", row["scope"])
        for phrase in re.split(r"[;,:]", named):
            if phrase.strip():
                owners[phrase.strip().casefold()].add(row["path"])
    twice = {phrase: paths for phrase, paths in owners.items() if len(paths) > 1}
    assert twice.keys() == homonyms | parted


def test_a_damaged_map_gets_a_sentence(copy):
    path = copy / "label_map.csv"
    rows = read_rows(path, ("label_index",))
    for damaged, sentence in (
        (rows[:-1], f"label {LABELS - 1} is missing"),
        ([*rows[:-1], rows[0]], "label '0' is not a number or occurs twice"),
        ([{**rows[0], "node": "Nowhere"}, *rows[1:]], "'Nowhere' is not in nodes.csv"),
    ):
        write_rows(path, damaged)
        with pytest.raises(DataError, match=sentence):
            load_yt8m(copy)


@pytest.mark.data
def test_committed_statistics_are_the_recomputed_ones(data_dir):
    folder = data_dir / "yt8m_labels"
    overall = compute_statistics(folder / "labels_2018.parquet", folder / "vocabulary.csv", check=True)
    assert overall["videos"] == 980_029 and overall["positives_beyond_cap"] == 0
    offsets, values = read_label_sets(folder / "labels_2018.parquet")
    taxonomy = load_yt8m()
    at_level = np.zeros(4, int)
    for video in range(2000):
        paths = [taxonomy.names[taxonomy.label_nodes[label]] for label in values[offsets[video] : offsets[video + 1]]]
        at_level[: max(path.count(":") for path in paths) + 1] += 1
    shares = [row["share_of_videos_with_a_positive"] for row in overall["levels"]]
    assert np.allclose(at_level / 2000, shares, atol=0.05)


@pytest.mark.data
def test_committed_contradictions_are_the_recomputed_ones(data_dir):
    assert compute_contradictions(data_dir / "yt8m_labels" / "labels_2018.parquet", check=True)


@pytest.mark.data
def test_figures_in_the_adjudication_are_those_of_the_label_sets(data_dir):
    offsets, values = read_label_sets(data_dir / "yt8m_labels" / "labels_2018.parquet")
    together, names = count_together(offsets, values, LABELS), read_names(data_folder())
    for row in read_rows(data_folder() / "adjudication.csv", ("label_index", "reason")):
        assert row["reason"].endswith(company_text(together, names, int(row["label_index"])))
