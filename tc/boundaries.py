"""Scene boundaries: where temporal coherence should stop (z of Eq. 3, the segments of Eq. 1).

A detector, called as detector(features, mask), says for every step from one frame to the next how much the scene goes
on: 1 for no boundary, 0 for a boundary, or between. The paper names learned variables and a pre-trained detector, and
reports neither (erratum 43).
"""

import torch
from torch import Tensor, nn

from tc.shapes import valid_frames

ROUNDING = 1e-5  # of a mean step, by which equal steps may seem to differ


def distances(features: Tensor, offset: int) -> Tensor:
    """(batch, time - offset, ...): ||f_i - f_(i + offset)||_2 over the last axis, at least in float32.

    The gradient at identical frames is 0.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return torch.linalg.vector_norm(features[:, offset:] - features[:, :-offset], dim=-1)


def unbroken(continuity: Tensor, reach: int) -> Tensor:
    """z_ij of Eq. 3: whether no boundary lies within [i, j].

    Args:
        continuity: (batch, time - 1) in [0, 1], floating, whether frame t + 1 goes on from frame t.
        reach: L, the largest distance of two neighbours.

    Returns:
        (batch, time, reach): at [i, o - 1] the product over the steps from i to i + o; 0 beyond the last frame.
    """
    steps = nn.functional.pad(continuity, (0, reach))  # (batch, time - 1 + reach)
    return steps.unfold(1, reach, 1).cumprod(dim=-1)


class DistanceDetector(nn.Module):
    """A step is a boundary when its frames are farther apart than a threshold."""

    def __init__(self, threshold: float):
        """
        Args:
            threshold: a distance ||f_t - f_(t+1)||_2, in the units of the features.
        """
        super().__init__()
        self.threshold = threshold

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, time, width) -> (batch, time - 1) of 0 and 1, whatever the mask. Has no gradient."""
        steps = distances(features, 1)
        return (steps <= self.threshold).to(steps.dtype)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class AdaptiveDetector(nn.Module):
    """A step is a boundary when it is unusually far for its video: more than so many standard deviations above the mean
    of the video's steps (Zhang, Kankanhalli and Smoliar, 1993).

    So it suits features of any scale, such as a recurrent network's states, which change little even at a cut. They
    took 5 to 6 deviations of films at full rate, where cuts are rare; at a frame per second they are not, and of n
    steps none is more than sqrt(n - 1) deviations above the mean.
    """

    def __init__(self, deviations: float = 1.0):
        """
        Args:
            deviations: standard deviations above the mean.
        """
        super().__init__()
        self.deviations = deviations

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, time, width), (batch, time) bool -> (batch, time - 1) of 0 and 1. Has no gradient.

        Only steps between valid frames count, and only they can be boundaries.
        """
        valid = valid_frames(features, mask, "features")
        inside = valid[:, 1:] & valid[:, :-1]
        steps = distances(features.detach(), 1).masked_fill(~inside, 0)
        count = inside.sum(dim=1, keepdim=True).clamp(min=1)
        mean = steps.sum(dim=1, keepdim=True) / count
        above = (steps - mean) * inside
        deviation = (above.square().sum(dim=1, keepdim=True) / count).sqrt()
        return (above <= self.deviations * deviation + ROUNDING * mean).to(steps.dtype)

    def extra_repr(self) -> str:
        return f"deviations={self.deviations}"


class LearnedGate(nn.Module):
    """A step goes on by sigmoid(sharpness * (threshold - distance)), with both scalars learned.

    A large sharpness makes it the DistanceDetector.

    Attributes:
        threshold, sharpness: scalars.
    """

    def __init__(self, threshold: float = 1.0):
        """
        Args:
            threshold: where it starts, in the units of the features; the sharpness starts at 1.
        """
        super().__init__()
        self.start = threshold
        self.threshold = nn.Parameter(torch.empty(()))
        self.sharpness = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Back to the start; nothing is drawn."""
        with torch.no_grad():
            self.threshold.fill_(self.start)
            self.sharpness.fill_(1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, time, width) -> (batch, time - 1) in (0, 1), whatever the mask."""
        return torch.sigmoid(self.sharpness * (self.threshold - distances(features, 1)))
