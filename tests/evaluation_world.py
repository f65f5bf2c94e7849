"""A small pool with draws, and columns that score it, for tests of the evaluate and compare stages."""

import numpy as np

from replicate.comparison.pairs import Evaluated, compare_columns
from replicate.data.labels import LabelStore
from replicate.data.splits import Split
from replicate.evaluate.protocol import load_protocol
from replicate.evaluation import Pool, evaluate_column
from replicate.schema import write_record
from replicate.scores import LOGITS

VIDEOS, DRAWS = 900, 5
NODE_LEVELS = np.array([0] * 6 + [1] * 24 + [2] * 8 + [3] * 4)
RARE = 41  # a node of level 3 with 6 positives in the pool: 1 expected in a draw of 150
COLUMNS = ("rnn_attn", "tc_rnn", "base_ens", "tc_ens", "netv")


def small_protocol(**bootstrap):
    """The protocol with fewer replicates, so that the tests are quick."""
    protocol = load_protocol()
    settings = {"replicates": 640, "exploratory_replicates": 64, **bootstrap}
    return protocol.model_copy(update={"bootstrap": protocol.bootstrap.model_copy(update=settings)})


class World:
    """A pool, and columns that score it."""

    def __init__(self, folder, seeds=(0,), protocol=None, overlapping=False):
        self.folder, self.seeds, self.protocol = folder, seeds, protocol or small_protocol()
        rng = np.random.default_rng(0)
        self.labels = rng.random((VIDEOS, len(NODE_LEVELS))) < np.linspace(0.3, 0.1, len(NODE_LEVELS))
        self.labels[:, RARE] = False
        self.labels[:6, RARE] = True
        draws = np.stack([np.sort(rng.permutation(VIDEOS)[:150]) for _ in range(DRAWS)])
        if not overlapping:
            draws = np.arange(DRAWS * 150).reshape(DRAWS, 150)
        rows = 3 * np.arange(VIDEOS) + 1  # of an index that has other videos, too
        self.split = Split(rows[:0], rows[:0], rows, draws, not overlapping)
        offsets, values = np.zeros(3 * VIDEOS + 1, np.int64), []
        for row in range(3 * VIDEOS):
            own = np.flatnonzero(self.labels[row // 3]) if row % 3 == 1 else np.zeros(0, int)
            offsets[row + 1] = offsets[row] + len(own)
            values.append(own)
        self.store = LabelStore(offsets, np.concatenate(values).astype(np.int16), len(NODE_LEVELS))
        self.pool = Pool.of(self.store, self.split, NODE_LEVELS, self.protocol)
        self.ids = np.array([f"video{row}".encode() for row in range(3 * VIDEOS)])
        self.names = [f"node {node}" for node in range(len(NODE_LEVELS))]
        self.evaluated, self.records = {}, {}

    def scores(self, column, seed):
        """float32 logits: columns share most of their noise; one is better, some are ensembles."""
        shared = np.random.default_rng(7).standard_normal(self.labels.shape)
        own = np.random.default_rng([hash_of(column), seed]).standard_normal(self.labels.shape)
        strength = {"tc_rnn": 1.9, "tc_ens": 1.6}.get(column, 1.3)
        return (shared + 0.5 * own - 2 + strength * self.labels).astype(np.float32)

    def add(self, column, seed=0, scores=None):
        place = self.folder / f"predict-{column}-{seed}"
        place.mkdir(parents=True)
        np.save(place / LOGITS, self.scores(column, seed) if scores is None else scores)
        return self.evaluate(column, seed, place)

    def evaluate(self, column, seed, place, threads=1):
        out = self.folder / f"evaluate-{column}-{seed}"
        out.mkdir(parents=True, exist_ok=True)
        record = evaluate_column(place, self.pool, self.protocol, column, seed, out, threads, lambda *_: None)
        write_record(out / "record.json", record)
        self.evaluated[column, seed], self.records[column, seed] = Evaluated(out, place), record
        return record

    def compare(self, columns, paper=None, **changes):
        evaluated = {key: value for key, value in self.evaluated.items() if key[0] in columns}
        protocol = changes.get("protocol", self.protocol)
        return compare_columns(evaluated, self.pool, protocol, paper or {}, self.names, self.ids, 1, lambda *_: None)


def hash_of(word):
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(word))


def find(record, metric, level, column="tc_rnn"):
    return next(d for d in record.differences if (d.column, d.metric, d.level) == (column, metric, level))
