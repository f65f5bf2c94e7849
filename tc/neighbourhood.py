"""The exact forms of temporal coherence: Eqs. 2-6 and 8 of the paper, without parameters."""

import torch
from torch import Tensor, nn

_EPSILON = 1e-12  # keeps the gradient of a norm finite at identical frames


class NeighbourhoodSum(nn.Module):
    """s'_i = s_i + sum over 0 < |i - j| <= L of z_ij exp(-||f_i - f_j||) s_j.

    s are assignment logits (NetVLAD, Eqs. 2, 3, 6) or attention energies (RNN, Eqs. 4, 5, 8); the softmax that follows
    is the model's. z_ij = 1 unless given (Eq. 3).
    """

    def __init__(self, reach: int = 2, sign: int = -1, include_self: bool = False, normalise: bool = False):
        """
        Args:
            reach: L, frames on each side.
            sign: -1, or +1 for the exponent as Eqs. 2, 3 and 5 print it, which grows with distance (erratum 1).
            include_self: i is its own neighbour, as in Eq. 8 (erratum 4): s_i counts twice.
            normalise: divide by 1 + the sum of the weights, to smooth without sharpening (erratum 8).
        """
        super().__init__()
        if reach < 0 or sign not in (-1, 1):
            raise ValueError(f"reach must be 0 or more and sign -1 or +1, not {reach} and {sign}")
        self.reach, self.sign, self.include_self, self.normalise = reach, sign, include_self, normalise

    def forward(self, values: Tensor, features: Tensor, mask: Tensor, boundary: Tensor | None = None) -> Tensor:
        """
        Args:
            values: (batch, time, channels) logits s.
            features: (batch, time, width) f, whose distances weigh the neighbours.
            mask: (batch, time) bool, true for valid frames.
            boundary: (batch, time, 2 L) z for neighbours i-L .. i-1, i+1 .. i+L, in [0, 1]; None: all 1.

        Returns:
            (batch, time, channels).
        """
        total = torch.full_like(values[..., :1], 1.0 + self.include_self)
        summed = values * (1.0 + self.include_self)
        for offset in range(1, min(self.reach, values.shape[1] - 1) + 1):
            squares = (features[:, offset:] - features[:, :-offset]).square().sum(dim=-1)
            weight = torch.exp(self.sign * (squares + _EPSILON).sqrt()) * (mask[:, offset:] & mask[:, :-offset])
            earlier = later = weight.unsqueeze(-1)  # of neighbour i - offset, seen from i; of i + offset, seen from i
            if boundary is not None:
                earlier = earlier * boundary[:, offset:, self.reach - offset, None]
                later = later * boundary[:, :-offset, self.reach + offset - 1, None]
            ends = (0, 0, offset, 0), (0, 0, 0, offset)
            summed = summed + nn.functional.pad(earlier * values[:, :-offset], ends[0])
            summed = summed + nn.functional.pad(later * values[:, offset:], ends[1])
            total = total + nn.functional.pad(earlier, ends[0]) + nn.functional.pad(later, ends[1])
        return summed / total if self.normalise else summed
