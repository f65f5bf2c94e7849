"""The convolutional form of temporal coherence (section 3 of the paper; Eq. 7): the method as the paper ran it."""

import torch
from torch import Tensor, nn

from tc.shapes import check_groups, valid_frames
from tc.weighted_shifts import weighted_shifts

INITIALISATIONS = ("random", "identity", "box")
BOUNDARIES = ("zero", "replicate")


class TemporalConvolution(nn.Module):
    """y = mean over maps m of (w_m * x + b_m): convolutions over time, "same" length, averaged over the maps.

    Frames outside the mask never reach valid ones and are zero in the result, so padding changes nothing.

    The mean of linear maps is one convolution with the mean kernel (erratum 12), and is computed as that: any number of
    maps costs the same. They stay separate parameters, because their number changes how the mean kernel starts and how
    it moves. With `relu` each map is rectified before the mean, and their number changes what the layer can express.

    Attributes:
        weight: (groups, maps, kernel size); with several sizes, the kernels of each size side by side in the last axis.
        bias: (groups, maps, number of sizes).
    """

    def __init__(
        self,
        kernel_size: int | list[int] | tuple[int, ...] = 5,
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
        self.kernel_sizes = tuple(kernel_size) if isinstance(kernel_size, list | tuple) else (kernel_size,)
        self.maps, self.groups, self.relu = maps, groups, relu
        self.initialisation, self.boundary = initialisation, boundary
        self._check()
        self.weight = nn.Parameter(torch.empty(groups, maps, sum(self.kernel_sizes)), requires_grad=trainable)
        self.bias = nn.Parameter(torch.empty(groups, maps, len(self.kernel_sizes)), requires_grad=trainable)
        self.reset_parameters()

    def _check(self) -> None:
        sizes = self.kernel_sizes
        if not sizes or any(type(size) is not int or size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError(f"kernel_size must be odd to be centred on a frame, e.g. 5 or (1, 5, 9), not {sizes}")
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

        Raises:
            ValueError: the channels are no multiple of `groups`, or values or mask are of another shape or type.
        """
        valid = valid_frames(values, mask)
        check_groups(values, self.groups)
        if self.boundary == "zero":
            return self._smooth(values, valid)
        time, reach = values.shape[1], max(self.kernel_sizes) // 2
        extended = _replicate_ends(values, valid, reach)
        smoothed = self._smooth(extended, torch.ones_like(extended[..., 0], dtype=torch.bool))
        return smoothed[:, reach : reach + time] * valid.unsqueeze(-1)

    def _smooth(self, values: Tensor, valid: Tensor) -> Tensor:
        """The layer with zeros beyond both ends."""
        repeats = values.shape[2] // self.groups

        def of_channels(parameter: Tensor) -> Tensor:
            return parameter.to(values.dtype).repeat_interleave(repeats, dim=0)

        if not self.relu:
            return weighted_shifts(values, of_channels(self.kernel()), of_channels(self.bias.mean(dim=(1, 2))), valid)
        maps = zip(self.kernels().unbind(dim=1), self.bias.mT.flatten(1).unbind(dim=1), strict=True)
        smoothed = [weighted_shifts(values, of_channels(w), of_channels(b), valid).relu() for w, b in maps]
        return torch.stack(smoothed).mean(dim=0)

    def extra_repr(self) -> str:
        words = [f"kernel_size={self.kernel_sizes}", f"maps={self.maps}", f"initialisation={self.initialisation!r}"]
        return ", ".join([*words, f"groups={self.groups}", f"relu={self.relu}", f"boundary={self.boundary!r}"])


def _replicate_ends(values: Tensor, valid: Tensor, reach: int) -> Tensor:
    """(batch, time + 2 reach, channels): every invalid frame, and `reach` more at both ends, as the nearest valid one
    before it, or the first."""
    time = values.shape[1]
    places = torch.arange(-reach, time + reach, device=values.device).clamp(0, time - 1)
    positions = torch.arange(time, device=values.device)
    latest = torch.where(valid, positions, -1).cummax(dim=1).values  # the last valid frame up to each; -1: none yet
    nearest = latest.maximum(valid.int().argmax(dim=1, keepdim=True))[:, places]
    return values.gather(1, nearest.unsqueeze(-1).expand(-1, -1, values.shape[2]))
