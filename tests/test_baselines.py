"""Claims: each baseline is its equations, written out as loops or taken from torch's own layers; padding changes
nothing; hooks stand where they are said to stand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.hooks import then_linear
from baselines.initialisation import initialise
from baselines.netvlad import ContextGate, NetVLAD
from baselines.padded import PaddedInput
from baselines.rnn import AttentionRNN, RecurrentClassifier, last_valid
from baselines.transformer import Transformer, sinusoidal_positions

HEAD, NODES, WIDTHS = (5,), 4, (6, 3)
WIDTH = sum(WIDTHS)


def videos(lengths=(5, 1, 3), time=5, width=WIDTH, seed=0):
    """(frames, mask) of some videos, float64, zero beyond their lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(time) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), time, width, generator=generator, dtype=torch.float64) * mask[..., None], mask


def netvlad(**options):
    return NetVLAD(WIDTHS, (4, 2), 7, HEAD, NODES, seed=1, **options).double()


def transformer(**options):
    return Transformer(WIDTH, 12, 3, 16, 2, HEAD, NODES, seed=1, **options).double()


MODELS = {
    "LSTM": lambda: RecurrentClassifier(nn.LSTM, WIDTH, 8, HEAD, NODES, seed=1).double(),
    "GRU": lambda: RecurrentClassifier(nn.GRU, WIDTH, 8, HEAD, NODES, seed=1).double(),
    "attention RNN": lambda: AttentionRNN(WIDTH, 8, HEAD, NODES, seed=1).double(),
    "NetVLAD": netvlad,
    "NetVLAD, gated": lambda: netvlad(gate=True).eval(),
    "Transformer": transformer,
    "Transformer, token": lambda: transformer(pooling="token"),
    "Transformer, query": lambda: transformer(pooling="query"),
    "Transformer, no positions": lambda: transformer(positions="none"),
}


class Probe(nn.Module):
    """A hook that notes the shapes it is given, and returns `change(values)`."""

    def __init__(self, change=lambda values: values):
        super().__init__()
        self.change, self.seen = change, []

    def forward(self, values, features, mask):
        self.seen.append((tuple(values.shape), tuple(features.shape), tuple(mask.shape)))
        return self.change(values)


@pytest.mark.parametrize("name", MODELS)
def test_padding_to_300_changes_nothing(name):
    model, (frames, mask) = MODELS[name](), videos()
    padded = F.pad(frames, (0, 0, 0, 295)), F.pad(mask, (0, 295))
    torch.testing.assert_close(model(*padded), model(frames, mask))
    if hasattr(model, "attention"):
        torch.testing.assert_close(model.attention(*padded)[:, :5], model.attention(frames, mask))


@pytest.mark.parametrize("name", MODELS)
def test_what_lies_in_the_padding_changes_nothing(name):
    model, (frames, mask) = MODELS[name](), videos()
    noisy = frames + 10 * ~mask[..., None]
    torch.testing.assert_close(model(noisy, mask), model(frames, mask))


@pytest.mark.parametrize("name", ["attention RNN", "Transformer", "Transformer, token", "Transformer, query"])
def test_attention_is_a_distribution_over_valid_frames(name):
    model, (frames, mask) = MODELS[name](), videos()
    weights = model.attention(frames, mask)
    assert weights.shape == mask.shape and bool((weights >= 0).all()) and not weights[~mask].any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(mask), dtype=weights.dtype))
    assert weights[0].std() > 1e-6  # not uniform, or the other claims would hold of anything


def test_last_valid_state():
    states = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert last_valid(states, mask).tolist() == [states[0, 1].tolist(), states[1, 3].tolist()]


def test_attention_rnn_by_loops():
    model, (frames, mask) = MODELS["attention RNN"](), videos()
    for video, length in enumerate(mask.sum(dim=1).tolist()):
        states = model.recurrent(frames[video : video + 1, :length])[0][0]
        energies = [(model.energy.weight[0] @ state + model.energy.bias[0]).item() for state in states]
        total = sum(math.exp(energy) for energy in energies)
        context = sum(math.exp(energy) / total * state for energy, state in zip(energies, states, strict=True))
        torch.testing.assert_close(model(frames, mask)[video], model.head(context), rtol=1e-6, atol=1e-7)


