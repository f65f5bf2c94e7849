"""Claims: the convolutional form equals a loop written from section 3 of the paper, commutes and averages as it should,
has the gradients of what it computes, and does not see padding."""

import pytest
import torch
from torch import nn

import tc
from tc import weighted_shifts

VIDEOS, TIME, CHANNELS = 3, 9, 6
LENGTHS = (9, 5, 1)
OPTIONS = {
    "shared": {},
    "per head": {"groups": 3},
    "depthwise": {"groups": CHANNELS},
    "several sizes": {"kernel_size": (1, 3, 7), "maps": 2},
    "rectified": {"relu": True},
    "rectified, several sizes, per head": {"kernel_size": (3, 5), "relu": True, "groups": 2},
    "replicated ends": {"boundary": "replicate"},
    "longer than the video": {"kernel_size": 21},
    "one map of one frame": {"kernel_size": 1, "maps": 1},
}


@pytest.fixture
def videos():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(VIDEOS, TIME, CHANNELS, dtype=torch.float64, generator=generator)
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]
    return values, mask


def layer(**options) -> tc.TemporalConvolution:
    made = tc.TemporalConvolution(**options).double()
    made.reset_parameters(torch.Generator().manual_seed(1))
    return made


def loop(made: tc.TemporalConvolution, video: torch.Tensor) -> torch.Tensor:
    """One video of valid frames alone, frame by frame, channel by channel, map by map."""
    time, channels = video.shape
    result = torch.zeros(time, channels, dtype=torch.float64)
    for i in range(time):
        for c in range(channels):
            group = c * made.groups // channels
            outputs = []
            begin = 0
            for number, size in enumerate(made.kernel_sizes):
                for m in range(made.maps):
                    value = made.bias[group, m, number].item()
                    for tap in range(size):
                        j = i + tap - size // 2
                        if made.boundary == "replicate":
                            j = min(max(j, 0), time - 1)
                        if 0 <= j < time:
                            value += made.weight[group, m, begin + tap].item() * video[j, c].item()
                    outputs.append(max(value, 0.0) if made.relu else value)
                begin += size
            result[i, c] = sum(outputs) / len(outputs)
    return result


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_loop(videos, options):
    values, mask = videos
    made = layer(**options)
    result = made(values, mask)
    for video, length in enumerate(LENGTHS):
        torch.testing.assert_close(result[video, :length], loop(made, values[video, :length]))
        assert not result[video, length:].any()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_padding_changes_nothing(videos, options):
    values, mask = videos
    made = layer(**options)
    result = made(values, mask)
    altered = torch.where(mask.unsqueeze(-1), values, 1e3)
    assert torch.equal(made(altered, mask), result)
    longer = nn.functional.pad(altered, (0, 0, 0, 4), value=-7.0)
    torch.testing.assert_close(made(longer, nn.functional.pad(mask, (0, 4)))[:, :TIME], result)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_mask_means_that_all_frames_are_valid(videos, options):
    values, _ = videos
    made = layer(**options)
    assert torch.equal(made(values), made(values, torch.ones(VIDEOS, TIME, dtype=torch.bool)))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_are_finite_differences(videos, options):
    values, mask = videos
    made = layer(**options)
    names = [name for name, _ in made.named_parameters()]

    def forward(values, *parameters):
        return torch.func.functional_call(made, dict(zip(names, parameters, strict=True)), (values, mask))

    inputs = (values.clone().requires_grad_(), *(each.detach().clone().requires_grad_() for each in made.parameters()))
    assert torch.autograd.gradcheck(forward, inputs)


def test_the_mean_of_linear_maps_is_the_mean_kernel(videos):
    values, mask = videos
    made = layer(maps=16)
    single = tc.TemporalConvolution(maps=1).double()
    with torch.no_grad():
        single.weight.copy_(made.weight.mean(dim=1, keepdim=True))
        single.bias.copy_(made.bias.mean(dim=1, keepdim=True))
    torch.testing.assert_close(single(values, mask), made(values, mask))
    torch.testing.assert_close(made.kernel(), single.weight[:, 0])


def test_rectified_maps_are_more_than_their_mean_kernel(videos):
    values, _ = videos
    made = layer(maps=4, relu=True)
    assert not torch.allclose(made(values), layer(maps=4)(values))
    assert (made(values) >= 0).all()


