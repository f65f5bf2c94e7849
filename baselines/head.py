"""The classifier that all columns share: what the DNN architecture grid of section 4.2 chose."""

from itertools import pairwise

from torch import Tensor, nn


class Head(nn.Sequential):
    """Fully connected ReLU layers, then one logit per node (independent sigmoids)."""

    def __init__(self, width: int, hidden: tuple[int, ...], nodes: int):
        """
        Args:
            width: values of the video's representation.
            hidden: widths of the hidden layers; (384, 768) in preset C.
            nodes: size of the taxonomy.
        """
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((width, *hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden[-1], nodes))


class VectorHead(nn.Module):
    """The DNN column: the head on one vector per video (a cached LSTM state, or a video-level feature)."""

    def __init__(self, width: int, hidden: tuple[int, ...], nodes: int):
        super().__init__()
        self.head = Head(width, hidden, nodes)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, 1, width) vectors and a mask that is true -> (batch, nodes) logits."""
        return self.head(frames[:, 0])
