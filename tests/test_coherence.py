"""Claims: every form, site and reading of a profile's coherence section becomes the layer that it names, at its place;
what has no meaning is refused; Eq. 1 trains; shuffling and choosing modalities change what is read and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_corpus import LONGEST, NODES, SPEC, TRAINING, WIDTH, corpus, split

import tc
from replicate import models
from replicate.coherence import LabelPriorModel, OnDirections, take_penalty
from replicate.compute import Compute
from replicate.config import CoherenceConfig, ModelConfig
from replicate.data.batches import batches
from replicate.data.spec import Feature
from replicate.data.views import ChosenModalities, ShuffledFrames, frame_order
from replicate.errors import ConfigurationError
from replicate.preprocess import prepare
from replicate.profile_files import load_profile
from replicate.training.optimise import Optimiser
from replicate.training.train import train

SIZES = ModelConfig(
    head=(6,), gru_width=10, netvlad_clusters=(4, 3), netvlad_width=5, transformer_width=12, transformer_heads=3,
    transformer_feedforward=8,
)  # fmt: skip
WIDTHS = (7, 2)
BASELINES = {"tc_rnn": "rnn_attn", "tc_netv": "netv", "tc_tm": "tm"}
SITES = {"tc_rnn": "rnn_site", "tc_netv": "netvlad_site", "tc_tm": "transformer_site"}
PLACES = {
    "tc_rnn": ("states", "energies", "everywhere"),
    "tc_netv": ("frames", "assignments", "everywhere"),
    "tc_tm": ("keys", "values", "keys_and_values"),
}
FORMS = {
    "convolution": {},
    "depthwise": {"sharing": "depthwise"},
    "shared": {"sharing": "shared"},
    "rectified, replicated": {"relu": True, "boundary": "replicate"},
    "several sizes": {"kernel_size": (1, 3)},
    "box": {"initialisation": "box", "trainable": False},
    "exact": {"form": "exact"},
    "exact, every option": {
        "form": "exact", "sign": 1, "include_self": True, "normalise": True, "z": "learned", "sharing": "shared",
    },
    "exact, detector": {"form": "exact", "z": "distance"},
    "exact, adaptive": {"form": "exact", "z": "adaptive"},
    "taps and distances": {"form": "distance_convolution", "sign": 1, "relu": True, "normalise": True},
}  # fmt: skip
EVERY = [
    pytest.param(column, {**options, SITES[column]: place}, id=f"{column}, {name}, {place}")
    for column in BASELINES
    for name, options in FORMS.items()
    for place in PLACES[column]
]


def build(column: str, seed: int = 0, **coherence) -> nn.Module:
    return models.build(column, SIZES, CoherenceConfig(**coherence), WIDTHS, 5, seed, 9)


def frames_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(9) < torch.tensor([9, 1, 4])[:, None]
    frames = torch.randn(3, 9, sum(WIDTHS), generator=torch.Generator().manual_seed(0))
    return frames * mask[..., None], mask


@pytest.mark.parametrize(("column", "options"), EVERY)
def test_every_form_at_every_place(column, options):
    """It trains all its weights, does not see padding, and leaves the baseline's initial weights as they were."""
    model, (frames, mask) = build(column, **options), frames_and_mask()
    plain = build(BASELINES[column]).state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in model.state_dict().items() if name in plain)
    assert plain.keys() <= model.state_dict().keys()
    logits = model(frames, mask)
    logits.square().sum().backward()
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert all(each.grad is not None and each.grad.isfinite().all() for each in trained.values())
    alone = model(frames[1:2, :1], mask[1:2, :1])
    torch.testing.assert_close(alone, logits[1:2].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("column", BASELINES)
@pytest.mark.parametrize("form", [{}, {"form": "distance_convolution"}], ids=str)
def test_identity_taps_at_any_place_give_the_baselines_scores(column, form):
    """Distances change nothing either: the taps of the neighbours are 0."""
    frames, mask = frames_and_mask()
    expected = build(BASELINES[column])(frames, mask)
    for place in PLACES[column]:
        found = build(column, initialisation="identity", **form, **{SITES[column]: place})(frames, mask)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("column", BASELINES)
def test_places_differ(column):
    frames, mask = frames_and_mask()
    scores = [build(column, **{SITES[column]: place})(frames, mask) for place in PLACES[column]]
    assert not any(torch.allclose(a, b) for n, a in enumerate(scores) for b in scores[:n])


@pytest.mark.parametrize(
    ("column", "convolution", "exact"),
    [
        ("tc_rnn", "states", "energies"), ("tc_netv", "frames", "assignments"), ("tc_tm", "keys_and_values", "keys"),
    ],
)  # fmt: skip
def test_default_places(column, convolution, exact):
    frames, mask = frames_and_mask()
    for options, place in (({}, convolution), ({"form": "exact"}, exact)):
        found, named = (build(column, **options, **site) for site in ({}, {SITES[column]: place}))
        torch.testing.assert_close(found(frames, mask), named(frames, mask))


@pytest.mark.parametrize("z", ["distance", "adaptive", "learned"])
@pytest.mark.parametrize("column", BASELINES)
def test_boundaries_are_between_directions_whatever_the_length_of_frames(column, z):
    """One threshold suits frames under any normalisation, states and keys."""
    model = build(column, form="exact", z=z, z_threshold=0.8)
    detector = next(each for each in model.modules() if isinstance(each, OnDirections))
    features = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([9, 8, 5, 9])[:, None]
    found = detector(features, mask)
    torch.testing.assert_close(found, boundaries_by_hand(features, mask, z, 0.8))
    torch.testing.assert_close(detector(7 * features, mask), found)


def boundaries_by_hand(features, mask, z: str, threshold: float) -> torch.Tensor:
    units = features / features.norm(dim=2, keepdim=True)
    steps = (units[:, 1:] - units[:, :-1]).norm(dim=2)
    if z == "learned":
        return torch.sigmoid(threshold - steps)
    if z == "distance":
        return (steps <= threshold).float()
    found = torch.ones_like(steps)
    for video, length in enumerate(mask.sum(dim=1).tolist()):
        own = steps[video, : length - 1]
        if length > 1:
            found[video, : length - 1] = (own <= own.mean() + threshold * own.std(unbiased=False) + 1e-5).float()
    return found


def test_a_recurrent_layers_states_have_unusual_steps_but_no_far_ones():
    """Why a fixed distance leaves TC-RNN's exact form as it is: at a cut between unlike scenes states turn by less."""
    frames = nn.functional.normalize(torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(0)), dim=2)
    frames, mask = frames.repeat_interleave(6, dim=1), torch.ones(8, 24, dtype=torch.bool)  # four still scenes
    states = nn.functional.normalize(scene_model().recurrent(frames)[0].detach(), dim=2)[:, 6:]  # its start apart
    far = tc.DistanceDetector(1.0)(states) == 0
    unusual = tc.AdaptiveDetector(1.0)(states, mask[:, 6:]) == 0
    cuts = torch.zeros(17, dtype=torch.bool)
    cuts[[5, 11]] = True
    assert not far.any() and unusual[:, cuts].all()
    assert unusual.float().mean() < 0.3


