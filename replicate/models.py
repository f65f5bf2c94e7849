"""From a column's name to its untrained model. The only place that puts a tc layer into a baseline."""

from collections.abc import Callable

import numpy as np
import tc
from baselines.head import VectorHead
from baselines.initialisation import initialise
from baselines.rnn import AttentionRNN, RecurrentClassifier
from torch import Tensor, nn

from replicate.columns import AGGREGATOR
from replicate.config import CoherenceConfig, ModelConfig
from replicate.errors import ConfigurationError


class Coherent(nn.Module):
    """A TemporalConvolution as a hook."""

    def __init__(self, coherence: CoherenceConfig):
        super().__init__()
        self.layer = tc.TemporalConvolution(coherence.kernel_size, coherence.maps, coherence.initialisation)

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Smooth `values` over time; `features` play no part in the convolutional form."""
        return self.layer(values, mask)


def _dnn(model: ModelConfig, coherence: CoherenceConfig, width: int, nodes: int, seed: int) -> nn.Module:
    return initialise(VectorHead(width, model.head, nodes), seed)


def _dnn_lstm(model: ModelConfig, coherence: CoherenceConfig, width: int, nodes: int, seed: int) -> nn.Module:
    return RecurrentClassifier(nn.LSTM, width, model.lstm_width, model.head, nodes, seed)


def _rnn(model: ModelConfig, coherence: CoherenceConfig, width: int, nodes: int, seed: int) -> nn.Module:
    return RecurrentClassifier(nn.GRU, width, model.gru_width, model.head, nodes, seed)


def _rnn_attn(model: ModelConfig, coherence: CoherenceConfig, width: int, nodes: int, seed: int) -> nn.Module:
    return AttentionRNN(width, model.gru_width, model.head, nodes, seed)


def _tc_rnn(model: ModelConfig, coherence: CoherenceConfig, width: int, nodes: int, seed: int) -> nn.Module:
    return AttentionRNN(width, model.gru_width, model.head, nodes, seed, on_states=Coherent(coherence))


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "dnn": _dnn,
    AGGREGATOR: _dnn_lstm,
    "rnn": _rnn,
    "rnn_attn": _rnn_attn,
    "tc_rnn": _tc_rnn,
}


def build(
    column: str, model: ModelConfig, coherence: CoherenceConfig, widths: tuple[int, ...], nodes: int, seed: int
) -> nn.Module:
    """An untrained model whose weights are a function of the seed and their own names.

    Args:
        column: slug of a column that is trained.
        model, coherence: sizes and options.
        widths: values per frame of each modality, e.g. (1024, 128).
        nodes: size of the taxonomy.
        seed: names the initial weights.

    Raises:
        ConfigurationError: an option does not fit.
    """
    if coherence.kernel_size % 2 == 0:
        raise ConfigurationError(f"coherence.kernel_size = {coherence.kernel_size} must be odd, to be centred on a frame")
    return BUILDERS[column](model, coherence, sum(widths), nodes, seed)


def kernels(model: nn.Module) -> dict[str, np.ndarray]:
    """(maps of all groups and sizes, kernel size) of every temporal convolution in a model, by name (Figure 8)."""
    return {
        name: module.kernels().flatten(0, 1).detach().cpu().numpy()
        for name, module in model.named_modules()
        if isinstance(module, tc.TemporalConvolution)
    }
