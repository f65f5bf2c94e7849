"""Claims: verdicts follow the rules and nothing else, each claim can come out either way, and gaps are named."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from record_fixtures import write_fixture

import tc
from replicate.columns import COLUMNS
from replicate.record import read_json, write_json
from replicate.report.claims import judging, mathematics, training
from replicate.report.claims.gains import PAIRS
from replicate.report.claims.verdicts import (
    INCONCLUSIVE,
    REFUTED,
    SUPPORTED,
    UNTESTABLE,
    VERDICTS,
)
from replicate.report.pages import card
from replicate.report.records import Records
from replicate.schema import HEADLINE

GAINS = [f"gain-{column.removeprefix('tc_')}-{m.lower().replace('@', '')}" for column, _ in PAIRS for m in HEADLINE]


def judged(folder):
    return {result.name: result for result in judging.judge(folder)}


def edit(folder, pattern, change):
    """Change records as plain values; `change(record)` works in place."""
    paths = list((folder / "records").glob(pattern))
    assert paths
    for path in paths:
        record = read_json(path)
        change(record)
        write_json(path, record)


def shift(folder, column, amount, metrics=HEADLINE, levels=("overall",)):
    """Move a column's scores on every draw."""

    def change(record):
        for cell in record["cells"]:
            if cell["metric"] in metrics and cell["level"] in levels:
                cell["draws"] = [value + amount for value in cell["draws"]]
                cell["mean"] += amount

    edit(folder, f"evaluate-{column}-*.json", change)


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


# kernels and attention


@pytest.mark.parametrize(
    ("kernel", "peak", "bell"),
    [
        ([0.1, 0.2, 0.4, 0.2, 0.1], True, True),
        ([0.3, 0.1, 0.4, 0.1, 0.1], True, False),
        ([0.4, 0.3, 0.2, 0.1, 0.0], False, False),
        ([0.2, 0.2, 0.2, 0.2, 0.2], False, True),
    ],
)
def test_shape_of_a_kernel(kernel, peak, bell):
    array = np.array(kernel)
    assert (training.peaks_at_centre(array), training.is_bell(array)) == (peak, bell)


def test_a_kernel_and_its_negative_are_alike(tmp_path):
    folder = write_fixture(tmp_path, columns=("rnn_attn", "tc_rnn"))
    before = training.mean_kernels(Records.open(folder))

    def negate(record):
        record["kernels"] = {name: (-np.array(value)).tolist() for name, value in record["kernels"].items()}

    edit(folder, "explain-tc_rnn-0.json", negate)
    after = training.mean_kernels(Records.open(folder))
    assert len(before) == 1
    assert after[0][2] == pytest.approx(before[0][2])
    assert np.abs(before[0][2]).sum() == pytest.approx(1)


def test_kernels_that_peak_at_an_end_refute(tmp_path):
    folder = write_fixture(tmp_path, seeds=(0, 1))
    assert judged(folder)["kernels-peak-at-centre"].verdict == SUPPORTED

    def tilt(record):
        ramp = np.linspace(1, 0, 5)
        record["kernels"] = {name: (np.zeros_like(value) + ramp).tolist() for name, value in record["kernels"].items()}

    edit(folder, "explain-tc_*.json", tilt)
    results = judged(folder)
    assert results["kernels-peak-at-centre"].verdict == results["kernels-bell-shaped"].verdict == REFUTED


def test_kernels_that_started_peaked_prove_nothing(tmp_path):
    folder = write_fixture(tmp_path)
    edit(folder, "run.json", lambda record: record["configuration"].update({"coherence.initialisation": "identity"}))
    result = judged(folder)["kernels-peak-at-centre"]
    assert result.verdict == UNTESTABLE and "erratum 13" in result.evidence


def test_attention_can_be_less_uniform(tmp_path):
    folder = write_fixture(tmp_path)
    assert judged(folder)["attention-more-uniform"].verdict == SUPPORTED
    edit(folder, "explain-tc_rnn-0.json", lambda record: record["attention"]["share"].update(mean=0.2))
    assert judged(folder)["attention-more-uniform"].verdict == REFUTED


# costs


