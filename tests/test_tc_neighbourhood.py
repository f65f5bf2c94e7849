"""Claims: the exact form equals Eqs. 2, 3, 4, 5, 6 and 8, each written as a loop from the paper; its identities hold.

The loops give attention or assignment weights of one video, as the equations do; the layer gives the logits before the
softmax.
"""

import math

import pytest
import torch

import tc

VIDEOS, TIME, WIDTH, CLUSTERS, REACH = 3, 7, 5, 4, 2
LENGTHS = (7, 6, 1)


@pytest.fixture
def videos():
    generator = torch.Generator().manual_seed(0)
    features = 0.5 * torch.randn(VIDEOS, TIME, WIDTH, dtype=torch.float64, generator=generator)
    logits = torch.randn(VIDEOS, TIME, CLUSTERS, dtype=torch.float64, generator=generator)
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None]
    return logits, features, mask


def neighbourhood(i: int, length: int, reach: int = REACH, own: bool = False) -> list[int]:
    """N_i = [i - L, i + L] within the video; i itself only where an equation sums over it."""
    return [j for j in range(i - reach, i + reach + 1) if 0 <= j < length and (own or j != i)]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def assignments(q, x, sign: int, z=None) -> torch.Tensor:
    """Eqs. 2 (sign +1), 3 (with z) and 6 (sign -1): alpha_k(x_i), normalised over clusters (erratum 2)."""
    length, clusters = q.shape
    alpha = torch.zeros(length, clusters, dtype=torch.float64)
    for i in range(length):
        numerators = []
        for k in range(clusters):
            exponent = 0.0
            for j in neighbourhood(i, length):
                exponent += (1.0 if z is None else z(i, j)) * float(q[j, k]) * math.exp(sign * distance(x[i], x[j]))
            numerators.append(math.exp(float(q[i, k])) * math.exp(exponent))
        for k in range(clusters):
            alpha[i, k] = numerators[k] / sum(numerators)
    return alpha


def attention(e, h, sign: int, own: bool = False) -> torch.Tensor:
    """Eqs. 4 (sign -1), 5 (sign +1) and 8 (sign -1, i among its neighbours): alpha_i, normalised over frames."""
    length = len(e)
    numerators = []
    for i in range(length):
        exponent = 0.0
        for j in neighbourhood(i, length, own=own):
            exponent += float(e[j]) * math.exp(sign * distance(h[i], h[j]))
        numerators.append(math.exp(float(e[i])) * math.exp(exponent))
    return torch.tensor([value / sum(numerators) for value in numerators], dtype=torch.float64)


@pytest.mark.parametrize("sign", [1, -1], ids=["Eq. 2", "Eq. 6"])
def test_netvlad_equations(videos, sign):
    q, x, mask = videos
    alpha = tc.NeighbourhoodSum(REACH, sign=sign)(q, x, mask).softmax(dim=2)
    for video, length in enumerate(LENGTHS):
        torch.testing.assert_close(alpha[video, :length], assignments(q[video, :length], x[video, :length], sign))


