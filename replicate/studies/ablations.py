"""Controls and readings that the paper lacks: variants of one coherent column, each beside its own baseline.

A row changes the layer alone, or, where `both` says so, what the baseline sees too; then the baseline is trained anew
under the same change, and the row's difference is to that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.data.spec import chosen_features
from replicate.profile_files import load_profile
from replicate.stages import Graph
from replicate.steps import specification
from replicate.studies.schema import AblateRecord, AblateRow
from replicate.studies.variants import Variant, assign, coherent_column, description, of_form, read_arm

LABEL_PRIORS = (0.1, 1.0, 10.0)  # lambda of Eq. 1, whose choice the paper calls sensitive
PROTOCOL = (
    "learning_rate", "batch_size", "epochs", "patience", "gradient_clip", "decay", "decay_examples", "normalisation",
)  # fmt: skip  # fields of [training] that section 4.2 and its predecessors fix


@dataclass(frozen=True)
class Row:
    """One variant before it is trained.

    Attributes:
        key: names it on the command line.
        variant: its title and assignments.
        about: what it tells, in a sentence.
        both: the baseline changes too.
        impossible: why this column or dataset cannot have it; empty where it can.
    """

    key: str
    variant: Variant
    about: str
    both: bool = False
    impossible: str = ""


def rows(profile: Profile, column: str) -> list[Row]:
    """The rows of a column's ablation.

    Raises:
        ConfigurationError: the column has no layer that could be changed.
    """
    coherent_column(column)
    as_run = Row("as_run", Variant("as run", ()), "The column as the profile has it.")
    return [as_run, *_inputs(profile, column), *_kernels(column), *_sites(column), *_exact_forms(), *_output(column)]


def _inputs(profile: Profile, column: str) -> list[Row]:
    """Changes that the baseline sees too."""
    protocol = load_profile("paper").training
    literal = tuple(assign(f"training.{name}", getattr(protocol, name)) for name in PROTOCOL)
    both = [
        Row(
            "shuffled", Variant("shuffled frames", (assign("dataset.frame_order", "shuffled"),)),
            "Every video's frames in random order: a gain that survives is no gain of coherence.",
        ),
        Row(
            "padding", Variant("padding takes part", (assign("model.mask", False),)),
            "The literal 'padded 0 frames': zeros up to the frame limit count as frames (erratum 24).",
        ),
        Row(
            "literal_protocol", Variant("literal protocol", literal),
            "Learning rate, batch, epochs, patience and normalisation of the paper, made for a larger corpus.",
        ),
        Row(
            "quarter", Variant("a quarter of the training videos", (assign("split.train", _quarter(profile)),)),
            "Whether coherence helps more where examples are few (section 4.3); as many epochs, fewer steps.",
        ),
    ]  # fmt: skip
    return [replace(row, both=True) for row in (*both, *_modalities(profile, column))]


def _quarter(profile: Profile) -> int | float:
    """Of what the profile trains on: of the count or share, or of all the training material where the rest is taken.
    The tune split stays as it is, and so does the pool where a dataset comes divided."""
    amount = profile.split.train
    if amount == "rest":
        return 0.25
    return amount / 4 if isinstance(amount, float) else max(1, amount // 4)


def _modalities(profile: Profile, column: str) -> list[Row]:
    """Each modality by itself."""
    features = chosen_features(specification(profile).features, profile.dataset.modalities)
    if len(features) == 1:
        return [Row("modalities", Variant("single modalities", ()), "", impossible="the dataset has one modality")]
    made, width = [], sum(feature.width for feature in features)
    for place, feature in enumerate(features):
        assignments = [assign("dataset.modalities", [feature.key])]
        if COLUMNS[column].family == "netvlad":
            assignments.append(assign("model.netvlad_clusters", [profile.model.netvlad_clusters[place]]))
        if COLUMNS[column].family == "rnn":
            assignments.append(assign("model.gru_features", "all"))
        variant = Variant(f"{feature.key} only", tuple(assignments))
        made.append(Row(f"{feature.key}_only", variant, f"{feature.width} of the {width} values of a frame."))
    return made


def _kernels(column: str) -> list[Row]:
    """Other kernels at the same place."""
    made = [
        ("kernel_1", "kernel of 1", {"kernel_size": 1}, "It can rescale and shift, not smooth."),
        ("box", "fixed box filter", {"initialisation": "box", "trainable": False}, "A moving average, never trained."),
        ("identity", "identity initialisation", {"initialisation": "identity"},
         "Training starts from the baseline (erratum 13)."),
        ("depthwise", "depthwise kernels", {"sharing": "depthwise"}, "A kernel for every channel (erratum 11)."),
        ("relu", "ReLU in every map", {"relu": True}, "Maps are then more than one linear kernel (erratum 12)."),
        ("several_sizes", "kernels of 1, 5 and 9", {"kernel_size": [1, 5, 9]},
         "Feature maps of different sizes, as section 3.1 says (erratum 10)."),
        ("replicate", "replicated boundary", {"boundary": "replicate"},
         "Beyond the ends the first and last frame instead of zeros (erratum 14)."),
    ]  # fmt: skip
    if COLUMNS[column].family == "transformer":
        made.append(
            ("shared", "kernels shared by the heads", {"sharing": "shared"}, "One kernel for all heads (erratum 19).")
        )
    return [Row(key, Variant(title, of_form("convolution", **options)), about) for key, title, options, about in made]


def _sites(column: str) -> list[Row]:
    """The same layer at other places."""
    places = {
        "rnn": (("energies", "on the energies", 17), ("everywhere", "on the states everywhere", 17)),
        "netvlad": (("assignments", "on the assignment logits", 16), ("everywhere", "on the frames everywhere", 16)),
        "transformer": (("keys", "on the keys alone", 18), ("values", "on the values alone", 18)),
    }
    family = COLUMNS[column].family
    return [
        Row(
            f"site_{site}", Variant(title, of_form("convolution", **{f"{family}_site": site})),
            f"Another reading of where the layer stands (erratum {erratum}).",
        )
        for site, title, erratum in places[family]
    ]  # fmt: skip


def _exact_forms() -> list[Row]:
    """The equations themselves, and what they leave open."""
    made = [
        ("exact", "exact form", "exact", {}, "Neighbours weighed by exp(-distance), nothing learned (Eqs. 4, 6)."),
        ("exact_plus", "exact form, printed sign", "exact", {"sign": 1},
         "exp(+distance), as Eqs. 2, 3 and 5 print it (erratum 1)."),
        ("exact_self", "exact form, self twice", "exact", {"include_self": True}, "As Eq. 8 (erratum 4)."),
        ("exact_normalised", "exact form, normalised", "exact", {"normalise": True},
         "Smooths without sharpening (erratum 8)."),
        ("exact_detected", "exact form, detected boundaries", "exact", {"z": "distance"},
         "Neighbours across a jump do not count (Eq. 3, erratum 43)."),
        ("exact_adaptive", "exact form, unusual steps as boundaries", "exact", {"z": "adaptive"},
         "Neighbours across a jump that is large for its video do not count (Eq. 3, erratum 43)."),
        ("exact_learned", "exact form, learned boundaries", "exact", {"z": "learned"},
         "The jump that counts is learned (Eq. 3, erratum 43)."),
        ("eq_7", "taps and distances", "distance_convolution", {}, "Eq. 7 taken at its word (erratum 6)."),
    ]  # fmt: skip
    return [Row(key, Variant(title, of_form(form, **options)), about) for key, title, form, options, about in made]


def _output(column: str) -> list[Row]:
    """Eq. 1: a term of the loss instead of a layer."""
    family = COLUMNS[column].family
    missing = "NetVLAD has no states of single frames that its head could classify" if family == "netvlad" else ""
    return [
        Row(
            f"eq_1_{strength:g}",
            Variant(f"Eq. 1, lambda {strength:g}", of_form("output", label_prior=strength, z="distance")),
            "Label prior on predictions of single frames, segments by distance (erratum 44).",
            impossible=missing,
        )
        for strength in LABEL_PRIORS
    ]


def ablate_record(
    profile: Profile, column: str, chosen: Sequence[Row], graphs: Mapping[str, Graph], runs: Path
) -> AblateRecord:
    """What the rows gave.

    Args:
        profile: what they start from.
        column: slug.
        chosen: the rows, impossible ones among them.
        graphs: by key, of those that are possible; their jobs are done.
        runs: the run directory.
    """
    made = []
    for row in chosen:
        arm = None if row.impossible else read_arm(graphs[row.key], column, runs)
        made.append(
            AblateRow(
                key=row.key, title=row.variant.title, about=row.about, assignments=row.variant.assignments,
                both=row.both, arm=arm, reason=row.impossible or None,
            )
        )  # fmt: skip
    return AblateRecord(**description(profile, column), rows=tuple(made))
