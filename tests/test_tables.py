"""Claims: Tables 1 and 2 say what the records say, in every format, for any columns, and name every noise and gap."""

import csv
import re
import shutil
import subprocess

import numpy as np
import pytest
from record_fixtures import PAPER, write_fixture

from replicate import reference
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.errors import MissingResult
from replicate.record import read_json, write_json
from replicate.report import render
from replicate.report.pages import card, tables
from replicate.report.records import Records
from replicate.report.tables import notes, rows
from replicate.report.tables.latex import latex_escape
from replicate.report.tables.make import make_tables
from replicate.schema import HEADLINE, LEVELS

SETS = {
    "all": tuple(COLUMNS),
    "tiny": ("rnn", "rnn_attn", "tc_rnn", "dnn"),
    "pair": ("rnn_attn", "tc_rnn"),
    "one": ("dnn",),
}


def made(tmp_path, **options):
    folder = write_fixture(tmp_path / "run", **options)
    make_tables(folder)
    return folder


def text(folder, name):
    return (folder / "tables" / name).read_text(encoding="utf-8")


def test_paper_reference_holds_every_cell_and_two_misprints():
    cells = reference.table1()
    assert len(cells) == 200
    increments = [cell for cell in cells.values() if cell.increment is not None]
    assert len(increments) == 80
    assert notes.misprints() == [("GAP", "1", "tc_ens"), ("Hit@1", "1", "tc_ens")]
    assert cells["GAP", "1", "tc_ens"].increment == 0.007
    assert cells["Hit@1", "1", "tc_ens"].increment == 0.005
    assert cells["MAP", "overall", "tc_netv"].value == 0.879
    assert reference.table2()["tc_rnn"] == (67.5, 14.2)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_any_columns_make_every_file(tmp_path, name, seeds):
    folder = made(tmp_path, columns=SETS[name], seeds=seeds)
    files = {path.name for path in (folder / "tables").iterdir()}
    stems = {"table1.md", "table1_detail.md", "table1.csv", "table1.tex", "table2.md", "table2.csv", "table2.tex"}
    assert files == stems
    titles = [COLUMNS[slug].title for slug in COLUMNS if slug in SETS[name]]
    header = next(line for line in text(folder, "table1.md").splitlines() if line.startswith("| GAP"))
    assert [cell.strip() for cell in header.strip("|").split("|")][2:] == titles
    assert len(list(csv.DictReader(text(folder, "table1.csv").splitlines()))) == 20 * len(SETS[name])


def test_cells_are_the_records_means_at_full_precision(tmp_path):
    folder = made(tmp_path, seeds=(0, 1))
    rows = {
        (row["metric"], row["level"], row["column"]): row
        for row in csv.DictReader(text(folder, "table1.csv").splitlines())
    }
    for metric in HEADLINE:
        for level in LEVELS:
            for slug in COLUMNS:
                records = [read_json(folder / "records" / f"evaluate-{slug}-{seed}.json") for seed in (0, 1)]
                draws = [
                    next(c["draws"] for c in record["cells"] if (c["metric"], c["level"]) == (metric, level))
                    for record in records
                ]
                row = rows[metric, level, slug]
                assert float(row["ours"]) == pytest.approx(np.mean(draws), abs=1e-15)
                assert float(row["sd_draws"]) == pytest.approx(np.sqrt(np.mean(np.var(draws, axis=1, ddof=1))))
                assert float(row["sd_seeds"]) == pytest.approx(np.std(np.mean(draws, axis=1), ddof=1))
                assert float(row["paper"]) == pytest.approx(PAPER[metric, level, slug])
                assert float(row["against_paper"]) == pytest.approx(np.mean(draws) - PAPER[metric, level, slug])
    (noise,) = [
        each["seeds"]
        for each in read_json(folder / "records" / "compare.json")["differences"]
        if (each["column"], each["metric"], each["level"]) == ("tc_tm", "MAP", "2")
    ]
    cell = rows["MAP", "2", "tc_tm"]
    found = (float(cell[name]) for name in ("interval_seeds_low", "interval_seeds_high", "detectable_seeds"))
    assert list(found) == [*noise["interval"], noise["detectable"]] != [float(cell["detectable"])]
    assert "Detectable over seeds" in text(folder, "table1_detail.md")


