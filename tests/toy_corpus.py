"""A corpus in memory that a small model can learn, for tests of whatever reads, trains and predicts."""

from dataclasses import dataclass

import numpy as np

from replicate.config import TrainingConfig
from replicate.data.labels import LabelStore
from replicate.data.spec import BIAS, SCALE, DatasetSpec, Feature
from replicate.data.splits import Split

WIDTH, NODES, LONGEST = 8, 5, 7
SPEC = DatasetSpec("toy", "sequence", "id", "labels", (Feature("x", WIDTH),), "uint8", LONGEST, NODES, SCALE, BIAS)
TRAINING = TrainingConfig(learning_rate=0.01, batch_size=16, epochs=3, normalisation="l2_sqrt_width")


@dataclass
class MemorySource:
    """Frames of rows, from memory; notes which rows were asked for."""

    features: np.ndarray
    lengths: np.ndarray

    def __post_init__(self):
        self.asked = []

    def read(self, rows):
        self.asked.append(np.array(rows))
        lengths = self.lengths[rows]
        return self.features[rows, : lengths.max(initial=0)].copy(), lengths


def corpus(videos: int = 96, seed: int = 0) -> tuple[MemorySource, LabelStore]:
    """Videos of 1 to LONGEST frames; node n is positive where feature n is large on average. Node 0 always is."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, LONGEST + 1, videos)
    centres = generator.integers(40, 215, (videos, 1, WIDTH))
    features = np.clip(centres + generator.integers(-30, 30, (videos, LONGEST, WIDTH)), 0, 255).astype(np.uint8)
    features[np.arange(LONGEST) >= lengths[:, None]] = 0
    positive = centres[:, 0, :NODES] > 150
    positive[:, 0] = True
    offsets = np.concatenate([[0], np.cumsum(positive.sum(axis=1))])
    return MemorySource(features, lengths), LabelStore(offsets, np.nonzero(positive)[1].astype(np.int16), NODES)


def split(videos: int = 96, tune: int = 24) -> Split:
    """The first videos train, the next ones tune; there is no pool."""
    rows = np.arange(videos)
    return Split(rows[: videos - tune], rows[videos - tune :], rows[:0], np.zeros((0, 0), np.int64), True)
