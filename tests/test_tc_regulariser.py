"""Claims: Eq. 1's term is the variance of predictions within segments, zero for coherent ones, and trains a model."""

import math

import pytest
import torch
from torch import nn

import tc

VIDEOS, TIME, CLASSES = 3, 8, 4
LENGTHS = (8, 5, 1)
CUTS = ((3, 6), (2,), ())  # frames that begin a segment


@pytest.fixture
def videos():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(VIDEOS, TIME, CLASSES, dtype=torch.float64, generator=generator)
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]
    continuity = torch.ones(VIDEOS, TIME - 1, dtype=torch.bool)
    for video, cuts in enumerate(CUTS):
        continuity[video, [cut - 1 for cut in cuts]] = False
    return logits, mask, continuity


def loop(logits, cuts) -> float:
    """One video's L_labelprior: frame by frame against the mean prediction of its segment."""
    length = len(logits)
    p = [[1 / (1 + math.exp(-float(x))) for x in frame] for frame in logits]
    total = 0.0
    for begin, end in zip((0, *cuts), (*cuts, length), strict=True):
        for c in range(CLASSES):
            mean = sum(p[t][c] for t in range(begin, end)) / (end - begin)
            total += sum((p[t][c] - mean) ** 2 for t in range(begin, end))
    return total / length


def test_equals_the_loop(videos):
    logits, mask, continuity = videos
    expected = [0.3 * loop(logits[v, :length], CUTS[v]) for v, length in enumerate(LENGTHS)]
    result = tc.LabelPrior(0.3)(logits, mask, continuity)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


def test_without_boundaries_a_video_is_one_segment(videos):
    logits, mask, _ = videos
    expected = [loop(logits[v, :length], ()) for v, length in enumerate(LENGTHS)]
    torch.testing.assert_close(tc.LabelPrior(1.0)(logits, mask), torch.tensor(expected, dtype=torch.float64))


def test_takes_the_output_of_a_detector(videos):
    logits, mask, continuity = videos
    steps = torch.where(continuity, 0.0, 9.0)
    places = nn.functional.pad(steps.cumsum(dim=1), (1, 0)).unsqueeze(-1)  # frames on a line, with jumps at the cuts
    detected = tc.DistanceDetector(1.0)(places)
    torch.testing.assert_close(tc.LabelPrior(1.0)(logits, mask, detected), tc.LabelPrior(1.0)(logits, mask, continuity))


def test_coherent_predictions_cost_nothing():
    logits = torch.randn(2, 1, CLASSES, generator=torch.Generator().manual_seed(0)).expand(2, TIME, CLASSES)
    torch.testing.assert_close(tc.LabelPrior(5.0)(logits), torch.zeros(2), rtol=0, atol=1e-6)


def test_lambda_zero_is_the_original_loss(videos):
    assert not tc.LabelPrior(0.0)(*videos).any()


def test_padding_changes_nothing(videos):
    logits, mask, continuity = videos
    prior = tc.LabelPrior(1.0)
    altered = torch.where(mask.unsqueeze(-1), logits, 9.0)
    torch.testing.assert_close(prior(altered, mask, continuity), prior(logits, mask, continuity), rtol=1e-12, atol=0)


def test_gradients_are_finite_differences(videos):
    logits, mask, continuity = videos
    prior = tc.LabelPrior(0.7)
    assert torch.autograd.gradcheck(lambda x: prior(x, mask, continuity), (logits.clone().requires_grad_(),))


def test_training_with_it_gives_more_coherent_predictions():
    """The same model, data and steps; only lambda differs."""

    def variance_after_training(strength: float) -> float:
        generator = torch.Generator().manual_seed(0)
        frames = torch.randn(32, TIME, 6, generator=generator)
        labels = (frames.mean(dim=1)[:, :CLASSES] > 0).float()
        model = nn.Linear(6, CLASSES)
        with torch.no_grad():
            model.weight.normal_(generator=generator)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
        prior = tc.LabelPrior(strength)
        for _ in range(60):
            frame_logits = model(frames)
            loss = nn.functional.binary_cross_entropy_with_logits(frame_logits.mean(dim=1), labels, reduction="none")
            optimiser.zero_grad()
            (loss.sum(dim=1) + prior(frame_logits)).mean().backward()
            optimiser.step()
        return tc.LabelPrior(1.0)(model(frames)).mean().item()

    assert variance_after_training(10.0) < 0.5 * variance_after_training(0.0)


@pytest.mark.parametrize("strength", [-1.0, float("nan")])
def test_a_lambda_that_is_negative_or_no_number_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        tc.LabelPrior(strength)


def test_under_autocast_coherent_predictions_still_cost_nothing():
    logits = torch.randn(4, 1, 50, generator=torch.Generator().manual_seed(0)).expand(4, 300, 50)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = tc.LabelPrior(1.0)(logits)
    torch.testing.assert_close(penalty, torch.zeros(4), rtol=0, atol=1e-9)
