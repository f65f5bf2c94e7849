"""From quantised frames to what a model sees: dequantise, zero the padding, normalise. Once, on the device.

The order matters (facts, section B): padding is zeroed after dequantisation, because a quantised 0 stands for about -2.
Every frame is divided by its length over all modalities together, as in the YouTube-8M starter code; a frame of zeros
stays zero. A frame's values do not depend on how far its batch is padded.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from replicate.data.batches import Batch
from replicate.data.spec import DatasetSpec
from replicate.errors import DataError

Normalisation = Literal["l2", "l2_sqrt_width", "none"]
EPSILON = 1e-12  # least squared length that a frame is divided by
CACHE_VALUES = 1 << 18  # float32 values that a processor's second-level cache holds beside their source


def prepare(
    batch: Batch, spec: DatasetSpec, normalisation: Normalisation, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's input of one batch.

    Args:
        batch: features (batch, time, width), uint8 as in the records, or float32 vectors with time = 1.
        spec: dequantisation of the records.
        normalisation: "l2" gives every frame length 1; "l2_sqrt_width" length sqrt(width), so that a value's standard
            deviation is about 1 whatever the width; "none" leaves dequantised values. Vectors that some model computed
            (float32 where the records are uint8: cached LSTM states) pass unchanged under every option.
        device: where the work is done; quantised frames travel there as single bytes.

    Returns:
        frames (batch, time, width) float32, zero beyond each video's length; mask (batch, time) bool, true on frames.

    Raises:
        DataError: features are neither of the records' type nor float32.
    """
    features = as_tensor(batch.features).to(device, non_blocking=True)
    lengths = as_tensor(batch.lengths).to(device, non_blocking=True)
    mask = torch.arange(features.shape[1], device=lengths.device) < lengths[:, None]
    if features.dtype == torch.uint8 and spec.dtype == "uint8":
        frames = torch.empty(features.shape, dtype=torch.float32, device=features.device)
        for part in _parts(features):
            _dequantise(features[part], spec, frames[part])
            _scale(frames[part], mask[part], normalisation)
        return frames, mask
    if features.dtype != torch.float32:
        known = " or ".join(dict.fromkeys((spec.dtype, "float32")))
        raise DataError(f"{spec.name}: features are {features.dtype}, expected {known}; index the data again")
    if spec.dtype != "float32":
        return features, mask
    frames = features.clone()
    _scale(frames, mask, normalisation)
    return frames, mask


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory; read-only arrays (memory-mapped files) are copied first."""
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else np.array(array))


def pinned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of any content that a GPU copies from while the processor goes on. torch uses its memory again when
    nobody holds the array and what the GPU copies from it is done."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()


def _parts(features: torch.Tensor) -> list[slice]:
    """Slices of the batch small enough that the passes of `prepare` meet their values in the cache (three times faster
    on a CPU than passes over the whole batch); a GPU takes the batch at once."""
    videos = len(features)
    step = videos if features.is_cuda else max(1, CACHE_VALUES // max(1, features[0].numel()))
    return [slice(begin, begin + step) for begin in range(0, videos, step)]


def _dequantise(features: torch.Tensor, spec: DatasetSpec, out: torch.Tensor) -> None:
    """Write features * scale + bias into `out`, in one pass."""
    torch.add(torch.tensor(spec.bias, device=out.device), features, alpha=spec.scale, out=out)


def _scale(frames: torch.Tensor, mask: torch.Tensor, normalisation: Normalisation) -> None:
    """Zero the padding and normalise, in place: one factor per frame."""
    factor = mask.to(torch.float32)
    if normalisation != "none":
        factor /= torch.linalg.vector_norm(frames, dim=2).clamp_(min=EPSILON**0.5)
    if normalisation == "l2_sqrt_width":
        factor *= frames.shape[2] ** 0.5
    frames.mul_(factor[:, :, None])
