"""Claims: `check` is green only when everything required was compared and lies inside; three mutations of the code each
turn it red without training; a moved cell, a deleted one and an unfinished run have exit codes of their own."""

import dataclasses
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.sparse
import torch
from click.testing import CliRunner
from record_fixtures import write_fixture

from replicate import predict, preprocess
from replicate.check import answers as golden_answers
from replicate.check import cells as check
from replicate.check import digests as golden
from replicate.check import results as golden_results
from replicate.cli.main import group
from replicate.columns import COLUMNS
from replicate.data import batches
from replicate.errors import ConfigurationError, MissingResult
from replicate.evaluate import ranking
from replicate.record import read_json, write_json
from replicate.report.records import Records
from replicate.taxonomy import tree

GOLDEN = Path(__file__).resolve().parent.parent / "results" / "golden"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A copy of the committed digests and answers, with bands for the fixture's results."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    golden_results.update_results(folder / "smoke.json", Records.open(run_in(folder / "made")), [], "for tests")
    return folder


def run_in(folder, **options) -> Path:
    """Results of the smoke profile under `folder`/smoke."""
    return write_fixture(folder / "smoke", **options)


def run_check(reference, *arguments):
    return CliRunner().invoke(group, ["check", "--golden", str(reference), *map(str, arguments)])


def states(cells) -> dict[str, str]:
    return {cell.name: cell.state for cell in cells}


def without_results(*arguments):
    return run_check(GOLDEN, "--layer", "digests", "--layer", "answers", *arguments)


def test_the_committed_digests_and_answers_hold():
    result = without_results()
    assert result.exit_code == 0, result.output
    assert "outside" not in result.output


@pytest.mark.data
def test_the_first_records_of_genuine_files_are_what_they_were(data_dir):
    cells = states(golden.check_digests(GOLDEN, data_dir))
    assert {cells[name] for name in golden.REAL} == {"inside"}


def test_weights_are_small_and_cover_every_trained_column():
    assert sum((GOLDEN / name).stat().st_size for name in (golden_answers.WEIGHTS, golden_answers.LOGITS)) < 200_000
    answers = read_json(GOLDEN / golden_answers.ANSWERS)
    assert set(answers["parameters"]) == {"dnn_lstm", *(slug for slug, column in COLUMNS.items() if column.trained)}
    assert set(answers["metrics"]) == {*COLUMNS, golden_answers.SIDE_BY_SIDE, golden_answers.TIED}
    wide = answers["metrics"][golden_answers.SIDE_BY_SIDE]
    assert wide["GAP overall"] < wide["GAP uncapped overall"]  # the cut at 20 is exercised


def swap_two_frames(monkeypatch):
    """The reader returns frames 1 and 2 in the wrong order."""
    parse = batches.parse

    def swapped(spec, payload):
        record = parse(spec, payload)
        order = np.arange(record.frames)
        order[[1, 2]] = 2, 1
        return dataclasses.replace(record, features=tuple(values[order] for values in record.features))

    monkeypatch.setattr(batches, "parse", swapped)
    return {"decoded frames of the fixed records", "tc_rnn: largest change of a logit"}


def drop_the_mask(monkeypatch):
    """Padding counts as frames."""
    prepare = predict.prepare

    def unmasked(*arguments):
        frames, mask = prepare(*arguments)
        return frames, torch.ones_like(mask)

    monkeypatch.setattr(predict, "prepare", unmasked)
    return {f"{column}: largest change of a logit" for column in COLUMNS}


def forget_the_normalisation(monkeypatch):
    """Frames keep the length that they were dequantised with."""
    scale = preprocess._scale
    monkeypatch.setattr(preprocess, "_scale", lambda frames, mask, normalisation: scale(frames, mask, "none"))
    return {f"{column}: largest change of a logit" for column in COLUMNS}


