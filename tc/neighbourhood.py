"""The exact forms of temporal coherence: Eqs. 2-6 and 8 of the paper."""

import math

import torch
from torch import Tensor, nn

from tc.boundaries import distances, unbroken
from tc.shapes import check_groups, valid_frames


class NeighbourhoodSum(nn.Module):
    """s'_i = s_i + sum over 0 < |i - j| <= L of z_ij exp(sign ||f_i - f_j||) s_j.

    The softmax that follows is the model's: over clusters for NetVLAD's assignment logits, over valid frames for
    attention energies (erratum 2). Written with a product of exponentials, as the paper does, this is

    | equation | s | f | options |
    |---|---|---|---|
    | 2 | q (assignment logits) | x (frames) | sign=+1 (as printed) |
    | 3 | q | x | sign=+1, a boundary |
    | 4 | e (attention energies) | h (states) | the default |
    | 5 | e | h | sign=+1 |
    | 6 | q | x | the default |
    | 8 | e | h | include_self=True |

    In a Transformer, logits summed over neighbouring keys are logits of summed keys: s = f = keys, one group per head.
    """

    def __init__(
        self,
        reach: int = 2,
        sign: int = -1,
        include_self: bool = False,
        normalise: bool = False,
        boundary: float | nn.Module = 1.0,
        groups: int = 1,
    ):
        """
        Args:
            reach: L, frames on each side.
            sign: -1, or +1 for the exponent as Eqs. 2, 3 and 5 print it, which grows with distance (erratum 1).
            include_self: i is its own neighbour, as in Eq. 8 (erratum 4): s_i counts twice.
            normalise: divide by the sum of the weights, to smooth without sharpening (erratum 8).
            boundary: z_ij: one value for all pairs, in [0, 1], or a detector, called as detector(features, mask) ->
                (batch, time - 1) (erratum 43).
            groups: equal parts of the channels and of the features, each with weights of its own.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__()
        if reach < 0 or sign not in (-1, 1) or groups < 1:
            raise ValueError(f"reach must be 0 or more, sign -1 or +1, groups 1 or more; not {reach}, {sign}, {groups}")
        if not isinstance(boundary, nn.Module) and not (isinstance(boundary, int | float) and 0 <= boundary <= 1):
            raise ValueError(
                f"boundary must be a number from 0 to 1, or a detector such as DistanceDetector, not {boundary!r}"
            )
        self.reach, self.sign, self.include_self, self.normalise = reach, sign, include_self, normalise
        self.boundary, self.groups = boundary, groups

    def forward(
        self,
        values: Tensor,
        features: Tensor,
        mask: Tensor | None = None,
        boundary: Tensor | None = None,
        taps: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            values: (batch, time, channels) logits s.
            features: (batch, time, width) f, whose distances weigh the neighbours.
            mask: (batch, time) bool, true for valid frames; None: all are.
            boundary: (batch, time, L) z of this batch instead of the layer's own: at [i, o - 1] for frames i and i + o.
            taps: (groups, 2L + 1) factors of the weights, of frames i - L .. i + L; None: all 1. The own term that
                `include_self` adds, and the sum that `normalise` divides by, are without them.

        Returns:
            (batch, time, channels), of the type of `values`.

        Raises:
            ValueError: something is of another shape or type.
        """
        mask = self._checked(values, features, mask, boundary)
        if boundary is None and isinstance(self.boundary, nn.Module):
            boundary = unbroken(self.boundary(features, mask), self.reach)
        grouped = values.unflatten(-1, (self.groups, -1))  # (batch, time, groups, channels of one)
        parts = features.unflatten(-1, (self.groups, -1))
        if taps is None:
            taps = torch.ones(self.groups, 2 * self.reach + 1, device=values.device)
        taps = taps.to(values.dtype).unsqueeze(-1).unbind(dim=1)  # each (groups, 1)
        summed = grouped * (taps[self.reach] + self.include_self)
        total = torch.full_like(grouped[..., :1], 1.0 + self.include_self)
        for offset in range(1, min(self.reach, values.shape[1] - 1) + 1):
            weight = self._weight(parts, mask, boundary, offset).to(values.dtype)
            earlier, later = (0, 0, 0, 0, offset, 0), (0, 0, 0, 0, 0, offset)  # time is the third axis from the end
            summed = summed + nn.functional.pad(taps[self.reach - offset] * weight * grouped[:, :-offset], earlier)
            summed = summed + nn.functional.pad(taps[self.reach + offset] * weight * grouped[:, offset:], later)
            if self.normalise:
                total = total + nn.functional.pad(weight, earlier) + nn.functional.pad(weight, later)
        return (summed / total if self.normalise else summed).flatten(-2)

    def _checked(self, values: Tensor, features: Tensor, mask: Tensor | None, boundary: Tensor | None) -> Tensor:
        """The mask, if all that `forward` is given fits together."""
        mask = valid_frames(values, mask)
        if features.dim() != 3 or features.shape[:2] != mask.shape:
            raise ValueError(
                f"features must be {tuple(mask.shape)} and a width, as the values, not {tuple(features.shape)}"
            )
        check_groups(values, self.groups)
        check_groups(features, self.groups, "features")
        if boundary is not None and boundary.shape != (*mask.shape, self.reach):
            raise ValueError(
                f"boundary must be {(*mask.shape, self.reach)}, (batch, time, reach), as unbroken makes it, not "
                f"{tuple(boundary.shape)}"
            )
        return mask

    def _weight(self, parts: Tensor, mask: Tensor, boundary: Tensor | None, offset: int) -> Tensor:
        """(batch, time - offset, groups, 1): what frames i and i + offset count to each other."""
        z = self.boundary if boundary is None else boundary[:, :-offset, offset - 1, None]
        both = (mask[:, offset:] & mask[:, :-offset]).unsqueeze(-1)
        exponent = self.sign * distances(parts, offset)
        largest = math.log(torch.finfo(exponent.dtype).max) - 0.5  # so that z = 0 and the mask never meet infinity
        return (torch.exp(exponent.clamp(max=largest)) * (z * both)).unsqueeze(-1)

    def extra_repr(self) -> str:
        options = ("reach", "sign", "include_self", "normalise", "groups")
        return ", ".join(f"{name}={getattr(self, name)}" for name in options)
