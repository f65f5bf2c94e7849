"""From a column's name to its untrained model. The only place that puts a tc layer into a baseline."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

import tc
from baselines.head import VectorHead
from baselines.initialisation import initialise
from baselines.netvlad import NetVLAD
from baselines.padded import PaddedInput
from baselines.rnn import AttentionRNN, RecurrentClassifier
from baselines.transformer import Transformer
from replicate.columns import AGGREGATOR
from replicate.config import CoherenceConfig, ModelConfig
from replicate.errors import ConfigurationError


@dataclass(frozen=True)
class Request:
    """What a builder needs to know.

    Attributes:
        model, coherence: sizes and options.
        widths: values per frame of each modality, e.g. (1024, 128).
        nodes: size of the taxonomy.
        seed: names the initial weights.
    """

    model: ModelConfig
    coherence: CoherenceConfig
    widths: tuple[int, ...]
    nodes: int
    seed: int

    @property
    def ends(self) -> tuple[tuple[int, ...], int, int]:
        """The last arguments of every baseline: hidden widths of the head, nodes, seed."""
        return self.model.head, self.nodes, self.seed


class Coherent(nn.Module):
    """A TemporalConvolution as a hook."""

    def __init__(self, coherence: CoherenceConfig, groups: int = 1):
        """
        Args:
            coherence: the layer's options.
            groups: parts of the channels with kernels of their own.
        """
        super().__init__()
        kernel = coherence.kernel_size, coherence.maps, coherence.initialisation
        self.layer = tc.TemporalConvolution(*kernel, groups=groups)

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Smooth `values` over time; `features` play no part in the convolutional form."""
        return self.layer(values, mask)

    def then_linear(self, linear: nn.Linear, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """linear(self(values)) on valid frames. A linear kernel that all channels share commutes with the linear map,
        so it is applied to the map's outputs, which are fewer; its bias reaches each output times the sum of weights.
        """
        layer = self.layer
        if layer.groups > 1 or layer.relu or linear.out_features >= linear.in_features:
            return linear(layer(values, mask))
        smoothed = layer(F.linear(values, linear.weight), mask)
        return smoothed + (layer.bias.mean() * (linear.weight.sum(dim=1) - 1) + linear.bias)


def _dnn(request: Request) -> nn.Module:
    return initialise(VectorHead(sum(request.widths), *request.ends[:2]), request.seed)


def _dnn_lstm(request: Request) -> nn.Module:
    return RecurrentClassifier(nn.LSTM, sum(request.widths), request.model.lstm_width, *request.ends)


def _rnn(request: Request) -> nn.Module:
    return RecurrentClassifier(nn.GRU, _gru_inputs(request), request.model.gru_width, *request.ends)


def _rnn_attn(request: Request, **hooks: nn.Module) -> nn.Module:
    return AttentionRNN(_gru_inputs(request), request.model.gru_width, *request.ends, **hooks)


def _tc_rnn(request: Request) -> nn.Module:
    return _rnn_attn(request, on_states=Coherent(request.coherence))


def _gru_inputs(request: Request) -> int:
    if request.model.gru_features == "all":
        return sum(request.widths)
    if len(request.widths) < 2:
        raise ConfigurationError("model.gru_features = 'rgb', but the dataset has one modality; give 'all'")
    return request.widths[0]


def _netv(request: Request, **hooks: nn.Module) -> nn.Module:
    model, widths = request.model, request.widths
    if len(model.netvlad_clusters) != len(widths):
        raise ConfigurationError(
            f"model.netvlad_clusters = {list(model.netvlad_clusters)} must name one number for each of the dataset's "
            f"{len(widths)} modalities"
        )
    sizes = model.netvlad_clusters, model.netvlad_width
    return NetVLAD(widths, *sizes, *request.ends, gate=model.netvlad_gate, **hooks)


def _tc_netv(request: Request) -> nn.Module:
    return _netv(request, on_frames=Coherent(request.coherence))


def _tm(request: Request, **hooks: tuple[nn.Module, ...]) -> nn.Module:
    model = request.model
    if model.transformer_width % model.transformer_heads:
        raise ConfigurationError(
            f"model.transformer_width = {model.transformer_width} must be a multiple of "
            f"model.transformer_heads = {model.transformer_heads}"
        )
    sizes = model.transformer_width, model.transformer_heads, model.transformer_feedforward, model.transformer_layers
    choices = {"positions": model.transformer_positions, "pooling": model.transformer_pooling}
    return Transformer(sum(request.widths), *sizes, *request.ends, **choices, **hooks)


def _tc_tm(request: Request) -> nn.Module:
    def one_per_layer() -> tuple[nn.Module, ...]:
        heads, layers = request.model.transformer_heads, request.model.transformer_layers
        return tuple(Coherent(request.coherence, groups=heads) for _ in range(layers))

    return _tm(request, on_keys=one_per_layer(), on_values=one_per_layer())


BUILDERS: dict[str, Callable[[Request], nn.Module]] = {
    "dnn": _dnn,
    AGGREGATOR: _dnn_lstm,
    "rnn": _rnn,
    "rnn_attn": _rnn_attn,
    "tc_rnn": _tc_rnn,
    "netv": _netv,
    "tc_netv": _tc_netv,
    "tm": _tm,
    "tc_tm": _tc_tm,
}


def build(
    column: str,
    model: ModelConfig,
    coherence: CoherenceConfig,
    widths: tuple[int, ...],
    nodes: int,
    seed: int,
    frame_limit: int,
) -> nn.Module:
    """An untrained model whose weights are a function of the seed and their own names.

    Args:
        column: slug of a column that is trained.
        model, coherence: sizes and options.
        widths: values per frame of each modality, e.g. (1024, 128).
        nodes: size of the taxonomy.
        seed: names the initial weights.
        frame_limit: frames of the longest video, to which all are padded if nothing is masked.

    Raises:
        ConfigurationError: an option does not fit, or nothing builds such a column.
    """
    if column not in BUILDERS:
        raise ConfigurationError(
            f"nothing in replicate/models.py builds the column {column!r}; add a line to BUILDERS, or take it out of "
            "run.own_columns"
        )
    if coherence.kernel_size % 2 == 0:
        raise ConfigurationError(
            f"coherence.kernel_size = {coherence.kernel_size} must be odd, to be centred on a frame"
        )
    built = BUILDERS[column](Request(model, coherence, widths, nodes, seed))
    return built if model.mask or column == "dnn" else PaddedInput(built, frame_limit)


def kernels(model: nn.Module) -> dict[str, np.ndarray]:
    """(groups, maps, kernel size) weights of every temporal convolution in a model, by name (Figure 8)."""
    return {
        name: module.kernels().detach().cpu().numpy()
        for name, module in model.named_modules()
        if isinstance(module, tc.TemporalConvolution)
    }