def test_markdown_prints_the_csv_rounded(tmp_path):
    folder = made(tmp_path)
    row = next(
        row
        for row in csv.DictReader(text(folder, "table1.csv").splitlines())
        if (row["metric"], row["level"], row["column"]) == ("MAP", "3", "tc_netv")
    )
    wanted = f"{100 * float(row['ours']):.1f} ({100 * float(row['gain']):+.1f}){row['marks']}"
    block = text(folder, "table1.md").split("| MAP")[1].split("\n\n")[0]
    line = next(line for line in block.splitlines() if "Level 3" in line)
    assert wanted in [cell.strip() for cell in line.split("|")]


def test_misprints_carry_footnotes_and_the_difference_is_used(tmp_path):
    folder = made(tmp_path)
    page = text(folder, "table1.md")
    assert "94.2 (+0.7)^a" in page and "94.2 (+0.5)^b" in page
    assert "the paper prints +0.6 here, but its values differ by +0.7" in page
    assert page.count("^a") == page.count("^b") == 1
    assert "^a" not in text(made(tmp_path / "pair", columns=SETS["pair"]), "table1.md")


@pytest.mark.parametrize("data", ["synthetic", "real"])
def test_every_header_says_synthetic_when_data_are(tmp_path, data):
    folder = made(tmp_path, data=data)
    for name in ("table1.md", "table1_detail.md", "table2.md"):
        lines = text(folder, name).splitlines()
        headers = [lines[number - 1] for number, line in enumerate(lines) if line.startswith("|:")]
        assert headers
        for header in [lines[0], *headers]:
            assert ("ynthetic" in header) == (data == "synthetic"), header
    for name in ("table1.tex", "table2.tex"):
        assert ("ynthetic" in text(folder, name)) == (data == "synthetic")
    for name in ("table1.csv", "table2.csv"):
        assert {row["data"] for row in csv.DictReader(text(folder, name).splitlines())} == {data}


def test_one_seed_is_called_conditional_and_gives_no_seed_mark(tmp_path):
    page = text(made(tmp_path, seeds=(0,)), "table1.md")
    assert "Conditional on one trained model" in page
    table = page.split("\n- ")[0]
    assert "*" in table and "†" not in table
    several = text(made(tmp_path / "several", seeds=(0, 1)), "table1.md")
    assert "Conditional" not in several and "†" in several.split("\n- ")[0]


@pytest.mark.parametrize(
    ("low", "high", "mark"), [(0.001, 0.01, "†"), (-0.01, -0.001, "†"), (-0.01, 0.01, ""), (0, 1, "")]
)
def test_seed_mark_needs_an_interval_without_zero(low, high, mark):
    assert rows._marks(False, (low, high)) == mark
    assert rows._marks(True, (low, high)) == "*" + mark


def test_a_diverged_training_is_marked_in_its_columns_and_ensembles_cells_and_explained(tmp_path):
    folder = write_fixture(tmp_path / "run", columns=SETS["all"])
    for column, best in (("tc_tm", 3), (AGGREGATOR, 0)):
        path = folder / "records" / f"train-{column}-0.json"
        ended = {"epoch": best + 1, "step": 2, "what": "loss or gradient is not finite"}
        write_json(path, read_json(path) | {"status": "diverged", "best_epoch": best, "diverged_at": ended})
    make_tables(folder)
    marked = {
        row["column"] for row in csv.DictReader(text(folder, "table1.csv").splitlines()) if "diverged" in row["marks"]
    }
    assert marked == {"tc_tm", "tc_ens", "dnn"}
    notes = [
        "TC-TM, seed 0: loss or gradient is not finite in epoch 4, scored with the weights of epoch 3",
        "DNN's LSTM, seed 0: loss or gradient is not finite in epoch 1, scored untrained",
    ]
    for name in ("table1.md", "table1_detail.md", "table1.tex"):
        page = text(folder, name)
        assert all(note in page for note in notes), name
        assert page.count(" diverged") >= 3 * 20, name
    assert all(note in card.markdown([card.card(Records.open(folder))]) for note in notes)
    shown = tables.metric_tables(Records.open(folder))["GAP"]
    assert {row.column.slug for row in shown if "diverged" in row.cells[0].ours} == marked
    assert "diverged" not in text(made(tmp_path / "sound"), "table1.md")


