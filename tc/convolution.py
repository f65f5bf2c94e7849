"""The convolutional form of temporal coherence (section 3 of the paper; Eq. 7): the method as the paper ran it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

INITIALISATIONS = ("random", "identity", "box")
BOUNDARIES = ("zero", "replicate")


class TemporalConvolution(nn.Module):
    """y = mean over maps m of (w_m * x + b_m): convolutions over time, "same" length, averaged over the maps.

    Frames outside the mask never reach valid ones and are zero in the result, so padding changes nothing.

    The mean of linear maps is one convolution with the mean kernel (erratum 12), and is computed as that: any number of
    maps costs the same. They stay separate parameters, because their number changes how the mean kernel starts and how it
    moves. With `relu` each map is rectified before the mean, and their number changes what the layer can express.

    Attributes:
        weight: (groups, maps, kernel size); with several sizes, the kernels of each size side by side in the last axis.
        bias: (groups, maps, number of sizes).
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int] = 5,
        maps: int = 4,
        initialisation: str = "random",
        groups: int = 1,
        relu: bool = False,
        boundary: str = "zero",
        trainable: bool = True,
    ):
        """
        Args:
            kernel_size: frames, odd; 2L + 1 for a neighbourhood of L on each side (erratum 3). Several sizes make maps
                of each size, all averaged (section 3.1; erratum 10).
            maps: number of feature maps of each size.
            initialisation: "random" (uniform within 1/sqrt(kernel size), torch's convolution default), "identity" (the
                layer starts as doing nothing) or "box" (a moving average) (erratum 13).
            groups: equal parts of the channels, each with kernels of its own: 1 shares them among all channels, the
                number of heads gives each head its own, the number of channels is depthwise (errata 11, 19).
            relu: rectify every map before the mean (erratum 12).
            boundary: what lies beyond the first and last valid frame: "zero", or "replicate", that frame again
                (erratum 14).
            trainable: False keeps the kernels as they were initialised.

        Raises:
            ValueError: a kernel size is even, a number is less than 1, or a word is unknown.
        """
        super().__init__()
        self.kernel_sizes = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.maps, self.groups, self.relu = maps, groups, relu
        self.initialisation, self.boundary = initialisation, boundary
        self._check()
        self.weight = nn.Parameter(torch.empty(groups, maps, sum(self.kernel_sizes)), requires_grad=trainable)
        self.bias = nn.Parameter(torch.empty(groups, maps, len(self.kernel_sizes)), requires_grad=trainable)
        self.reset_parameters()

    def _check(self) -> None:
        if not self.kernel_sizes or any(size < 1 or size % 2 == 0 for size in self.kernel_sizes):
            raise ValueError(f"kernel_size must be odd to be centred on a frame, not {self.kernel_sizes}")
        if self.maps < 1 or self.groups < 1:
            raise ValueError(f"maps and groups must be 1 or more, not {self.maps} and {self.groups}")
        if self.initialisation not in INITIALISATIONS:
            raise ValueError(f"initialisation must be one of {INITIALISATIONS}, not {self.initialisation!r}")
        if self.boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {BOUNDARIES}, not {self.boundary!r}")

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the kernels anew, or set them to the identity or the moving average."""
        with torch.no_grad():
            for size, weight, bias in zip(self.kernel_sizes, self._weights(), self.bias.unbind(-1), strict=True):
                if self.initialisation == "random":
                    bound = size**-0.5
                    weight.uniform_(-bound, bound, generator=generator)
                    bias.uniform_(-bound, bound, generator=generator)
                elif self.initialisation == "identity":
                    weight.zero_()[..., size // 2] = 1
                    bias.zero_()
                else:
                    weight.fill_(1 / size)
                    bias.zero_()

    def _weights(self) -> tuple[Tensor, ...]:
        """(groups, maps, size) of each size."""
        return self.weight.split(self.kernel_sizes, dim=-1)

    def kernels(self) -> Tensor:
        """(groups, maps of all sizes, largest kernel size): every kernel, smaller ones within zeros."""
        largest = max(self.kernel_sizes)
        margins = [(largest - size) // 2 for size in self.kernel_sizes]
        weights = zip(margins, self._weights(), strict=True)
        return torch.cat([nn.functional.pad(weight, (margin, margin)) for margin, weight in weights], dim=1)

    def kernel(self) -> Tensor:
        """(groups, largest kernel size): the mean over the maps (Figure 8)."""
        return self.kernels().mean(dim=1)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            values: (batch, time, channels), any floating type; channels a multiple of `groups`.
            mask: (batch, time) bool, true for valid frames; None: all are.

        Returns:
            (batch, time, channels), zero outside the mask.
        """
        time, repeats = values.shape[1], values.shape[2] // self.groups
        padded = self._pad(values, mask)
        if self.relu:
            kernels, biases = self.kernels().unbind(dim=1), self.bias.mT.flatten(1).unbind(dim=1)
            maps = [_convolve(padded, time, w, b, repeats).relu() for w, b in zip(kernels, biases, strict=True)]
            smoothed = torch.stack(maps).mean(dim=0)
        else:
            smoothed = _convolve(padded, time, self.kernel(), self.bias.mean(dim=(1, 2)), repeats)
        return smoothed if mask is None else smoothed * mask.unsqueeze(-1)

    def _pad(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, time + 2 reach, channels): what the kernels see around the first and last valid frame."""
        reach = max(self.kernel_sizes) // 2
        if self.boundary == "zero":
            values = values if mask is None else values * mask.unsqueeze(-1)
            return nn.functional.pad(values, (0, 0, reach, reach))
        time = values.shape[1]
        places = torch.arange(-reach, time + reach, device=values.device).clamp(0, time - 1)
        if mask is None:
            return values[:, places]
        positions = torch.arange(time, device=values.device)
        latest = torch.where(mask, positions, -1).cummax(dim=1).values  # the last valid frame up to each; -1: none yet
        nearest = latest.maximum(mask.int().argmax(dim=1, keepdim=True))[:, places]
        return values.gather(1, nearest.unsqueeze(-1).expand(-1, -1, values.shape[2]))

    def extra_repr(self) -> str:
        words = [f"kernel_size={self.kernel_sizes}", f"maps={self.maps}", f"initialisation={self.initialisation!r}"]
        return ", ".join([*words, f"groups={self.groups}", f"relu={self.relu}", f"boundary={self.boundary!r}"])


def _convolve(padded: Tensor, time: int, kernel: Tensor, bias: Tensor, repeats: int) -> Tensor:
    """(batch, time, channels): each group's kernel (groups, size) over `repeats` channels, plus its bias (groups,).

    A few shifted sums; on one kernel shared by many channels they beat a convolution call.
    """
    kernel, bias = kernel.to(padded.dtype), bias.to(padded.dtype)
    if len(kernel) > 1:
        kernel, bias = kernel.repeat_interleave(repeats, dim=0), bias.repeat_interleave(repeats)
    smoothed = bias + kernel[:, 0] * padded[:, :time]
    for offset in range(1, kernel.shape[1]):
        smoothed = torch.addcmul(smoothed, kernel[:, offset], padded[:, offset : offset + time])
    return smoothed
