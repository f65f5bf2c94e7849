"""Claims: detectors find what they say, at any scale and under any mask; the adaptive one equals its loop."""

import math
import statistics

import pytest
import torch
from torch import nn

import tc
from tc.boundaries import distances

VIDEOS, TIME, WIDTH = 4, 12, 5
LENGTHS = (12, 7, 2, 1)


@pytest.fixture
def videos():
    """Frames that drift, with a jump at every fourth."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(VIDEOS, TIME, WIDTH, dtype=torch.float64, generator=generator)
    steps[:, ::4] *= 6
    return steps.cumsum(dim=1), torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]


def loop(video: torch.Tensor, deviations: float) -> list[float]:
    """One video of valid frames alone: 1 unless its step is so many deviations above the mean step."""
    steps = [math.dist(a.tolist(), b.tolist()) for a, b in zip(video[:-1], video[1:], strict=True)]
    limit = statistics.fmean(steps) + deviations * statistics.pstdev(steps) if steps else 0.0
    return [float(step <= limit * (1 + 1e-9)) for step in steps]


@pytest.mark.parametrize("deviations", [0.0, 0.5, 1.0, 2.0])
def test_the_adaptive_detector_equals_its_loop(videos, deviations):
    frames, mask = videos
    found = tc.AdaptiveDetector(deviations)(frames, mask)
    expected = [loop(frames[video, :length], deviations) for video, length in enumerate(LENGTHS)]
    assert [found[video, : length - 1].tolist() for video, length in enumerate(LENGTHS)] == expected
    assert {value for video in expected for value in video} == {0.0, 1.0}


def test_the_adaptive_detector_does_not_see_what_lies_outside_the_mask(videos):
    frames, mask = videos
    detector = tc.AdaptiveDetector()
    found = detector(frames, mask)
    altered = torch.where(mask.unsqueeze(-1), frames, 1e4)
    assert torch.equal(detector(altered, mask), found)
    longer = nn.functional.pad(altered, (0, 0, 3, 2), value=-9.0), nn.functional.pad(mask, (3, 2))
    assert torch.equal(detector(*longer)[:, 3:-2], found)
    assert torch.equal(detector(frames), detector(frames, torch.ones_like(mask)))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_cut_is_unusual_at_any_scale_and_far_at_some(scale):
    frames = torch.arange(10.0).view(1, 10, 1)
    frames[:, 6:] += 20
    cut = torch.arange(9) == 5
    assert torch.equal(tc.AdaptiveDetector()(scale * frames)[0] == 0, cut)
    assert torch.equal(tc.DistanceDetector(2.0)(scale * frames)[0] == 0, cut) == (scale == 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_makes_no_step_unusual(dtype):
    """Neither one of equal steps nor one of two, which is at most one deviation above their mean."""
    steps = torch.linspace(0, 1, 200, dtype=dtype)[:, None, None]
    turns = steps * (torch.arange(24) % 2).to(dtype)[:, None]
    assert tc.AdaptiveDetector(0.0)(turns).all()
    pairs = torch.rand(1000, 3, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert tc.AdaptiveDetector(1.0)(pairs).all()


def test_deviations_are_those_of_all_steps_no_estimate_from_a_sample():
    """Steps 1, 1, 1, 2 have mean 1.25 and deviation .433: the last is 1.73 above."""
    frames = torch.tensor([[[0.0], [1.0], [2.0], [3.0], [5.0]]])
    assert [tc.AdaptiveDetector(k)(frames).tolist() for k in (1.7, 1.8)] == [[[1, 1, 1, 0]], [[1, 1, 1, 1]]]


def test_a_step_of_just_the_threshold_is_no_boundary():
    frames = torch.tensor([[[0.0], [1.0], [1.0], [3.0]]])
    assert tc.DistanceDetector(1.0)(frames).tolist() == [[1, 1, 0]]
    assert tc.DistanceDetector(0.0)(frames).tolist() == [[0, 1, 0]]


def test_in_equation_3_the_mask_reaches_the_detector(videos):
    """Padding that jumps would raise the mean step, and hide the cut."""
    frames, mask = videos
    values = torch.randn(VIDEOS, TIME, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = tc.NeighbourhoodSum(boundary=tc.AdaptiveDetector())
    found = layer(values, torch.where(mask.unsqueeze(-1), frames, 1e4), mask)
    for video, length in enumerate(LENGTHS):
        alone = layer(values[video : video + 1, :length], frames[video : video + 1, :length])
        torch.testing.assert_close(found[video, :length], alone[0])
    assert not torch.allclose(found[0], tc.NeighbourhoodSum()(values, frames, mask)[0])


def test_distances_of_bfloat16_frames_are_not_rounded_again():
    frames = torch.randn(2, 9, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = distances(frames, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), distances(frames.double(), 2), rtol=1e-6, atol=0)
