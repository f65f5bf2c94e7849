"""Claims: the layer that keeps both taps and distances (Eq. 7) equals its loop, and each of its parts where the other
is left out."""

import math

import pytest
import torch

import tc

VIDEOS, TIME, CHANNELS, GROUPS, REACH = 2, 6, 4, 2, 2
LENGTHS = (6, 4)
OPTIONS = {
    "plain": ({}, {}),
    "sign": ({}, {"sign": 1}),
    "own term": ({}, {"include_self": True}),
    "normalised": ({}, {"normalise": True}),
    "rectified": ({"relu": True}, {}),
    "all": ({"relu": True}, {"sign": 1, "include_self": True, "normalise": True}),
}


@pytest.fixture
def videos():
    generator = torch.Generator().manual_seed(0)
    values, features = torch.randn(2, VIDEOS, TIME, CHANNELS, dtype=torch.float64, generator=generator)
    return values, 0.5 * features, torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]


def layer(taps: dict, distances: dict) -> tc.DistanceConvolution:
    convolution = tc.TemporalConvolution(kernel_size=2 * REACH + 1, maps=3, groups=GROUPS, **taps).double()
    convolution.reset_parameters(torch.Generator().manual_seed(1))
    return tc.DistanceConvolution(convolution, tc.NeighbourhoodSum(REACH, groups=GROUPS, **distances))


def loop(made: tc.DistanceConvolution, x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """One video, term by term."""
    near, taps = made.neighbourhood, made.convolution
    length, width = len(x), CHANNELS // GROUPS
    result = torch.zeros_like(x)
    for i in range(length):
        for c in range(CHANNELS):
            group = c // width
            part = slice(group * width, (group + 1) * width)
            outputs = []
            for m in range(taps.maps):
                value, weights = 0.0, 0.0
                for j in range(max(0, i - REACH), min(length, i + REACH + 1)):
                    d = math.exp(near.sign * math.dist(f[i, part].tolist(), f[j, part].tolist()))
                    value += taps.weight[group, m, j - i + REACH].item() * d * x[j, c].item()
                    weights += d
                if near.include_self:
                    value, weights = value + x[i, c].item(), weights + 1
                value = (value / weights if near.normalise else value) + taps.bias[group, m, 0].item()
                outputs.append(max(value, 0.0) if taps.relu else value)
            result[i, c] = sum(outputs) / len(outputs)
    return result


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_loop(videos, options):
    values, features, mask = videos
    made = layer(*options)
    result = made(values, features, mask)
    for video, length in enumerate(LENGTHS):
        expected = loop(made, values[video, :length], features[video, :length])
        torch.testing.assert_close(result[video, :length], expected)
        assert not result[video, length:].any()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_are_finite_differences(videos, options):
    values, features, mask = videos
    made = layer(*options)
    names = [name for name, _ in made.named_parameters()]

    def forward(values, features, *parameters):
        return torch.func.functional_call(made, dict(zip(names, parameters, strict=True)), (values, features, mask))

    given = (values, features, *(each.detach() for each in made.parameters()))
    assert torch.autograd.gradcheck(forward, tuple(each.clone().requires_grad_() for each in given))


def test_without_distances_it_is_the_convolution(videos):
    values, _, mask = videos
    made = layer({}, {})
    still = torch.ones(VIDEOS, TIME, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(made(values, still, mask), made.convolution(values, mask))


def test_with_taps_of_one_it_is_the_neighbourhood(videos):
    values, features, mask = videos
    made = layer({}, {})
    with torch.no_grad():
        made.convolution.weight.fill_(1)
        made.convolution.bias.zero_()
    expected = made.neighbourhood(values, features, mask) * mask.unsqueeze(-1)
    torch.testing.assert_close(made(values, features, mask), expected)


def test_far_frames_leave_the_middle_tap(videos):
    values, features, mask = videos
    made = layer({"initialisation": "identity"}, {})
    torch.testing.assert_close(made(values, 1e3 * features, mask), values * mask.unsqueeze(-1))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="reach"):
        tc.DistanceConvolution(tc.TemporalConvolution(3), tc.NeighbourhoodSum(2))
    with pytest.raises(ValueError, match="groups"):
        tc.DistanceConvolution(tc.TemporalConvolution(5, groups=2), tc.NeighbourhoodSum(2))
    with pytest.raises(ValueError, match="boundary"):
        tc.DistanceConvolution(tc.TemporalConvolution(5, boundary="replicate"), tc.NeighbourhoodSum(2))
