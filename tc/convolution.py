"""The convolutional form of temporal coherence (section 3 of the paper; Eq. 7)."""

import torch
from torch import Tensor, nn


class TemporalConvolution(nn.Module):
    """y = mean over maps m of (w_m * x + b_m): convolutions over time, shared by all channels, averaged over the maps.

    "Same" zero padding; frames outside the mask are zero before and after, so padding never leaks into valid frames.
    The maps are linear and of one size, so their mean is one convolution with the mean kernel (erratum 12): it is
    computed as that, and costs the same for any number of maps. The separate maps remain as parameters, because their
    number changes how the mean kernel starts and, under Adam, how it moves.

    Attributes:
        weight: (maps, kernel_size).
        bias: (maps,).
    """

    def __init__(self, kernel_size: int = 5, maps: int = 4, initialisation: str = "random"):
        """
        Args:
            kernel_size: frames, odd; 2L + 1 for a neighbourhood of L on each side (erratum 3).
            maps: number of feature maps.
            initialisation: "random" (uniform within 1/sqrt(kernel_size), torch's convolution default) or "identity"
                (the layer starts as doing nothing).

        Raises:
            ValueError: the kernel size is even, or the initialisation unknown.
        """
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to be centred on a frame, not {kernel_size}")
        if initialisation not in ("random", "identity"):
            raise ValueError(f"initialisation must be 'random' or 'identity', not {initialisation!r}")
        self.initialisation = initialisation
        self.weight = nn.Parameter(torch.empty(maps, kernel_size))
        self.bias = nn.Parameter(torch.empty(maps))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the kernels anew, or set them to the identity."""
        maps, size = self.weight.shape
        with torch.no_grad():
            if self.initialisation == "identity":
                self.weight.zero_()
                self.weight[:, size // 2] = 1
                self.bias.zero_()
            else:
                bound = size**-0.5
                self.weight.uniform_(-bound, bound, generator=generator)
                self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            values: (batch, time, channels), any floating type.
            mask: (batch, time) bool, true for valid frames; None: all are.

        Returns:
            (batch, time, channels), zero outside the mask.
        """
        size = self.weight.shape[1]
        kernel = self.weight.mean(dim=0).to(values.dtype)
        if mask is not None:
            values = values * mask.unsqueeze(-1)
        reach = size // 2
        padded = nn.functional.pad(values, (0, 0, reach, reach))  # time, at both ends
        time = values.shape[1]
        smoothed = self.bias.mean().to(values.dtype) + kernel[0] * padded[:, :time]
        for offset in range(1, size):  # a few shifted sums beat a convolution call on one shared kernel
            smoothed = torch.addcmul(smoothed, kernel[offset], padded[:, offset : offset + time])
        return smoothed if mask is None else smoothed * mask.unsqueeze(-1)

    def extra_repr(self) -> str:
        maps, size = self.weight.shape
        return f"kernel_size={size}, maps={maps}, initialisation={self.initialisation!r}"
