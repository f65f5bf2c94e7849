"""Claims: diff names every difference of two runs, pairs what is paired, and says when it cannot."""

import numpy as np
import pytest
from click.testing import CliRunner
from record_fixtures import write_fixture
from scipy import stats

from replicate.cli import main as cli
from replicate.diff import BY_VIDEO, PAIRED, SAME, UNPAIRED, change, describe, same_videos
from replicate.errors import MissingResult
from replicate.evaluate.influence import CELLS
from replicate.record import read_json, write_json
from replicate.report.records import Records


def edit(folder, name, change):
    path = folder / "records" / name
    record = read_json(path)
    change(record)
    write_json(path, record)


def jitter(folder):
    """Move every draw of TC-NetV by an amount of its own."""

    def change(record):
        for cell in record["cells"]:
            cell["draws"] = [value + 0.0007 * (number % 3) for number, value in enumerate(cell["draws"])]

    edit(folder, "evaluate-tc_netv-0.json", change)
    return folder


def sections(text):
    return {block.splitlines()[0].split(" (")[0]: block for block in text.split("\n\n")}


def test_a_run_and_itself(tmp_path):
    folder = write_fixture(tmp_path / "run")
    found = sections(describe(folder, folder))
    for name in ("Configuration", "Environment", "Data", "Code"):
        assert found[name].splitlines()[1:] == [f"  {SAME}"]
    run = Records.open(folder)
    cell = change(run, run, "tc_rnn", "GAP", "overall")
    assert cell.a == cell.b and cell.interval == (0, 0)


def test_each_kind_of_difference_is_named_under_its_heading(tmp_path):
    a, b = write_fixture(tmp_path / "a"), write_fixture(tmp_path / "b")

    def alter(record):
        record["configuration"]["training.epochs"] = 3
        record["packages"]["torch"] = "9.9"
        record["shards"][0]["sha256"] = "f" * 64
        record["code"]["commit"] = "a" * 40
        record["keys"]["predict-rnn-0"] = "other"

    edit(b, "run.json", alter)
    found = sections(describe(a, b))
    assert "  training.epochs: 12 -> 3" in found["Configuration"]
    assert "  torch: 2.13.0 -> 9.9" in found["Environment"]
    assert "shard shard-0.tfrecord" in found["Data"] and "f" * 64 in found["Data"]
    assert f"  commit: {'0' * 40} -> {'a' * 40}" in found["Code"]
    assert "another key names: predict-rnn-0" in found["Code"]


def test_what_one_side_lacks_is_a_dash(tmp_path):
    a, b = write_fixture(tmp_path / "a"), write_fixture(tmp_path / "b")
    edit(b, "run.json", lambda record: record["packages"].pop("numpy"))
    assert "  numpy: 2.4.6 -> -" in describe(a, b)
    assert "  numpy: - -> 2.4.6" in describe(b, a)


def test_values_are_written_as_in_a_profile_and_in_records(tmp_path):
    a, b = write_fixture(tmp_path / "a"), write_fixture(tmp_path / "b", columns=("rnn_attn", "tc_rnn"), seeds=(0, 1))

    def alter(record):
        record["configuration"] |= {"coherence.relu": True, "dataset.modalities": ["rgb"], "training.seeds": [0, 1]}
        record["machine"]["gpu_driver"] = "440.33"

    edit(b, "run.json", alter)
    found = sections(describe(a, b))
    assert "  seeds: [0] -> [0, 1]" in found["Configuration"]
    assert found["Configuration"].splitlines()[1].endswith(' -> ["rnn_attn", "tc_rnn"]')
    assert "  coherence.relu: false -> true" in found["Configuration"]
    assert '  dataset.modalities: [] -> ["rgb"]' in found["Configuration"]
    assert "  gpu_driver: null -> 440.33" in found["Environment"]


def test_long_lists_are_cut_and_counted(tmp_path):
    a, b = write_fixture(tmp_path / "a"), write_fixture(tmp_path / "b")
    edit(b, "run.json", lambda record: record.update(configuration={f"field{n}": n for n in range(100)}))
    found = sections(describe(a, b))["Configuration"]
    assert len(found.splitlines()) < 30 and " more" in found.splitlines()[-1]


def test_same_videos_are_paired_over_draws(tmp_path):
    a, b = write_fixture(tmp_path / "a"), jitter(write_fixture(tmp_path / "b", gain=2.0))
    runs = Records.open(a), Records.open(b)
    cell = change(*runs, "tc_netv", "MAP", "overall")
    draws = [np.array(run.cell("tc_netv", 0, "MAP", "overall").draws) for run in runs]
    oracle = stats.ttest_1samp(draws[1] - draws[0], 0).confidence_interval(0.95)
    assert cell.interval == pytest.approx((oracle.low, oracle.high))
    assert PAIRED in describe(a, b)


