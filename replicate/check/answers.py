"""The second layer of the golden reference: known answers of tiny trained models on the fixed corpus.

Every column's weights are committed as float16, with the logits that they give on the 64 fixed videos. Whatever the
code does differently between a record's bytes and a logit - frames in another order, padding that takes part, frames
that are not normalised - moves a logit; whatever it does differently between logits and metrics moves a metric.
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save as to_bytes
from torch import nn

from replicate import models
from replicate.check.cells import Cell, within
from replicate.check.digests import (
    BATCH,
    FRAME_LIMIT,
    LEVELS,
    PARENTS,
    REMOVE,
    SPEC,
    FixedCorpus,
    fixed_corpus,
    read_layer,
)
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.compute import Compute
from replicate.config import CoherenceConfig, ModelConfig, TrainingConfig
from replicate.data.batches import ArraySource, Source
from replicate.data.splits import Split
from replicate.errors import DataError, MissingResult
from replicate.evaluate.metrics import evaluate
from replicate.predict import infer
from replicate.record import file_digest, write_bytes, write_json
from replicate.scores import mean_probability
from replicate.training.train import WEIGHTS as TRAINED
from replicate.training.train import train

ANSWERS, WEIGHTS, LOGITS = "answers.json", "weights.safetensors", "logits.safetensors"
LOGIT_TOLERANCE, METRIC_TOLERANCE = 1e-3, 1e-9
MODEL = ModelConfig(
    head=(16,), lstm_width=16, gru_width=16, netvlad_clusters=(4, 2), netvlad_width=16, transformer_width=24,
    transformer_heads=12, transformer_feedforward=32, transformer_layers=2,
)  # fmt: skip
COHERENCE = CoherenceConfig()
TRAINING = TrainingConfig(learning_rate=0.01, batch_size=BATCH, epochs=12, patience=12, decay=1.0)
TRAINED_COLUMNS = (AGGREGATOR, *(slug for slug, column in COLUMNS.items() if column.trained))
REMEDY = "if the change is meant, `replicate check --update-golden --layer answers --reason '...'` makes new ones"

States = dict[str, np.ndarray]
SIDE_BY_SIDE = "all columns side by side"  # more nodes than the 20 that GAP keeps, which the fixed corpus has not
TIED = "the same, logits rounded to whole numbers"  # so that many tie, within videos and between them


class Unfit(MissingResult):
    """The reference is of other models."""


def _build(column: str) -> nn.Module:
    widths = (MODEL.lstm_width,) if column == "dnn" else tuple(feature.width for feature in SPEC.features)
    return models.build(column, MODEL, COHERENCE, widths, len(PARENTS), 0, FRAME_LIMIT).eval()


def _score(column: str, weights: States, corpus: FixedCorpus, source: Source) -> tuple[np.ndarray, nn.Module]:
    """(logits, model) of one column with given weights, along the way that the stages take."""
    model = _build(column)
    try:
        model.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()})
    except RuntimeError as error:
        raise Unfit(f"stored weights do not fit {column}: {' '.join(str(error).split())}; {REMEDY}") from None
    return _run(model, corpus, source), model


def _run(forward: Callable, corpus: FixedCorpus, source: Source) -> np.ndarray:
    blocks = infer(forward, source, corpus.rows, SPEC, TRAINING.normalisation, BATCH, Compute())
    return np.concatenate(list(blocks))


def score_columns(corpus: FixedCorpus, weights: dict[str, States]) -> dict[str, np.ndarray]:
    """Column -> logits (videos, nodes) float32, ensembles included."""
    with Compute().active():
        logits, aggregator = {}, _score(AGGREGATOR, weights[AGGREGATOR], corpus, corpus.source)[1]
        states = ArraySource(_run(aggregator.states, corpus, corpus.source))
        for column in TRAINED_COLUMNS[1:]:
            source = states if column == "dnn" else corpus.source
            logits[column] = _score(column, weights[column], corpus, source)[0]
    for slug, column in COLUMNS.items():
        if column.members:
            logits[slug] = mean_probability([logits[member] for member in column.members])
    return logits


def all_metrics(logits: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Column -> "metric level" -> value; and of all columns as if they were one with more nodes, also with ties."""
    together, repeated = np.hstack([logits[column] for column in COLUMNS]), np.hstack([labels] * len(COLUMNS))
    return {column: _metrics(logits[column], labels) for column in COLUMNS} | {
        SIDE_BY_SIDE: _metrics(together, repeated),
        TIED: _metrics(np.rint(together), repeated),
    }


