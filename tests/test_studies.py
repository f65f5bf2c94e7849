"""Claims: studies are jobs of the same graph, common ones once; grids look at the tune split alone; ablations compare
with their own baselines; the multiverse is the factorial that it says it is; tables and figures come from records."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from record_fixtures import train_record

from replicate.cli.command import resolve
from replicate.cli.main import group
from replicate.collect import collect
from replicate.columns import AGGREGATOR
from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile, with_changes
from replicate.record import read_json, write_json
from replicate.report.figures.studies import make_study_figure
from replicate.report.tables.studies import make_study_table
from replicate.schema import HEADLINE, read_record
from replicate.stages import in_order
from replicate.studies import ablations, grid, multiverse
from replicate.studies.schema import AblateRecord, Arm, GridRecord, MultiverseRecord, OverallDifference, study_records
from replicate.studies.variants import arm_jobs, of_form

COHERENT = ("tc_rnn", "tc_netv", "tc_tm")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run directory that the verbs of this file share, so that common jobs run once."""
    return tmp_path_factory.mktemp("runs")


def invoke(runs, *words: str):
    result = CliRunner().invoke(group, [*words, "--profile", "tiny", "--out", str(runs)])
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def manifests(runs, stage: str) -> set[Path]:
    return set((runs / stage).glob("*/manifest.json"))


@dataclass(frozen=True)
class Study:
    """What a verb said, the trainings that it added to those of the studies before it, and the stages that had run."""

    said: str
    trained: set[Path]
    stages: set[str]

    @property
    def columns(self) -> set[str]:
        return {read_json(path)["identity"]["parameters"]["column"] for path in self.trained}


def studied(runs, *words: str) -> Study:
    before = manifests(runs, "train")
    said = invoke(runs, *words)
    return Study(said, manifests(runs, "train") - before, {path.name for path in runs.iterdir()})


@pytest.fixture(scope="module")
def grid_of_kernels(runs) -> Study:
    return studied(runs, "grid", "--model", "tc_rnn")


@pytest.fixture(scope="module")
def grid_of_heads(runs) -> Study:
    return studied(runs, "grid", "--model", "dnn")


@pytest.fixture(scope="module")
def ablated(runs, grid_of_kernels) -> Study:
    words = itertools.chain(*(("--only", key) for key in ("as_run", "shuffled", "audio_only", "eq_1_1")))
    return studied(runs, "ablate", "--model", "tc_rnn", *words)


# grids


def test_the_papers_grid_and_its_controls():
    cells = grid.candidates(load_profile("paper"), "tc_rnn")
    papers = {tuple(cell.values.values()) for cell in cells if not cell.control}
    assert papers == set(itertools.product((5, 9, 13, 17, 21), (1, 2, 4, 8, 16)))  # section 4.2
    assert {cell.values[grid.KERNEL] for cell in cells if cell.control} == {1, 3}
    assert all(with_changes(load_profile("paper"), cell.variant.assignments) for cell in cells)


@pytest.mark.parametrize("column", ["rnn_attn", "tc_ens", "rnn"])
def test_columns_without_a_layer_have_no_grid_and_no_ablation(column):
    for listing in (grid.candidates, ablations.rows):
        with pytest.raises(ConfigurationError, match="tc_rnn, tc_netv, tc_tm"):
            listing(load_profile("smoke"), column)
    with pytest.raises(ConfigurationError, match="tc_tm, or dnn for the grid of its hidden layers$"):
        grid.candidates(load_profile("smoke"), column)
    with pytest.raises(ConfigurationError, match="tc_tm$"):
        ablations.rows(load_profile("smoke"), column)


def test_grid_trains_the_cells_and_scores_no_test_video(runs, grid_of_kernels):
    record = read_record(runs / "results/tiny/records/grid-tc_rnn.json", GridRecord)
    assert [tuple(cell.values.values()) for cell in record.cells] == [(1, 1), (1, 4), (5, 1), (5, 4)]
    assert [cell.control for cell in record.cells] == [True, True, False, False]
    assert "train" in grid_of_kernels.stages and not {"predict", "evaluate"} & grid_of_kernels.stages
    assert len(grid_of_kernels.trained) == 5  # four cells and the baseline
    best = max(record.cells, key=lambda cell: cell.mean)
    assert record.cells[record.chosen] == best
    for line in record.lines:
        assert line in grid_of_kernels.said
    assert record.lines == (
        "[coherence]", f"kernel_size = {best.values[grid.KERNEL]}", f"maps = {best.values[grid.MAPS]}",
    )  # fmt: skip
    again = manifests(runs, "train")
    invoke(runs, "grid", "--model", "tc_rnn")
    assert manifests(runs, "train") == again