def test_undefined_cells_are_not_zero_and_say_why(tmp_path):
    folder = made(tmp_path, without_level="3")
    rows = [row for row in csv.DictReader(text(folder, "table1.csv").splitlines()) if row["level"] == "3"]
    assert all(row["ours"] == "" and "no video of the pool" in row["reason"] for row in rows)
    page = text(folder, "table1.md")
    assert (
        "GAP level 3; MAP level 3; PERR level 3; Hit@1 level 3: no video of the pool has a positive at level 3." in page
    )
    line = next(line for line in page.splitlines() if "Level 3" in line)
    assert {cell.strip() for cell in line.strip("|").split("|")[2:]} == {"-"}


def test_a_column_without_its_baseline_has_no_increment_and_says_why(tmp_path):
    folder = made(tmp_path, columns=("tc_rnn",))
    rows = list(csv.DictReader(text(folder, "table1.csv").splitlines()))
    assert all(row["gain"] == "" and "RNN-Attn" in row["reason"] for row in rows)
    assert all(row["ours"] for row in rows)


def test_the_protocol_hash_stands_under_each_table(tmp_path):
    folder = made(tmp_path)
    hashed = Records.open(folder).compare.protocol_hash[:16]
    for name in ("table1.md", "table1_detail.md", "table2.md", "table1.tex", "table2.tex"):
        assert hashed in text(folder, name)


def test_table2_measures_or_says_why_not(tmp_path):
    folder = made(tmp_path)
    columns = {column.column: column for column in rows.table2(Records.open(folder))}
    assert AGGREGATOR in columns and not {"base_ens", "tc_ens"} & set(columns)
    for column in columns.values():
        for name in ("gpu_torch_bytes", "gpu_nvml_bytes", "joules_per_1000_videos"):
            assert getattr(column, name) is None
            assert column.reasons[name] == "the run used no GPU"
    assert columns["tc_rnn"].slower == pytest.approx(1.04)
    assert columns["tc_rnn"].paper_minutes == 67.5
    assert columns["dnn"].megabytes == pytest.approx(4.72576)
    assert columns[AGGREGATOR].megabytes == pytest.approx(40.410112)
    page = text(folder, "table2.md")
    gpu = next(line for line in page.splitlines() if line.startswith("| Peak GPU memory, NVML"))
    letters = {cell.strip() for cell in gpu.strip("|").split("|")[1:]}
    assert len(letters) == 1 and f"- {letters.pop()} not measured: the run used no GPU." in page


def test_table2_of_a_gpu(tmp_path):
    folder = write_fixture(tmp_path)
    path = folder / "records" / "time-tm.json"
    record = read_json(path)
    record["gpu"] = {"peak_memory_bytes": 3e9, "energy_joules": 1590.0, "reason": None}
    write_json(path, record)
    column = next(each for each in rows.table2(Records.open(folder)) if each.column == "tm")
    assert column.gpu_torch_bytes == 3e9
    assert column.joules_per_1000_videos == pytest.approx(1590 / (3 * 50 * 64) * 1000)
    assert column.reasons == {"gpu_nvml_bytes": rows.NO_SAMPLE}


def test_table2_keeps_what_torch_and_nvml_say_apart_and_gives_each_its_own_reason(tmp_path):
    folder = write_fixture(tmp_path)
    path = folder / "records" / "time-tm.json"
    record = read_json(path)
    why = "NVML: Not Supported"
    record["gpu"] = {
        "peak_memory_bytes": 3e9, "nvml_peak_memory_bytes": 4e9, "energy_joules": None, "reason": why,
        "reasons": {"energy_joules": why},
    }  # fmt: skip
    write_json(path, record)
    column = next(each for each in rows.table2(Records.open(folder)) if each.column == "tm")
    assert (column.gpu_torch_bytes, column.gpu_nvml_bytes) == (3e9, 4e9)
    assert column.reasons == {"joules_per_1000_videos": why}
    make_tables(folder)
    page = text(folder, "table2.md")
    assert "Peak GPU memory, torch's allocator, MB" in page and "Peak GPU memory, NVML, MB" in page


def test_untimed_columns_are_blank_with_a_reason(tmp_path):
    folder = write_fixture(tmp_path, columns=SETS["pair"])
    (folder / "records" / "time-tc_rnn.json").unlink()
    column = rows.table2(Records.open(folder))[1]
    assert (column.seconds_per_epoch, column.slower) == (None, None)
    assert column.reasons["seconds_per_epoch"] == rows.UNTIMED
    assert column.megabytes is not None


def test_equal_records_give_equal_bytes(tmp_path):
    first, second = made(tmp_path / "a", seeds=(0, 1)), made(tmp_path / "b", seeds=(0, 1))
    for path in (first / "tables").iterdir():
        assert path.read_bytes() == (second / "tables" / path.name).read_bytes()