def scene_model() -> nn.Module:
    return models.build("rnn_attn", SIZES, CoherenceConfig(), (32,), 5, 0, 24)


@pytest.mark.parametrize("z", ["distance", "adaptive"])
def test_segments_of_eq_1_end_where_frames_turn(z):
    """Frames, not states; directions, not lengths; by the profile's threshold."""
    model, (frames, mask) = build("tc_rnn", form="output", z=z, z_threshold=1.3, label_prior=2.0), frames_and_mask()
    frames = frames * torch.arange(1, 10)[:, None]
    model.train()(frames, mask)
    found = take_penalty(model)
    logits = model.model.head(model.model.represent(frames, mask)[1])
    safe = torch.where(mask.unsqueeze(-1), frames, 1.0)  # padding has no direction
    continuity = boundaries_by_hand(safe, mask, z, 1.3)
    torch.testing.assert_close(found, tc.LabelPrior(2.0)(logits, mask, continuity).sum())
    assert found < 0.9 * tc.LabelPrior(2.0)(logits, mask).sum()


def test_the_exact_rnn_is_eq_4():
    """Weights of one video, from the model's own states and energies, by the equation's loop."""
    model, (frames, _) = build("tc_rnn", form="exact", kernel_size=3), frames_and_mask()
    video, mask = frames[:1], torch.ones(1, 9, dtype=torch.bool)
    states = model.recurrent(video)[0][0]
    energies = model.energy(states)[:, 0]
    logits = []
    for i in range(9):
        near = [j for j in (i - 1, i + 1) if 0 <= j < 9]
        logits.append(energies[i] + sum(energies[j] * torch.exp(-(states[i] - states[j]).norm()) for j in near))
    torch.testing.assert_close(model.attention(video, mask)[0], torch.stack(logits).softmax(dim=0))


