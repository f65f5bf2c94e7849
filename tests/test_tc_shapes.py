"""Claims: what does not fit together is one sentence that says what was wanted and what was given, never a silent
broadcast or a rounded kernel; odd but right shapes pass."""

import pytest
import torch

import tc

GENERATOR = torch.Generator().manual_seed(0)
VALUES, FEATURES = torch.randn(2, 7, 4, generator=GENERATOR), torch.randn(2, 7, 6, generator=GENERATOR)
MASK = torch.ones(2, 7, dtype=torch.bool)
LAYERS = {
    "convolution": lambda values, mask: tc.TemporalConvolution()(values, mask),
    "replicated": lambda values, mask: tc.TemporalConvolution(boundary="replicate")(values, mask),
    "rectified": lambda values, mask: tc.TemporalConvolution(relu=True)(values, mask),
    "neighbourhood": lambda values, mask: tc.NeighbourhoodSum()(values, values, mask),
    "adaptive": lambda values, mask: tc.NeighbourhoodSum(boundary=tc.AdaptiveDetector())(values, values, mask),
    "taps and distances": lambda values, mask: tc.DistanceConvolution(tc.TemporalConvolution(), tc.NeighbourhoodSum())(
        values, values, mask
    ),
    "label prior": lambda values, mask: tc.LabelPrior(1.0)(values, mask),
}
WRONG = {
    "whole numbers": (VALUES.long(), MASK, r"\(batch, time, channels\).*torch.int64"),
    "two axes": (VALUES[..., 0], MASK, r"\(batch, time, channels\).*\(2, 7\)"),
    "four axes": (VALUES[..., None], MASK, r"\(batch, time, channels\).*\(2, 7, 4, 1\)"),
    "another time": (VALUES, MASK[:, :6], r"mask must be \(2, 7\).*\(2, 6\)"),
    "one mask for all": (VALUES, MASK[:1], r"mask must be \(2, 7\).*\(1, 7\)"),
    "a mask of numbers": (VALUES, MASK.float(), r"mask must be \(2, 7\) torch.bool.*torch.float32"),
}


@pytest.mark.parametrize(("values", "mask", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_values_and_masks_that_do_not_fit(layer, values, mask, words):
    with pytest.raises(ValueError, match=words) as caught:
        layer(values, mask)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tc.NeighbourhoodSum()(VALUES, FEATURES[:, :6], MASK), r"features must be \(2, 7\).*\(2, 6, 6\)"),
        (lambda: tc.NeighbourhoodSum()(VALUES, FEATURES[:1], MASK), r"features must be \(2, 7\).*\(1, 7, 6\)"),
        (lambda: tc.NeighbourhoodSum(groups=3)(VALUES, FEATURES), "4 channels are no multiple of 3 groups"),
        (lambda: tc.NeighbourhoodSum(groups=4)(VALUES, FEATURES), "6 features are no multiple of 4 groups"),
        (
            lambda: tc.NeighbourhoodSum()(VALUES, FEATURES, boundary=torch.ones(2, 6)),
            r"boundary must be \(2, 7, 2\).*unbroken.*\(2, 6\)",
        ),
        (lambda: tc.NeighbourhoodSum(boundary=1.5), "boundary must be a number from 0 to 1.*1.5"),
        (lambda: tc.NeighbourhoodSum(boundary="distance"), "boundary must be.*DistanceDetector.*'distance'"),
        (lambda: tc.LabelPrior(1.0)(VALUES, MASK, torch.ones(2, 7)), r"continuity must be \(2, 6\).*\(2, 7\)"),
        (lambda: tc.AdaptiveDetector()(FEATURES, MASK[:1]), r"mask must be \(2, 7\).*features.*\(1, 7\)"),
        (lambda: tc.TemporalConvolution(5.0), r"odd.*\(5.0,\)"),
        (lambda: tc.TemporalConvolution("5"), "odd.*'5'"),
        (lambda: tc.TemporalConvolution(True), "odd.*True"),
    ],
)
def test_other_things_that_do_not_fit(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("time", [1, 2, 7])
@pytest.mark.parametrize("valid", [True, False])
def test_short_videos_and_videos_without_a_valid_frame(layer, time, valid):
    torch.manual_seed(0)
    values = torch.randn(1, time, 4, requires_grad=True)
    result = layer(values, torch.full((1, time), valid))
    assert result.shape[0] == 1 and result.isfinite().all()
    result.sum().backward()
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_how_values_lie_in_memory_is_of_no_account(layer):
    results = []
    for values in (VALUES.transpose(1, 2).contiguous().transpose(1, 2), VALUES):
        torch.manual_seed(0)  # of the kernels
        results.append(layer(values, MASK))
    torch.testing.assert_close(*results)