def test_a_number_that_a_grid_names_twice_is_one_cell():
    profile = load_profile("smoke", ("grid.kernel_sizes=[5,5]", "grid.controls=[5,1]", "grid.maps=[2,2]"))
    assert [tuple(cell.values.values()) for cell in grid.candidates(profile, "tc_rnn")] == [(1, 2), (5, 2)]
    heads = load_profile("smoke", ("grid.heads=[[8],[8]]",))
    assert len(grid.candidates(heads, "dnn")) == 1


def test_studies_of_a_profile_with_depthwise_kernels():
    """The forms with distances have none, and take the default instead."""
    loaded = load_profile("smoke", ("coherence.sharing=depthwise",))
    rows = [row.variant for row in ablations.rows(loaded, "tc_rnn") if not row.impossible]
    readings = [variant for _, variant in multiverse.combinations("tc_rnn")]
    for variant in (*rows, *readings, *multiverse.references()):
        coherence = with_changes(loaded, variant.assignments).coherence
        assert coherence.sharing == "depthwise" or coherence.form != "convolution"


def test_a_diverged_cell_is_not_chosen_however_high_it_came(monkeypatch, tmp_path):
    profile = load_profile("tiny")
    cells = grid.candidates(profile, "tc_rnn")
    gaps = {cell.variant.title: 0.1 * place for place, cell in enumerate(cells)}

    def trained(title, *_):
        record, last = train_record("tc_rnn", 0), title == cells[-1].variant.title
        ended = {"status": "diverged", "diverged_at": {"epoch": 9, "step": 1, "what": "loss or gradient is not finite"}}
        return [record.model_copy(update={"tune_gap": gaps.get(title, 0.0)} | (ended if last else {}))]

    monkeypatch.setattr(grid, "train_records", trained)
    graphs = [(cell, cell.variant.title) for cell in cells]  # in place of a graph, what its training is known by
    record = grid.grid_record(profile, "tc_rnn", graphs, "base", tmp_path)
    assert record.cells[-1].mean > record.cells[record.chosen].mean
    assert record.chosen == len(cells) - 2


def test_grid_of_the_dnn_shares_one_lstm(runs, grid_of_heads):
    record = read_record(runs / "results/tiny/records/grid-dnn.json", GridRecord)
    assert [cell.values for cell in record.cells] == [{"model.head": [16]}, {"model.head": [16, 16]}]
    assert len(grid_of_heads.trained) == 3 and grid_of_heads.columns == {"dnn", AGGREGATOR}
    assert len(manifests(runs, "aggregate")) == 1
    assert record.cells[1].parameters - record.cells[0].parameters == 16 * 17


def test_another_graphs_lstm_is_an_input_of_the_dnn_alone(tmp_path):
    command = resolve("tiny", (), None, str(tmp_path))
    shared = command.variant("wide", ("model.head=[32]",), command.graph.aggregate)
    own = command.variant("wide", ("model.head=[32]",))
    lstms = {
        name: [job.key for job in in_order([each.train("dnn", 0)]) if job.parameters.get("column") == AGGREGATOR]
        for name, each in {"base": command.graph, "shared": shared, "own": own}.items()
    }
    assert lstms["shared"] == lstms["base"] != lstms["own"]
    assert shared.train("dnn", 0).key not in (command.graph.train("dnn", 0).key, own.train("dnn", 0).key)
    assert shared.train("rnn", 0).key == own.train("rnn", 0).key


# ablations


@pytest.mark.parametrize("column", COHERENT)
@pytest.mark.parametrize("profile", ["smoke", "audioset", "paper"])
def test_every_row_is_a_valid_profile_that_changes_what_it_says(column, profile):
    loaded = load_profile(profile)
    baseline = {"tc_rnn": "rnn_attn", "tc_netv": "netv", "tc_tm": "tm"}[column]
    command = resolve(profile, (), None, "nowhere")
    graphs = {row.key: row for row in ablations.rows(loaded, column)}
    assert len(graphs) == len(ablations.rows(loaded, column))
    keys = {}
    for key, row in graphs.items():
        if row.impossible:
            continue
        graph = command.variant(row.variant.title, row.variant.assignments)
        keys[key] = graph.train(column, 0).key
        changed = graph.train(baseline, 0).key != command.graph.train(baseline, 0).key
        assert changed == row.both or key == "literal_protocol" and profile == "paper", key
    assert keys.pop("as_run") == command.graph.train(column, 0).key
    if profile == "paper":
        assert keys.pop("literal_protocol") == command.graph.train(column, 0).key  # the profile is the protocol
    assert len(set(keys.values())) == len(keys) and command.graph.train(column, 0).key not in keys.values()


