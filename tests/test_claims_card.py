"""Claims: files and the card hold the verdicts, each once, with synthetic and real data apart."""

import csv
import json

import pytest
from record_fixtures import write_fixture

from replicate.report.claims import judging
from replicate.report.claims.verdicts import SUPPORTED, UNTESTABLE
from replicate.report.pages import card
from replicate.report.records import Records


def test_files_hold_the_verdicts(tmp_path):
    folder = write_fixture(tmp_path, seeds=(0, 1))
    judging.make_claims(folder)
    rows = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    lines = list(csv.DictReader((folder / "claims.csv").read_text(encoding="utf-8").splitlines()))
    results = judging.judge(folder)
    assert [row["name"] for row in rows] == [line["name"] for line in lines] == [result.name for result in results]
    for row, line, result in zip(rows, lines, results, strict=True):
        assert row["verdict"] == line["verdict"] == result.verdict
        wanted = result.effect if result.effect is None else pytest.approx(result.effect, rel=1e-9, abs=1e-12)
        assert row["effect"] == wanted
        assert row["data"] == "synthetic"
        assert line["interval_low"] == ("" if row["interval"] is None else repr(row["interval"][0]))


def test_cards_of_synthetic_and_real_data_are_apart(tmp_path):
    runs = [Records.open(write_fixture(tmp_path / data, data=data)) for data in ("synthetic", "real")]
    page = card.markdown([card.card(run) for run in runs])
    real, synthetic = page.split("### Synthetic data: smoke")
    assert real.startswith("### Real data: audioset") and "(synthetic)" not in real
    synthetic, computed = synthetic.split("### Settled by computation")
    lines = synthetic.splitlines()
    headers = [before for before, line in zip(lines, lines[1:], strict=False) if line.startswith(("|:-", "| -"))]
    assert len(headers) == 2 and all("(synthetic)" in header for header in headers)
    assert "say nothing of real videos" in synthetic
    assert "alpha_i = alpha_j" in computed and "alpha_i = alpha_j" not in real


def test_the_short_card_keeps_the_increments_and_the_main_claims(tmp_path):
    assert set(card.MAIN) <= {claim.name for claim in judging.registry()}
    runs = [Records.open(write_fixture(tmp_path / data, data=data)) for data in ("synthetic", "real")]
    page, full = card.brief([card.card(run) for run in runs]), card.markdown([card.card(run) for run in runs])
    real, synthetic = page.split("### Synthetic data: smoke")
    assert real.startswith("### Real data: audioset") and "(synthetic)" not in real and "(synthetic)" in synthetic
    for run, part in zip(runs, (synthetic, real), strict=True):
        for row in card.card(run).rows:
            assert (row.claim.rstrip(".") in part) == (row.name in card.MAIN)
            named_without_verdict = f"{row.claim.rstrip('.')}" in part.partition("Not testable on these records")[2]
            assert named_without_verdict == (row.name in card.MAIN and row.verdict == UNTESTABLE)
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert set(tables) <= set(full.splitlines())  # no figure of its own


def test_every_claim_about_data_is_on_the_card_once(tmp_path):
    made = card.card(Records.open(write_fixture(tmp_path)))
    names = [row.name for _, cells in made.gains for row in cells] + [row.name for row in made.rows]
    assert sorted(names) == sorted(claim.name for claim in judging.registry() if claim.depends_on_data)


def test_card_carries_effect_interval_detectable_and_verdict(tmp_path):
    folder = write_fixture(tmp_path)
    row = next(row for row in card.rows(folder) if row.name == "gain-netv-map")
    assert (row.paper, row.verdict) == ("+1.9", SUPPORTED)
    assert row.effect.startswith("+1.") and row.interval.startswith("[+1.") and row.detectable == "0.3"