def forget_the_ancestors(monkeypatch):
    """A label counts for its own node alone."""
    alone = property(lambda tree: scipy.sparse.eye_array(len(tree.names), dtype=bool, format="csr"))
    monkeypatch.setattr(tree.Taxonomy, "closure", alone)
    return {"nodes of labels, ancestors included, and levels"}


def break_ties_the_other_way(monkeypatch):
    """Of a video's equal scores the one with the highest node number counts as higher."""
    rank = ranking.rank_videos

    def backwards(scores, labels, nodes, top_k, threads):
        order = np.arange(scores.shape[1])[::-1]
        tops = rank(np.ascontiguousarray(scores[:, order]), np.ascontiguousarray(labels[:, order]),
                    np.sort(order[nodes]), top_k, threads)  # fmt: skip
        return tops._replace(node=order[tops.node].astype(np.int32))

    monkeypatch.setattr(ranking, "rank_videos", backwards)
    return {f"{golden_answers.TIED}: largest change of a metric"}


@pytest.mark.parametrize(
    "mutate",
    [swap_two_frames, drop_the_mask, forget_the_normalisation, forget_the_ancestors, break_ties_the_other_way],
)
def test_a_mutation_of_the_code_makes_check_fail_without_training(mutate, monkeypatch):
    expected = mutate(monkeypatch)
    result = without_results("--format", "json")
    assert result.exit_code == 1
    outside = {cell["name"] for cell in json.loads(result.stdout)["cells"] if cell["state"] == "outside"}
    assert expected <= outside


@pytest.mark.parametrize("module, name, change", [
    (golden, "epoch_order", lambda rows, seed, epoch: rows),
    (golden_answers, "evaluate", None),
])  # fmt: skip
def test_another_order_of_batches_or_another_metric_is_found(module, name, change, monkeypatch):
    if change is None:
        evaluate = golden_answers.evaluate

        def change(logits, *rest):
            return evaluate(np.round(logits, 2), *rest)  # scores that tie move GAP

    monkeypatch.setattr(module, name, change)
    assert without_results().exit_code == 1


def test_a_changed_model_is_not_comparable_rather_than_wrong(monkeypatch):
    monkeypatch.setattr(golden_answers, "MODEL", golden_answers.MODEL.model_copy(update={"gru_width": 20}))
    result = without_results()
    assert result.exit_code == 3
    assert "do not fit rnn" in result.output


def test_a_missing_or_foreign_file_of_the_reference_is_never_green(tmp_path):
    for name in (golden.DIGESTS, golden.CORPUS, golden_answers.WEIGHTS, golden_answers.ANSWERS):
        folder = shutil.copytree(GOLDEN, tmp_path / name)
        (folder / name).unlink()
        assert run_check(folder, "--layer", "digests", "--layer", "answers").exit_code == 3, name
    folder = shutil.copytree(GOLDEN, tmp_path / "damaged")
    content = bytearray((folder / golden.CORPUS).read_bytes())
    content[-10] ^= 1
    (folder / golden.CORPUS).write_bytes(content)
    result = run_check(folder, "--layer", "answers")
    assert result.exit_code == 1 and "CRC" in result.output


def test_results_inside_their_bands_are_green(reference, tmp_path):
    run_in(tmp_path)
    result = run_check(reference, "--results", tmp_path)
    assert result.exit_code == 0, result.output
    names = states(golden_results.check_results(reference / "smoke.json", Records.open(tmp_path / "smoke")))
    assert 20 <= len([name for name in names if "as compared" not in name]) <= 25


def test_one_profiles_folder_is_taken_as_well_as_that_of_all(reference, tmp_path):
    folder = run_in(tmp_path).rename(tmp_path / "of any name")
    assert run_check(reference, "--results", folder, "--layer", "results").exit_code == 0
    paper = run_check(reference, "--results", folder, "--against", "paper").output
    assert "inside" in paper and "run.json is missing" not in paper
    change_cell(folder, "dnn", "GAP", "overall", 0.011)
    assert run_check(reference, "--results", folder, "--layer", "results").exit_code == 1


