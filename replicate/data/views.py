"""Sources that change what another source gives: some modalities alone, frames in another order."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from replicate.data.batches import Source, stream
from replicate.data.spec import Feature, chosen_features


class ChosenModalities:
    """A source's frames with the features of some modalities alone, in the order of the records."""

    def __init__(self, source: Source, features: Sequence[Feature], chosen: Sequence[str]):
        """
        Args:
            source: gives all modalities side by side.
            features: of the records.
            chosen: keys of the features that are kept.

        Raises:
            ConfigurationError: a key is none of the dataset's.
        """
        ends, wanted = np.cumsum([feature.width for feature in features]), chosen_features(features, chosen)
        kept = [(each, end) for each, end in zip(features, ends, strict=True) if each in wanted]
        self.source = source
        self.columns = np.concatenate([np.arange(end - each.width, end) for each, end in kept])
        self.widths = tuple(each.width for each, _ in kept)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features, lengths) of the rows, as in Batch."""
        return self._seen(*self.source.read(rows))

    def stream(self, parts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(features, lengths) of the rows of each part, in order."""
        for features, lengths in stream(self.source, parts):
            yield self._seen(features, lengths)

    def _seen(self, features: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features[..., self.columns], lengths


class ShuffledFrames:
    """A source's videos with their frames in another order: the control without temporal coherence.

    The order is a function of the video's id alone, the same in every epoch, for every model and seed.
    """

    def __init__(self, source: Source, ids: np.ndarray):
        """
        Args:
            source: gives frames in their order.
            ids: (videos,) bytes, by row of the index.
        """
        self.source, self.ids = source, ids

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features, lengths) of the rows, as in Batch."""
        return self._seen(rows, *self.source.read(rows))

    def stream(self, parts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(features, lengths) of the rows of each part, in order."""
        for rows, (features, lengths) in zip(parts, stream(self.source, parts), strict=True):
            yield self._seen(rows, features, lengths)

    def _seen(self, rows: np.ndarray, features: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            features[line, :length] = features[line, frame_order(bytes(self.ids[row]), int(length))]
        return features, lengths


def frame_order(video: bytes, length: int) -> np.ndarray:
    """A permutation of range(length): the order of the raw 64-bit outputs of Philox keyed with the video's id."""
    key = int.from_bytes(hashlib.blake2b(video, digest_size=16, person=b"frame order").digest(), "little")
    return np.argsort(np.random.Philox(key=key).random_raw(length), kind="stable")