@pytest.mark.parametrize(("factor", "verdict"), [(1.02, SUPPORTED), (1.1, INCONCLUSIVE), (2.0, REFUTED)])
def test_overhead(tmp_path, factor, verdict):
    folder = write_fixture(tmp_path)
    seconds = read_json(folder / "records" / "time-tm.json")["seconds_per_step"] * factor

    def slow(record):
        record["seconds_per_step"] = seconds
        for repeat, spread in zip(record["repeats"], (0.99, 1.0, 1.02), strict=True):
            repeat["seconds_per_step"] = seconds * spread

    edit(folder, "time-tc_tm.json", slow)
    assert judged(folder)["overhead-small"].verdict == verdict


@pytest.mark.parametrize(("added", "verdict"), [(96, SUPPORTED), (60_000, REFUTED)])
def test_size(tmp_path, added, verdict):
    folder = write_fixture(tmp_path)
    before = read_json(folder / "records" / "train-netv-0.json")["weights_bytes"]
    edit(folder, "train-tc_netv-0.json", lambda record: record.update(weights_bytes=before + added))
    assert judged(folder)["size-unchanged"].verdict == verdict


# mathematics: the module's formulas against literal loops and against the layer


def literal(energies, features, i, reach, sign=-1):
    """exp(e_i) exp(sum over neighbours of e_j exp(sign ||h_i - h_j||)), Eq. 4 as printed."""
    total = 0.0
    for j in range(len(energies)):
        if j != i and abs(i - j) <= reach:
            distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(features[i], features[j], strict=True)))
            total += energies[j] * math.exp(sign * distance)
    return math.exp(energies[i]) * math.exp(total)


@pytest.mark.parametrize("sign", [-1, 1])
def test_neighbour_sum_is_equation_4_and_the_layer(sign):
    generator = np.random.default_rng(4)
    energies, features = generator.normal(size=6), generator.normal(size=(6, 3))
    weights = [literal(energies, features, i, 2, sign) for i in range(6)]
    oracle = np.array(weights) / sum(weights)
    summed = mathematics.neighbour_sum(energies, mathematics.pairwise(features), 2, sign)
    assert mathematics.softmax(summed) == pytest.approx(oracle, abs=1e-12)
    arguments = (
        torch.tensor(energies)[None, :, None],
        torch.tensor(features)[None],
        torch.ones(1, 6, dtype=torch.bool),
    )
    layer = tc.NeighbourhoodSum(reach=2, sign=sign)(*arguments)[0, :, 0].numpy()
    assert summed == pytest.approx(layer, abs=1e-5)


def test_computed_verdicts(tmp_path):
    results = judged(write_fixture(tmp_path, columns=("dnn",)))
    verdicts = {claim.name: results[claim.name].verdict for claim in mathematics.CLAIMS}
    assert verdicts == {
        "alpha-equal": REFUTED,
        "alpha-unequal": SUPPORTED,
        "neighbours-weigh-more-when-near": REFUTED,
        "boundary-switches": SUPPORTED,
        "eq7-follows-from-eq6": REFUTED,
        "eq7-is-a-convolution": REFUTED,
        "netvlad-ignores-order": SUPPORTED,
        "seven-labels-of-one-game": SUPPORTED,
    }
    difference = 0.8 * (1 - math.exp(-1))  # of the logits: (e_i - e_j)(1 - d)
    assert results["alpha-equal"].effect == pytest.approx(math.tanh(difference / 2), abs=1e-12)


@pytest.mark.parametrize(
    ("added", "epoch", "verdict"), [(0, 3, REFUTED), (-(10**9), 3, SUPPORTED), (-(10**9), 9, INCONCLUSIVE)]
)
def test_the_transformer_against_the_rnn(tmp_path, added, epoch, verdict):
    folder = write_fixture(tmp_path)
    edit(folder, "train-rnn_attn-0.json", lambda record: record.update(best_epoch=5))
    edit(folder, "train-tm-0.json", lambda r: r.update(weights_bytes=r["weights_bytes"] + added, best_epoch=epoch))
    result = judged(folder)["transformer-compact"]
    assert result.verdict == verdict and result.paper == pytest.approx(52 - 14.2)


def test_small_differences_of_rounding_do_not_reach_the_files(tmp_path):
    results = judged(write_fixture(tmp_path, columns=("dnn",)))
    assert results["netvlad-ignores-order"].effect == results["boundary-switches"].effect == 0
    assert not any("e-1" in results[claim.name].evidence for claim in mathematics.CLAIMS)


# what a run cannot test


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


# files and card


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
