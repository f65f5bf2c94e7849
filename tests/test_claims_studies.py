"""Claims: what a study found decides, by written rules, what one run cannot test; without it the command is named."""

import numpy as np
import pytest
from judged_claims import judged
from record_fixtures import write_fixture
from scipy import stats

from replicate.errors import MissingResult
from replicate.record import read_json, write_json
from replicate.report.claims import judging
from replicate.report.claims.verdicts import INCONCLUSIVE, REFUTED, SUPPORTED, UNTESTABLE
from replicate.report.figures.studies import draw_study
from replicate.report.tables.studies import make_study_table
from replicate.schema import HEADLINE

SIZES, MAPS = (3, 5, 9), (1, 4, 16)
GRID, SMALL, PRIOR = "kernel-5-and-4-maps", "helps-small-training-sets", "label-prior-too-strong"
ORDER = "gain-needs-order"


def study(folder, kind, column="tc_rnn", seeds=(0,), **values):
    """Write a study's record beside the fixture's."""
    run = read_json(folder / "records" / "run.json")
    shared = {name: run[name] for name in ("profile", "title", "data", "configuration")}
    record = {**shared, "column": column, "baseline": "rnn_attn", "seeds": seeds, **values}
    write_json(folder / "records" / f"{kind}-{column}.json", record)


def grid(folder, gaps, seeds=(0,), **values):
    """A grid whose tune GAPs are {(size, maps): one per seed}; the profile calls none of them a control."""
    cells = [
        {
            "values": {"coherence.kernel_size": size, "coherence.maps": maps}, "control": False,
            "tune_gap": list(found), "mean": None if None in found else float(np.mean(found)),
            "best_epochs": [1] * len(seeds), "status": ["finished"] * len(seeds), "parameters": 1,
        }
        for (size, maps), found in gaps.items()
    ]  # fmt: skip
    axes = ("coherence.kernel_size", "coherence.maps")
    study(folder, "grid", seeds=seeds, axes=axes, cells=cells, baseline_gap=0.4, chosen=0, lines=(), **values)


def one_seed(best, spread=0.001):
    """All cells near 0.4, and 5 x 4 moved by `best`."""
    moved = dict(zip(MAPS, (-spread, 0.0, spread), strict=True))
    gaps = {(size, maps): [0.4 + moved[maps]] for size in SIZES for maps in MAPS}
    gaps[5, 4] = [0.4 + best]
    return gaps


def test_the_grid_is_read_and_without_it_the_command_is_named(tmp_path):
    folder = write_fixture(tmp_path)
    before = judged(folder)[GRID]
    assert before.verdict == UNTESTABLE and "`replicate grid --profile smoke --model tc_rnn`" in before.evidence
    grid(folder, one_seed(0.0005))
    found = judged(folder)[GRID]
    assert found.effect == pytest.approx(0.0005 - 0.001)  # against the best of the other cells, controls left out
    assert "place 3 of 6" in found.evidence and "No grid of TC-NetV, TC-TM." in found.evidence


def test_with_one_seed_the_interval_is_the_spread_over_numbers_of_maps(tmp_path):
    folder = write_fixture(tmp_path)
    grid(folder, one_seed(0.0))
    found = judged(folder)[GRID]
    spread = np.std([-0.001, 0.0, 0.001], ddof=1)
    half = stats.t.ppf(0.975, 6) * spread * np.sqrt(2)
    assert found.interval == pytest.approx((-0.001 - half, -0.001 + half)) and found.verdict == INCONCLUSIVE
    run = read_json(folder / "records" / "run.json")
    grid(folder, one_seed(0.0), configuration=run["configuration"] | {"coherence.relu": True})
    rectified = judged(folder)[GRID]  # then numbers of maps are more than starts
    assert rectified.interval is None and rectified.verdict == INCONCLUSIVE
    assert "Studied under another coherence.relu than the run's." in rectified.evidence


@pytest.mark.parametrize(("best", "verdict"), [(0.1, SUPPORTED), (0.0, INCONCLUSIVE), (-0.1, REFUTED)])
def test_seeds_decide_whether_5_and_4_is_best(tmp_path, best, verdict):
    seeds = (0, 1, 2, 3, 4)
    folder = write_fixture(tmp_path, seeds=seeds)
    noise = np.random.default_rng(1).normal(scale=0.004, size=(9, 5))
    places = [(size, maps) for size in SIZES for maps in MAPS]
    gaps = {place: 0.4 + noise[row] + (best if place == (5, 4) else 0) for row, place in enumerate(places)}
    grid(folder, {place: each.tolist() for place, each in gaps.items()}, seeds)
    assert judged(folder)[GRID].verdict == verdict


