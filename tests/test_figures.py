"""Claims: figures show the records' numbers, say when data are synthetic, and equal records give equal bytes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from record_fixtures import ALL, write_fixture
from report_runs import complete_run

from replicate.errors import ConfigurationError, MissingResult
from replicate.report.figures.attention import draw_attention, draw_effective_frames
from replicate.report.figures.classes import bins_of, class_table
from replicate.report.figures.examples import draw_examples
from replicate.report.figures.gains import gain_table, score_table
from replicate.report.figures.kernels import kernel_table, random_band, site
from replicate.report.figures.make import PLANS, make_figures
from replicate.report.figures.style import RC, NotDrawn, save
from replicate.report.records import Records
from replicate.schema import AttentionSample, write_record
from replicate.studies.schema import GridCell, GridRecord

NAMES = {
    "figure7", "figure8", "figure9", "figure10", "figure10_pool", "gains", "against_paper", "class_gains",
    "learning_curves",
}  # fmt: skip
SUFFIXES = ("svg", "png", "csv")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A complete synthetic run with its figures."""
    return complete_run(tmp_path_factory)


@pytest.fixture(scope="module")
def records(made) -> Records:
    return Records.open(made)


def draw_all(records: Records) -> tuple[list, list[str]]:
    """Every drawing that the records allow, and the reasons for the others."""
    drawings, reasons = [], []
    with matplotlib.rc_context(RC):
        for plan in PLANS:
            try:
                drawings.append(plan.draw(records))
            except NotDrawn as reason:
                reasons.append(str(reason))
    return drawings, reasons


def entries(folder: Path) -> list[dict]:
    return json.loads((folder / "figures" / "figures.json").read_text())["figures"]


def test_a_complete_run_has_every_figure_as_svg_png_and_csv(made):
    files = {path.name for path in (made / "figures").iterdir()}
    assert files == {f"{name}.{suffix}" for name in NAMES for suffix in SUFFIXES} | {"figures.json"}
    skipped = [entry["title"] for entry in entries(made) if entry["skipped"]]
    assert skipped == ["Figure 10 for TM", "Grid", "Ablations", "Multiverse"]
    for name in NAMES:
        assert (made / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(made / "figures" / f"{name}.csv"))