def _metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    values = evaluate(logits, labels, np.tile(LEVELS, logits.shape[1] // len(LEVELS))).values
    return {
        f"{metric} {level}": value
        for level, row in values.items()
        for metric, value in row.items()
        if value is not None
    }


def check_answers(folder: Path) -> list[Cell]:
    """The cells of this layer: per column its logits, and the metrics of the stored logits."""
    try:
        weights, stored, answers = _read(folder)
        with fixed_corpus(folder) as corpus:
            labels = corpus.labels.encode(corpus.rows)
            computed = score_columns(corpus, weights)
    except Unfit as error:
        return [Cell("answers", "weights", "not comparable", reason=str(error))]
    except MissingResult as error:
        return [Cell("answers", "reference", "missing", reason=str(error))]
    except DataError as error:
        return [Cell("answers", "reading", "outside", reason=str(error))]
    found = all_metrics(stored, labels)
    return [_logit_cell(column, computed[column], stored[column]) for column in COLUMNS] + [
        _metric_cell(name, found[name], answers["metrics"].get(name, {})) for name in found
    ]


def _logit_cell(column: str, computed: np.ndarray, stored: np.ndarray) -> Cell:
    apart = np.abs(computed - stored)
    moved = int((apart.max(axis=1) > LOGIT_TOLERANCE).sum())
    reason = f"logits of {moved} of {len(apart)} videos moved; {REMEDY}"
    return within("answers", f"{column}: largest change of a logit", float(apart.max()), 0, LOGIT_TOLERANCE, reason)


def _metric_cell(column: str, computed: dict[str, float], stored: dict[str, float]) -> Cell:
    name = f"{column}: largest change of a metric"
    if computed.keys() != stored.keys():
        alone = ", ".join(sorted(computed.keys() ^ stored.keys()))
        return Cell("answers", name, "not comparable", reason=f"{alone} stand on one side only; {REMEDY}")
    worst = max(stored, key=lambda each: abs(computed[each] - stored[each]))
    return within("answers", name, abs(computed[worst] - stored[worst]), 0, METRIC_TOLERANCE, f"{worst}; {REMEDY}")


def _read(folder: Path) -> tuple[dict[str, States], States, dict]:
    missing = [folder / name for name in (WEIGHTS, LOGITS) if not (folder / name).is_file()]
    if missing:
        raise MissingResult(f"{missing[0]} is missing; restore it, or {REMEDY}")
    answers = read_layer(folder / ANSWERS, ("files", "metrics"), f"restore it, or {REMEDY}")
    for name, digest in answers["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise Unfit(f"{folder / name} is not the file that {ANSWERS} speaks of; restore both")
    weights: dict[str, States] = {}
    for name, value in _tensors(folder / WEIGHTS).items():
        column, _, parameter = name.partition("/")
        weights.setdefault(column, {})[parameter] = value
    logits = _tensors(folder / LOGITS)
    if set(weights) != set(TRAINED_COLUMNS) or set(logits) != set(COLUMNS):
        raise Unfit(f"{folder} holds answers of other columns than there are now; {REMEDY}")
    return weights, logits, answers


def _tensors(path: Path) -> States:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary


def update_answers(folder: Path, reason: str) -> None:
    """Train the tiny models on the fixed corpus, and write their weights and answers: under a minute.

    What they learn does not matter; that they are trained makes their logits depend on what they are given.
    """
    path = folder / ANSWERS
    before = read_layer(path, ("reasons",), REMOVE)["reasons"] if path.exists() else ()
    with fixed_corpus(folder) as corpus:
        weights: dict[str, States] = {}
        for column in TRAINED_COLUMNS:
            source: Source = corpus.source
            if column == "dnn":
                aggregator = _score(AGGREGATOR, weights[AGGREGATOR], corpus, source)[1]
                source = ArraySource(_run(aggregator.states, corpus, source))
            weights[column] = _train(column, corpus, source)
        logits, labels = score_columns(corpus, weights), corpus.labels.encode(corpus.rows)
    flat = {f"{column}/{name}": value for column, each in weights.items() for name, value in each.items()}
    write_bytes(folder / WEIGHTS, to_bytes(flat))
    write_bytes(folder / LOGITS, to_bytes(logits))
    reasons = [*before, reason]
    answers = {
        "metrics": all_metrics(logits, labels),
        "files": {name: file_digest(folder / name) for name in (WEIGHTS, LOGITS)},
        "parameters": {column: sum(math.prod(v.shape) for v in each.values()) for column, each in weights.items()},
        "reasons": reasons,
    }
    write_json(path, answers)


def _train(column: str, corpus: FixedCorpus, source: Source) -> States:
    """Weights as float16, trained and tuned on all videos."""
    split = Split(corpus.rows, corpus.rows, corpus.rows[:0], np.zeros((0, 0), np.int64), True)
    with tempfile.TemporaryDirectory(prefix="golden.") as out:
        train(_build(column), source, corpus.labels, split, TRAINING, SPEC, 0, Path(out))
        return {name: value.astype(np.float16) for name, value in _tensors(Path(out) / TRAINED).items()}
