"""Claims: verdicts follow the rules and nothing else, each claim can come out either way, and gaps are named."""

import math

import numpy as np
import pytest
from judged_claims import edit, judged, shift
from record_fixtures import write_fixture

from replicate.columns import COLUMNS
from replicate.record import read_json
from replicate.report.claims import judging
from replicate.report.claims.gains import PAIRS
from replicate.report.claims.verdicts import INCONCLUSIVE, REFUTED, SUPPORTED, UNTESTABLE, VERDICTS
from replicate.schema import HEADLINE

GAINS = [f"gain-{column.removeprefix('tc_')}-{m.lower().replace('@', '')}" for column, _ in PAIRS for m in HEADLINE]


# the registry


def test_every_claim_is_named_once_and_complete(tmp_path):
    registry = judging.registry()
    assert len({claim.name for claim in registry}) == len(registry)
    for claim in registry:
        assert claim.text and claim.section and claim.statistic and claim.rule
    results = judged(write_fixture(tmp_path))
    assert set(results) == {claim.name for claim in registry}
    for result in results.values():
        assert result.verdict in VERDICTS
        assert result.evidence or result.verdict == SUPPORTED


def test_texts_and_rules_do_not_depend_on_results(tmp_path):
    fields = ("name", "text", "section", "statistic", "rule", "unit")
    runs = [write_fixture(tmp_path / str(gain), gain=gain, seeds=(0, 1)) for gain in (-1, 3)]
    first, second = ([[getattr(result, field) for field in fields] for result in judging.judge(run)] for run in runs)
    assert first == second


# gains


def test_the_papers_own_gains_are_supported(tmp_path):
    results = judged(write_fixture(tmp_path))
    for name in GAINS:
        assert results[name].verdict == SUPPORTED or results[name].interval[0] < 0, name
    assert results["gain-netv-map"].verdict == SUPPORTED
    assert results["gain-netv-map"].effect == pytest.approx(0.019, abs=0.002)
    assert results["gain-netv-map"].paper == pytest.approx(0.019)
    assert results["ensemble-best"].verdict == SUPPORTED
    assert results["netvlad-gains-most"].verdict == SUPPORTED
    assert results["falls-with-depth"].verdict == SUPPORTED
    assert results["column-order"].verdict == SUPPORTED


@pytest.mark.parametrize(("gain", "verdict"), [(-1, REFUTED), (0, REFUTED), (2, SUPPORTED)])
def test_a_gain_comes_out_either_way(tmp_path, gain, verdict):
    results = judged(write_fixture(tmp_path, gain=gain))
    assert results["gain-netv-gap"].verdict == verdict
    assert (
        results["gain-netv-gap"].interval[0] <= results["gain-netv-gap"].effect <= results["gain-netv-gap"].interval[1]
    )
    assert results["significant"].verdict == (SUPPORTED if gain == 2 else REFUTED)


def test_seeds_widen_a_gain_and_lift_the_condition(tmp_path):
    one, two = (judged(write_fixture(tmp_path / str(n), seeds=tuple(range(n)))) for n in (1, 2))
    assert one["gain-netv-gap"].conditional and not two["gain-netv-gap"].conditional
    for name in ("gain-ens-perr", "sizes-of-gains"):
        assert "seeds" in two[name].noise and "seeds" not in one[name].noise
    assert not one["alpha-equal"].conditional


@pytest.mark.parametrize(("seeds", "verdict"), [((-0.5, 0.53), INCONCLUSIVE), ((0.014, 0.016), SUPPORTED)])
def test_an_interval_spans_test_videos_and_seeds(tmp_path, seeds, verdict):
    folder = write_fixture(tmp_path, seeds=(0, 1))

    def change(record):
        for each in record["differences"]:
            each["difference"], each["simultaneous"] = 0.015, [0.01, 0.02]
            each["seeds"]["interval"] = seeds

    edit(folder, "compare.json", change)
    result = judged(folder)["gain-netv-gap"]
    half = math.hypot(0.005, seeds[1] - 0.015)
    assert result.interval == pytest.approx(
        (0.015 - half, 0.015 + half) if verdict == SUPPORTED else (-0.5, 0.53), 1e-3
    )
    assert result.verdict == verdict


def test_another_column_on_top_refutes_the_ensemble(tmp_path):
    folder = write_fixture(tmp_path)
    shift(folder, "dnn", 0.3)
    result = judged(folder)["ensemble-best"]
    assert result.verdict == REFUTED and "DNN" in result.evidence


def test_netvlad_gaining_least_refutes(tmp_path):
    folder = write_fixture(tmp_path)
    shift(folder, "tc_netv", -0.03)
    assert judged(folder)["netvlad-gains-most"].verdict == REFUTED