@pytest.mark.parametrize("options", [{}, {"kernel_size": (1, 3, 7)}, {"boundary": "replicate"}], ids=str)
def test_a_shared_kernel_commutes_with_a_following_linear_map(videos, options):
    """Convolution, then projection = projection, then convolution; the layer's bias passes through the projection."""
    values, mask = videos
    made = layer(**options)
    projection = torch.randn(4, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = made(values, mask) @ projection.T
    beta = made.bias.mean()
    after = made(values @ projection.T, mask) + (beta * (projection.sum(dim=1) - 1)) * mask.unsqueeze(-1)
    torch.testing.assert_close(before, after)


def test_kernels_of_their_own_do_not_commute_with_a_linear_map(videos):
    values, _ = videos
    made = layer(groups=CHANNELS)
    with torch.no_grad():
        made.bias.zero_()
    projection = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(made(values) @ projection.T, made(values @ projection.T))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_identity_initialisation_changes_no_valid_frame(videos, options):
    values, mask = videos
    values = values.abs()  # rectifying leaves positive values
    made = tc.TemporalConvolution(**{**options, "initialisation": "identity"}).double()
    torch.testing.assert_close(made(values, mask), values * mask.unsqueeze(-1), rtol=0, atol=1e-15)


def test_box_is_a_moving_average_that_training_leaves(videos):
    values, _ = videos
    made = tc.TemporalConvolution(kernel_size=3, initialisation="box", trainable=False).double()
    assert not any(parameter.requires_grad for parameter in made.parameters())
    torch.testing.assert_close(made(values)[:, 4], values[:, 3:6].mean(dim=1))
    values.requires_grad_()
    made(values).sum().backward()
    torch.testing.assert_close(values.grad[:, 4], torch.ones(VIDEOS, CHANNELS, dtype=torch.float64))


def test_replicated_ends_keep_a_still_video_still():
    still = torch.full((1, 6, 2), 3.0)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    box = tc.TemporalConvolution(initialisation="box", boundary="replicate")
    torch.testing.assert_close(box(still, mask)[0, :4], still[0, :4])
    zero = tc.TemporalConvolution(initialisation="box")
    torch.testing.assert_close(zero(still, mask)[0, :, 0], torch.tensor([1.8, 2.4, 2.4, 1.8, 0, 0]))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_invalid_frames_before_valid_ones_are_not_seen_either(videos, options):
    values, _ = videos
    late = torch.arange(TIME).expand(VIDEOS, TIME) >= 3
    made = layer(**options)
    result = made(values, late)
    torch.testing.assert_close(result[:, 3:], made(values[:, 3:]))
    assert not result[:, :3].any()


def test_parameters_are_those_of_the_size_study():
    """Facts, section F: 24 shared, 288 per head for one of a Transformer's sites, C (M k + M) depthwise."""

    def count(**options):
        return sum(each.numel() for each in tc.TemporalConvolution(**options).parameters())

    assert (count(), count(groups=12), count(groups=512)) == (24, 288, 12_288)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kernel_size": 4}, "odd"),
        ({"kernel_size": ()}, "odd"),
        ({"maps": 0}, "maps"),
        ({"initialisation": "zeros"}, "initialisation"),
        ({"boundary": "wrap"}, "boundary"),
    ],
)
def test_wrong_arguments_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        tc.TemporalConvolution(**options)


def test_an_empty_batch_stays_empty():
    assert tc.TemporalConvolution()(torch.zeros(0, TIME, CHANNELS)).shape == (0, TIME, CHANNELS)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_weights_and_biases_are_frozen_one_by_one(videos, frozen):
    values, mask = videos
    made, free = layer(), layer()
    getattr(made, frozen).requires_grad_(False)
    for each in (made, free):
        each(values, mask).square().sum().backward()
    other = {"weight": "bias", "bias": "weight"}[frozen]
    assert getattr(made, frozen).grad is None
    assert torch.equal(getattr(made, other).grad, getattr(free, other).grad)


@pytest.mark.parametrize(("channels", "groups"), [(1, 12), (3, 2)])
def test_channels_that_groups_do_not_divide_are_refused(channels, groups):
    with pytest.raises(ValueError, match="groups"):
        tc.TemporalConvolution(groups=groups)(torch.zeros(2, TIME, channels))


def results_and_gradients(made, values, mask):
    values = values.clone().requires_grad_()
    result = made(values, mask)
    return [result, *torch.autograd.grad(result.square().sum(), (values, *made.parameters()))]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_batch_of_several_parts_is_one(options, monkeypatch):
    """A large batch is worked off in parts that fit the cache; here two videos at a time."""
    values = torch.randn(5, TIME, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(TIME) < torch.tensor([9, 5, 1, 7, 3])[:, None]
    made = layer(**options)
    whole = results_and_gradients(made, values, mask)
    monkeypatch.setattr(weighted_shifts, "CACHE_VALUES", 2 * TIME * CHANNELS)
    for part, expected in zip(results_and_gradients(made, values, mask), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_gradients_of_bfloat16_kernels_are_summed_in_more_than_8_bits(monkeypatch):
    """In bfloat16, 256 and 1 are 256."""
    monkeypatch.setattr(weighted_shifts, "CACHE_VALUES", 1)  # a video at a time
    made = tc.TemporalConvolution(kernel_size=1, maps=1)
    made(torch.ones(600, 1, 1, dtype=torch.bfloat16)).sum().backward()
    assert (made.weight.grad.item(), made.bias.grad.item()) == (600, 600)


def test_random_kernels_start_as_torchs_own():
    """Uniform within 1/sqrt(kernel size), biases too; from the generator alone."""
    made = tc.TemporalConvolution(kernel_size=(1, 9), maps=2000)
    torch.manual_seed(1)
    made.reset_parameters(torch.Generator().manual_seed(0))
    first = [each.clone() for each in made.parameters()]
    for size, weight, bias in zip((1, 9), made.weight.split((1, 9), dim=-1), made.bias.unbind(-1), strict=True):
        torch_own = nn.Conv1d(1, 2000, size)
        for drawn, own in ((weight, torch_own.weight), (bias, torch_own.bias)):
            assert drawn.abs().max() <= size**-0.5 and drawn.abs().max() > 0.99 * size**-0.5
            assert float(drawn.detach().std()) == pytest.approx(float(own.detach().std()), rel=0.05)
    torch.manual_seed(2)
    made.reset_parameters(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), first, strict=True))
