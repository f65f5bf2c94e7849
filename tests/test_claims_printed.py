"""Claims as people read them: a figure that is not zero shows its sign, numbers agree with their nouns, claims about
columns that were not run share a line, and every rule is printed once, by PAPER.md's letters."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from judged_claims import edit, judged
from record_fixtures import write_fixture

from replicate.cli import main as cli
from replicate.report.claims import judging
from replicate.report.pages import card
from replicate.report.records import Records

PAPER = (Path(__file__).resolve().parent.parent / "PAPER.md").read_text(encoding="utf-8")
FEW = ("dnn", "rnn", "rnn_attn", "tc_rnn")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A results folder of the synthetic profile with few columns."""
    return write_fixture(tmp_path_factory.mktemp("results") / "smoke", columns=FEW)


@pytest.fixture(scope="module")
def one(few):
    """Any judged claim, to be given other figures."""
    return judging.judge(few)[0]


# figures


@pytest.mark.parametrize("unit", ["points", "percent", "share", "spread", "correlation", "megabytes"])
def test_what_rounds_to_zero_is_printed_without_a_sign(one, unit):
    assert len({judging.shown(value, unit) for value in (0.0, -0.0, -1e-9, 1e-9)}) == 1
    wide = dataclasses.replace(one, unit=unit, effect=0.1, interval=(-1e-9, 0.5))
    assert judging.figures(wide).interval.startswith("[0.0")
    assert judging.shown(-0.0, "number") == "0"


@pytest.mark.parametrize(
    ("unit", "effect", "interval", "printed"),
    [
        ("points", 0.00038, (0.00032, 0.00043), ("+0.038", "[+0.032, +0.043]")),
        ("points", -0.00038, (-0.00043, -0.00032), ("-0.038", "[-0.043, -0.032]")),
        ("points", 0.00038, (-0.002, 0.003), ("0.0", "[-0.2, +0.3]")),  # its sign is open, and this shows it
        ("points", 0.0, (-0.0002, 0.0002), ("0.000", "[-0.020, +0.020]")),
        ("points", 0.0, (0.0, 0.0), ("0.0", "[0.0, 0.0]")),
        ("points", 1e-17, (-1e-17, 1e-17), ("0.0", "[0.0, 0.0]")),
        ("points", 0.0005, (0.0005, 0.0006), ("+0.1", "[+0.1, +0.1]")),
        ("megabytes", 0.000016, None, ("+0.000016 MB", "")),
        ("correlation", -0.0031, (-0.0049, -0.001), ("-0.0031", "[-0.0049, -0.0010]")),
    ],
)
def test_an_effect_that_is_not_zero_shows_its_sign(one, unit, effect, interval, printed):
    found = judging.figures(dataclasses.replace(one, unit=unit, effect=effect, interval=interval))
    assert (found.effect, found.interval) == printed


def test_the_detectable_effect_has_the_decimals_of_the_effect(one):
    near = dataclasses.replace(one, unit="points", effect=0.0003, interval=None, detectable=0.00008, paper=0.008)
    assert judging.figures(near) == judging.Figures("+0.030", "", "0.008", "+0.8")
    assert card.row_of(near).detectable == "0.008"


# grammar


@pytest.mark.parametrize(("seeds", "counted"), [((0,), "1 kernel (layers and sites, 1 seed)"),
                                                ((0, 1), "2 kernels (layers and sites, 2 seeds)")])  # fmt: skip
def test_kernels_and_seeds_agree_with_their_number(tmp_path, seeds, counted):
    results = judged(write_fixture(tmp_path, columns=("rnn_attn", "tc_rnn"), seeds=seeds))
    assert results["kernels-peak-at-centre"].evidence.endswith(f" of {counted}.")


def test_epochs_and_draws_agree_with_their_number(tmp_path):
    folder = write_fixture(tmp_path)
    assert "; 5 test draws of " in " ".join(card.card(Records.open(folder)).sentences)
    edit(folder, "train-tm-0.json", lambda record: record.update(best_epoch=1))
    assert "best after 1 epoch, RNN-Attn" in judged(folder)["transformer-compact"].evidence
    edit(folder, "run.json", lambda record: record["split"].update(draws=1))
    edit(folder, "evaluate-*.json", lambda r: [cell.update(draws=(cell["draws"] or [])[:1]) for cell in r["cells"]])
    assert "; 1 test draw of " in " ".join(card.card(Records.open(folder)).sentences)


# the terminal


def test_claims_about_columns_that_were_not_run_share_a_line(few):
    ran = CliRunner().invoke(cli.group, ["claims", "--results", str(few)])
    rows = json.loads((few / "claims.json").read_text(encoding="utf-8"))
    absent = [row["name"] for row in rows if "which this run has not" in row["evidence"]]
    assert len(rows) == len(judging.registry()) and len(absent) > 20
    assert "which this run has not" not in ran.output
    [line] = [line for line in ran.output.splitlines() if f"{len(absent)} claims need columns" in line]
    assert line.partition("has not: ")[2].split(", ") == absent
    assert all((row["text"] in ran.output) == (row["name"] not in absent) for row in rows)


def test_a_single_claim_about_a_column_that_was_not_run_is_said_in_full(few):
    result = judged(few)["gain-tm-gap"]
    [text] = judging.sentences([result])
    assert result.text in text and "Needs TC-TM, TM, which this run has not." in text


def test_each_rule_is_printed_once_by_the_letter_of_the_page(tmp_path):
    for name, data in (("smoke", "synthetic"), ("audioset", "real")):
        write_fixture(tmp_path / name, data=data)
    said = CliRunner().invoke(cli.group, ["claims", "--results", str(tmp_path), "--rules"]).output
    letters = dict(re.findall(r"^- (Rule [A-Z]): (.*)\.$", PAPER, re.MULTILINE))
    assert len(letters) > 10
    assert dict(re.findall(r"^(Rule [A-Z]): (.*)\.$", said, re.MULTILINE)) == letters
    assert all(said.count(rule) == 1 for rule in letters.values())
    for claim in judging.registry():
        [letter] = [letter for letter, rule in letters.items() if rule == claim.rule]
        assert f"by rule {letter[-1]}; statistic: {claim.statistic}" in said


def test_rules_are_not_printed_unasked(few):
    assert "Rule A" not in CliRunner().invoke(cli.group, ["claims", "--results", str(few)]).output
