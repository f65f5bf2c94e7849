"""Temporal coherence of the output as a term of the loss: Eq. 1 of the paper."""

import torch
from torch import Tensor, nn

from tc.shapes import valid_frames


class LabelPrior(nn.Module):
    """lambda L_labelprior of Eq. 1: frames of one segment should have similar predictions.

    The paper gives no formula and dropped the term (section 2.1, erratum 44). Here it is the variance of the predicted
    probabilities within a segment: the squared distance of each frame's prediction to the mean prediction of its
    segment, summed over classes, averaged over a video's valid frames. It is half the mean squared distance of two
    frames of the segment, and 0 exactly when all predict the same.
    """

    def __init__(self, strength: float):
        """
        Args:
            strength: lambda.

        Raises:
            ValueError: lambda is negative, which would reward incoherence, or NaN.
        """
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"strength must be 0 or more, not {strength}")
        self.strength = strength

    def forward(self, frame_logits: Tensor, mask: Tensor | None = None, continuity: Tensor | None = None) -> Tensor:
        """
        Args:
            frame_logits: (batch, time, classes), predictions of single frames before the sigmoid.
            mask: (batch, time) bool, true for valid frames; None: all are.
            continuity: (batch, time - 1), whether frame t + 1 is in the segment of frame t (true or 1) or begins a new
                one (false or 0), as a DistanceDetector gives it; None: a video is one segment.

        Returns:
            (batch,): to be added to each video's loss.

        Raises:
            ValueError: something is of another shape or type.
        """
        mask = valid_frames(frame_logits, mask, "frame_logits")
        if continuity is not None and continuity.shape != mask[:, 1:].shape:
            raise ValueError(
                f"continuity must be {tuple(mask[:, 1:].shape)}, (batch, time - 1), not {tuple(continuity.shape)}"
            )
        probabilities = frame_logits.to(torch.promote_types(frame_logits.dtype, torch.float32)).sigmoid()
        together = (mask[:, :, None] & mask[:, None, :]).to(probabilities.dtype)  # (batch, time, time): in one segment
        if continuity is not None:
            segment = nn.functional.pad((continuity < 0.5).long().cumsum(dim=1), (1, 0))
            together = together * (segment[:, :, None] == segment[:, None, :])
        with torch.autocast(probabilities.device.type, enabled=False):  # a rounded mean would cost coherent frames
            mean = together @ probabilities / together.sum(dim=2, keepdim=True).clamp(min=1)
        squares = (probabilities - mean).square().sum(dim=2) * mask
        return self.strength * squares.sum(dim=1) / mask.sum(dim=1).clamp(min=1)

    def extra_repr(self) -> str:
        return f"strength={self.strength}"
