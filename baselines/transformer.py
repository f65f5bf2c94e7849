"""Transformer encoder over frames (Vaswani et al., 2017).

The paper gives 12 heads and 52 MB; preset C reads that as frames projected to 768, two layers of 12 heads of 64, and a
feed-forward layer of 2048 (facts, section D). As in the original: normalisation after each residual sum, inputs scaled
by the square root of the width, sinusoidal positions. Where the paper is silent, the mean over valid frames represents
the video; the other choices of erratum 20 are options.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.head import Head
from baselines.hooks import Unchanged
from baselines.initialisation import initialise

POSITIONS = ("sinusoidal", "none")
POOLINGS = ("mean", "token", "query")


def sinusoidal_positions(time: int, width: int, device: torch.device | None = None) -> Tensor:
    """(time, width) float32: sines in the even places, cosines in the odd ones (Vaswani et al., section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000) / width))
    angles = torch.arange(time, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class Attention(nn.Module):
    """Scaled dot-product attention of every position over the valid ones, in heads of equal width.

    Hooks: `on_keys` and `on_values`, on (batch, time, width) after the projection, with the heads side by side; both
    see the keys as features. A leading token, where there is one, is no frame and passes them by.
    """

    def __init__(self, width: int, heads: int, on_keys: nn.Module, on_values: nn.Module):
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.on_keys, self.on_values = on_keys, on_values

    def projected(self, states: Tensor, mask: Tensor, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (batch, heads, positions, width of a head)."""
        keys, values = self.keys(states), self.values(states)
        frames, valid = keys[:, tokens:], mask[:, tokens:]
        smoothed_keys = self.on_keys(frames, frames, valid)
        smoothed_values = self.on_values(values[:, tokens:], frames, valid)
        if tokens:
            smoothed_keys = torch.cat([keys[:, :tokens], smoothed_keys], dim=1)
            smoothed_values = torch.cat([values[:, :tokens], smoothed_values], dim=1)
        projections = self.queries(states), smoothed_keys, smoothed_values
        return tuple(each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in projections)

    def weights(self, states: Tensor, mask: Tensor, tokens: int) -> Tensor:
        """(batch, heads, positions, positions) float32: how much each position (third axis) attends to each (last)."""
        queries, keys, _ = self.projected(states, mask, tokens)
        logits = (queries @ keys.transpose(2, 3)).float() * queries.shape[-1] ** -0.5
        return logits.masked_fill(~mask[:, None, None], -torch.inf).softmax(dim=3)

    def forward(self, states: Tensor, mask: Tensor, tokens: int) -> Tensor:
        """(batch, positions, width), (batch, positions) -> (batch, positions, width)."""
        attended = F.scaled_dot_product_attention(*self.projected(states, mask, tokens), attn_mask=mask[:, None, None])
        return self.output(attended.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward layer, each followed by the residual sum and layer normalisation."""

    def __init__(self, width: int, heads: int, feedforward: int, on_keys: nn.Module, on_values: nn.Module):
        super().__init__()
        self.attention = Attention(width, heads, on_keys, on_values)
        self.attention_normalisation = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))
        self.feedforward_normalisation = nn.LayerNorm(width)

    def forward(self, states: Tensor, mask: Tensor, tokens: int) -> Tensor:
        """(batch, positions, width), (batch, positions) -> (batch, positions, width)."""
        states = self.attention_normalisation(states + self.attention(states, mask, tokens))
        return self.feedforward_normalisation(states + self.feedforward(states))