def test_influence_values_pair_over_videos(tmp_path):
    """Hit@1 on one draw of all videos: the influence value of a video is (hit - mean) / n, an oracle in closed form."""
    generator = np.random.default_rng(0)
    hits = generator.random((2, 400)) < np.array([[0.6], [0.65]])
    folders = []
    for name, hit in zip("ab", hits, strict=True):
        folder = write_fixture(tmp_path / name / "results" / "smoke", columns=("rnn",))
        edit(folder, "run.json", lambda record, name=name: record["keys"].update({"evaluate-rnn-0": f"key-{name}"}))
        cells = np.full((len(CELLS), 400), np.nan, np.float32)
        cells[CELLS.index(("Hit@1", "overall"))] = (hit - hit.mean()) / 400
        stage = tmp_path / name / "evaluate" / f"key-{name}"
        stage.mkdir(parents=True)
        np.save(stage / "influence.npy", cells)

        def set_mean(record, hit=hit):
            for cell in record["cells"]:
                cell["draws"] = [float(hit.mean())] * 5

        edit(folder, "evaluate-rnn-0.json", set_mean)
        folders.append(folder)
    cell = change(*map(Records.open, folders), "rnn", "Hit@1", "overall")
    difference = hits[1].astype(float) - hits[0]
    half = 1.959964 * difference.std() / np.sqrt(400)
    assert cell.method == BY_VIDEO
    assert cell.interval == pytest.approx((difference.mean() - half, difference.mean() + half), rel=1e-5)
    assert change(*map(Records.open, folders), "rnn", "GAP", "overall").method == PAIRED  # undefined values do not pair
    text = describe(*folders)
    assert BY_VIDEO in text and PAIRED in text


def test_other_videos_are_unpaired_wider_and_said_so(tmp_path):
    a, b = write_fixture(tmp_path / "a"), jitter(write_fixture(tmp_path / "b", gain=2.0))
    paired = change(Records.open(a), Records.open(b), "tc_netv", "MAP", "overall").interval
    edit(b, "run.json", lambda record: record["keys"].update(split="other"))
    runs = Records.open(a), Records.open(b)
    assert not same_videos(*runs)
    unpaired = change(*runs, "tc_netv", "MAP", "overall").interval
    draws = [run.cell("tc_netv", 0, "MAP", "overall").draws for run in runs]
    oracle = stats.ttest_ind(draws[1], draws[0], equal_var=False).confidence_interval(0.95)
    assert unpaired == pytest.approx((oracle.low, oracle.high))
    assert np.ptp(unpaired) > np.ptp(paired)
    assert UNPAIRED in describe(a, b)


def test_keys_that_are_absent_do_not_count_as_equal(tmp_path):
    folder = write_fixture(tmp_path)
    edit(folder, "run.json", lambda record: record.update(keys={}))
    run = Records.open(folder)
    assert not same_videos(run, run)


def test_undefined_cells_and_missing_columns(tmp_path):
    a = write_fixture(tmp_path / "a", without_level="3")
    b = write_fixture(tmp_path / "b", columns=("rnn_attn", "tc_rnn"))
    cell = change(Records.open(a), Records.open(b), "tc_rnn", "GAP", "3")
    assert (cell.a, cell.interval) == (None, None)
    text = describe(a, b, every_level=True)
    assert "Only in A: DNN" in text and "| 3 " in text
    assert "| 3 " not in describe(a, b)


def test_synthetic_against_real_is_called_incomparable(tmp_path):
    a, b = write_fixture(tmp_path / "a"), write_fixture(tmp_path / "b", data="real")
    assert "their numbers do not compare" in describe(a, b)
    assert "their numbers do not compare" not in describe(a, a)


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(MissingResult, match=r"run\.json is missing"):
        describe(tmp_path / "no", tmp_path / "no")


def test_a_path_that_is_no_folder_is_a_fault_of_usage_and_one_without_records_a_missing_result(replicate, tmp_path):
    folder = write_fixture(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        for pair in ((folder, tmp_path / name), (tmp_path / name, folder)):
            code, output, errors = replicate("diff", *pair)
            assert (code, output) == (2, "") and f"{tmp_path / name} is not a folder; name one" in errors
    code, output, errors = replicate("diff", folder, tmp_path / "empty")
    assert (code, output) == (3, "") and "run.json is missing" in errors


def test_verbs(tmp_path):
    write_fixture(tmp_path / "results" / "smoke")
    results = str(tmp_path / "results")
    ran = CliRunner().invoke(cli.group, ["claims", "--results", results, "--rules"])
    assert ran.exit_code == 0, ran.output
    assert "TC-RNN beats RNN-Attn in overall GAP." in ran.output and "by rule A; statistic: GAP of" in ran.output
    assert (tmp_path / "results" / "smoke" / "claims.json").is_file()
    ran = CliRunner().invoke(cli.group, ["diff", f"{results}/smoke", f"{results}/smoke"])
    assert ran.exit_code == 0 and SAME in ran.output