def test_missing_records_are_named(tmp_path):
    with pytest.raises(MissingResult, match=r"run\.json is missing"):
        make_tables(tmp_path)
    folder = write_fixture(tmp_path)
    (folder / "records" / "evaluate-tm-0.json").unlink()
    with pytest.raises(MissingResult, match=r"evaluate-tm-0\.json"):
        make_tables(folder)
    assert not (folder / "tables").exists()


def test_tables_of_a_run_whose_comparison_is_missing_leave_increments_blank(tmp_path):
    folder = write_fixture(tmp_path)
    (folder / "records" / "compare.json").unlink()
    make_tables(folder)
    text = (folder / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "No column was compared with another" in text and "(0.0)" not in text


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("50 % & more", r"50 \% \& more"),
        ("tc_rnn", r"tc\_rnn"),
        ("a\\b", r"a\textbackslash{}b"),
        ("{x}~^", r"\{x\}\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_latex_is_escaped(plain, escaped):
    assert latex_escape(plain) == escaped


def test_latex_has_the_rows_of_markdown_and_footnotes_set_high(tmp_path):
    folder = write_fixture(tmp_path)
    make_tables(folder)
    text, plain = ((folder / "tables" / f"table1.{kind}").read_text(encoding="utf-8") for kind in ("tex", "md"))
    for row, times in (("ours", 20), ("interval", 20), ("paper", 20), ("ours - paper", 20)):
        assert len(re.findall(rf"^[^&]*& {row} &", text, re.MULTILINE)) == times
    assert re.findall(r"\(\+\d\.\d\)\\textsuperscript\{([ab])\}", text) == ["a", "b"]
    for bounds in re.findall(r"\[[^\]]*, [^\]]*\]", plain):
        assert bounds in text


def test_latex_files_hold_no_bare_special_characters(tmp_path):
    folder = made(tmp_path, seeds=(0, 1))
    for name in ("table1.tex", "table2.tex"):
        body = text(folder, name)
        assert body.count("{") == body.count("}")
        assert not re.search(r"(?<!\\)[%#]", body)
        assert not re.search(r"(?<!\\)_", body)
        assert body.isascii(), set(body) - set(map(chr, range(128)))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex; the escaping tests above run everywhere")
def test_latex_compiles(tmp_path):
    folder = made(tmp_path, seeds=(0, 1))
    inputs = "".join(f"\\input{{{folder}/tables/table{number}.tex}}" for number in (1, 2))
    page = f"\\documentclass{{article}}\\usepackage{{booktabs,graphicx}}\\begin{{document}}{inputs}\\end{{document}}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_numbers_are_rounded_only_in_print():
    assert render.percent(0.90749) == "90.7"
    assert render.signed(-0.0004) == render.signed(0.0004) == render.signed(0.0) == "0.0"  # zero has no sign
    assert render.interval((-0.0004, 0.0004)) == "[0.0, 0.0]"
    assert render.interval((0.005, 0.011)) == "[+0.5, +1.1]"
    assert render.probability(0.0004) == "<0.001"
    assert render.percent(None) == render.signed(None) == render.interval(None) == ""


def test_bars_in_cells_do_not_break_markdown():
    assert r"a\|b" in render.markdown(["x"], [["a|b"]])
    assert r"a\|b" in render.markdown_plain(["x"], [["a|b"]])


def test_a_column_of_ones_own_stands_without_the_papers_figures(tmp_path):
    folder = write_fixture(tmp_path, columns=SETS["pair"])
    records = folder / "records"
    for stage in ("evaluate", "train", "time"):
        for path in records.glob(f"{stage}-tc_rnn*.json"):
            write_json(records / path.name.replace("tc_rnn", "mine"), read_json(path) | {"column": "mine"})
    write_json(records / "run.json", read_json(records / "run.json") | {"columns": ["rnn_attn", "tc_rnn", "mine"]})
    make_tables(folder)
    rows = [row for row in csv.DictReader(text(folder, "table1.csv").splitlines()) if row["column"] == "mine"]
    assert len(rows) == 20 and all(row["ours"] and not row["paper"] and not row["against_paper"] for row in rows)
    line = next(line for line in text(folder, "table1.md").splitlines() if "| paper" in line)
    assert line.strip("|").split("|")[-1].strip() == ""
    assert "mine" in text(folder, "table2.md") and "mine" in text(folder, "table1.tex")
