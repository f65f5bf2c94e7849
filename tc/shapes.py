"""What every layer is given, checked once: a wrong shape would otherwise broadcast, and whole numbers round kernels."""

import torch
from torch import Tensor


def valid_frames(values: Tensor, mask: Tensor | None, name: str = "values") -> Tensor:
    """(batch, time) bool: the mask, or all true.

    Args:
        values: what should be (batch, time, channels), of a floating type.
        mask: what should be (batch, time) bool, or None.
        name: of `values`, for the sentence.

    Raises:
        ValueError: one of them is not as it should be.
    """
    if values.dim() != 3 or not values.is_floating_point():
        raise ValueError(
            f"{name} must be (batch, time, channels) of a floating type, not {tuple(values.shape)} {values.dtype}"
        )
    if mask is None:
        return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    if mask.shape != values.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be {tuple(values.shape[:2])} torch.bool, (batch, time) of the {name}, not "
            f"{tuple(mask.shape)} {mask.dtype}"
        )
    return mask


def check_groups(values: Tensor, groups: int, name: str = "channels") -> None:
    """Whether the last axis falls into so many equal parts.

    Raises:
        ValueError: it does not.
    """
    if values.shape[-1] % groups:
        raise ValueError(f"{values.shape[-1]} {name} are no multiple of {groups} groups")
