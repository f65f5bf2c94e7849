"""One step of the training protocol: loss, gradients, clipping, learning rate, Adam."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from replicate.coherence import take_penalty
from replicate.compute import Compute
from replicate.config import TrainingConfig
from replicate.data.batches import Batch
from replicate.data.spec import DatasetSpec
from replicate.preprocess import as_tensor, prepare


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
        adam: its state is what a checkpoint keeps.
        examples: videos trained on so far.
    """

    def __init__(self, model: nn.Module, training: TrainingConfig, spec: DatasetSpec, compute: Compute):
        self.model, self.training, self.spec, self.compute = model, training, spec, compute
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.adam = torch.optim.Adam(self.parameters, lr=training.learning_rate, fused=True)
        self.examples = 0

    def step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on one batch.

        Returns:
            Two scalars on the device, so that nothing waits for it: the summed loss of the batch's videos (float32),
            and whether that loss and all gradients are finite (bool). After a false, the weights are spoilt.
        """
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.training, self.examples)
        self.adam.zero_grad(set_to_none=True)
        loss = self.gradients(batch)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = clip_each(gradients, self.training.gradient_clip)
        self.adam.step()
        self.examples += len(batch.rows)
        return loss, torch.isfinite(loss + norms.sum())

    def gradients(self, batch: Batch) -> torch.Tensor:
        """Add the batch's gradients to the parameters', part by part where the protocol says so.

        Returns:
            The summed loss of the batch's videos.
        """
        total = torch.zeros((), device=self.compute.device)
        for part in parts(batch, self.training.micro_batch_size):
            frames, mask = prepare(part, self.spec, self.training.normalisation, self.compute.device)
            labels = as_tensor(part.labels).to(self.compute.device, non_blocking=True)
            with self.compute.autocast():
                logits = self.model(frames, mask)
            loss = video_loss(logits, labels) + take_penalty(self.model)
            (loss / len(batch.rows)).backward()
            total += loss.detach()
        return total


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