def test_impossible_rows_say_why():
    audioset = {row.key: row for row in ablations.rows(load_profile("audioset"), "tc_netv")}
    assert "one modality" in audioset["modalities"].impossible
    assert "NetVLAD" in audioset["eq_1_1"].impossible


@pytest.mark.parametrize(("profile", "fewer"), [("smoke", 1000), ("audioset", 0.25), ("yt8m-1pct", None)])
def test_rows_are_what_their_titles_say(profile, fewer):
    loaded, changed = load_profile(profile), {}
    for row in ablations.rows(loaded, "tc_netv"):
        if not row.impossible:
            changed[row.key] = with_changes(loaded, row.variant.assignments)
    coherence = {key: each.coherence for key, each in changed.items()}
    assert (coherence["box"].initialisation, coherence["box"].trainable) == ("box", False)
    assert coherence["kernel_1"].kernel_size == 1 and coherence["several_sizes"].kernel_size == (1, 5, 9)
    assert {key: each.z for key, each in coherence.items() if each.z != "constant"} == {
        "exact_detected": "distance", "exact_adaptive": "adaptive", "exact_learned": "learned",
    }  # fmt: skip
    assert changed["shuffled"].dataset.frame_order == "shuffled" and not changed["padding"].model.mask
    before = loaded.split.train
    assert changed["quarter"].split.train == (before / 4 if fewer is None else fewer)
    for place, key in enumerate(["rgb", "audio"] if profile != "audioset" else []):
        assert changed[f"{key}_only"].dataset.modalities == (key,)
        assert changed[f"{key}_only"].model.netvlad_clusters == (loaded.model.netvlad_clusters[place],)


def test_the_literal_protocol_is_section_4_2():
    row = next(row for row in ablations.rows(load_profile("smoke"), "tc_rnn") if row.key == "literal_protocol")
    training = with_changes(load_profile("smoke"), row.variant.assignments).training
    assert (training.learning_rate, training.batch_size, training.epochs) == (2e-4, 128, 10)
    assert training.normalisation == "l2"


def test_ablate_compares_with_its_own_baseline(runs, ablated):
    record = read_record(runs / "results/tiny/records/ablate-tc_rnn.json", AblateRecord)
    rows = {row.key: row for row in record.rows}
    assert set(rows) == {"as_run", "shuffled", "audio_only", "eq_1_1"}
    for row in rows.values():
        for found in row.arm.differences:
            apart = row.arm.scores[found.metric] - row.arm.baseline_scores[found.metric]
            assert found.difference == pytest.approx(apart, abs=1e-12)
            assert found.interval[0] <= found.difference <= found.interval[1]
    assert rows["eq_1_1"].arm.baseline_scores == rows["as_run"].arm.baseline_scores
    assert rows["shuffled"].arm.baseline_scores != rows["as_run"].arm.baseline_scores
    assert "shuffled frames *" in ablated.said and "synthetic" in ablated.said.lower()
    # as_run's column is the grid's cell (5, 4), and the baseline is the grid's; neither is trained again
    assert ablated.columns == {"tc_rnn", "rnn_attn"} and len(ablated.trained) == 5
    again = invoke(runs, "ablate", "--model", "tc_rnn", "--only", "shuffled")
    table = again[again.index("## Ablations") : again.index("record: ")]
    assert table in ablated.said, "rows that were trained before have left the table"


def test_an_unknown_row_is_named():
    result = CliRunner().invoke(group, ["ablate", "--model", "tc_rnn", "--only", "shufled", "--out", "nowhere"])
    assert isinstance(result.exception, ConfigurationError) and "shuffled" in str(result.exception)


def test_plan_runs_nothing(tmp_path):
    for verb in ("grid", "ablate", "multiverse"):
        words = [verb, "--model", "tc_tm", "--plan", "--out", str(tmp_path / "runs")]
        result = CliRunner().invoke(group, words)
        assert result.exit_code == 0 and "train TC-TM" in result.output
        assert not (tmp_path / "runs").exists()


