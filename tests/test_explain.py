"""Claims: the effective number of frames is what its closed forms say; the record holds every video's own attention and
nothing of the padding; every column shows the same sample videos."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from toy_corpus import SPEC, WIDTH, corpus

from replicate.errors import DataError
from replicate.explain import BINS, QUANTILES, effective_frames, explain

IDS = np.array([f"v{row}".encode() for row in range(96)])
ROWS = np.random.default_rng(4).permutation(96)[:30]


class Attentive(nn.Module):
    """Attends by the first feature, as a model of the RNN-Attn kind does by its states."""

    def __init__(self, sharpness: float = 3.0):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def attention(self, frames, mask):
        energies = (self.sharpness * frames[:, :, 0]).masked_fill(~mask, -torch.inf)
        return torch.softmax(energies, dim=1)


@pytest.mark.parametrize(
    ("weights", "frames"),
    [
        ([1, 0, 0, 0], 1),
        ([0.25] * 4, 4),
        ([0.5, 0.5, 0, 0], 2),
        ([0.5, 0.25, 0.25, 0], 2**1.5),
        ([1 / 3, 1 / 3, 1 / 3, 0], 3),
    ],
)
def test_effective_frames_in_closed_form(weights, frames):
    found = effective_frames(torch.tensor([weights], dtype=torch.float32))
    assert found.dtype == torch.float64 and float(found) == pytest.approx(frames, rel=1e-6)


def attention_of(source, row):
    """By definition, in float64."""
    frames = source.features[row, : source.lengths[row]] * SPEC.scale + SPEC.bias
    normalised = frames / np.sqrt((frames**2).sum(axis=1, keepdims=True))
    weights = np.exp(3 * normalised[:, 0])
    return weights / weights.sum()


def run(tmp_path, model, kernels=None, samples=4, rows=ROWS):
    source, _ = corpus()
    return source, explain(model, kernels or {}, source, rows, IDS, samples, SPEC, "l2", 8, tmp_path)


def test_every_videos_attention(tmp_path):
    source, record = run(tmp_path, Attentive())
    expected = [attention_of(source, row) for row in ROWS]
    effective = np.array([np.exp(-(weights * np.log(weights)).sum()) for weights in expected])
    with np.load(tmp_path / "explain.npz") as arrays:
        np.testing.assert_allclose(arrays["effective_frames"], effective, rtol=1e-5)
        assert arrays["frames"].tolist() == source.lengths[ROWS].tolist()
    attention = record["attention"]
    assert attention["videos"] == 30
    assert attention["frames"] == pytest.approx(source.lengths[ROWS].mean())
    for name, values in (("effective_frames", effective), ("share", effective / source.lengths[ROWS])):
        found = attention[name]
        assert found["mean"] == pytest.approx(values.mean(), rel=1e-5)
        assert found["sd"] == pytest.approx(values.std(), rel=1e-4)
        quantiles = [found["quantiles"][str(level)] for level in QUANTILES]
        np.testing.assert_allclose(quantiles, np.quantile(values, QUANTILES), rtol=1e-5)
    histogram = attention["share"]["histogram"]
    assert len(histogram) == BINS and sum(histogram) == 30
    assert [each["row"] for each in attention["samples"]] == ROWS[:4].tolist()
    assert [each["id"] for each in attention["samples"]] == [f"v{row}" for row in ROWS[:4]]
    for sample, weights in zip(attention["samples"], expected, strict=False):
        np.testing.assert_allclose(sample["attention"], weights, rtol=1e-5)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_kernels_are_kept_and_a_model_without_attention_has_none(tmp_path):
    kernels = {"on_states.layer": np.arange(8, dtype=np.float32).reshape(2, 4)}
    _, record = run(tmp_path, nn.Linear(WIDTH, 2), kernels)
    assert record["attention"] is None
    assert record["kernels"] == {"on_states.layer": [[0, 1, 2, 3], [4, 5, 6, 7]]}
    with np.load(tmp_path / "explain.npz") as arrays:
        assert list(arrays) == ["kernel/on_states.layer"]
        assert np.array_equal(arrays["kernel/on_states.layer"], kernels["on_states.layer"])


def test_attention_that_is_not_finite_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="attention is not finite; its training diverged"):
        run(tmp_path, Attentive(float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_fewer_videos_than_samples(tmp_path):
    _, record = run(tmp_path, Attentive(), samples=50, rows=ROWS[:3])
    assert len(record["attention"]["samples"]) == 3
