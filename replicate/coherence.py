"""A profile's coherence section as hooks and wrappers of the baselines: which layer, where, with which weights."""

from torch import Tensor, nn
from torch.nn import functional as F

import tc
from replicate.config import CoherenceConfig
from replicate.errors import ConfigurationError


class Coherent(nn.Module):
    """A temporal-coherence layer as a hook.

    Attributes:
        layer: of the form that the profile asks for.
    """

    def __init__(self, coherence: CoherenceConfig, groups: int = 1, channels: int | None = None):
        """
        Args:
            coherence: the layer's options.
            groups: parts of the channels with weights of their own, unless the options say otherwise.
            channels: how many the hook is given; needed for depthwise kernels.

        Raises:
            ConfigurationError: the form is no layer, or depthwise kernels are asked for where they cannot be.
        """
        super().__init__()
        if coherence.form == "output":
            raise ConfigurationError("coherence.form = 'output' is a term of the loss; this column has no place for it")
        if coherence.sharing == "depthwise" and channels is None:
            raise ConfigurationError("coherence.sharing = 'depthwise' is not possible in this column; give 'default'")
        groups = {"default": groups, "shared": 1, "depthwise": channels}[coherence.sharing]
        make = {"convolution": _convolution, "exact": _neighbourhood, "distance_convolution": _distance_convolution}
        self.layer = make[coherence.form](coherence, groups)

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Smooth `values` over time; `features` play no part in the convolutional form."""
        if isinstance(self.layer, tc.TemporalConvolution):
            return self.layer(values, mask)
        return self.layer(values, features, mask)

    def then_linear(self, linear: nn.Linear, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """linear(self(values)) on valid frames. A linear kernel that all channels share commutes with the linear map,
        so it is applied to the map's outputs, which are fewer; its bias reaches each output times the sum of weights.
        """
        layer = self.layer
        shared = isinstance(layer, tc.TemporalConvolution) and layer.groups == 1 and not layer.relu
        if not shared or linear.out_features >= linear.in_features:
            return linear(self(values, features, mask))
        smoothed = layer(F.linear(values, linear.weight), mask)
        return smoothed + (layer.bias.mean() * (linear.weight.sum(dim=1) - 1) + linear.bias)


def _convolution(coherence: CoherenceConfig, groups: int) -> tc.TemporalConvolution:
    return tc.TemporalConvolution(
        coherence.kernel_size, coherence.maps, coherence.initialisation, groups, coherence.relu, coherence.boundary,
        coherence.trainable,
    )  # fmt: skip


def _neighbourhood(coherence: CoherenceConfig, groups: int) -> tc.NeighbourhoodSum:
    readings = coherence.sign, coherence.include_self, coherence.normalise
    return tc.NeighbourhoodSum(coherence.kernel_size // 2, *readings, _detector(coherence) or 1.0, groups)


def _detector(coherence: CoherenceConfig) -> nn.Module | None:
    detectors = {"distance": tc.DistanceDetector, "adaptive": tc.AdaptiveDetector, "learned": tc.LearnedGate}
    return OnDirections(detectors[coherence.z](coherence.z_threshold)) if coherence.z in detectors else None


def _distance_convolution(coherence: CoherenceConfig, groups: int) -> tc.DistanceConvolution:
    return tc.DistanceConvolution(_convolution(coherence, groups), _neighbourhood(coherence, groups))


class OnDirections(nn.Module):
    """A detector of boundaries that sees every frame's features scaled to length 1, so that one threshold suits frames
    under any normalisation, states and keys."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, time - 1)."""
        return self.detector(F.normalize(features, dim=-1), mask)