def test_a_folder_of_another_profile_is_told_apart(reference, tmp_path):
    folder = run_in(tmp_path, data="real")
    result = run_check(reference, "--results", folder, "--layer", "results")
    assert result.exit_code == 3 and "of the profile 'audioset'" in result.output and "--profile" in result.output
    copy = shutil.copytree(reference, tmp_path / "golden")
    update = run_check(copy, "--results", folder, "--update-golden", "--reason", "why")
    assert isinstance(update.exception, ConfigurationError) and "give --profile audioset" in str(update.exception)
    assert (copy / "smoke.json").read_bytes() == (reference / "smoke.json").read_bytes()


def change_cell(folder, column, metric, level, value):
    path = folder / "records" / f"evaluate-{column}-0.json"
    record = read_json(path)
    (cell,) = (each for each in record["cells"] if (each["metric"], each["level"]) == (metric, level))
    if value is None:
        record["cells"].remove(cell)
    else:
        cell["mean"] += value
    write_json(path, record)


@pytest.mark.parametrize("change, code, sentence", [
    (0.009, 0, ""),
    (0.011, 1, "more than rerun differ by"),
    (-0.011, 1, "more than rerun differ by"),
    (None, 3, "have no such cell"),
])  # fmt: skip
def test_one_cell_moved_beyond_its_band_or_deleted(reference, tmp_path, change, code, sentence):
    folder = run_in(tmp_path)
    change_cell(folder, "dnn", "GAP", "overall", change)
    result = run_check(reference, "--results", tmp_path, "--layer", "results")
    assert result.exit_code == code, result.output
    assert sentence in result.output


def test_another_seed_has_the_wider_band(reference, tmp_path):
    folder = run_in(tmp_path, seeds=(7,))
    assert golden_results.DEFAULT_SEEDS > golden_results.DEFAULT_RERUN
    cells = golden_results.check_results(reference / "smoke.json", Records.open(folder))
    assert set(states(cells).values()) == {"inside"}
    low, high = map(float, cells[0].expected.split(" to "))
    assert high - low == pytest.approx(2 * golden_results.DEFAULT_SEEDS, abs=1e-4)


def test_results_of_another_configuration_or_data_are_not_comparable(reference, tmp_path):
    folder = run_in(tmp_path)
    path = folder / "records" / "run.json"
    record = read_json(path)
    for key, value, words in (("training.epochs", 99, "training.epochs is 99"), ("run.workers", 9, None)):
        write_json(path, record | {"configuration": record["configuration"] | {key: value}})
        result = run_check(reference, "--results", tmp_path, "--layer", "results")
        assert result.exit_code == (3 if words else 0)
        assert (words or "inside") in result.output
    write_json(path, record | {"node_levels": [0] * len(record["node_levels"])})
    assert run_check(reference, "--results", tmp_path, "--layer", "results").exit_code == 3


def test_no_results_and_no_reference_are_never_green(reference, tmp_path):
    missing = run_check(reference, "--out", tmp_path, "--layer", "results")
    assert missing.exit_code == 3 and "run.json is missing" in missing.output
    run_in(tmp_path)
    other = run_check(tmp_path / "none", "--results", tmp_path, "--layer", "results")
    assert other.exit_code == 3 and "--update-golden" in other.output


def test_a_run_that_was_begun_is_incomplete(reference, tmp_path):
    begun = CliRunner().invoke(group, ["labels", "--profile", "tiny", "--out", str(tmp_path)])
    assert begun.exit_code == 0, begun.output
    result = run_check(reference, "--profile", "tiny", "--out", tmp_path, "--layer", "results")
    assert result.exit_code == 4
    assert "`replicate all --profile tiny` goes on" in result.output


