"""Places where a layer can be put into a baseline without touching its code.

A hook is a module with one signature, hook(values, features, mask) -> values. Where a linear map follows at once and
the hook commutes with it, the hook may offer `then_linear(linear, values, features, mask)`, which gives
linear(hook(values, features, mask)) by working on the narrower side.
"""

from torch import Tensor, nn


class Unchanged(nn.Module):
    """The default of every hook."""

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            values: (batch, time, channels), what the hook may change.
            features: (batch, time, width), what tells frames apart: the frames, states or keys of the model.
            mask: (batch, time) bool, true for valid frames.

        Returns:
            (batch, time, channels).
        """
        return values


def then_linear(hook: nn.Module, linear: nn.Linear, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
    """linear(hook(values, features, mask)), by the hook's own way where it has one; meaningless beyond the mask."""
    if hasattr(hook, "then_linear"):
        return hook.then_linear(linear, values, features, mask)
    return linear(hook(values, features, mask))
