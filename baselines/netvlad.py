"""NetVLAD with late fusion of video and audio (Arandjelovic et al., 2016; the predecessors' variant: facts, section C).

Each frame is softly assigned to clusters; a cluster gathers the residuals of its frames from a free centre. Modalities
have clusters of their own and meet in one fully connected layer. Where the paper is silent, its 595 MB decide: biases
instead of batch normalisation in the assignment, one layer of 705 before the head that all columns share (facts,
section D). Frames come in order and padding is masked, for the baseline and its coherent form alike.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.head import Head
from baselines.hooks import Unchanged, then_linear
from baselines.initialisation import initialise

EPSILON = 1e-12  # least length that a cluster's residuals are divided by
Hooks = nn.Module | tuple[nn.Module, ...] | None  # one that all modalities share, one for each, or none


class ClusterResiduals(nn.Module):
    """a_tk = softmax_k(x_t . w_k + b_k) over valid frames t; V_k = sum_t a_tk (x_t - c_k), each of one length.

    Attributes:
        assignment: w and b.
        centres: (clusters, width) c, free of w.
    """

    def __init__(self, width: int, clusters: int, length: float):
        """
        Args:
            width: values per frame.
            clusters: how many.
            length: L2 norm that each cluster's V_k is given.
        """
        super().__init__()
        self.length = length
        self.assignment = nn.Linear(width, clusters)
        self.centres = nn.Parameter(torch.empty(clusters, width))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Centres from N(0, 1/width), as the predecessors draw them."""
        with torch.no_grad():
            self.centres.normal_(std=self.centres.shape[1] ** -0.5, generator=generator)

    def forward(
        self, frames: Tensor, mask: Tensor, on_frames: nn.Module, on_assignments: nn.Module, on_residuals: nn.Module
    ) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, clusters, width)."""
        logits = then_linear(on_frames, self.assignment, frames, frames, mask)
        logits = on_assignments(logits, frames, mask)
        weights = logits.softmax(dim=2) * mask.unsqueeze(-1)  # (batch, time, clusters)
        frames = on_residuals(frames, frames, mask)
        gathered = torch.bmm(weights.transpose(1, 2), frames.to(weights.dtype))
        residuals = torch.addcmul(gathered, weights.sum(dim=1).unsqueeze(-1), self.centres, value=-1)
        lengths = torch.linalg.vector_norm(residuals, dim=2, keepdim=True)
        return residuals * (self.length / lengths.clamp(min=EPSILON))


class Joined(nn.Module):
    """The fully connected layer on the residuals of all modalities.

    Their joined vector has length 1 whatever its width, so weights as small as a layer of so many inputs usually starts
    from would make it vanish; as the predecessors do, they are drawn from N(0, 1/clusters) instead.
    """

    def __init__(self, inputs: int, outputs: int, clusters: int):
        """
        Args:
            inputs, outputs: widths.
            clusters: of the first modality; sets the scale of the initial weights.
        """
        super().__init__()
        self.deviation = clusters**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Weights from N(0, 1/clusters), biases from N(0, 0.01^2)."""
        with torch.no_grad():
            self.weight.normal_(std=self.deviation, generator=generator)
            self.bias.normal_(std=0.01, generator=generator)

    def forward(self, values: Tensor) -> Tensor:
        """(batch, inputs) -> (batch, outputs)."""
        return F.linear(values, self.weight, self.bias)


class ContextGate(nn.Module):
    """h * sigmoid(batch normalisation of W h), of the predecessors' winning model; preset A has room for it."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self.normalisation = nn.BatchNorm1d(width, eps=1e-3, momentum=1e-3)

    def forward(self, values: Tensor) -> Tensor:
        """(batch, width) -> (batch, width). One video has no variance: it is trained on with the running statistics."""
        scale, gated = self.normalisation, self.linear(values)
        training = self.training and len(values) > 1
        gated = F.batch_norm(
            gated, scale.running_mean, scale.running_var, scale.weight, scale.bias, training, scale.momentum, scale.eps
        )
        return values * gated.sigmoid()


class NetVLAD(nn.Module):
    """Residuals of every modality, joined -> fully connected -> head.

    Every cluster has the same length, and all of them together length 1 (intra-normalisation, then L2).

    Hooks, each shared by the modalities or one for each: `on_frames` (x, before the assignment only), `on_assignments`
    (the assignment's logits, before the softmax) and `on_residuals` (x, before the residuals only).
    """

    def __init__(
        self, widths: tuple[int, ...], clusters: tuple[int, ...], hidden: int, head: tuple[int, ...], nodes: int,
        seed: int, gate: bool = False, on_frames: Hooks = None, on_assignments: Hooks = None,
        on_residuals: Hooks = None,
    ):  # fmt: skip
        """
        Args:
            widths: values per frame of each modality, side by side in a frame.
            clusters: clusters of each modality.
            hidden: width of the fully connected layer.
            head, nodes: see Head.
            seed: names the initial weights.
            gate: context gating before the head.
            on_frames, on_assignments, on_residuals: hooks; None leaves one Unchanged.
        """
        super().__init__()
        self.widths = widths
        pairs, length = list(zip(widths, clusters, strict=True)), sum(clusters) ** -0.5
        self.modalities = nn.ModuleList(ClusterResiduals(width, count, length) for width, count in pairs)
        self.on_frames = _as_module(on_frames)
        self.on_assignments = _as_module(on_assignments)
        self.on_residuals = _as_module(on_residuals)
        self.hidden = Joined(sum(width * count for width, count in pairs), hidden, clusters[0])
        self.gate = ContextGate(hidden) if gate else nn.Identity()
        self.head = Head(hidden, head, nodes)
        initialise(self, seed)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, sum of widths), (batch, time) -> (batch, nodes) logits."""
        hooks = (self._per_modality(hook) for hook in (self.on_frames, self.on_assignments, self.on_residuals))
        parts = zip(self.modalities, frames.split(self.widths, dim=2), *hooks, strict=True)
        gathered = [vlad(part, mask, *own).flatten(1) for vlad, part, *own in parts]
        return self.head(self.gate(self.hidden(torch.cat(gathered, dim=1))))

    def _per_modality(self, hook: nn.Module) -> list[nn.Module]:
        return list(hook) if isinstance(hook, nn.ModuleList) else [hook] * len(self.widths)


def _as_module(hooks: Hooks) -> nn.Module:
    """A shared hook as it is, so that its weights have one name; one for each modality as a list."""
    return nn.ModuleList(hooks) if isinstance(hooks, tuple) else hooks or Unchanged()
