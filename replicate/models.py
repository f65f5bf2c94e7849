"""From a column's name to its untrained model. The only place that puts a tc layer into a baseline."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

import tc
from baselines.head import VectorHead
from baselines.initialisation import initialise
from baselines.netvlad import NetVLAD
from baselines.padded import PaddedInput
from baselines.rnn import AttentionRNN, RecurrentClassifier
from baselines.transformer import Transformer
from replicate.coherence import Coherent as Coherent
from replicate.coherence import attention_hooks, cluster_hooks, recurrent_hooks, with_label_prior
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


def _dnn(request: Request) -> nn.Module:
    return initialise(VectorHead(sum(request.widths), *request.ends[:2]), request.seed)


def _dnn_lstm(request: Request) -> nn.Module:
    return RecurrentClassifier(nn.LSTM, sum(request.widths), request.model.lstm_width, *request.ends)


def _rnn(request: Request) -> nn.Module:
    return RecurrentClassifier(nn.GRU, _gru_inputs(request), request.model.gru_width, *request.ends)


def _rnn_attn(request: Request, **hooks: nn.Module) -> nn.Module:
    return AttentionRNN(_gru_inputs(request), request.model.gru_width, *request.ends, **hooks)


def _tc_rnn(request: Request) -> nn.Module:
    if request.coherence.form == "output":
        return with_label_prior(_rnn_attn(request), request.coherence)
    return _rnn_attn(request, **recurrent_hooks(request.coherence, request.model.gru_width))


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
    if request.coherence.form == "output":
        return with_label_prior(_netv(request), request.coherence)
    return _netv(request, **cluster_hooks(request.coherence, request.widths, request.model.netvlad_clusters))


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
    model = request.model
    if request.coherence.form == "output":
        return with_label_prior(_tm(request), request.coherence)
    sizes = model.transformer_layers, model.transformer_heads, model.transformer_width
    return _tm(request, **attention_hooks(request.coherence, *sizes))


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
    built = BUILDERS[column](Request(model, coherence, widths, nodes, seed))
    return built if model.mask or column == "dnn" else PaddedInput(built, frame_limit)


def kernels(model: nn.Module) -> dict[str, np.ndarray]:
    """(groups, maps, kernel size) weights of every temporal convolution in a model, by name (Figure 8)."""
    return {
        name: module.kernels().detach().cpu().numpy()
        for name, module in model.named_modules()
        if isinstance(module, tc.TemporalConvolution)
    }
