"""Scores of videos by a trained model, in memory that does not grow with their number."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from replicate.compute import Compute
from replicate.data.batches import Source, batches
from replicate.data.spec import DatasetSpec
from replicate.errors import DataError
from replicate.preprocess import Normalisation, prepare
from replicate.record import atomic_file
from replicate.scores import LOGITS, open_scores, write_ensemble

__all__ = ["STATES", "aggregate", "infer", "open_scores", "predict", "write_ensemble"]

STATES = "states.npy"
Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Progress = Callable[[float, float, str], None]


class Unlabelled:
    """Stands where labels are not looked at."""

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """(rows, 0) bool."""
        return np.zeros((len(rows), 0), bool)


def infer(
    forward: Forward,
    source: Source,
    rows: np.ndarray,
    spec: DatasetSpec,
    normalisation: Normalisation,
    batch_size: int,
    compute: Compute,
) -> Iterator[np.ndarray]:
    """Results of `forward(frames, mask)` for consecutive batches of `rows`, each as a float32 array.

    The model that `forward` belongs to must be in evaluation mode on the device of `compute`.
    """
    for batch in batches(source, Unlabelled(), rows, batch_size):
        frames, mask = prepare(batch, spec, normalisation, compute.device)
        with torch.inference_mode(), compute.autocast():
            result = forward(frames, mask)
        yield result.float().cpu().numpy()


def predict(
    model: nn.Module,
    source: Source,
    rows: np.ndarray,
    spec: DatasetSpec,
    normalisation: Normalisation,
    batch_size: int,
    out: Path,
    progress: Progress | None = None,
    compute: Compute | None = None,
) -> None:
    """Write the logits of `rows` into the folder `out` as logits.npy: float32 (rows, nodes), whole or not at all.

    Raises:
        DataError: a logit is not finite.
    """
    compute = compute or Compute()
    with compute.active():
        model = model.to(compute.device).eval()
        blocks = infer(model, source, rows, spec, normalisation, batch_size, compute)
        write_rows(out / LOGITS, map(_finite, blocks), len(rows), progress)


def aggregate(
    model: nn.Module,
    source: Source,
    rows: np.ndarray,
    count: int,
    spec: DatasetSpec,
    normalisation: Normalisation,
    batch_size: int,
    out: Path,
    progress: Progress | None = None,
    compute: Compute | None = None,
) -> None:
    """Write the last LSTM state of videos into the folder `out` as states.npy: float32 (count, width).

    Args:
        model: has `states(frames, mask) -> (batch, width)`.
        rows: rows of the index that are wanted, in any order; they are read in the order of the index.
        count: rows of the index. Lines of rows that are not wanted are NaN, so that none is used by mistake.

    Raises:
        DataError: a state is not finite.
    """
    compute = compute or Compute()
    wanted = np.unique(rows)
    with compute.active():
        model = model.to(compute.device).eval()
        blocks = infer(model.states, source, wanted, spec, normalisation, batch_size, compute)
        write_rows(out / STATES, _spread(blocks, wanted, count), count, progress)


def _spread(blocks: Iterator[np.ndarray], rows: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Lines of ascending `rows` put at their places among `count` lines; the lines between are NaN."""
    begin = done = 0
    for block in blocks:
        places = rows[done : done + len(block)]
        done += len(block)
        end = count if done == len(rows) else int(places[-1]) + 1
        lines = np.full((end - begin, block.shape[1]), np.nan, np.float32)
        lines[places - begin] = _finite(block)
        yield lines
        begin = end


def _finite(block: np.ndarray) -> np.ndarray:
    if not np.isfinite(block).all():
        raise DataError("the model's outputs are not finite; its training diverged, so lower training.learning_rate")
    return block


def write_rows(path: Path, blocks: Iterator[np.ndarray], count: int, progress: Progress | None) -> None:
    """Write consecutive blocks of lines as one float32 .npy file, atomically, without holding more than one block.

    Written as a stream: pages of a memory-mapped file would count as this process's memory until the system takes them.
    """
    done = 0
    with atomic_file(path) as file:
        for block in blocks:
            if done == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, block.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block, "<f4"))
            done += len(block)
            if progress:
                progress(done, count, f"{done:,} of {count:,} videos")
        if done != count:
            raise DataError(f"{path.name}: {done} of {count} rows were computed; this is a fault of the program")