def test_everywhere_in_netvlad_is_a_smoothed_input():
    """The layer's output replaces x in assignments and residuals alike (erratum 16)."""
    frames, mask = frames_and_mask()
    model = build("tc_netv", netvlad_site="everywhere")
    smoothed = model.on_frames.layer(frames, mask)
    plain = build("netv")
    torch.testing.assert_close(model(frames, mask), plain(smoothed, mask))


def test_kernels_count_once_where_a_layer_stands_twice():
    once, twice = (build("tc_rnn", rnn_site=site) for site in ("states", "everywhere"))
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert len(models.kernels(twice)) == 1


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({}, 3), ({"sharing": "shared"}, 1), ({"sharing": "depthwise"}, 12), ({"form": "exact"}, 3),
        ({"form": "exact", "sharing": "shared"}, 1),
    ],
)  # fmt: skip
def test_heads_have_weights_of_their_own_unless_told_otherwise(options, groups):
    layers = [each.layer for each in build("tc_tm", **options).modules() if isinstance(each, models.Coherent)]
    assert {layer.groups for layer in layers} == {groups}


@pytest.mark.parametrize("column", BASELINES)
def test_layers_are_of_the_form(column):
    kinds = {
        "convolution": tc.TemporalConvolution,
        "exact": tc.NeighbourhoodSum,
        "distance_convolution": tc.DistanceConvolution,
    }
    for form, kind in kinds.items():
        layers = [each.layer for each in build(column, form=form).modules() if isinstance(each, models.Coherent)]
        assert layers and all(type(layer) is kind for layer in layers)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("form=exact", "relu=true"), ["coherence.relu = True", "no meaning", "'exact'"]),
        (("form=exact", "maps=2"), ["coherence.maps = 2", "'exact'"]),
        (("sign=1",), ["coherence.sign = 1", "'convolution'"]),
        (("label_prior=2.0",), ["coherence.label_prior = 2.0", "'convolution'"]),
        (("form=output", "kernel_size=3"), ["coherence.kernel_size = 3", "'output'"]),
        (("form=output", "z=learned"), ["coherence.z", "given"]),
        (("form=exact", "kernel_size=[1,3]"), ["kernel_size", "one size"]),
        (("form=distance_convolution", "sharing=depthwise"), ["sharing", "one distance"]),
        (("kernel_size=[3,3]",), ["kernel_size", "different"]),
        (("kernel_size=true",), ["kernel_size = True", "number of frames"]),
        (("form=exacct",), ["coherence.form"]),
    ],
)
def test_what_has_no_meaning_is_refused(assignments, words):
    with pytest.raises(ConfigurationError) as caught:
        load_profile("smoke", tuple(f"coherence.{each}" for each in assignments))
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def toy(column: str, **coherence) -> nn.Module:
    sizes = SIZES.model_copy(update={"netvlad_clusters": (4,)})
    return models.build(column, sizes, CoherenceConfig(**coherence), (WIDTH,), NODES, 0, LONGEST)


