"""What a trained model attends to: its temporal kernels (Figure 8) and its attention over frames (Figure 10)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from replicate.compute import Compute
from replicate.data.batches import Source
from replicate.data.spec import DatasetSpec
from replicate.errors import DataError
from replicate.predict import Progress, infer
from replicate.preprocess import Normalisation
from replicate.record import atomic_file

EXPLAIN = "explain.npz"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 20  # of the histogram of effective frames as a share of all frames


def effective_frames(attention: Tensor) -> Tensor:
    """exp(entropy) of each row of (batch, time) weights that sum to 1: from 1 (one frame) to the number of frames
    (all alike). A weight of 0 contributes nothing."""
    return torch.special.entr(attention.double()).sum(dim=1).exp()


def explain(
    model: nn.Module,
    kernels: dict[str, np.ndarray],
    source: Source,
    rows: np.ndarray,
    ids: np.ndarray,
    samples: int,
    spec: DatasetSpec,
    normalisation: Normalisation,
    batch_size: int,
    out: Path,
    progress: Progress | None = None,
    compute: Compute | None = None,
) -> dict[str, Any]:
    """Write explain.npz into the folder `out`: kernels, and for a model with attention the effective number of attended
    frames of every video and the attention of some.

    Args:
        model: trained; has `attention(frames, mask) -> (batch, time)` or no attention.
        kernels: (maps, kernel size) by name; empty for a model without temporal convolution.
        source: frames by row of the index.
        rows: the pool, by rank; its first `samples` rows are the sample videos, so every column shows the same ones.
        ids: (videos of the index,) bytes.
        spec, normalisation, batch_size, compute: as in predict.

    Returns:
        The record, plain values: kernels, and under "attention" (null without one): effective_frames (mean, sd,
        quantiles), share (the same of effective / all frames, and its histogram), frames (mean), samples.

    Raises:
        DataError: attention is not finite.
    """
    compute = compute or Compute()
    arrays = {f"kernel/{name}": kernel for name, kernel in kernels.items()}
    attention = None
    if hasattr(model, "attention"):
        reading = (spec, normalisation, batch_size, compute)
        with compute.active():
            model = model.to(compute.device).eval()
            pool = _pool(model, source, rows, reading, progress)
            shown = _samples(model, source, rows[:samples], reading)
        arrays |= {"effective_frames": pool[:, 0], "frames": pool[:, 1].astype(np.int16)}
        attention = _summary(pool) | {
            "samples": [
                {"row": int(row), "id": bytes(ids[row]).decode(), "attention": [float(weight) for weight in weights]}
                for row, weights in zip(rows[:samples], shown, strict=True)
            ]
        }
    with atomic_file(out / EXPLAIN) as file:
        np.savez(file, **arrays)
    return {"kernels": {name: kernel.tolist() for name, kernel in kernels.items()}, "attention": attention}


def _pool(model: nn.Module, source: Source, rows: np.ndarray, reading: tuple, progress: Progress | None) -> np.ndarray:
    """(videos, 2) float32: effective and all frames of every video."""

    def counts(frames: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([effective_frames(model.attention(frames, mask)), mask.sum(dim=1)], dim=1)

    found = np.empty((len(rows), 2), np.float32)
    done = 0
    for block in infer(counts, source, rows, *reading):
        found[done : done + len(block)] = block
        done += len(block)
        if progress:
            progress(done, len(rows), f"attention, {done:,} of {len(rows):,} videos")
    if not np.isfinite(found).all():
        raise DataError("the model's attention is not finite; its training diverged, so lower training.learning_rate")
    return found


def _samples(model: nn.Module, source: Source, rows: np.ndarray, reading: tuple) -> list[np.ndarray]:
    """The attention of some videos over their own frames."""
    spec, normalisation, _, compute = reading
    shown = []
    for row in rows:
        block = next(infer(model.attention, source, np.array([row]), spec, normalisation, 1, compute))
        shown.append(block[0])
    return shown


def _summary(pool: np.ndarray) -> dict[str, Any]:
    values, frames = pool.astype(np.float64).T
    share = values / frames
    histogram, _ = np.histogram(share.clip(0, 1), bins=BINS, range=(0, 1))
    return {
        "videos": len(pool),
        "frames": float(frames.mean()),
        "effective_frames": _statistics(values),
        "share": _statistics(share) | {"histogram": histogram.tolist()},
    }


def _statistics(values: np.ndarray) -> dict[str, Any]:
    levels = zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    quantiles = {str(level): float(value) for level, value in levels}
    return {"mean": float(values.mean()), "sd": float(values.std()), "quantiles": quantiles}
