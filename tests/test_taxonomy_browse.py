"""Claims: show, find, stats and validate say what the committed files hold; the review is scored rightly.

Oracles: counts over the label map by hand, statsmodels' Wilson interval.
"""

from collections import Counter

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from replicate.errors import ConfigurationError, DataError
from replicate.taxonomy import data_folder, load_yt8m, read_rows
from replicate.taxonomy_browse import find, show, stats, validate
from replicate.taxonomy_review import SAMPLE, draw_sample, review_sample, score_review, verdict, wilson


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


def test_sample_is_proportional_in_every_stratum_and_a_function_of_its_seed():
    taxonomy = load_yt8m()
    videos = np.arange(len(taxonomy.label_nodes))[::-1]
    eligible = list(range(100, 3862))
    drawn = draw_sample(taxonomy, videos, eligible, 400, seed=1)
    assert len(set(drawn)) == 400 and min(drawn) >= 100
    assert drawn == draw_sample(taxonomy, videos, eligible, 400, seed=1)
    assert drawn != draw_sample(taxonomy, videos, eligible, 400, seed=2)
    levels = taxonomy.levels[taxonomy.label_nodes]
    expected = 400 * np.bincount(levels[eligible], minlength=4) / len(eligible)
    assert np.abs(np.bincount(levels[drawn], minlength=4) - expected).max() <= 4
    quarter = np.bincount((np.array(drawn) - 100) * 4 // len(eligible))
    assert np.abs(quarter - 100).max() <= 4
    with pytest.raises(DataError, match="5 are eligible"):
        draw_sample(taxonomy, videos, eligible[:5], 400, seed=1)


def test_the_committed_sample_has_names_only():
    names = {int(row["label_index"]): row["name"] for row in read_rows(data_folder() / "labels.csv", ("name",))}
    sample = review_sample()
    assert len(set(sample)) == SAMPLE and all(names[label] for label in sample)


@pytest.mark.parametrize(("count", "labels"), [(0, 10), (371, 400), (10, 10)])
def test_wilson_is_statsmodels(count, labels):
    share = wilson(count, labels)
    assert (share.low, share.high) == pytest.approx(proportion_confint(count, labels, method="wilson"), abs=1e-12)
    assert share.value == count / labels


def test_verdicts_by_hand():
    assert verdict("A:B", "A:B") == "right"
    assert verdict("A", "A:B") == "ancestor"
    assert verdict("A:B", "A") == "descendant"
    assert verdict("A:Bc", "A:B") == verdict("A:B", "A:Bc") == "other"


def test_a_filled_sheet_is_scored(tmp_path):
    taxonomy = load_yt8m()
    node = {label: taxonomy.names[taxonomy.label_nodes[label]] for label in range(4)}
    sheet = tmp_path / "review.csv"
    judged = {0: node[0], 1: node[1], 2: "Food", 3: node[3].split(":")[0]}
    sheet.write_text("label_index,judged_node\n" + "".join(f"{k},{v}\n" for k, v in judged.items()), encoding="utf-8")
    scores = score_review(sheet, taxonomy)
    assert (scores["right"].count, scores["right"].labels) == (2, 4)
    assert scores["same top"].count == scores["same path"].count == 3
    for row, sentence in (("9999,Food", "not a label index"), ("5,Nowhere", "not in nodes.csv"), ("0,Food", "twice")):
        sheet.write_text(f"label_index,judged_node\n0,Game\n{row}\n", encoding="utf-8")
        with pytest.raises(DataError, match=sentence):
            score_review(sheet, taxonomy)
    sheet.write_text("label_index,judged_node\n", encoding="utf-8")
    with pytest.raises(DataError, match="no judgement"):
        score_review(sheet, taxonomy)