@pytest.mark.parametrize("sign", [1, -1])
def test_equation_3_with_given_boundaries(videos, sign):
    q, x, mask = videos
    z = torch.rand(VIDEOS, TIME, REACH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alpha = tc.NeighbourhoodSum(REACH, sign=sign)(q, x, mask, boundary=z).softmax(dim=2)
    for video, length in enumerate(LENGTHS):

        def given(i, j, video=video):
            return float(z[video, min(i, j), abs(i - j) - 1])

        expected = assignments(q[video, :length], x[video, :length], sign, given)
        torch.testing.assert_close(alpha[video, :length], expected)


def test_equation_3_with_the_distance_detector(videos):
    """z_ij = 1 iff no consecutive distance in [i, j] exceeds the threshold."""
    q, x, mask = videos
    threshold = 1.6
    alpha = tc.NeighbourhoodSum(REACH, sign=1, boundary=tc.DistanceDetector(threshold))(q, x, mask).softmax(dim=2)
    seen = set()
    for video, length in enumerate(LENGTHS):

        def detected(i, j, video=video):
            steps = range(min(i, j), max(i, j))
            value = float(all(distance(x[video, t], x[video, t + 1]) <= threshold for t in steps))
            seen.add(value)
            return value

        expected = assignments(q[video, :length], x[video, :length], 1, detected)
        torch.testing.assert_close(alpha[video, :length], expected)
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize(
    ("options", "sign", "own"),
    [({}, -1, False), ({"sign": 1}, 1, False), ({"include_self": True}, -1, True)],
    ids=["Eq. 4", "Eq. 5", "Eq. 8"],
)
def test_attention_equations(videos, options, sign, own):
    logits, h, mask = videos
    e = logits[..., :1]
    summed = tc.NeighbourhoodSum(REACH, **options)(e, h, mask).squeeze(-1)
    alpha = summed.masked_fill(~mask, -torch.inf).softmax(dim=1)
    for video, length in enumerate(LENGTHS):
        torch.testing.assert_close(alpha[video, :length], attention(e[video, :length, 0], h[video, :length], sign, own))


@pytest.mark.parametrize("include_self", [False, True])
def test_normalised_weights(videos, include_self):
    """Each result is a weighted mean: sum_j d_ij s_j / sum_j d_ij with d_ii = 1, or 2 where i is its own neighbour."""
    s, f, mask = videos
    result = tc.NeighbourhoodSum(REACH, normalise=True, include_self=include_self)(s, f, mask)
    for video, length in enumerate(LENGTHS):
        for i in range(length):
            near = neighbourhood(i, length, own=True)
            weights = [math.exp(-distance(f[video, i], f[video, j])) * (1 + include_self * (i == j)) for j in near]
            expected = sum(w * s[video, j] for w, j in zip(weights, near, strict=True)) / sum(weights)
            torch.testing.assert_close(result[video, i], expected)


def test_a_transformers_logits_over_keys(videos):
    """Attention logits summed over neighbouring keys, head by head, are the logits of summed keys."""
    _, _, mask = videos
    heads, width = 2, 3
    generator = torch.Generator().manual_seed(3)
    queries, keys = torch.randn(2, VIDEOS, TIME, heads * width, dtype=torch.float64, generator=generator)
    summed = tc.NeighbourhoodSum(REACH, groups=heads)(keys, keys, mask)
    for video, length in enumerate(LENGTHS):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q, k = queries[video, :length, part], keys[video, :length, part]
            logits = q @ k.T
            expected = logits.clone()
            for j in range(length):
                for near in neighbourhood(j, length):
                    expected[:, j] += math.exp(-distance(k[j], k[near])) * logits[:, near]
            torch.testing.assert_close(q @ summed[video, :length, part].T, expected)


@pytest.mark.parametrize("options", [{"reach": 0}, {"boundary": 0.0}, {"boundary": tc.DistanceDetector(-1.0)}], ids=str)
def test_no_neighbours_or_a_boundary_everywhere_is_the_baseline(videos, options):
    s, f, mask = videos
    assert torch.equal(tc.NeighbourhoodSum(**options)(s, f, mask), s)


def test_far_frames_are_the_baseline_with_the_minus_sign_alone(videos):
    s, f, mask = videos
    torch.testing.assert_close(tc.NeighbourhoodSum()(s, 100 * f, mask), s)
    assert (tc.NeighbourhoodSum(sign=1)(s, 10 * f, mask) - s).abs().max() > 100


@pytest.mark.parametrize("sign", [1, -1])
def test_identical_frames_scale_logits_by_one_plus_the_neighbours(sign):
    s, f = torch.full((1, 6, 1), 0.7), torch.ones(1, 6, 3)
    result = tc.NeighbourhoodSum(reach=2, sign=sign)(s, f)
    neighbours = torch.tensor([2.0, 3, 4, 4, 3, 2])
    torch.testing.assert_close(result[0, :, 0], 0.7 * (1 + neighbours))
    torch.testing.assert_close(tc.NeighbourhoodSum(reach=2, sign=sign, normalise=True)(s, f), s)
    twice = tc.NeighbourhoodSum(reach=2, sign=sign, include_self=True)(s, f)
    torch.testing.assert_close(twice[0, :, 0], 0.7 * (2 + neighbours))


@pytest.mark.parametrize(("sign", "expected"), [(-1, 0.62), (1, 0.20)])
def test_two_mutual_neighbours_and_the_sign(sign, expected):
    """Erratum 1: at distance 1 with e = (1.0, 0.2), the printed sign reverses the order."""
    e, h = torch.tensor([[[1.0], [0.2]]]), torch.tensor([[[0.0], [1.0]]])
    alpha = tc.NeighbourhoodSum(reach=1, sign=sign)(e, h).softmax(dim=1)
    assert round(float(alpha[0, 0, 0]), 2) == expected


@pytest.mark.parametrize("gap", [0.0, 0.3, 2.0])
def test_mutual_only_neighbours_are_alike_only_if_their_frames_are(gap):
    """Erratum 7: the paper expects alpha_i = alpha_j; in fact log(alpha_i / alpha_j) = (e_i - e_j)(1 - d_ij)."""
    e, h = torch.tensor([[[1.0], [-0.4]]], dtype=torch.float64), torch.tensor([[[0.0], [gap]]], dtype=torch.float64)
    alpha = tc.NeighbourhoodSum(reach=1)(e, h).softmax(dim=1)[0, :, 0]
    ratio = float((alpha[0] / alpha[1]).log())
    assert ratio == pytest.approx(1.4 * (1 - math.exp(-gap)), abs=1e-12)
    assert (ratio == pytest.approx(0, abs=1e-12)) == (gap == 0)


GATE = tc.LearnedGate(1.5).double()
EVERY = [
    {}, {"sign": 1}, {"include_self": True}, {"normalise": True}, {"boundary": 0.3}, {"boundary": GATE}, {"reach": 9},
]  # fmt: skip


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_padding_changes_nothing(videos, options):
    s, f, mask = videos
    made = tc.NeighbourhoodSum(**options)
    hidden = mask.unsqueeze(-1)
    result = made(s, f, mask)[mask]
    other = made(torch.where(hidden, s, 50.0), torch.where(hidden, f, -3.0), mask)
    assert torch.equal(other[mask], result)
    longer = [torch.nn.functional.pad(each, (0, 0, 0, 3), value=9.0) for each in (s, f)]
    torch.testing.assert_close(made(*longer, torch.nn.functional.pad(mask, (0, 3)))[:, :TIME][mask], result)


def test_invalid_frames_before_valid_ones_count_as_little_as_those_after(videos):
    s, f, _ = videos
    late = torch.arange(TIME).expand(VIDEOS, TIME) >= 3
    result = tc.NeighbourhoodSum()(s, f, late)
    torch.testing.assert_close(result[:, 3:], tc.NeighbourhoodSum()(s[:, 3:], f[:, 3:]))


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_gradients_are_finite_differences(videos, options):
    s, f, mask = videos
    made = tc.NeighbourhoodSum(**options)
    names = [name for name, _ in made.named_parameters()]

    def forward(s, f, *parameters):
        return torch.func.functional_call(made, dict(zip(names, parameters, strict=True)), (s, f, mask))

    given = (s, f, *(each.detach() for each in made.parameters()))
    assert torch.autograd.gradcheck(forward, tuple(each.clone().requires_grad_() for each in given))


def test_the_gradient_at_identical_frames_is_finite():
    f = torch.ones(1, 4, 3, requires_grad=True)
    s = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    tc.NeighbourhoodSum()(s, f).sum().backward()
    assert f.grad.isfinite().all()


def test_a_sharp_gate_is_the_detector(videos):
    _, f, _ = videos
    gate = tc.LearnedGate(1.6).double()
    with torch.no_grad():
        gate.sharpness.fill_(1e6)
    torch.testing.assert_close(gate(f), tc.DistanceDetector(1.6)(f))


def test_unbroken_is_a_product_over_steps():
    continuity = torch.tensor([[1.0, 0.5, 0.0, 1.0]])
    expected = torch.tensor([[[1, 0.5, 0], [0.5, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]])
    assert torch.equal(tc.unbroken(continuity, reach=3), expected)


@pytest.mark.parametrize("options", [{"reach": -1}, {"sign": 0}, {"groups": 0}], ids=str)
def test_wrong_arguments_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tc.NeighbourhoodSum(**options)


@pytest.mark.parametrize("boundary", [0.0, tc.DistanceDetector(1.0), None], ids=str)
def test_frames_too_far_for_the_printed_sign_do_not_reach_across_a_boundary_or_the_mask(boundary):
    """exp(+200) is infinite in float32, and 0 times infinity no number."""
    s = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    f, mask = torch.zeros(1, 6, 3), torch.tensor([[True] * 4 + [False] * 2])
    f[:, 4:] = 200
    f.requires_grad_()
    cut = tc.NeighbourhoodSum(sign=1) if boundary is None else tc.NeighbourhoodSum(sign=1, boundary=boundary)
    result = cut(s, f, mask if boundary is None else None)
    within = 0.0 if boundary == 0.0 else 1.0
    expected = tc.NeighbourhoodSum(boundary=within)(s[:, :4], torch.zeros(1, 4, 3))
    torch.testing.assert_close(result[:, :4], expected)
    result[:, :4].sum().backward()
    assert f.grad.isfinite().all()


@pytest.mark.parametrize("boundary", [tc.DistanceDetector(1.0), tc.LearnedGate().double()], ids=str)
def test_without_neighbours_a_boundary_is_of_no_account(videos, boundary):
    s, f, mask = videos
    assert torch.equal(tc.NeighbourhoodSum(reach=0, boundary=boundary)(s, f, mask), s)