def test_a_plan_names_the_reading_of_every_comparison(tmp_path):
    plan = invoke(tmp_path, "multiverse", "--model", "tc_rnn", "--plan")
    variants = [*(variant for _, variant in multiverse.combinations("tc_rnn")), *multiverse.references()]
    compared = [line.split("  ")[0] for line in plan.splitlines() if line.startswith("compare")]
    assert compared == [f"compare {variant.title}" for variant in variants]
    assert resolve("tiny", (), None, str(tmp_path)).graph.compare(("rnn_attn", "tc_rnn")).label == "compare"


# the multiverse


def test_the_design_is_a_balanced_quarter_of_all_combinations():
    runs = multiverse.design()
    assert len(runs) == 32 == len({tuple(run.values()) for run in runs})
    for letter in "ABCDEFG":
        assert sum(run[letter] for run in runs) == 0
    for a, b in itertools.combinations("ABCDEFG", 2):  # any two factors meet in all four ways alike
        assert sum(run[a] * run[b] for run in runs) == 0
    for run in runs:
        assert run["F"] == run["A"] * run["B"] * run["C"] * run["D"]
        assert run["G"] == run["A"] * run["B"] * run["D"] * run["E"]


def test_aliasing_is_as_stated():
    """Found anew: of all products of up to seven letters, those that are constant; of pairs, those that coincide."""
    runs = multiverse.design()

    def column(word):
        return [sum(run[letter] < 0 for letter in word) % 2 for run in runs]

    words = [w for size in range(1, 8) for w in itertools.combinations("ABCDEFG", size) if len(set(column(w))) == 1]
    assert ["".join(word) for word in words] == list(multiverse.defining_words()) == ["CEFG", "ABCDF", "ABDEG"]
    pairs = list(itertools.combinations("ABCDEFG", 2))
    apart = {pair: (column(pair), [1 - level for level in column(pair)]) for pair in pairs}
    same = {frozenset(p + q) for p, q in itertools.combinations(pairs, 2) if apart[p][0] in apart[q]}
    assert same == {frozenset("CEFG")}
    assert {frozenset(group) for group in multiverse.aliased_pairs()} == {
        frozenset(("CE", "FG")), frozenset(("CF", "EG")), frozenset(("CG", "EF")),
    }  # fmt: skip


@pytest.mark.parametrize("column", COHERENT)
def test_every_combination_is_a_profile_of_its_own_and_the_mask_alone_touches_the_baseline(column):
    command = resolve("smoke", (), None, "nowhere")
    baseline = {"tc_rnn": "rnn_attn", "tc_netv": "netv", "tc_tm": "tm"}[column]
    keys, baselines = set(), {}
    for levels, variant in multiverse.combinations(column):
        graph = command.variant(variant.title, variant.assignments)
        keys.add(graph.train(column, 0).key)
        baselines.setdefault(levels["C"], set()).add(graph.train(baseline, 0).key)
        assert graph.profile.coherence.form == "distance_convolution"
        assert graph.profile.model.mask == (levels["C"] < 0)
        assert (graph.profile.coherence.sign, graph.profile.coherence.relu) == (levels["A"], levels["F"] > 0)
    assert len(keys) == 32
    assert [len(each) for each in baselines.values()] == [1, 1] and baselines[-1] != baselines[1]
    assert baselines[-1] == {command.graph.train(baseline, 0).key}


def arm(gain: float) -> Arm:
    differences = [
        OverallDifference(metric=metric, difference=gain, interval=(gain - 0.01, gain + 0.01), p=0.5)
        for metric in HEADLINE
    ]
    scores = dict.fromkeys(HEADLINE, 0.5)
    return Arm(
        scores=scores, baseline_scores=scores, differences=tuple(differences), tune_gap=(0.4,), status=("finished",),
        baseline_status=("finished",), parameters=7,
    )  # fmt: skip


@pytest.fixture
def multiverse_of_known_effects(monkeypatch, tmp_path):
    """A record whose gains are .01 + .02 A - .03 D + .005 CE, by the levels of each run."""
    profile = load_profile("smoke")
    of_runs = [0.01 + 0.02 * run["A"] - 0.03 * run["D"] + 0.005 * run["C"] * run["E"] for run in multiverse.design()]
    gains = iter([*of_runs, 0.0, 0.1])
    monkeypatch.setattr(multiverse, "read_arm", lambda *_: arm(next(gains)))
    variants = [(levels, variant, None) for levels, variant in multiverse.combinations("tc_rnn")]
    outside = [(variant, None) for variant in multiverse.references()]
    return multiverse.multiverse_record(profile, "tc_rnn", variants, outside, tmp_path)


