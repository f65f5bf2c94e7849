"""Claims: whatever shows results of a run that computed in less than float32 says so; no other run does."""

import pytest
from record_fixtures import write_fixture

from replicate.record import read_json, write_json
from replicate.report.figures import style
from replicate.report.pages import card, html
from replicate.report.records import Records
from replicate.report.tables.make import make_tables

LESS = {"run.precision": "bfloat16", "run.tf32": True}
WORDS = "mixed precision, bfloat16, TF32"


def made(folder, **configuration):
    """The results folder of a fixture run with another configuration."""
    write_fixture(folder, data="real")
    run = read_json(folder / "records" / "run.json")
    run["configuration"] |= configuration
    write_json(folder / "records" / "run.json", run)
    return folder


@pytest.mark.parametrize(("configuration", "words"), [
    ({}, ""),
    ({"run.precision": "float16"}, "mixed precision, float16"),
    ({"run.tf32": True}, "TF32"),
    (LESS, WORDS),
])  # fmt: skip
def test_a_run_says_what_it_computed_in(configuration, words, tmp_path):
    records = Records.open(made(tmp_path, **configuration))
    assert records.rounded == words
    assert style.titled("Gains", records) == (f"Gains ({words})" if words else "Gains")
    assert (f"({words})" in " ".join(card.card(records).sentences)) == bool(words)


@pytest.mark.parametrize("configuration", [{}, LESS], ids=["float32", "less"])
def test_tables_and_report_say_it(configuration, tmp_path, monkeypatch):
    folder = made(tmp_path, **configuration)
    monkeypatch.setattr(html, "figure_views", lambda _: [])
    make_tables(folder)
    for name in ("table1.md", "table2.md"):
        text = (folder / "tables" / name).read_text(encoding="utf-8")
        assert (f"Computed in less than float32 ({WORDS})" in text) == bool(configuration)
    page = html.make_report(folder).read_text(encoding="utf-8")
    title = page[page.index("<h1>") : page.index("</h1>")]
    assert (WORDS in title) == bool(configuration)