def test_gap_or_hit_gaining_more_refutes(tmp_path):
    folder = write_fixture(tmp_path)
    shift(folder, "tc_tm", 0.05, metrics=("GAP",))
    assert judged(folder)["map-gains-more-than-gap"].verdict == REFUTED
    shift(folder, "tc_tm", 0.2, metrics=("Hit@1",))
    assert judged(folder)["hit-gains-least"].verdict == REFUTED


def test_rising_with_depth_refutes_both_claims_on_levels(tmp_path):
    folder = write_fixture(tmp_path)
    shift(folder, "tc_rnn", -0.1, metrics=("GAP",), levels=("3",))
    assert judged(folder)["falls-less-with-coherence"].verdict == REFUTED
    shift(folder, "rnn", 0.3, metrics=("GAP",), levels=("3",))
    assert judged(folder)["falls-with-depth"].verdict == REFUTED


def test_reversed_columns_refute_the_order(tmp_path):
    folder = write_fixture(tmp_path)
    for place, column in enumerate(
        ("tc_ens", "tc_tm", "base_ens", "tm", "tc_rnn", "tc_netv", "rnn_attn", "netv", "dnn")
    ):
        shift(folder, column, -0.1 * (9 - place))
    assert judged(folder)["column-order"].verdict == REFUTED


@pytest.mark.parametrize(("sign", "verdict"), [(-1, SUPPORTED), (1, REFUTED)])
def test_gains_of_rare_classes(tmp_path, sign, verdict):
    folder = write_fixture(tmp_path)
    positives = np.array(read_json(folder / "records" / "run.json")["train_positives"])
    gain = 0.05 + sign * 0.02 * np.log(positives / positives.max())
    for column, baseline in PAIRS:
        base = np.array(read_json(folder / "records" / f"evaluate-{baseline}-0.json")["class_average_precision"]) * 0.5
        for slug, values in ((baseline, base), (column, base + gain)):
            edit(
                folder,
                f"evaluate-{slug}-0.json",
                lambda record, v=values: record.update(class_average_precision=v.tolist()),
            )
    assert judged(folder)["helps-rare-classes"].verdict == verdict


def test_spread_is_scaled_to_the_papers_draws(tmp_path):
    folder = write_fixture(tmp_path)
    results = judged(folder)
    largest = max(
        cell["sd"]
        for slug in COLUMNS
        for cell in read_json(folder / "records" / f"evaluate-{slug}-0.json")["cells"]
        if cell["metric"] in HEADLINE
    )
    assert results["spread-points"].effect == pytest.approx(largest * math.sqrt(1600 / 128_000))
    assert results["spread-fraction"].verdict == SUPPORTED
    edit(folder, "evaluate-*.json", lambda record: [cell.update(sd=1e-5) for cell in record["cells"]])
    assert judged(folder)["spread-points"].verdict == SUPPORTED
    edit(folder, "evaluate-*.json", lambda record: [cell.update(sd=0.4) for cell in record["cells"]])
    assert judged(folder)["spread-points"].verdict == REFUTED


# what a run cannot test


def test_a_claim_about_a_diverged_training_cannot_be_tested(tmp_path):
    folder = write_fixture(tmp_path, gain=3)
    before = judged(folder)
    ended = {"epoch": 2, "step": 2, "what": "loss or gradient is not finite"}
    edit(folder, "train-tc_rnn-0.json", lambda record: record.update(status="diverged", diverged_at=ended))
    after = judged(folder)
    assert before["gain-rnn-gap"].verdict == SUPPORTED
    assert after["gain-rnn-gap"].verdict == UNTESTABLE
    assert after["gain-rnn-gap"].evidence == "Needs TC-RNN, whose training diverged."
    assert after["gain-netv-gap"] == before["gain-netv-gap"]
    assert after["size-unchanged"] == before["size-unchanged"]


def test_missing_columns_are_named(tmp_path):
    results = judged(write_fixture(tmp_path, columns=("rnn", "rnn_attn", "tc_rnn", "dnn")))
    assert results["gain-rnn-gap"].verdict == SUPPORTED
    assert results["gain-tm-gap"].verdict == UNTESTABLE
    assert results["gain-tm-gap"].evidence == "Needs TC-TM, TM, which this run has not."
    assert results["ensemble-best"].verdict == UNTESTABLE


def test_undefined_cells_are_named(tmp_path):
    results = judged(write_fixture(tmp_path, without_level="3"))
    assert results["falls-with-depth"].verdict == UNTESTABLE
    assert "no video of the pool has a positive at level 3" in results["falls-with-depth"].evidence


def test_a_run_without_a_comparison(tmp_path):
    folder = write_fixture(tmp_path, columns=("dnn",))
    (folder / "records" / "compare.json").unlink()
    assert judged(folder)["gain-rnn-gap"].verdict == UNTESTABLE