def test_a_grid_without_the_papers_cell_or_of_another_profile(tmp_path):
    folder = write_fixture(tmp_path)
    grid(folder, {(5, 1): [0.4], (9, 1): [0.4], (5, 4): [None]})
    assert judged(folder)[GRID].verdict == UNTESTABLE and "lacks 5 x 4" in judged(folder)[GRID].evidence
    grid(folder, one_seed(0.0), profile="tiny")
    with pytest.raises(MissingResult, match=r"grid-tc_rnn\.json is a study of tc_rnn under tiny"):
        judging.judge(folder)


def ablation(folder, gains, half=0.002, seeds=None, baselines=None):
    """Rows by key, each with one gain for all metrics; `seeds` has its differences by seed, `baselines` scores."""
    by_seed, base = seeds or dict.fromkeys(gains), {**dict.fromkeys(gains, 0.4), **(baselines or {})}
    rows = [
        {"key": key, "title": key, "about": "why", "assignments": [], "both": False, "reason": None, "arm": {
            "scores": dict.fromkeys(HEADLINE, base[key] + gain), "baseline_scores": dict.fromkeys(HEADLINE, base[key]),
            "differences": [
                {"metric": metric, "difference": gain, "interval": [gain - half, gain + half], "p": 0.5, "reason": None,
                 "seeds": noise_of(by_seed[key])}
                for metric in HEADLINE
            ],
            "tune_gap": [0.4], "status": ["finished"], "baseline_status": ["finished"], "parameters": 1,
        }}
        for key, gain in gains.items()
    ]  # fmt: skip
    study(folder, "ablate", seeds=list(range(len(next(iter(by_seed.values())) or [0]))), rows=rows)


def noise_of(differences):
    """What a comparison says of differences by seed; None without."""
    if differences is None:
        return None
    mean, half = np.mean(differences), stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    interval = [mean - half, mean + half]
    unread = {"p": 0.5, "p_welch": 0.5, "detectable": half, "two_level_interval": interval}
    return {"differences": differences, "mean": mean, "sd": np.std(differences, ddof=1), "interval": interval, **unread}


@pytest.mark.parametrize(("shuffled", "verdict"), [(0.0, SUPPORTED), (0.009, INCONCLUSIVE), (0.03, REFUTED)])
def test_a_gain_that_survives_shuffling_is_no_gain_of_order(tmp_path, shuffled, verdict):
    folder = write_fixture(tmp_path)
    before = judged(folder)[ORDER]
    assert before.verdict == UNTESTABLE and "--only as_run --only shuffled" in before.evidence
    ablation(folder, {"as_run": 0.01, "shuffled": shuffled})
    found = judged(folder)[ORDER]
    assert found.verdict == verdict and found.effect == pytest.approx(0.01 - shuffled)
    assert f"TC-RNN: GAP +1.00 as run, {100 * shuffled:+.2f} shuffled." in found.evidence


def test_rows_with_several_seeds_are_paired_by_seed_and_their_noise_counts(tmp_path):
    as_run, shuffled = [0.01, 0.02, 0.03], [0.004, 0.012, 0.026]
    folder = write_fixture(tmp_path, seeds=(0, 1, 2))
    ablation(folder, {"as_run": 0.02, "shuffled": 0.014}, half=1e-5, seeds={"as_run": as_run, "shuffled": shuffled})
    found = judged(folder)[ORDER]
    assert found.verdict == UNTESTABLE  # the gain itself is not clear over seeds: 0.02 +- 0.025
    as_run, shuffled = [0.018, 0.02, 0.022], [0.012, 0.012, 0.018]
    ablation(folder, {"as_run": 0.02, "shuffled": 0.014}, half=1e-5, seeds={"as_run": as_run, "shuffled": shuffled})
    found = judged(folder)[ORDER]
    half = np.hypot(stats.t.ppf(0.975, 2) * stats.sem([0.006, 0.008, 0.004]), 1e-5 * np.sqrt(2))
    assert found.interval == pytest.approx((0.006 - half, 0.006 + half)) and found.verdict == SUPPORTED
    table = make_study_table(folder / "records" / "ablate-tc_rnn.json")[0].read_text()
    low, high = (100 * each for each in noise_of(as_run)["interval"])  # beside which 1e-5 is nothing
    assert f"+2.00 [+{low:.2f}, +{high:.2f}]" in table and "intervals over test videos and training seeds" in table