@pytest.mark.parametrize("column", ["tc_rnn", "tc_tm"])
@pytest.mark.parametrize("z", ["constant", "distance"])
def test_eq_1_adds_its_term_to_the_loss(column, z):
    """The optimiser's loss is the baseline's plus lambda times the variance within segments, and so is its gradient."""
    source, labels = corpus()
    batch = next(iter(batches(source, labels, np.arange(24), 24)))
    plain = toy(column.replace("tc_rnn", "rnn_attn").replace("tc_tm", "tm"))
    losses = {}
    for name, model in {"plain": plain, "with": toy(column, form="output", z=z, label_prior=3.0)}.items():
        losses[name] = Optimiser(model.train(), TRAINING, SPEC, Compute()).gradients(batch)
    model = toy(column, form="output", z=z, label_prior=3.0).train()
    assert isinstance(model, LabelPriorModel)
    frames, mask = prepare(batch, SPEC, TRAINING.normalisation)
    model(frames, mask)
    expected = take_penalty(model)
    assert expected.item() > 0 and take_penalty(model) == 0
    torch.testing.assert_close(losses["with"], losses["plain"] + expected.detach(), rtol=1e-4, atol=1e-4)
    model.eval()(frames, mask)
    assert take_penalty(model) == 0


def test_eq_1_makes_predictions_of_frames_coherent(tmp_path):
    source, labels = corpus()
    protocol, spread = TRAINING.model_copy(update={"epochs": 10, "patience": 10}), {}
    for strength in (1e-6, 30.0):
        model = toy("tc_rnn", form="output", label_prior=strength)
        record = train(model, source, labels, split(), protocol, SPEC, 0, tmp_path / f"{strength:g}")
        assert record["status"] == "finished"
        batch = next(iter(batches(source, labels, np.arange(24), 24)))
        frames, mask = prepare(batch, SPEC, protocol.normalisation)
        states = model.model.represent(frames, mask)[1]
        spread[strength] = tc.LabelPrior(1.0)(model.model.head(states), mask).mean().item()
    assert spread[30.0] < 0.5 * spread[1e-6]


def test_eq_1_needs_states_of_frames():
    with pytest.raises(ConfigurationError, match="NetVLAD has none"):
        build("tc_netv", form="output")


def test_shuffling_permutes_valid_frames_the_same_way_each_time():
    source, _ = corpus()
    ids = np.array([f"v{n}".encode() for n in range(96)])
    shuffled = ShuffledFrames(source, ids)
    rows = np.array([5, 80, 3, 41])
    plain, lengths = source.read(rows)
    mixed, same = shuffled.read(rows)
    again, _ = shuffled.read(rows[::-1])
    np.testing.assert_array_equal(lengths, same)
    moved = 0
    for line, length in enumerate(lengths):
        frames = {bytes(frame) for frame in plain[line, :length]}
        assert {bytes(frame) for frame in mixed[line, :length]} == frames
        assert not mixed[line, length:].any()
        np.testing.assert_array_equal(mixed[line, :length], again[len(rows) - 1 - line, :length])
        moved += not np.array_equal(plain[line], mixed[line])
    assert moved > 0


def test_frame_orders_are_permutations_that_differ_between_videos():
    orders = [tuple(frame_order(f"v{n}".encode(), 20)) for n in range(50)]
    assert all(sorted(order) == list(range(20)) for order in orders) and len(set(orders)) == 50
    means = np.mean(orders, axis=0)
    assert np.abs(means - 9.5).max() < 3  # each place holds each frame alike


def test_chosen_modalities_are_their_columns():
    source, _ = corpus()
    features = (Feature("rgb", 6), Feature("audio", 2))
    rows = np.arange(10)
    plain, lengths = source.read(rows)
    for chosen, columns in ((("audio",), slice(6, 8)), (("rgb",), slice(0, 6)), (("audio", "rgb"), slice(0, 8))):
        view = ChosenModalities(source, features, chosen)
        found, same = view.read(rows)
        np.testing.assert_array_equal(found, plain[..., columns])
        np.testing.assert_array_equal(same, lengths)
        assert sum(view.widths) == found.shape[2]
    with pytest.raises(ConfigurationError, match="there is no 'sound'; the dataset has rgb, audio"):
        ChosenModalities(source, features, ("sound",))
