"""One step of the training protocol: loss, gradients, clipping, learning rate, Adam."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from replicate.coherence import take_penalty
from replicate.compute import Compute
from replicate.config import TrainingConfig
from replicate.data.batches import Batch
from replicate.data.spec import DatasetSpec
from replicate.preprocess import as_tensor, prepare
from replicate.training.ranks import Ranks


def video_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy summed over nodes and videos, a scalar; the protocol divides it by the number of videos.

    The predecessors sum over classes and average over videos (facts, section C), from probabilities with 1e-5 inside
    the logarithms; from logits no such term is needed.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), labels.to(torch.float32), reduction="sum")


def clip_each(gradients: list[torch.Tensor], limit: float) -> torch.Tensor:
    """Scale every gradient whose L2 norm exceeds `limit` down to it, in place; each tensor by itself, as TensorFlow's
    clip_by_norm does (facts, section C), not by the norm of all together.

    Returns:
        (tensors,) float32: the norms before clipping.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, list((limit / norms.clamp(min=limit)).unbind()))
    return norms


def learning_rate(training: TrainingConfig, examples: int) -> float:
    """The learning rate after so many training examples: a staircase (facts, section C)."""
    return training.learning_rate * training.decay ** (examples // training.decay_examples)


class Optimiser:
    """Adam on a model's weights, under the training protocol.

    Attributes:
        model: in training mode on the device of `compute`.
        adam, scaler: their states are what a checkpoint keeps.
        examples: videos trained on so far, by all processes together.
        skipped: steps so far whose gradients exceeded float16 and were left out, a scalar on the device (int64).
    """

    def __init__(
        self, model: nn.Module, training: TrainingConfig, spec: DatasetSpec, compute: Compute,
        ranks: Ranks | None = None,
    ):  # fmt: skip
        self.model, self.training, self.spec, self.compute = model, training, spec, compute
        self.ranks = ranks or Ranks()
        if compute.compile:
            model.compile(dynamic=True)
        self._forward = self.ranks.wrap(model)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, lr=training.learning_rate, fused=True)
        self.scaler = compute.scaler()
        self.examples = 0
        self.skipped = torch.zeros((), dtype=torch.int64, device=compute.device)

    def step(self, batch: Batch, videos: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on one batch.

        Args:
            batch: this process's part of it, which may be empty.
            videos: in the whole batch; by default the part is the whole.

        Returns:
            Two scalars on the device, so that nothing waits for it: the summed loss of the part's videos (float32), and
            whether that loss and all gradients are finite (bool). After a false, the weights are spoilt. Under float16,
            gradients that are not finite have the step left out and the scale of the loss halved, and are no fault;
            see `exhausted`.
        """
        videos = len(batch.rows) if videos is None else videos
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.training, self.examples)
        self.adam.zero_grad(set_to_none=True)
        loss = self.gradients(batch, videos)
        self.scaler.unscale_(self.adam)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = clip_each(gradients, self.training.gradient_clip)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.examples += videos
        if not self.scaler.is_enabled():
            return loss, torch.isfinite(loss + norms.sum())
        self.skipped += ~torch.isfinite(norms.sum())
        return loss, torch.isfinite(loss)

    def exhausted(self) -> bool:
        """Whether float16 gradients are not finite even where the loss is not scaled up: none ever will be again."""
        return self.scaler.is_enabled() and self.scaler.get_scale() < 1

    def gradients(self, batch: Batch, videos: int | None = None) -> torch.Tensor:
        """Add the whole batch's gradients, scaled where precision demands it, to the parameters', part by part where
        the protocol says so. Arguments as in `step`.

        Returns:
            The summed loss of this process's videos.
        """
        videos = len(batch.rows) if videos is None else videos
        total = torch.zeros((), device=self.compute.device)
        pieces = list(parts(batch if len(batch.rows) else self._stand_in(batch), self.training.micro_batch_size))
        for number, part in enumerate(pieces, start=1):
            frames, mask = prepare(part, self.spec, self.training.normalisation, self.compute.device)
            labels = as_tensor(part.labels).to(self.compute.device, non_blocking=True)
            with self.ranks.keep_apart(self._forward, number < len(pieces)):
                with self.compute.autocast():
                    logits = self._forward(frames, mask)
                loss = video_loss(logits, labels) + take_penalty(self.model)
                if not len(batch.rows):
                    loss = loss * 0
                # The processes' gradients are averaged, but a batch's loss is the sum of theirs.
                self.scaler.scale(loss * self.ranks.count / videos).backward()
            total += loss.detach()
        return total

    def _stand_in(self, batch: Batch) -> Batch:
        """One video of one frame for a process that has none, since the others wait for its gradients (zeros)."""
        features = np.zeros((1, 1, batch.features.shape[2]), batch.features.dtype)
        return Batch(features, np.ones(1, np.int64), np.zeros((1, batch.labels.shape[1]), bool), np.zeros(1, np.int64))


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most `size` videos, each padded only to its own longest; 0 leaves it whole."""
    if size == 0 or size >= len(batch.rows):
        yield batch
        return
    for begin in range(0, len(batch.rows), size):
        chosen = slice(begin, begin + size)
        lengths = batch.lengths[chosen]
        yield dataclasses.replace(
            batch,
            features=batch.features[chosen, : int(lengths.max())],
            lengths=lengths,
            labels=batch.labels[chosen],
            rows=batch.rows[chosen],
        )
