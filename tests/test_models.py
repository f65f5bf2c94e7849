"""Claims: sizes are the paper's to the printed digit, in three presets; a coherent column is its baseline and the
layer, nothing else; options that do not fit are refused in one sentence."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from replicate import models
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.config import CoherenceConfig, ModelConfig, Profile
from replicate.errors import ConfigurationError
from replicate.model_sizes import listing, node_count, parameter_counts, sizes
from replicate.profile_files import load_profile

# Facts, section D: parameters of each preset, found there by search over sizes, and the unit in which they fit.
COUNTS = {
    "C": {"dnn": 1_181_440, "rnn": 3_543_808, "netv": 148_749_409, "tm": 12_996_608},
    "A": {"dnn": 1_230_976, "rnn": 3_724_416, "netv": 155_905_024, "tm": 13_647_104},
    "B": {"dnn": 1_181_312, "rnn": 3_543_680, "netv": 148_859_488, "tm": 13_056_256},
}
PRINTED = {  # Table 2
    "dnn": "4.7", "rnn": "14.2", "rnn_attn": "14.2", "tc_rnn": "14.2", "netv": "595", "tc_netv": "595", "tm": "52",
    "tc_tm": "52",
}  # fmt: skip
LAYER = 5 * 4 + 4  # weights and biases of one kernel; the Transformer has one for K and one for V of each head
PAIRS = {"tc_rnn": ("rnn_attn", LAYER), "tc_netv": ("netv", LAYER), "tc_tm": ("tm", 2 * 12 * LAYER)}
SMALL = ModelConfig(
    head=(6,), gru_width=10, netvlad_clusters=(4, 3), netvlad_width=5, transformer_width=12, transformer_heads=3,
    transformer_feedforward=8,
)  # fmt: skip
WIDTHS = (7, 2)


@pytest.fixture(scope="module")
def paper() -> Profile:
    return load_profile("paper")


def small(column: str, seed: int = 0, **coherence) -> nn.Module:
    return models.build(column, SMALL, CoherenceConfig(**coherence), WIDTHS, 5, seed, 9)


def frames_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(9) < torch.tensor([9, 1, 4])[:, None]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 9, sum(WIDTHS), generator=generator) * mask[..., None], mask


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_have_the_papers_sizes(paper, preset):
    rows = {row.column: row for row in sizes(paper, preset)}
    assert {column: rows[column].parameters for column in COUNTS[preset]} == COUNTS[preset]
    unit = 2**20 if preset == "A" else 1e6
    for column, text in PRINTED.items():
        digits = len(text.partition(".")[2])
        assert f"{4 * rows[column].parameters / unit:.{digits}f}" == text
        assert rows[column].megabytes == pytest.approx(4 * rows[column].parameters / unit)
        assert rows[column].paper_megabytes == float(text)
        assert rows[column].difference == pytest.approx(rows[column].megabytes - float(text))
    assert rows["rnn_attn"].parameters - rows["rnn"].parameters == 513


def test_what_is_needed_to_run(paper):
    rows = {row.column: row for row in sizes(paper)}
    assert round(rows["dnn"].run_megabytes_decimal, 1) == 40.4  # the head, and the LSTM without its own
    assert rows["rnn"].run_megabytes_decimal == rows["rnn"].megabytes_decimal
    for ensemble in ("base_ens", "tc_ens"):
        members = sum(rows[member].run_megabytes_binary for member in COLUMNS[ensemble].members)
        assert rows[ensemble].run_megabytes_binary == pytest.approx(members)
        assert rows[ensemble].paper_megabytes is rows[ensemble].difference is None


def test_forward_gflop_is_the_facts_table(paper):
    """Facts, section D: cost per video of 300 frames, in 10^9 operations."""
    found = {preset: {row.column: row.forward_gflop for row in sizes(paper, preset)} for preset in "CAB"}
    assert found["C"]["rnn"] == pytest.approx(1.54, abs=0.01)
    assert found["C"]["netv"] == pytest.approx(0.55, abs=0.01)
    assert [found[preset]["tm"] for preset in "BAC"] == pytest.approx([7.1, 7.9, 7.7], abs=0.06)
    assert found["B"]["dnn"] == pytest.approx(2.05 + 0.002, abs=0.01)
    added = 2 * 5 * 300 * 2 * 2 * 768 / 1e9  # five taps on K and V of both layers
    assert found["C"]["tc_tm"] - found["C"]["tm"] == pytest.approx(added)


def test_gflop_of_long_videos_is_what_torch_counts_on_them():
    """Counted on short videos and extrapolated; here, on the long one itself."""
    profile = load_profile("tiny", ('run.columns=["rnn_attn", "netv", "tm"]',))
    for row in sizes(profile):
        inputs = (1024, 128), node_count(profile), 0, 12
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            model = models.build(row.column, profile.model, profile.coherence, *inputs)
            model(torch.zeros(1, 12, 1152), torch.ones(1, 12, dtype=torch.bool))
        assert row.forward_gflop * 1e9 == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_listing(paper):
    rows = json.loads(listing(paper, None, True))
    assert [row["column"] for row in rows] == list(COLUMNS)
    assert all(isinstance(row["megabytes"], float) for row in rows)
    text = listing(paper, "A")
    assert "155,905,024" in text and "paper, in MiB" in text and "TC-Ens" in text


def test_listing_needs_no_data_and_no_time_for_other_profiles():
    audioset = load_profile("audioset")
    assert node_count(audioset) == 557
    row = next(row for row in sizes(audioset) if row.column == "rnn")
    built = models.build("rnn", audioset.model, audioset.coherence, (128,), 557, 0, 10)
    assert row.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert row.paper_megabytes is None  # other inputs, other nodes
    counts = parameter_counts(load_profile("smoke"))
    assert set(counts) == {AGGREGATOR} | {slug for slug, column in COLUMNS.items() if column.trained}
    assert set(parameter_counts(load_profile("yt8m-video"))) == {"dnn"}


def test_models_verb():
    from replicate.cli.main import group

    result = CliRunner().invoke(group, ["models", "--profile", "yt8m-video", "--json"])
    assert result.exit_code == 0 and json.loads(result.output)[0]["column"] == "dnn"


@pytest.mark.parametrize("column", PAIRS)
def test_a_coherent_column_is_its_baseline_and_the_layer(paper, column):
    baseline, added = PAIRS[column]
    rows = {row.column: row for row in sizes(paper)}
    layers = paper.model.transformer_layers if column == "tc_tm" else 1
    assert rows[column].parameters - rows[baseline].parameters == added * layers

    plain, coherent = small(baseline).state_dict(), small(column).state_dict()
    assert all(torch.equal(plain[name], coherent[name]) for name in plain)  # filling a hook moves no other weight
    assert all("layer" in name for name in coherent.keys() - plain.keys())


@pytest.mark.parametrize("column", PAIRS)
def test_an_identity_kernel_gives_the_baselines_scores(column):
    frames, mask = frames_and_mask()
    expected = small(PAIRS[column][0])(frames, mask)
    torch.testing.assert_close(small(column, initialisation="identity")(frames, mask), expected)
    assert not torch.allclose(small(column)(frames, mask), expected)


@pytest.mark.parametrize("column", PAIRS)
def test_every_kernel_is_trained(column):
    model, (frames, mask) = small(column), frames_and_mask()
    model(frames, mask).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("out_features", [1, 3, 20])
def test_convolution_then_linear_equals_linear_then_convolution(out_features):
    """The narrow side gives the same outputs and gradients, biases included."""
    hook, linear = models.Coherent(CoherenceConfig()).double(), nn.Linear(9, out_features).double()
    values, mask = frames_and_mask()
    values = values.double().requires_grad_()
    parameters = [values, *hook.parameters(), *linear.parameters()]
    results = []
    for way in (linear(hook(values, values, mask)), hook.then_linear(linear, values, values, mask)):
        results.append([way[mask], *torch.autograd.grad(way[mask].square().sum(), parameters)])
    for wide, narrow in zip(*results, strict=True):
        torch.testing.assert_close(narrow, wide)


def test_the_narrow_side_is_used(monkeypatch):
    widths = []
    forward = models.tc.TemporalConvolution.forward

    def note(layer, values, mask=None):
        widths.append(values.shape[2])
        return forward(layer, values, mask)

    monkeypatch.setattr(models.tc.TemporalConvolution, "forward", note)
    for column in PAIRS:
        small(column)(*frames_and_mask())
    # Energies; assignments of the first modality, frames of the second, which has more clusters; keys and values.
    assert widths == [1, 4, 2, 12, 12, 12, 12]


def test_kernels_of_figure_8():
    found = models.kernels(small("tc_tm"))
    assert len(found) == 4 and all(kernel.shape == (3, 4, 5) for kernel in found.values())
    assert models.kernels(small("tm")) == {}


def test_unmasked_models_see_the_padding():
    frames, mask = frames_and_mask()
    model = models.build("rnn", SMALL.model_copy(update={"mask": False}), CoherenceConfig(), WIDTHS, 5, 0, 12)
    longer = torch.cat([frames, torch.zeros(3, 3, 9)], dim=1)
    torch.testing.assert_close(model(frames, mask), small("rnn")(longer, torch.ones(3, 12, dtype=torch.bool)))
    vector = models.build("dnn", SMALL.model_copy(update={"mask": False}), CoherenceConfig(), (4,), 5, 0, 12)
    assert vector(torch.ones(2, 1, 4), torch.ones(2, 1, dtype=torch.bool)).shape == (2, 5)


def test_a_preset_fills_in_what_a_profile_leaves_open():
    chosen = load_profile("paper", ("model.preset=B", "model.gru_width=256")).model
    assert (chosen.head, chosen.gru_features, chosen.gru_width) == ((1024,), "rgb", 256)


@pytest.mark.parametrize(
    ("column", "changes", "widths", "words"),
    [
        ("netv", {"netvlad_clusters": (4,)}, WIDTHS, ["netvlad_clusters = [4]", "2 modalities"]),
        ("tm", {"transformer_heads": 5}, WIDTHS, ["transformer_width = 12", "transformer_heads = 5"]),
        ("rnn", {"gru_features": "rgb"}, (9,), ["gru_features", "one modality", "'all'"]),
        ("mine", {}, WIDTHS, ["'mine'", "replicate/models.py", "own_columns"]),
    ],
)
def test_options_that_do_not_fit(column, changes, widths, words):
    with pytest.raises(ConfigurationError) as caught:
        models.build(column, SMALL.model_copy(update=changes), CoherenceConfig(), widths, 5, 0, 9)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_an_even_kernel_is_refused():
    with pytest.raises(ConfigurationError, match="kernel_size = 4: must be odd"):
        load_profile("smoke", ("coherence.kernel_size=4",))


@pytest.mark.parametrize("column", ["rnn", "rnn_attn", "tc_rnn"])
def test_preset_bs_recurrent_columns_see_the_first_modality_alone(column):
    chosen, (frames, mask) = SMALL.model_copy(update={"gru_features": "rgb"}), frames_and_mask()
    model = models.build(column, chosen, CoherenceConfig(), WIDTHS, 5, 0, 9)
    other = frames.clone()
    other[..., WIDTHS[0] :] += 1
    assert torch.equal(model(other, mask), model(frames, mask))
    assert not torch.allclose(model(frames.flip(2), mask), model(frames, mask))


@pytest.mark.parametrize("column", PAIRS)
def test_kernels_depend_on_seed_and_name_alone(column):
    def kernels(seed: int, state: int) -> list[np.ndarray]:
        torch.manual_seed(state)
        return list(models.kernels(small(column, seed)).values())

    first, again, other = kernels(0, 5), kernels(0, 6), kernels(1, 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({each.tobytes() for each in first}) == len(first)


def test_a_head_without_a_hidden_layer_is_a_sentence():
    with pytest.raises(ConfigurationError, match=r"model.head = \[\]: it must have one entry or more$"):
        load_profile("smoke", ("model.head=[]",))


def test_an_unknown_modality_is_a_sentence():
    with pytest.raises(ConfigurationError, match="there is no 'sound'; the dataset has rgb, audio"):
        sizes(load_profile("smoke", ('dataset.modalities=["sound"]',)))