class Transformer(nn.Module):
    """Encoder layers over frames; one vector per video goes to the head.

    Hooks: each layer's `on_keys` and `on_values`, see Attention.
    """

    def __init__(
        self, inputs: int, width: int, heads: int, feedforward: int, layers: int, head: tuple[int, ...], nodes: int,
        seed: int, positions: str = "sinusoidal", pooling: str = "mean",
        on_keys: tuple[nn.Module, ...] | None = None, on_values: tuple[nn.Module, ...] | None = None,
    ):  # fmt: skip
        """
        Args:
            inputs: values per frame; frames are projected to `width` unless they have it already.
            width: of the encoder, a multiple of `heads`.
            feedforward: width of the feed-forward layers.
            head, nodes: see Head.
            seed: names the initial weights.
            positions: "sinusoidal", or "none" to leave the order of frames to the hooks alone.
            pooling: "mean" over valid frames; "token", a learned one in front of the frames, whose last state is taken;
                "query", a learned vector whose softmax over valid frames weighs the last states.
            on_keys, on_values: a hook for each layer; None leaves all Unchanged.
        """
        super().__init__()
        self.width, self.positions, self.pooling = width, positions, pooling
        self.projection = nn.Linear(inputs, width) if inputs != width else nn.Identity()
        hooks = zip(on_keys or _unchanged(layers), on_values or _unchanged(layers), strict=True)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, *each) for each in hooks)
        self.pool = None if pooling == "mean" else LearnedVector(width)
        self.head = Head(width, head, nodes)
        initialise(self, seed)

    @property
    def _tokens(self) -> int:
        return int(self.pooling == "token")

    def _embed(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's input and its mask, with the token in front where there is one."""
        states = self.projection(frames) * self.width**0.5
        if self.positions == "sinusoidal":
            states = states + sinusoidal_positions(frames.shape[1], self.width, frames.device).to(states.dtype)
        if self._tokens:
            token = self.pool.vector.to(states.dtype).expand(len(states), 1, -1)
            states = torch.cat([token, states], dim=1)
            mask = F.pad(mask, (1, 0), value=True)
        return states, mask

    def _query_weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """(batch, time) float32: the learned query's softmax over valid frames."""
        logits = (states @ self.pool.vector.to(states.dtype)).float() * self.width**-0.5
        return logits.masked_fill(~mask, -torch.inf).softmax(dim=1)

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """How much of each frame goes into the video's vector: (batch, time) float32, rows sum to 1 over valid frames.

        With "query", the weights of that sum. Else the last layer's attention weights, as the mean over heads and, with
        "mean", over the queries of all valid frames (each of which has the same part in the pooled mean); with "token",
        of the token's query, rescaled to the frames alone.
        """
        states, mask = self._embed(frames, mask)
        for layer in self.layers[:-1]:
            states = layer(states, mask, self._tokens)
        last = self.layers[-1]
        if self.pooling == "query":
            return self._query_weights(last(states, mask, 0), mask)
        weights = last.attention.weights(states, mask, self._tokens).mean(dim=1)  # (batch, queries, keys)
        if self._tokens:
            return F.normalize(weights[:, 0, 1:], p=1, dim=1)
        valid = mask / mask.sum(dim=1, keepdim=True)
        return torch.bmm(valid.unsqueeze(1), weights).squeeze(1)

    def represent(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, width) vectors, which the head classifies, and (batch, time, width) states, which it could."""
        states, mask = self._embed(frames, mask)
        for layer in self.layers:
            states = layer(states, mask, self._tokens)
        if self._tokens:
            return states[:, 0], states[:, 1:]
        weights = self._query_weights(states, mask) if self.pooling == "query" else mask / mask.sum(dim=1, keepdim=True)
        return torch.bmm(weights.to(states.dtype).unsqueeze(1), states).squeeze(1), states

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, inputs), (batch, time) -> (batch, nodes) logits."""
        return self.head(self.represent(frames, mask)[0])


class LearnedVector(nn.Module):
    """One vector that is learned: a token in front of the frames, or a query over them."""

    def __init__(self, width: int):
        super().__init__()
        self.vector = nn.Parameter(torch.empty(width))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw from N(0, 1), about the scale of the frames' states."""
        with torch.no_grad():
            self.vector.normal_(generator=generator)


def _unchanged(layers: int) -> tuple[nn.Module, ...]:
    return tuple(Unchanged() for _ in range(layers))
