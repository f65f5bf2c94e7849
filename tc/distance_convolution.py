"""Eq. 7 taken at its word: a convolution whose taps are also weighed by the distances of frames."""

import torch
from torch import Tensor, nn

from tc.convolution import TemporalConvolution
from tc.neighbourhood import NeighbourhoodSum
from tc.shapes import valid_frames


class DistanceConvolution(nn.Module):
    """y_i = mean over maps m of (sum over |o| <= L of w_mo d_i,i+o x_(i+o) + b_m).

    Eq. 7 has the form of a convolution only if the data-dependent d is replaced by learned taps (erratum 6). This layer
    keeps both. With distances left out it is its `convolution`, with taps of 1 its `neighbourhood`; so every reading of
    the equations and every choice of the convolution can be had together.
    """

    def __init__(self, convolution: TemporalConvolution, neighbourhood: NeighbourhoodSum):
        """
        Args:
            convolution: the taps w and b, of one size 2L + 1, with zero boundary; its ReLU is applied to every map.
            neighbourhood: the distances d, with the same L and groups; `include_self` adds x_i once more, inside every
                map, and `normalise` divides by the sum of d.

        Raises:
            ValueError: the two do not fit.
        """
        super().__init__()
        sizes, reach = convolution.kernel_sizes, neighbourhood.reach
        if sizes != (2 * reach + 1,):
            raise ValueError(f"the convolution needs one kernel_size, 2 reach + 1 = {2 * reach + 1}, not {sizes}")
        if convolution.groups != neighbourhood.groups:
            raise ValueError(f"the parts need equal groups, not {convolution.groups} and {neighbourhood.groups}")
        if convolution.boundary != "zero":
            raise ValueError("the convolution needs boundary='zero'; there is no distance to a frame beyond the ends")
        self.convolution, self.neighbourhood = convolution, neighbourhood

    def forward(self, values: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            values: (batch, time, channels) x.
            features: (batch, time, width), whose distances weigh the taps.
            mask: (batch, time) bool, true for valid frames; None: all are.

        Returns:
            (batch, time, channels), zero outside the mask.

        Raises:
            ValueError: as the parts.
        """
        valid_frames(values, mask)
        layer, repeats = self.convolution, values.shape[2] // self.convolution.groups

        def one_map(taps: Tensor, bias: Tensor) -> Tensor:
            summed = self.neighbourhood(values, features, mask, taps=taps)
            return summed + bias.to(values.dtype).repeat_interleave(repeats)

        if layer.relu:
            maps = zip(layer.kernels().unbind(dim=1), layer.bias.squeeze(-1).unbind(dim=1), strict=True)
            smoothed = torch.stack([one_map(taps, bias).relu() for taps, bias in maps]).mean(dim=0)
        else:
            smoothed = one_map(layer.kernel(), layer.bias.mean(dim=(1, 2)))
        return smoothed if mask is None else smoothed * mask.unsqueeze(-1)