def test_netvlad_by_loops():
    model, (frames, mask) = netvlad(), videos()
    for video, length in enumerate(mask.sum(dim=1).tolist()):
        found, begin = [], 0
        for vlad, width in zip(model.modalities, WIDTHS, strict=True):
            xs, begin = frames[video, :length, begin : begin + width], begin + width
            clusters = len(vlad.centres)
            sums = [torch.zeros(width, dtype=torch.float64) for _ in range(clusters)]
            for x in xs:
                logits = [vlad.assignment.weight[k] @ x + vlad.assignment.bias[k] for k in range(clusters)]
                total = sum(torch.exp(logit) for logit in logits)
                for k in range(clusters):
                    sums[k] = sums[k] + torch.exp(logits[k]) / total * (x - vlad.centres[k])
            found += [each / each.norm() for each in sums]
        joined = torch.cat(found)
        joined = joined / joined.norm()
        torch.testing.assert_close(model(frames, mask)[video], model.head(model.hidden(joined)))


def test_context_gate_and_a_batch_of_one():
    gate = ContextGate(3)
    initialise(gate, 0)
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    pre = values @ gate.linear.weight.T
    expected = values * torch.sigmoid((pre - pre.mean(0)) / (pre.var(0, unbiased=False) + 1e-3).sqrt())
    torch.testing.assert_close(gate.train()(values), expected)
    assert torch.isfinite(gate(values[:1])).all()  # a batch that one video is left over for


def test_transformer_is_torchs_encoder():
    """torch's own layers, with the same weights, as the oracle; its attention weights too."""
    model, (frames, mask) = transformer(), videos()
    states = model.projection(frames) * 12**0.5 + sinusoidal_positions(5, 12)
    for layer in model.layers:
        oracle = nn.TransformerEncoderLayer(12, 3, 16, dropout=0, activation="relu", batch_first=True).double()
        mine, theirs = layer.attention, oracle.self_attn
        projections = mine.queries, mine.keys, mine.values
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([each.weight for each in projections]))
            theirs.in_proj_bias.copy_(torch.cat([each.bias for each in projections]))
        theirs.out_proj.load_state_dict(mine.output.state_dict())
        oracle.linear1.load_state_dict(layer.feedforward[0].state_dict())
        oracle.linear2.load_state_dict(layer.feedforward[2].state_dict())
        oracle.norm1.load_state_dict(layer.attention_normalisation.state_dict())
        oracle.norm2.load_state_dict(layer.feedforward_normalisation.state_dict())
        _, attended = theirs(states, states, states, key_padding_mask=~mask)  # (batch, queries, keys), mean over heads
        states = oracle(states, src_key_padding_mask=~mask)
    for video, length in enumerate(mask.sum(dim=1).tolist()):
        pooled = states[video, :length].mean(dim=0)
        torch.testing.assert_close(model(frames, mask)[video], model.head(pooled), rtol=1e-5, atol=1e-6)
        shown = attended[video, :length].mean(dim=0)
        torch.testing.assert_close(model.attention(frames, mask)[video].double(), shown, rtol=1e-5, atol=1e-6)