def test_main_effects_are_clear_of_aliased_interactions(multiverse_of_known_effects):
    effects = {each.letter: each.effect for each in multiverse_of_known_effects.effects if each.metric == "GAP"}
    expected = dict.fromkeys("ABCDEFG", 0.0) | {"A": 0.04, "D": -0.06}
    assert effects == pytest.approx(expected, abs=1e-12)


def test_table_and_figure_of_the_multiverse_come_from_its_record(multiverse_of_known_effects, tmp_path):
    path = tmp_path / "records" / "multiverse-tc_rnn.json"
    path.parent.mkdir()
    path.write_text(multiverse_of_known_effects.model_dump_json(), encoding="utf-8")
    files = make_study_table(path) + make_study_figure(path)
    assert all(file.is_file() for file in files)
    text = files[0].read_text(encoding="utf-8")
    above = sum(each.arm.differences[0].difference > 0 for each in multiverse_of_known_effects.runs)
    assert f"GAP: above RNN-Attn in {above} of 32 readings" in text
    assert "F = ABCD, G = ABDE" in text and "CE with FG" in text and "synthetic data" in text.lower()
    first = {file.name: file.read_bytes() for file in files}
    assert {file.name: file.read_bytes() for file in make_study_table(path) + make_study_figure(path)} == first
    lines = (tmp_path / "tables" / "multiverse-tc_rnn.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 32 * len(HEADLINE) and lines[0].startswith("arm,A,B,C,D,E,F,G,metric")
    assert isinstance(read_record(path, MultiverseRecord), MultiverseRecord)


def test_the_table_of_the_multiverse_names_readings_that_diverged(multiverse_of_known_effects, tmp_path):
    path, record = tmp_path / "records" / "multiverse-tc_rnn.json", multiverse_of_known_effects
    runs = [run.model_dump() for run in record.runs]
    runs[4]["arm"]["status"], runs[6]["arm"]["baseline_status"] = ("diverged",), ("diverged",)
    write_json(path, record.model_dump(mode="json") | {"runs": json.loads(json.dumps(runs))})
    text = make_study_table(path)[0].read_text(encoding="utf-8")
    assert "Diverged, and counted as scored with their last good weights: reading 5, reading 7." in text


def test_a_fields_of_another_form_return_to_their_defaults():
    profile = load_profile("smoke", ("coherence.relu=true", "coherence.boundary=replicate", "coherence.maps=2"))
    changed = with_changes(profile, of_form("exact", sign=1)).coherence
    assert (changed.form, changed.sign, changed.relu, changed.boundary, changed.maps) == ("exact", 1, False, "zero", 4)


def test_common_jobs_of_a_study_are_one(tmp_path):
    command = resolve("tiny", (), None, str(tmp_path))
    graphs = [
        command.variant(row.variant.title, row.variant.assignments)
        for row in ablations.rows(command.profile, "tc_rnn")
        if not row.impossible
    ]
    jobs = in_order([job for graph in graphs for job in arm_jobs(graph, "tc_rnn")])
    stages = [job.stage.name for job in jobs]
    assert stages.count("synthesize") == stages.count("labels") == 1
    assert stages.count("split") == 2  # all the training videos, and a quarter of them
    trained = [job.parameters["column"] for job in jobs if job.stage.name == "train"]
    assert (trained.count("rnn_attn"), trained.count("tc_rnn")) == (7, 27)  # the baseline's: as run, and rows of both


@pytest.mark.usefixtures("grid_of_kernels", "grid_of_heads", "ablated")
def test_replicate_all_keeps_the_records_of_studies(runs):
    command = resolve("tiny", ('run.columns=["rnn_attn","tc_rnn"]',), None, str(runs))
    columns = command.profile.run.columns
    command.walk(command.graph.results(columns))
    results = runs / "results" / "tiny"
    (results / "records" / "evaluate-gone-0.json").write_text("{}", encoding="utf-8")
    before = study_records(results)
    collect(command.graph, columns, command.settings, results)
    assert study_records(results) == before and len(before) == 3
    assert not (results / "records" / "evaluate-gone-0.json").exists()
    assert json.loads(before[0].read_text(encoding="utf-8"))["column"] == "dnn"
