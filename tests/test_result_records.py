"""Claims: records that were damaged, renamed or copied from another run are refused by one sentence that names the file
and what is wrong with it; nothing is computed from them."""

import json

import pytest
from record_fixtures import write_fixture

from replicate.errors import MissingResult
from replicate.record import read_json, write_json
from replicate.report.records import Records

EVALUATION = "evaluate-dnn-0.json"


def changed(path, **values):
    write_json(path, read_json(path) | values)


def first_cell(path, **values):
    record = read_json(path)
    record["cells"][0] |= values
    path.write_text(json.dumps(record), encoding="utf-8")  # which, unlike write_json, writes NaN


@pytest.mark.parametrize(("damage", "words"), [
    (lambda path: path.write_bytes(path.read_bytes()[:500]), "is no EvaluateRecord"),
    (lambda path: path.write_text("null"), "the whole: Input should be"),
    (lambda path: first_cell(path, mean=float("nan")), r"cells\.0\.mean: Input should be a finite number"),
    (lambda path: first_cell(path, draws=[0.5]), "draws is 1, in run.json 5"),
    (lambda path: changed(path, extra=1), "extra: Extra inputs are not permitted"),
    (lambda path: changed(path, column="rnn"), "holds the record of evaluate-rnn-0"),
    (lambda path: changed(path, videos=20_371), "of another run: videos is 20371, in run.json 8000"),
    (lambda path: changed(path, draw_size=4000), "of another run: draw_size is 4000"),
    (lambda path: changed(path, class_average_precision=[0.5]), "class_average_precision is 1, in run.json"),
    (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
])  # fmt: skip
def test_a_record_that_is_not_of_this_run_is_refused(tmp_path, damage, words):
    folder = write_fixture(tmp_path)
    damage(folder / "records" / EVALUATION)
    with pytest.raises(MissingResult, match=words) as refused:
        Records.open(folder)
    assert EVALUATION in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("seeds", []), ("train_positives", [1, 2]), ("node_levels", [0])])
def test_a_run_record_whose_lists_do_not_fit_is_refused(tmp_path, name, value):
    folder = write_fixture(tmp_path)
    changed(folder / "records" / "run.json", **{name: value})
    with pytest.raises(MissingResult, match=rf"run\.json: {name} "):
        Records.open(folder)


def test_a_file_where_the_results_should_be_is_a_missing_result(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(MissingResult, match=r"run\.json is missing"):
        Records.open(tmp_path / "results")