def test_sinusoidal_positions_by_loops():
    found = sinusoidal_positions(7, 6)
    for position in range(7):
        for place in range(6):
            angle = position / 10_000 ** (2 * (place // 2) / 6)
            assert float(found[position, place]) == pytest.approx([math.sin, math.cos][place % 2](angle), abs=1e-6)


def test_without_positions_the_order_of_frames_is_nothing():
    frames, mask = videos(lengths=(5, 5))
    turned = frames.flip(1)
    torch.testing.assert_close(transformer(positions="none")(turned, mask), transformer(positions="none")(frames, mask))
    assert not torch.allclose(transformer()(turned, mask), transformer()(frames, mask))


@pytest.mark.parametrize("pooling", ["token", "query"])
def test_learned_poolings_by_loops(pooling):
    model, (frames, mask) = transformer(pooling=pooling), videos(lengths=(4,), time=4)
    states = model.projection(frames) * 12**0.5 + sinusoidal_positions(4, 12)
    if pooling == "token":
        states = torch.cat([model.pool.vector[None, None], states], dim=1)
    for layer in model.layers:
        states = layer(states, torch.ones_like(states[..., 0], dtype=torch.bool), int(pooling == "token"))
    pooled = states[0, 0]
    if pooling == "query":
        weights = [math.exp((state @ model.pool.vector).item() / 12**0.5) for state in states[0]]
        pooled = sum(weight / sum(weights) * state for weight, state in zip(weights, states[0], strict=True))
    torch.testing.assert_close(model(frames, mask)[0], model.head(pooled), rtol=1e-5, atol=1e-6)


def test_hooks_get_what_they_are_promised():
    frames, mask = videos()
    probes = {name: Probe() for name in ("on_states", "on_energies", "on_context_states")}
    AttentionRNN(WIDTH, 8, HEAD, NODES, seed=1, **probes).double()(frames, mask)
    assert probes["on_states"].seen == probes["on_context_states"].seen == [((3, 5, 8), (3, 5, 8), (3, 5))]
    assert probes["on_energies"].seen == [((3, 5, 1), (3, 5, 8), (3, 5))]

    shared, own = Probe(), (Probe(), Probe())
    netvlad(on_frames=shared, on_assignments=own)(frames, mask)
    assert shared.seen == [((3, 5, 6), (3, 5, 6), (3, 5)), ((3, 5, 3), (3, 5, 3), (3, 5))]
    assert [probe.seen for probe in own] == [[((3, 5, 4), (3, 5, 6), (3, 5))], [((3, 5, 2), (3, 5, 3), (3, 5))]]

    for pooling in ("mean", "token"):
        keys, values = (Probe(), Probe()), (Probe(), Probe())
        transformer(pooling=pooling, on_keys=keys, on_values=values)(frames, mask)
        assert [probe.seen for probe in (*keys, *values)] == [[((3, 5, 12), (3, 5, 12), (3, 5))]] * 4


def test_netvlad_frames_hook_reaches_the_assignment_only():
    frames, mask = videos()
    model = netvlad(on_frames=Probe(torch.zeros_like))
    for vlad, width, begin in zip(model.modalities, WIDTHS, (0, WIDTHS[0]), strict=True):
        part = frames[:, :, begin : begin + width]
        residuals = vlad(part, mask, model.on_frames, model.on_assignments, model.on_residuals)
        share = vlad.assignment.bias.softmax(dim=0)  # the same for every frame
        sums = part.sum(dim=1)[:, None] - mask.sum(dim=1)[:, None, None] * vlad.centres
        torch.testing.assert_close(F.normalize(residuals, dim=2), F.normalize(share[:, None] * sums, dim=2))


def test_attention_rnn_sites():
    """on_energies changes the weights alone, on_context_states the sum alone, on_states the energies alone."""
    frames, mask = videos()

    def model(**hooks):
        return AttentionRNN(WIDTH, 8, HEAD, NODES, seed=1, **hooks).double()

    plain, states = model(), model().recurrent(frames)[0]
    flat = mask / mask.sum(dim=1, keepdim=True)
    mean = plain.head(torch.einsum("bt,bth->bh", flat.double(), states))
    torch.testing.assert_close(model(on_energies=Probe(torch.zeros_like))(frames, mask), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(on_states=Probe(torch.zeros_like))(frames, mask), mean, rtol=1e-5, atol=1e-6)
    doubled = model(on_context_states=Probe(lambda values: 2 * values))
    torch.testing.assert_close(doubled.attention(frames, mask), plain.attention(frames, mask))
    context = torch.einsum("bt,bth->bh", plain.attention(frames, mask).double(), states)
    torch.testing.assert_close(doubled(frames, mask), plain.head(2 * context), rtol=1e-5, atol=1e-6)


def test_a_hook_may_do_the_linear_map_itself():
    class Own(Probe):
        def then_linear(self, linear, values, features, mask):
            return linear(values) + 1

    linear, (frames, mask) = nn.Linear(WIDTH, 2).double(), videos()
    torch.testing.assert_close(then_linear(Probe(lambda x: 2 * x), linear, frames, frames, mask), linear(2 * frames))
    torch.testing.assert_close(then_linear(Own(), linear, frames, frames, mask), linear(frames) + 1)


def test_unmasked_input_is_the_padded_video():
    frames, mask = videos()
    padded, ones = F.pad(frames, (0, 0, 0, 4)), torch.ones(3, 9, dtype=torch.bool)
    for name in ("GRU", "NetVLAD", "attention RNN"):
        model = MODELS[name]()
        literal = PaddedInput(model, 9)
        torch.testing.assert_close(literal(frames, mask), model(padded, ones))
        assert not torch.allclose(literal(frames, mask), model(frames, mask))
        assert hasattr(literal, "attention") == hasattr(model, "attention")
        assert hasattr(literal, "states") == hasattr(model, "states")
    torch.testing.assert_close(literal.attention(frames, mask), model.attention(padded, ones))


def test_initial_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(5)
    first = transformer().state_dict()
    torch.manual_seed(6)
    second, other = transformer().state_dict(), Transformer(WIDTH, 12, 3, 16, 2, HEAD, NODES, seed=2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn = [name for name in first if "normalisation" not in name]
    assert all(not torch.equal(first[name].float(), other[name]) for name in drawn)
    assert len({float(first[name].flatten()[0]) for name in drawn}) == len(drawn)  # no two start alike


def test_a_layer_without_a_stated_initialisation_is_refused():
    with pytest.raises(TypeError, match="Conv1d"):
        initialise(nn.Sequential(nn.Conv1d(1, 1, 1)), 0)


def test_weights_start_at_the_scale_that_is_stated():
    """Uniform within 1/sqrt(fan) as torch's own layers; NetVLAD's and learned vectors normal, as its predecessors."""
    rnn, vlad = AttentionRNN(400, 100, (50,), NODES, seed=0), NetVLAD((400, 100), (40, 10), 60, (50,), NODES, seed=0)
    uniform = {rnn.recurrent.weight_ih_l0: 100, rnn.recurrent.bias_hh_l0: 100, rnn.head[0].weight: 100,
               vlad.modalities[0].assignment.weight: 400, vlad.modalities[1].assignment.weight: 100}  # fmt: skip
    for weights, fan in uniform.items():
        assert 0.95 * fan**-0.5 < float(weights.detach().abs().max()) <= fan**-0.5
    normal = {vlad.modalities[0].centres: 400**-0.5, vlad.modalities[1].centres: 100**-0.5,
              vlad.hidden.weight: 40**-0.5, vlad.hidden.bias: 0.01}  # fmt: skip
    for weights, deviation in normal.items():
        assert float(weights.detach().std()) == pytest.approx(deviation, rel=0.06 if weights.numel() > 999 else 0.3)
    query = Transformer(9, 600, 3, 8, 1, HEAD, NODES, seed=0, pooling="query").pool.vector
    assert float(query.detach().std()) == pytest.approx(1, rel=0.1)


def test_modules_that_draw_for_themselves_do_so_by_seed_and_name():
    one, other = (NetVLAD((4, 4), (3, 3), 7, HEAD, NODES, seed=seed) for seed in (1, 2))
    first, second = (vlad.centres for vlad in one.modalities)
    assert not torch.equal(first, second) and not torch.equal(first, other.modalities[0].centres)
    assert not torch.equal(one.hidden.weight, other.hidden.weight)


def test_a_querys_attention_is_the_weights_of_its_sum():
    model, (frames, mask) = transformer(pooling="query"), videos()
    vectors, states = model.represent(frames, mask)
    weights = model.attention(frames, mask).double()
    torch.testing.assert_close(torch.einsum("bt,btd->bd", weights, states), vectors, rtol=1e-5, atol=1e-6)