def test_equal_records_give_equal_bytes_in_another_process(made, tmp_path):
    again = write_fixture(tmp_path / "smoke")
    command = f"from replicate.report.figures.make import make_figures; make_figures({str(again)!r})"
    own = tmp_path / "matplotlibrc"
    own.write_text("axes.prop_cycle: cycler('color', ['red'])\nlines.solid_capstyle: butt\nxtick.direction: in\n")
    environment = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    environment |= {"MATPLOTLIBRC": str(own)}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment)
    for path in sorted((made / "figures").iterdir()):
        assert (again / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_figures_of_synthetic_data_say_so_and_others_do_not(made, records, tmp_path):
    for entry in entries(made):
        if entry["name"] and entry["name"] != "figure7":  # the tree and its counts are real
            assert "synthetic data" in entry["title"]
            drawn = (made / "figures" / f"{entry['name']}.svg").read_text()
            assert "synthetic data" in drawn, f"{entry['name']}: the title is not in the drawing"
    drawings, _ = draw_all(Records.open(write_fixture(tmp_path, data="real")))
    assert {drawing.name for drawing in drawings} == NAMES
    assert not any("synthetic" in drawing.title for drawing in drawings)


@pytest.mark.parametrize(
    ("columns", "seeds", "expected"),
    [
        (("dnn",), (0,), {"figure7", "learning_curves"}),
        (("tc_netv",), (0,), {"figure7", "figure8", "learning_curves"}),
        (("rnn", "rnn_attn", "tc_rnn", "dnn"), (0,), NAMES - {"figure9"}),
        (("netv", "tc_netv", "tm", "tc_tm"), (0, 1), NAMES - {"figure9", "figure10", "figure10_pool"}),
        (ALL, (3, 5, 8), NAMES),
    ],
)
def test_any_subset_of_columns_gives_what_it_can_and_reasons_for_the_rest(tmp_path, columns, seeds, expected):
    drawings, reasons = draw_all(Records.open(write_fixture(tmp_path, columns=columns, seeds=seeds)))
    assert {drawing.name for drawing in drawings} == expected
    assert len(drawings) + len(reasons) == len(PLANS)
    assert all(len(reason.split()) > 3 for reason in reasons)


def test_a_level_without_positives_leaves_the_others(tmp_path):
    records = Records.open(write_fixture(tmp_path, without_level="3"))
    assert set(gain_table(records).level) == {"overall", "0", "1", "2"}
    drawings, _ = draw_all(records)
    assert {drawing.name for drawing in drawings} == NAMES


def test_columns_that_are_not_the_papers_are_drawn_without_its_values(made, tmp_path):
    folder = write_fixture(tmp_path, columns=("rnn_attn", "tc_rnn"))
    for path in sorted((folder / "records").glob("*.json")):  # the pair under names of its own
        renamed = path.with_name(path.name.replace("tc_rnn", "tc_mine").replace("rnn_attn", "mine"))
        text = path.read_text().replace('"tc_rnn"', '"tc_mine"').replace('"rnn_attn"', '"mine"')
        path.unlink()
        renamed.write_text(text)
    records = Records.open(folder)
    assert gain_table(records).paper_gain.isna().all() and score_table(records).paper.isna().all()
    drawings, reasons = draw_all(records)
    assert {drawing.name for drawing in drawings} >= {"gains", "class_gains", "learning_curves", "figure8"}
    assert "no column of this run is one of the paper's with a defined score" in reasons


def test_kernels_are_averaged_over_maps_and_heads_then_divided_by_their_absolute_sum(records):
    explained = records.explain["tc_tm", 0]
    kernels = explained.model_copy(
        update={"kernels": {"on_values": [[[1, 2, -3], [3, 2, -3]], [[5, 2, -3], [7, 2, -3]]], "silent": [[0, 0, 0]]}}
    )
    table = kernel_table(replace(records, explain={("tc_tm", 0): kernels}))
    values = table[table.layer == "on_values"]
    assert values.offset_frames.tolist() == [-1, 0, 1]
    assert values.weight.tolist() == [4, 2, -3]  # (1 + 3 + 5 + 7) / 4
    assert values.normalised.tolist() == pytest.approx([4 / 9, 2 / 9, -3 / 9])
    assert table[table.layer == "silent"].normalised.tolist() == [0, 0, 0]


def test_nine_of_ten_untrained_weights_lie_in_the_band():
    low, high = random_band(4, 5)
    tries = np.random.default_rng(1).normal(size=(20_000, 5))  # a mean of four uniform numbers is nearly normal
    tries /= np.abs(tries).sum(axis=1, keepdims=True)
    assert ((tries > low) & (tries < high)).mean() == pytest.approx(0.9, abs=0.01)
    assert low == pytest.approx(-high, abs=0.01) and 0.3 < high < 0.5  # a bell's peak, 0.5 and more, lies beyond


def test_the_place_of_a_kernel_is_named_as_in_the_paper():
    assert site("layers.1.attention.on_keys.layer") == "K, layer 2"
    assert site("layers.0.attention.on_values.layer") == "V, layer 1"
    assert site("on_frames.1.layer") == "modality 2"
    assert site("on_states.layer") == ""


def test_the_caption_of_kernels_says_how_they_started(records):
    def caption(start: str) -> str:
        configuration = records.run.configuration | {"coherence.initialisation": start}
        run = records.run.model_copy(update={"configuration": configuration})
        return next(p for p in PLANS if p.key == "8").draw(replace(records, run=run)).caption

    assert "Initialisation: random. Grey: where 90 %" in caption("random")
    assert "no evidence" in caption("identity")


def test_attention_is_the_records_and_effective_frames_are_exp_entropy(records, made):
    table = draw_attention(records).data
    for column in ("rnn_attn", "tc_rnn"):
        for sample in records.explain[column, 0].attention.samples:
            shown = table[(table.column == column) & (table.video == sample.id)]
            assert shown.attention.tolist() == list(sample.attention)
    weights = np.array(records.explain["tc_rnn", 0].attention.samples[0].attention)
    effective = np.prod(weights**-weights)  # exp(entropy) without a logarithm
    assert f"{effective:.1f} of 40 frames" in (made / "figures" / "figure10.svg").read_text()


def test_a_frame_without_attention_counts_as_none(records, tmp_path):
    def with_sample(column: str, attention: tuple[float, ...]):
        record = records.explain[column, 0]
        samples = (AttentionSample(row=0, id=r"$\frac{$ <b>", attention=attention),)
        return record.model_copy(update={"attention": record.attention.model_copy(update={"samples": samples})})

    explain = {
        ("rnn_attn", 0): with_sample("rnn_attn", (0.5, 0.0, 0.5, 0.0)),
        ("tc_rnn", 0): with_sample("tc_rnn", (0.25,) * 4),
    }
    with matplotlib.rc_context(RC):
        drawing = draw_attention(replace(records, explain=explain))
    titles = [axes.get_title(loc=side) for axes in drawing.figure.axes for side in ("left", "right")]
    assert titles == ["RNN-Attn", "2.0 of 4 frames", "TC-RNN", "4.0 of 4 frames"]
    assert {axes.get_xlabel() for axes in drawing.figure.axes} == {r"seconds of video $\frac{$ <b>"}
    save(drawing, tmp_path)  # a dollar sign in a name is no formula


def test_pairs_must_show_the_same_videos(records):
    record = records.explain["tc_rnn", 0]
    moved = record.attention.model_copy(update={"samples": record.attention.samples[::-1]})
    explain = records.explain | {("tc_rnn", 0): record.model_copy(update={"attention": moved})}
    with pytest.raises(NotDrawn, match="different sample videos"):
        draw_attention(replace(records, explain=explain))


def test_the_pool_histogram_counts_every_video_once(records):
    table = draw_effective_frames(records).data
    bins = table[[name for name in table if name.startswith("share_bin_")]]
    assert len(bins.columns) == 20 and (bins.sum(axis=1) == table.videos).all()


def test_gains_are_the_compared_differences_beside_the_printed_ones(records):
    table = gain_table(records).set_index(["column", "metric", "level"])
    assert len(table) == 4 * 4 * 5
    for each in records.compare.differences:
        if (each.column, each.metric, each.level) in table.index:
            row = table.loc[each.column, each.metric, each.level]
            assert (row.gain, row.low, row.high) == (each.difference, *each.interval)
    printed = table.paper_gain
    assert printed["tc_netv", "MAP", "overall"] == pytest.approx(0.019)  # Table 1, as printed
    assert printed["tc_ens", "GAP", "1"] == pytest.approx(0.007)  # 94.2 - 93.5, printed as +0.6 (erratum 31)


def test_scores_against_the_paper_cover_all_200_cells(records):
    table = score_table(records)
    assert len(table) == 200
    cell = table[(table.column == "tc_ens") & (table.metric == "Hit@1") & (table.level == "3")].iloc[0]
    assert cell.paper == pytest.approx(0.89) and cell.ours == records.cell("tc_ens", 0, "Hit@1", "3").mean


def test_class_gains_are_differences_of_average_precision(records):
    precision = {slug: list(records.evaluate[slug, 0].class_average_precision) for slug in ("rnn_attn", "tc_rnn")}
    precision["tc_rnn"][1] = precision["rnn_attn"][1] = None  # no positive in the pool
    positives = (7, 5, 0, *records.run.train_positives[3:])  # none in training
    evaluate = {
        (slug, 0): records.evaluate[slug, 0].model_copy(update={"class_average_precision": tuple(values)})
        for slug, values in precision.items()
    }
    run = records.run.model_copy(update={"columns": ("rnn_attn", "tc_rnn"), "train_positives": positives})
    table = class_table(replace(records, run=run, evaluate=evaluate))
    assert len(table) == len(positives) - 2
    assert not {records.run.node_names[1], records.run.node_names[2]} & set(table.node)
    assert table.gain.iloc[0] == precision["tc_rnn"][0] - precision["rnn_attn"][0]
    assert table.train_positives.iloc[0] == 7


def test_groups_of_classes_are_equally_large_and_ordered():
    rows = pd.DataFrame({"node": list("abcdefghij"), "train_positives": range(10, 0, -1), "gain": range(10)})
    groups = bins_of(rows)  # ten nodes in eight groups: two of two, six of one
    assert groups.train_positives.tolist() == pytest.approx([2**0.5, 12**0.5, 5, 6, 7, 8, 9, 10])
    assert groups.gain.tolist() == [8.5, 6.5, 5, 4, 3, 2, 1, 0]
    assert groups.error.tolist() == pytest.approx([0.5, 0.5, 0, 0, 0, 0, 0, 0])


def test_examples_mark_the_predictions_that_are_true(records):
    table = draw_examples(records).data
    first = table[table.video == "v0001"]
    assert first[first.source == "truth"].node.tolist() == ["Sports", "Sports:Water", "Sports:Water:Swimming"]
    assert first[first.source == "tc_ens"].correct.tolist() == [True, True]
    assert first[first.source == "base_ens"].correct.tolist() == [False, False]


def test_studies_of_the_run_are_among_its_figures(tmp_path):
    folder = write_fixture(tmp_path, columns=("dnn",))
    cells = tuple(
        GridCell(
            values={"coherence.kernel_size": size, "coherence.maps": maps}, control=size < 5,
            tune_gap=(0.4 + size / 100,), mean=0.4 + size / 100, best_epochs=(3,), status=("finished",), parameters=24,
        )
        for size in (1, 5) for maps in (1, 4)
    )  # fmt: skip
    record = GridRecord(
        profile="smoke", title="smoke", data="synthetic", column="tc_rnn", baseline="rnn_attn", seeds=(0,),
        configuration={}, axes=("coherence.kernel_size", "coherence.maps"), cells=cells, baseline_gap=0.4, chosen=3,
        lines=(),
    )  # fmt: skip
    write_record(folder / "records" / "grid-tc_rnn.json", record)
    assert [path.name for path in make_figures(folder, only="grid")] == [f"grid-tc_rnn.{s}" for s in SUFFIXES]
    with pytest.raises(MissingResult, match="figure multiverse cannot be made of .*`replicate multiverse"):
        make_figures(folder, only="multiverse")


def test_one_figure_can_be_made_alone(made, tmp_path):
    folder = write_fixture(tmp_path)
    assert [path.name for path in make_figures(folder, only="8")] == ["figure8.svg", "figure8.png", "figure8.csv"]
    assert (folder / "figures" / "figure8.svg").read_bytes() == (made / "figures" / "figure8.svg").read_bytes()
    with pytest.raises(ConfigurationError, match="no figure '11'; choose one of 7, 8, 9, 10"):
        make_figures(folder, only="11")


def test_a_figure_asked_for_that_cannot_be_made_is_an_error(tmp_path):
    folder = write_fixture(tmp_path, columns=("dnn",))
    with pytest.raises(MissingResult, match="figure 8 cannot be made of .*no column of this run has a temporal"):
        make_figures(folder, only="8")


def test_files_that_are_no_longer_made_disappear(tmp_path):
    folder = write_fixture(tmp_path, columns=("dnn",))
    stale = folder / "figures" / "figure8.svg"
    stale.parent.mkdir()
    stale.write_text("of an earlier run")
    make_figures(folder)
    assert not stale.exists() and (stale.parent / "learning_curves.svg").exists()