@pytest.mark.parametrize("name", [ORDER, SMALL, PRIOR])
def test_a_study_of_one_seed_settles_nothing_beside_a_run_of_several(tmp_path, name):
    rows = {"as_run": 0.03, "shuffled": 0.0, "quarter": 0.06, "eq_1_1": 0.0, "eq_1_10": 0.03}
    for seeds, verdict in (((0,), SUPPORTED), ((0, 1, 2), UNTESTABLE)):
        folder = write_fixture(tmp_path / str(len(seeds)), seeds=seeds)
        ablation(folder, rows)
        assert judged(folder)[name].verdict == verdict
    evidence = judged(folder)[name].evidence
    assert evidence.startswith("The run has 3 seeds and the ablation one, whose draw this may be: +3.0 [+2.")
    assert evidence.endswith("ablate --profile smoke --model tc_rnn --set training.seeds=[0,1,2]` trains the others.")


def test_without_a_gain_there_is_none_to_explain(tmp_path):
    folder = write_fixture(tmp_path)
    ablation(folder, {"as_run": 0.001, "shuffled": 0.03})
    found = judged(folder)[ORDER]
    assert found.verdict == UNTESTABLE and found.evidence == "No increment of TC-RNN in GAP or MAP lies above 0."


@pytest.mark.parametrize(("quarter", "verdict"), [(0.03, SUPPORTED), (0.011, INCONCLUSIVE), (-0.03, REFUTED)])
def test_small_training_sets_by_the_row_that_has_a_quarter(tmp_path, quarter, verdict):
    folder = write_fixture(tmp_path)
    before = judged(folder)[SMALL]
    assert before.verdict == UNTESTABLE and "--only as_run --only quarter" in before.evidence
    ablation(folder, {"as_run": 0.01, "quarter": quarter})
    found = judged(folder)[SMALL]
    assert found.verdict == verdict and found.effect == pytest.approx(quarter - 0.01)
    assert found.interval[1] - found.effect == pytest.approx(0.002 * np.sqrt(2))  # of two independent increments


@pytest.mark.parametrize(("baseline", "verdict"), [(0.201, SUPPORTED), (0.199, UNTESTABLE)])
def test_models_that_hardly_learned_say_nothing(tmp_path, baseline, verdict):
    folder = write_fixture(tmp_path)
    ablation(folder, {"as_run": 0.01, "quarter": 0.03}, baselines={"quarter": baseline})
    found = judged(folder)[SMALL]
    assert found.verdict == verdict
    if verdict == UNTESTABLE:
        assert found.evidence.startswith("TC-RNN: under 'quarter' its baseline reaches GAP 19.9 of 40.0 as run: it")


@pytest.mark.parametrize(("last", "verdict"), [(0.03, SUPPORTED), (0.011, INCONCLUSIVE)])
def test_lambda_matters_where_increments_lie_apart(tmp_path, last, verdict):
    folder = write_fixture(tmp_path)
    assert "--only eq_1_0.1 --only eq_1_1 --only eq_1_10" in judged(folder)[PRIOR].evidence
    ablation(folder, {"as_run": 0.5, "eq_1_0.1": 0.01, "eq_1_1": 0.01, "eq_1_10": last})
    found = judged(folder)[PRIOR]
    assert found.verdict == verdict and found.effect == pytest.approx(last - 0.01)
    assert "lambda 10 over lambda" in found.evidence


def test_several_modalities_need_several_runs(tmp_path):
    synthetic, real = (judged(write_fixture(tmp_path / data, data=data)) for data in ("synthetic", "real"))
    assert "replicate diff" in synthetic["modalities-help"].evidence
    assert real["modalities-help"].evidence == "This dataset has one modality."


def test_figures_of_studies_name_the_baseline_and_what_marks_mean(tmp_path):
    folder = write_fixture(tmp_path)
    grid(folder, one_seed(0.0))
    ablation(folder, {"as_run": 0.01, "quarter": 0.02})
    heat, forest = (draw_study(folder / "records" / f"{kind}-tc_rnn.json") for kind in ("grid", "ablate"))
    assert heat.figure.axes[0].get_title(loc="left") == "RNN-Attn without the layer: 40.00"
    assert "Dashed: the paper's choice, 5 x 4. Controls: kernel sizes that the paper's grid lacks." in heat.caption
    assert {axes.get_xlabel() for axes in forest.figure.axes} == {"percentage points over RNN-Attn"}
    assert [text.get_text() for text in forest.figure.legends[0].get_texts()] == ["the layer alone changes"]


def test_rows_that_change_nothing_say_so(tmp_path):
    folder = write_fixture(tmp_path)
    ablation(folder, {"as_run": 0.01, "quarter": 0.02, "exact": 0.010000001})
    page = make_study_table(folder / "records" / "ablate-tc_rnn.json")[0].read_text(encoding="utf-8")
    assert page.count("to six decimals") == 1
    assert "'exact' scores as 'as_run' to six decimals: what it changes had no effect." in page
