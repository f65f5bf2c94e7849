"""Claims: show, find, stats and validate say what the committed files hold.

Oracles: counts over the label map by hand.
"""

from collections import Counter

import pytest

from replicate.errors import ConfigurationError, DataError
from replicate.taxonomy.browse import find, show, stats, validate
from replicate.taxonomy.tree import data_folder, read_rows


def test_show_lists_tops_children_and_labels():
    assert len(show().splitlines()) == 18
    text = show("Game:VideoGame:Simulation:TheSims")
    nodes = Counter(row["node"] for row in read_rows(data_folder() / "label_map.csv", ("node",)))
    assert f"{nodes['Game:VideoGame:Simulation:TheSims']} labels" in text
    assert "The Sims FreePlay" in text and "3623" in text


def test_show_of_an_unknown_node_names_the_nearest():
    with pytest.raises(ConfigurationError, match="no node 'Game:VideoGam'; did you mean Game:VideoGame"):
        show("Game:VideoGam")


def test_find_searches_paths_scopes_and_names():
    assert "3623 The Sims FreePlay -> Game:VideoGame:Simulation:TheSims" in find("freeplay")
    assert find("SWIMMING").startswith("Home&Garden:Garden:Pool&Patio:") and "Sports:Water:Swimming" in find("SWIMMING")
    assert find("zzzz") == "no node or label contains 'zzzz'\n"
    with pytest.raises(ConfigurationError, match="empty"):
        find(" ")


def test_stats_counts_every_node_and_label_once():
    lines = stats().splitlines()
    assert lines[0].startswith("640 nodes, 3862 labels")
    tops = [line.split() for line in lines[-18:]]
    assert sum(int(row[1]) for row in tops) == 640 and sum(int(row[2]) for row in tops) == 3862


def vocabulary(path, names):
    lines = [f'{label},"{name}"' for label, name in names.items()]
    path.write_text("Index,Name\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_validate_names_missing_renamed_moved_and_unknown_labels(tmp_path):
    rows = read_rows(data_folder() / "labels.csv", ("label_index", "name"))
    ours = {int(row["label_index"]): row["name"].replace('"', '""') for row in rows}
    assert validate(vocabulary(tmp_path / "same.csv", ours)) == []
    theirs = {**ours, 0: ours[1], 1: ours[0], 3: "Gig", 3862: "Novelty"}
    del theirs[3861]
    assert validate(vocabulary(tmp_path / "other.csv", theirs)) == [
        "label 0 'Game' is at index 1",
        "label 1 'Video game' is at index 0",
        "label 3 'Concert' is called 'Gig'",
        f"label 3861 {rows[3861]['name']!r} is missing",
        "label 3862 'Novelty' is not in the map",
    ]
    (tmp_path / "twice.csv").write_text("Index,Name\n0,Game\n0,Game\n", encoding="utf-8")
    with pytest.raises(DataError, match="Index '0' is not a number or occurs twice"):
        validate(tmp_path / "twice.csv")


@pytest.mark.data
def test_the_official_vocabulary_is_ours(data_dir):
    assert validate(data_dir / "yt8m_labels" / "vocabulary.csv") == []
