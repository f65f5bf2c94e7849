"""Claims: what trainings left, kernels, attention, sizes and times of a step, decides by the rules, either way."""

import numpy as np
import pytest
from judged_claims import edit, judged
from record_fixtures import write_fixture

from replicate.record import read_json
from replicate.report.claims import training
from replicate.report.claims.verdicts import INCONCLUSIVE, REFUTED, SUPPORTED, UNTESTABLE
from replicate.report.records import Records

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


@pytest.mark.parametrize(
    ("added", "epoch", "verdict"), [(0, 3, REFUTED), (-(10**9), 3, SUPPORTED), (-(10**9), 9, INCONCLUSIVE)]
)
def test_the_transformer_against_the_rnn(tmp_path, added, epoch, verdict):
    folder = write_fixture(tmp_path)
    edit(folder, "train-rnn_attn-0.json", lambda record: record.update(best_epoch=5))
    edit(folder, "train-tm-0.json", lambda r: r.update(weights_bytes=r["weights_bytes"] + added, best_epoch=epoch))
    result = judged(folder)["transformer-compact"]
    assert result.verdict == verdict and result.paper == pytest.approx(52 - 14.2)
