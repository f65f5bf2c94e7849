"""Places where a layer can be put into a baseline without touching its code."""

from torch import Tensor, nn


class Unchanged(nn.Module):
    """The default of every hook."""

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            values: (batch, time, channels), what the hook may change.
            features: (batch, time, width), what the model computes them from.
            mask: (batch, time) bool, true for valid frames.

        Returns:
            (batch, time, channels).
        """
        return values