def test_bands_come_from_reruns_and_seeds(tmp_path):
    seeds = (0, 1, 2, 3, 4)
    records = Records.open(run_in(tmp_path / "run", seeds=seeds))
    again = run_in(tmp_path / "again")
    change_cell(again, "rnn", "GAP", "overall", 0.002)
    made = golden_results.update_results(tmp_path / "smoke.json", records, [Records.open(again)], "measured")
    assert made.half_widths["score GAP overall"]["rerun"] == pytest.approx(3 * 0.002)
    assert made.half_widths["score MAP overall"]["rerun"] == golden_results.FLOOR, (
        "another metric has a band of its own"
    )
    scores = [list(made.values[place.name].values()) for place in made.places if place.group == "score GAP overall"]
    pooled = np.sqrt(np.mean([np.var(each, ddof=1) for each in scores]) * (1 + 1 / 5))
    assert made.half_widths["score GAP overall"]["seeds"] == pytest.approx(max(3 * 0.002, 4.5 * pooled))
    assert made.measured == {"reruns": 1, "seeds": 5}
    assert [each["role"] for each in made.provenance] == ["run", "rerun"]
    golden_results.update_results(tmp_path / "smoke.json", records, [], "once more")
    assert golden_results.read_reference(tmp_path / "smoke.json").reasons == ["measured", "once more"]


def test_a_rerun_must_be_of_the_same_configuration_and_an_update_of_a_whole_run(tmp_path):
    records = Records.open(run_in(tmp_path / "run"))
    other = run_in(tmp_path / "other")
    path = other / "records" / "run.json"
    write_json(path, read_json(path) | {"configuration": {}})
    with pytest.raises(ConfigurationError, match="is no rerun of"):
        golden_results.update_results(tmp_path / "a.json", records, [Records.open(other)], "no")
    change_cell(tmp_path / "run" / "smoke", "dnn", "GAP", "overall", None)
    with pytest.raises(MissingResult, match="has no DNN GAP overall"):
        golden_results.update_results(tmp_path / "b.json", Records.open(tmp_path / "run" / "smoke"), [], "no")
    assert not list(tmp_path.glob("*.json"))


def test_updating_needs_a_reason():
    result = run_check(GOLDEN, "--update-golden")
    assert isinstance(result.exception, ConfigurationError) and "--reason" in str(result.exception)
    result = run_check(GOLDEN, "--reason", "none")
    assert isinstance(result.exception, ConfigurationError) and "--update-golden" in str(result.exception)


@pytest.mark.parametrize("seen, code", [
    ((), 3),
    (("not checked",), 3),
    (("inside", "not checked"), 0),
    (("inside", "incomplete"), 4),
    (("incomplete", "missing"), 3),
    (("not comparable", "inside"), 3),
    (("missing", "outside", "incomplete"), 1),
])  # fmt: skip
def test_exit_codes(seen, code):
    assert check.exit_code([check.Cell("layer", "name", state) for state in seen]) == code


def test_junit_counts_failures_errors_and_skips():
    found = [check.Cell("a", state, state, reason="<why> & how") for state in
             ("inside", "outside", "missing", "not comparable", "incomplete", "not checked")]  # fmt: skip
    suite = ElementTree.fromstring(check.as_junit(found, "golden"))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "1", "errors": "3", "skipped": "1"}  # fmt: skip
    assert suite.find("testcase[@name='outside']/failure").get("message") == "outside. <why> & how"


def test_against_the_paper_supported_is_inside_and_refuted_is_outside(tmp_path):
    run_in(tmp_path / "good")
    good = run_check(GOLDEN, "--against", "paper", "--results", tmp_path / "good", "--format", "json")
    cells = {cell["name"]: cell["state"] for cell in json.loads(good.stdout)["cells"]}
    assert cells["gain-rnn-gap"] == "inside" and cells["megabytes of NetV"] == "inside"
    assert cells["absolute scores of Table 1"] == "not checked"
    run_in(tmp_path / "bad", gain=-1.0)
    bad = run_check(GOLDEN, "--against", "paper", "--results", tmp_path / "bad", "--format", "json")
    assert bad.exit_code == 1
    assert {cell["name"]: cell["state"] for cell in json.loads(bad.stdout)["cells"]}["gain-rnn-gap"] == "outside"


