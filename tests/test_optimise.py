"""Claims: one step is the protocol's arithmetic, by hand, and in parts what it is as a whole."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_corpus import NODES, SPEC, WIDTH, corpus
from toy_training import PROTOCOL, Toy, run

from replicate.compute import Compute
from replicate.data.batches import Batch
from replicate.training.optimise import Optimiser, clip_each, learning_rate, parts, video_loss
from replicate.training.train import WEIGHTS


def test_accumulated_gradients_train_as_whole_batches_do(tmp_path):
    """To rounding: 15 steps in parts of 5 videos, without what is drawn at random."""

    def calm():
        model = Toy()
        model.dropout = nn.Identity()
        return model

    run(tmp_path / "whole", calm())
    record = run(tmp_path / "parts", calm(), PROTOCOL.model_copy(update={"micro_batch_size": 5}))
    assert record["parts_per_step"] == 4
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-5)


def adam(parameters, gradients, moments, step, rate):
    """Kingma and Ba (2015), algorithm 1, in float64, after each gradient is clipped to a length of 1 by itself."""
    for name, gradient in gradients.items():
        gradient = gradient / max(1.0, np.sqrt((gradient**2).sum()))
        first, second = moments.setdefault(name, [np.zeros_like(gradient), np.zeros_like(gradient)])
        first[...] = 0.9 * first + 0.1 * gradient
        second[...] = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
        parameters[name] -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


def test_a_step_is_the_protocols_arithmetic():
    """A linear model of the videos' means, by hand: loss summed over nodes, mean over videos; clipping; Adam; decay."""
    source, labels = corpus()
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, NODES)
    model.forward = lambda frames, mask: nn.Linear.forward(model, frames.sum(dim=1) / mask.sum(dim=1, keepdim=True))
    optimiser = Optimiser(model, PROTOCOL.model_copy(update={"normalisation": "none"}), SPEC, Compute())
    weights = {name: tensor.detach().double().numpy().copy() for name, tensor in model.named_parameters()}
    moments = {}
    for step in range(1, 13):  # the rate falls at the tenth
        rows = np.arange(12 * (step - 1), 12 * step) % 96
        batch = Batch(*source.read(rows), labels.encode(rows), rows)
        dequantised = batch.features * SPEC.scale + SPEC.bias
        kept = np.arange(dequantised.shape[1]) < batch.lengths[:, None]
        means = (dequantised * kept[:, :, None]).sum(axis=1) / batch.lengths[:, None]
        logits = means @ weights["weight"].T + weights["bias"]
        probabilities = 1 / (1 + np.exp(-logits))
        loss = -np.where(batch.labels, np.log(probabilities), np.log(1 - probabilities)).sum()
        error = (probabilities - batch.labels) / len(rows)
        found, finite = optimiser.step(batch)
        assert bool(finite) and abs(float(found) - loss) < 1e-4 * loss
        rate = 0.01 * 0.5 ** (12 * (step - 1) // 100)
        adam(weights, {"weight": error.T @ means, "bias": error.sum(axis=0)}, moments, step, rate)
        for name, tensor in model.named_parameters():
            np.testing.assert_allclose(tensor.detach().numpy(), weights[name], rtol=1e-4, atol=1e-6)


def test_clipping_is_of_each_tensor_by_itself():
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.zeros(2)]
    norms = clip_each(gradients, 1.0)
    assert norms.tolist() == pytest.approx([5.0, 0.5, 0.0])
    assert [each.tolist() for each in gradients] == [pytest.approx([0.6, 0.8]), pytest.approx([0.3, 0.4]), [0.0, 0.0]]


def test_learning_rate_is_a_staircase():
    rates = [learning_rate(PROTOCOL, examples) for examples in (0, 99, 100, 199, 200)]
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025]


def test_loss_is_finite_at_any_logit():
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    right, wrong = torch.tensor([[True, False, True]]), torch.tensor([[False, True, True]])
    assert float(video_loss(logits, right)) == pytest.approx(np.log(2))
    assert float(video_loss(logits, wrong)) == pytest.approx(2e4 + np.log(2))


def test_parts_are_padded_to_their_own_longest():
    source, labels = corpus()
    rows = np.argsort(source.lengths, kind="stable")[:20]
    batch = Batch(*source.read(rows), labels.encode(rows), rows)
    found = list(parts(batch, 8))
    assert [len(part.rows) for part in found] == [8, 8, 4]
    assert [part.features.shape[1] for part in found] == [source.lengths[rows[i : i + 8]].max() for i in (0, 8, 16)]
    assert np.concatenate([part.rows for part in found]).tolist() == rows.tolist()
    assert list(parts(batch, 0)) == [batch]