class Again(nn.Module):
    """Another hook of a model filled with the same layer, whose weights stay under the name of the first."""

    def __init__(self, hook: nn.Module):
        super().__init__()
        self._hook = (hook,)  # in a tuple, torch does not register it a second time

    def forward(self, values: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """As the hook."""
        return self._hook[0](values, features, mask)


class LabelPriorModel(nn.Module):
    """A baseline trained under Eq. 1: the head also classifies every frame's state, and the loss wants the predictions
    of one segment to be alike.

    Attributes:
        penalty: (batch,) lambda L_labelprior of the last training batch, to be added to its loss; else None.
    """

    def __init__(self, model: nn.Module, coherence: CoherenceConfig):
        """
        Args:
            model: has `represent(frames, mask) -> (vectors, states)` and `head`, which classifies both.
            coherence: lambda, and the detector at whose boundaries segments end.
        """
        super().__init__()
        self.model = model
        self.prior = tc.LabelPrior(coherence.label_prior)
        self.segments = _detector(coherence)
        self.penalty: Tensor | None = None

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, nodes) logits."""
        vectors, states = self.model.represent(frames, mask)
        if self.training:
            continuity = self.segments(frames, mask) if self.segments else None
            self.penalty = self.prior(self.model.head(states), mask, continuity)
        return self.model.head(vectors)

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """As the model's."""
        return self.model.attention(frames, mask)


def take_penalty(model: nn.Module) -> Tensor | float:
    """The sum of what was to be added to the loss of the last training batch's videos; 0 where nothing was."""
    total: Tensor | float = 0.0
    for module in model.modules():
        if isinstance(module, LabelPriorModel) and module.penalty is not None:
            total = total + module.penalty.sum()
            module.penalty = None
    return total


def recurrent_hooks(coherence: CoherenceConfig, states: int) -> dict[str, nn.Module]:
    """Hooks of an AttentionRNN.

    Args:
        coherence: `rnn_site` names the place: the states that the energies are computed from, the energies, or the
            states everywhere. By default the convolution stands on the states and the exact form on the energies
            (erratum 17).
        states: their width.
    """
    site = coherence.rnn_site
    if site == "default":
        site = "energies" if coherence.form == "exact" else "states"
    hook = Coherent(coherence, channels=1 if site == "energies" else states)
    if site == "energies":
        return {"on_energies": hook}
    return {"on_states": hook} | ({"on_context_states": Again(hook)} if site == "everywhere" else {})


def cluster_hooks(
    coherence: CoherenceConfig, widths: tuple[int, ...], clusters: tuple[int, ...]
) -> dict[str, nn.Module | tuple[nn.Module, ...]]:
    """Hooks of a NetVLAD.

    Args:
        coherence: `netvlad_site` names the place: the frames that are assigned, the logits of their assignment, or the
            frames everywhere. By default the convolution stands on the frames and the exact form on the logits
            (erratum 16). Modalities share the layer unless its kernels are depthwise.
        widths, clusters: of each modality.
    """
    site = coherence.netvlad_site
    if site == "default":
        site = "assignments" if coherence.form == "exact" else "frames"
    channels = clusters if site == "assignments" else widths
    if coherence.sharing == "depthwise":
        hook: nn.Module | tuple[nn.Module, ...] = tuple(Coherent(coherence, channels=each) for each in channels)
        again: nn.Module | tuple[nn.Module, ...] = tuple(Again(each) for each in hook)
    else:
        hook = Coherent(coherence)
        again = Again(hook)
    if site == "assignments":
        return {"on_assignments": hook}
    return {"on_frames": hook} | ({"on_residuals": again} if site == "everywhere" else {})


def attention_hooks(
    coherence: CoherenceConfig, layers: int, heads: int, width: int
) -> dict[str, tuple[nn.Module, ...]]:
    """Hooks of a Transformer, with kernels of their own for each head unless they are shared or depthwise.

    Args:
        coherence: `transformer_site` names the place: keys and values, keys, or values. By default the convolution
            stands on both and the exact form on the keys, since summing logits over neighbouring keys is summing keys
            (erratum 18).
        layers, heads, width: of the encoder.
    """
    site = coherence.transformer_site
    if site == "default":
        site = "keys" if coherence.form == "exact" else "keys_and_values"
    hooks = {"keys": ("on_keys",), "values": ("on_values",), "keys_and_values": ("on_keys", "on_values")}[site]
    return {name: tuple(Coherent(coherence, heads, width) for _ in range(layers)) for name in hooks}


def with_label_prior(model: nn.Module, coherence: CoherenceConfig) -> nn.Module:
    """The baseline under Eq. 1.

    Raises:
        ConfigurationError: it has no states of single frames that its head could classify.
    """
    if not hasattr(model, "represent"):
        name = type(model).__name__
        raise ConfigurationError(
            f"coherence.form = 'output' needs states of single frames, and a {name} has none; take its coherent column "
            "out of run.columns"
        )
    return LabelPriorModel(model, coherence)