@pytest.mark.parametrize("name", [golden.DIGESTS, golden_answers.ANSWERS])
@pytest.mark.parametrize("content", ["", '{"fixed": {"a', "{}", "[]", "null"])
def test_a_damaged_file_of_the_reference_is_one_sentence_and_never_counts_as_a_cell_outside(tmp_path, name, content):
    folder = shutil.copytree(GOLDEN, tmp_path / "golden")
    (folder / name).write_text(content, encoding="utf-8")
    layer = "digests" if name == golden.DIGESTS else "answers"
    result = run_check(folder, "--layer", layer)
    assert result.exit_code == 3 and f"{folder / name} is damaged" in result.output, result.output
    update = run_check(folder, "--update-golden", "--reason", "anew", "--layer", layer)
    assert isinstance(update.exception, MissingResult) and "remove it" in str(update.exception)
    assert (folder / name).read_text(encoding="utf-8") == content


@pytest.mark.parametrize("name", [golden_answers.WEIGHTS, golden_answers.LOGITS])
def test_damaged_weights_or_logits_are_not_comparable(tmp_path, name):
    folder = shutil.copytree(GOLDEN, tmp_path / "golden")
    (folder / name).write_bytes((GOLDEN / name).read_bytes()[:100])
    result = run_check(folder, "--layer", "answers")
    assert result.exit_code == 3 and "is not the file that" in result.output


def test_a_file_in_place_of_a_folder_is_one_sentence(reference, tmp_path):
    file = tmp_path / "file"
    file.touch()
    missing = run_check(reference, "--results", file, "--layer", "results")
    assert missing.exit_code == 3 and "run.json is missing" in missing.output
    for more in ((), ("--update-golden", "--reason", "why")):
        assert isinstance(run_check(file, "--layer", "digests", *more).exception, ConfigurationError)
    folder = shutil.copytree(reference, tmp_path / "golden")
    (folder / "smoke.json").unlink()
    (folder / "smoke.json").mkdir()
    (tmp_path / "results").mkdir()
    run_in(tmp_path / "results")
    result = run_check(folder, "--results", tmp_path / "results", "--layer", "results")
    assert result.exit_code == 3 and "cannot be read" in result.output


def test_a_field_that_the_reference_was_made_without_counts_as_its_default(reference, tmp_path):
    folder = run_in(tmp_path)
    other = shutil.copytree(reference, tmp_path / "golden")
    made = read_json(other / "smoke.json")
    assert made["configuration"].pop("coherence.relu") is False
    write_json(other / "smoke.json", made)
    assert run_check(other, "--results", tmp_path, "--layer", "results").exit_code == 0
    path = folder / "records" / "run.json"
    record = read_json(path)
    write_json(path, record | {"configuration": record["configuration"] | {"coherence.relu": True}})
    result = run_check(other, "--results", tmp_path, "--layer", "results")
    assert result.exit_code == 3 and "coherence.relu is True, in the reference False" in result.output


def test_results_that_call_themselves_another_profile_are_not_comparable(reference, tmp_path):
    path = run_in(tmp_path) / "records" / "run.json"
    write_json(path, read_json(path) | {"profile": "mine"})
    result = run_check(reference, "--results", tmp_path, "--layer", "results")
    assert result.exit_code == 3 and "of the profile 'mine'" in result.output


def test_a_blank_reason_is_none():
    result = run_check(GOLDEN, "--update-golden", "--reason", "  ")
    assert isinstance(result.exception, ConfigurationError)
