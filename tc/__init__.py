"""Temporal coherence as a layer (Goyal et al., 2020). Needs torch alone.

A sequence model's logits over frames (cluster assignments, attention energies) should vary slowly, because adjacent
frames mostly show the same thing. `TemporalConvolution` is the layer as the paper ran it (section 3): a small kernel
over time, shared by all channels. `NeighbourhoodSum` is the exact form of Eqs. 2-6 and 8, with `DistanceDetector`,
`AdaptiveDetector` and `LearnedGate` for scene boundaries (Eq. 3); `DistanceConvolution` has the weights of both
(Eq. 7). `LabelPrior` is the regulariser of Eq. 1, on predictions of single frames.
"""

from tc.boundaries import AdaptiveDetector, DistanceDetector, LearnedGate, unbroken
from tc.convolution import TemporalConvolution
from tc.distance_convolution import DistanceConvolution
from tc.neighbourhood import NeighbourhoodSum
from tc.regulariser import LabelPrior

__all__ = [
    "AdaptiveDetector",
    "DistanceConvolution",
    "DistanceDetector",
    "LabelPrior",
    "LearnedGate",
    "NeighbourhoodSum",
    "TemporalConvolution",
    "unbroken",
]
