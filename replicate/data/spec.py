"""What a dataset's records look like: keys, widths, dequantisation. One literal table, no behaviour."""

from collections.abc import Sequence
from dataclasses import dataclass

from replicate.errors import ConfigurationError


@dataclass(frozen=True)
class Feature:
    """One modality: its key in the record and its values per frame."""

    key: str
    width: int


@dataclass(frozen=True)
class DatasetSpec:
    """The format of a dataset's records.

    Attributes:
        name: for messages.
        layout: "sequence" for tf.SequenceExample (frames), "example" for tf.Example (one vector per video).
        id_key, label_key: keys of the video's id (bytes) and label indices (int64 list).
        features: modalities in the order in which they are concatenated.
        dtype: "uint8" (quantised frames) or "float32" (vectors).
        frame_limit: most frames that a record may have; more is a fault.
        label_count: label indices are 0 .. label_count - 1.
        scale, bias: a quantised value x stands for x * scale + bias.
    """

    name: str
    layout: str
    id_key: str
    label_key: str
    features: tuple[Feature, ...]
    dtype: str
    frame_limit: int
    label_count: int
    scale: float = 1.0
    bias: float = 0.0

    @property
    def width(self) -> int:
        """Values per frame, all modalities together."""
        return sum(feature.width for feature in self.features)


def chosen_features(features: Sequence[Feature], keys: Sequence[str]) -> list[Feature]:
    """The features of these keys, in the order of the records; all for no keys.

    Raises:
        ConfigurationError: a key is none of the dataset's.
    """
    known = [feature.key for feature in features]
    for key in keys:
        if key not in known:
            raise ConfigurationError(f"dataset.modalities: there is no {key!r}; the dataset has {', '.join(known)}")
    return [feature for feature in features if not keys or feature.key in keys]


# Dequantisation of both corpora: the range [-2, 2] in 256 steps, plus half a 1/64 step (facts, section B).
SCALE, BIAS = 4 / 255, 4 / 512 - 2

SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "yt8m", "sequence", "id", "labels", (Feature("rgb", 1024), Feature("audio", 128)),
            "uint8", 300, 3862, SCALE, BIAS,
        ),
        DatasetSpec(
            "yt8m-video", "example", "id", "labels", (Feature("mean_rgb", 1024), Feature("mean_audio", 128)),
            "float32", 1, 3862,
        ),
        DatasetSpec(
            "audioset", "sequence", "video_id", "labels", (Feature("audio_embedding", 128),),
            "uint8", 10, 527, SCALE, BIAS,
        ),
    )
}  # fmt: skip
