"""The literal "padded 0 frames" of section 4.2, which models then take for frames like others (erratum 24)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PaddedInput(nn.Module):
    """A model that is given every video padded with zeros to one length, under a mask that is true everywhere."""

    def __init__(self, model: nn.Module, frames: int):
        """
        Args:
            model: any baseline.
            frames: the length; no video is longer.
        """
        super().__init__()
        self.model, self.frames = model, frames

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, nodes) logits. The mask makes no difference."""
        return self.model(*self._padded(frames))

    def __getattr__(self, name: str) -> nn.Module | Tensor | Callable[[Tensor, Tensor], Tensor]:
        """`attention` and `states` of the model, where it has them, of padded videos too."""
        if name not in ("attention", "states"):
            return super().__getattr__(name)
        method = getattr(self.model, name)
        return lambda frames, mask: method(*self._padded(frames))

    def _padded(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(frames, (0, 0, 0, self.frames - frames.shape[1]))
        return padded, torch.ones_like(padded[..., 0], dtype=torch.bool)
