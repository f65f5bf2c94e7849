"""Claims: every label that needs adjudication was changed or kept, with grounds; kept.csv's figures are the data's.

Oracles: votes compared by hand, a plain loop over label sets.
"""

import csv
import shutil
from pathlib import Path

import pytest

from replicate.errors import DataError
from replicate.taxonomy.examined import (
    KEPT_COLUMNS,
    check_shares,
    contradicted_by_the_votes_map,
    count_examined,
    grounds_of_files,
)
from replicate.taxonomy.review import score_review
from replicate.taxonomy.statistics import read_label_sets
from replicate.taxonomy.tree import LABELS, data_folder, read_rows


def committed(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((data_folder() / name).open(encoding="utf-8", newline="")))


def examined() -> set[int]:
    return {int(row["label_index"]) for name in ("adjudication.csv", "kept.csv") for row in committed(name)}


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(data_folder(), tmp_path / "taxonomy", ignore=shutil.ignore_patterns("*.py*")))


def test_every_doubtful_label_was_changed_or_kept():
    passes = [committed(f"annotations/annotator_{number}.csv") for number in range(1, 6)]
    votes = [{int(row["label_index"]): row for row in rows} for rows in passes]
    doubtful = {
        label
        for label in range(LABELS)
        if len({each[label]["node"] for each in votes}) > 1 or any(each[label]["confidence"] == "low" for each in votes)
    }
    nameless = {int(row["label_index"]) for row in committed("labels.csv") if not row["name"]}
    weak = {int(row["label_index"]) for row in committed("weak_spots.csv")}
    contradicted = {int(row["label_index"]) for row in committed("cooccurrence.csv")}
    assert len(nameless) == 56
    assert doubtful | nameless | weak | contradicted <= examined()
    assert set(grounds_of_files()) == doubtful | nameless | weak | contradicted
    assert count_examined() == (len(committed("adjudication.csv")), len(committed("kept.csv")))


def test_a_label_that_was_not_examined_fails(copy):
    path = copy / "kept.csv"
    rows = read_rows(path, KEPT_COLUMNS)

    def write(changed: list[dict[str, str]]) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, KEPT_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(changed)

    for changed, sentence in (
        (rows[1:], f"label {rows[0]['label_index']} was not examined"),
        ([*rows, rows[0]], f"label {rows[0]['label_index']} occurs twice"),
        ([{**rows[0], "why": "because"}, *rows[1:]], "unknown grounds or reason"),
        ([{**rows[0], "grounds": "taste"}, *rows[1:]], "unknown grounds or reason"),
    ):
        write(changed)
        with pytest.raises(DataError, match=sentence):
            count_examined(copy)


def test_the_readme_states_the_counts():
    changed, kept = count_examined()
    review = score_review()
    text = " ".join((data_folder() / "README.md").read_text(encoding="utf-8").split())
    assert f"worked through {changed + kept:,} labels" in text and f"{changed} were changed, {kept:,} kept" in text
    right, rulings = review.shares["right"], review.rulings
    assert f"{right.count} of 400 agree with the map, {100 * right.value:.1f} %" in text
    assert f"the map stands in {rulings['map']}," in text and f"neither was right in {rulings['neither']}," in text


@pytest.mark.data
def test_labels_that_the_data_contradict_were_examined(data_dir):
    assert contradicted_by_the_votes_map(data_dir / "yt8m_labels" / "labels_2018.parquet") <= examined()


@pytest.mark.data
def test_shares_in_kept_are_those_of_the_label_sets(data_dir):
    rows = [row for row in committed("kept.csv") if row["rival"]][::40]
    paths = {int(row["label_index"]): row["node"] for row in committed("label_map.csv")}
    wanted = {int(row["label_index"]): row for row in rows}
    seen, with_rival = dict.fromkeys(wanted, 0), dict.fromkeys(wanted, 0)
    offsets, values = read_label_sets(data_dir / "yt8m_labels" / "labels_2018.parquet")
    bounds, labels = offsets.tolist(), values.tolist()
    for start, end in zip(bounds, bounds[1:], strict=False):
        carried = labels[start:end]
        for label in wanted.keys() & set(carried):
            rival = wanted[label]["rival"]
            seen[label] += 1
            with_rival[label] += any(f"{paths[each]}:".startswith(f"{rival}:") for each in carried)
    for label, row in wanted.items():
        assert f"{with_rival[label] / seen[label]:.2f}" == row["rival_videos"]
    assert len(wanted) > 15


@pytest.mark.data
def test_a_share_that_is_not_the_datas_fails(data_dir, copy):
    sets = data_dir / "yt8m_labels" / "labels_2018.parquet"
    rows = committed("kept.csv")
    assert check_shares(sets, copy) == sum(bool(row["rival"]) for row in rows)
    text = (copy / "kept.csv").read_text(encoding="utf-8")
    changed = next(row for row in rows if row["rival_videos"] == "0.61")
    row = ",".join(changed[column] for column in ("label_index", "grounds", "why", "rival", "rival_videos"))
    (copy / "kept.csv").write_text(text.replace(f"\n{row},", f"\n{row[:-4]}0.62,"), encoding="utf-8")
    with pytest.raises(DataError, match=f"label {changed['label_index']} has {changed['rival']} in 0.61"):
        check_shares(sets, copy)
