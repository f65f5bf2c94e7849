"""Claims: the sheet is the drawn sample, judged from names alone; its score is the stated one; bad sheets fail.

Oracles: verdicts and shares by hand, statsmodels' Wilson interval.
"""

import csv

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from replicate.errors import DataError
from replicate.taxonomy.review import (
    SAMPLE,
    SHEET_COLUMNS,
    draw_sample,
    review_sample,
    review_text,
    score_review,
    verdict,
    wilson,
)
from replicate.taxonomy.tree import data_folder, load_yt8m, read_rows


def test_sample_is_proportional_in_every_stratum_and_a_function_of_its_seed():
    taxonomy = load_yt8m()
    levels = taxonomy.levels[taxonomy.label_nodes]
    videos = np.arange(len(levels))[::-1]
    eligible = list(range(100, 3862))
    drawn = draw_sample(levels, videos, eligible, 400, seed=1)
    assert len(set(drawn)) == 400 and min(drawn) >= 100
    assert drawn == draw_sample(levels, videos, eligible, 400, seed=1)
    assert drawn != draw_sample(levels, videos, eligible, 400, seed=2)
    expected = 400 * np.bincount(levels[eligible], minlength=4) / len(eligible)
    assert np.abs(np.bincount(levels[drawn], minlength=4) - expected).max() <= 4
    quarter = np.bincount((np.array(drawn) - 100) * 4 // len(eligible))
    assert np.abs(quarter - 100).max() <= 4
    with pytest.raises(DataError, match="5 are eligible"):
        draw_sample(levels, videos, eligible[:5], 400, seed=1)


def test_the_committed_sheet_is_the_drawn_sample_and_copies_no_description():
    rows = read_rows(data_folder() / "review.csv", SHEET_COLUMNS)
    names = {int(row["label_index"]): row["name"] for row in read_rows(data_folder() / "labels.csv", ("name",))}
    assert [int(row["label_index"]) for row in rows] == review_sample() and len(rows) == SAMPLE
    assert set(rows[0]) == {*SHEET_COLUMNS, "name"}
    assert all(row["name"] == names[int(row["label_index"])] != "" for row in rows)


def test_the_committed_score_is_the_one_counted_by_hand():
    rows = list(csv.DictReader((data_folder() / "review.csv").open(encoding="utf-8", newline="")))
    differing = [row for row in rows if row["judged_node"] != row["mapped_node"]]
    review = score_review()
    right = review.shares["right"]
    assert (right.count, right.labels) == (len(rows) - len(differing), 400)
    assert (right.low, right.high) == pytest.approx(proportion_confint(right.count, 400, method="wilson"), abs=1e-12)
    assert review.stratified == pytest.approx(right.value, abs=0.01), "the allocation is proportional"
    assert sum(review.rulings.values()) == len(differing)
    assert all(row["ruling"] and row["reason"] for row in differing)
    taxonomy = load_yt8m()
    present = [taxonomy.names[taxonomy.label_nodes[int(row["label_index"])]] == row["judged_node"] for row in rows]
    assert review.present.count == sum(present)
    text = review_text(review)
    assert "not a person" in text and f"{len(differing)} disagreements" in text


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


HEADER = ",".join(SHEET_COLUMNS) + "\n"


def test_a_filled_sheet_is_scored(tmp_path):
    sheet = tmp_path / "review.csv"
    lines = (
        "0,Game,Game,,",
        "1,Game:VideoGame,Game:VideoGame,,",
        "2,Food,Transport,map,seen on roads",
        "3,Music:Concert,Music,reader,always live",
    )
    sheet.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    review = score_review(sheet)
    assert (review.shares["right"].count, review.shares["right"].labels) == (2, 4)
    assert review.shares["same top"].count == review.shares["same path"].count == 3
    assert (review.shares["right, level 0"].count, review.shares["right, level 0"].labels) == (1, 3)
    assert review.rulings == {"map": 1, "reader": 1, "neither": 0}
    assert review.stratified is None, "four labels reach no deep stratum"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("9999,Food,Food,,", "'9999' is not a label index"),
        ("5,Nowhere,Food,,", "label 5 has judged_node 'Nowhere', which is not in nodes.csv"),
        ("5,Food,Nowhere,,", "label 5 has mapped_node 'Nowhere'"),
        ("0,Game,Game,,", "label 0 occurs twice"),
        ("5,Food,Game,,", "label 5 needs a ruling"),
        ("5,Food,Game,map,", "label 5 needs a ruling"),
    ],
)
def test_bad_sheets_get_a_sentence(tmp_path, row, sentence):
    sheet = tmp_path / "review.csv"
    sheet.write_text(f"{HEADER}0,Game,Game,,\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        score_review(sheet)
    sheet.write_text(HEADER, encoding="utf-8")
    with pytest.raises(DataError, match="no judgement"):
        score_review(sheet)
