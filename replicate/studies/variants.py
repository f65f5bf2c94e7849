"""What grids, ablations and the multiverse share: variants of a profile, their jobs, and what these found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.config import EXACT, MEANT_IN, CoherenceConfig, Profile
from replicate.errors import ConfigurationError
from replicate.schema import HEADLINE, CompareRecord, Difference, EvaluateRecord, TrainRecord, read_record
from replicate.stages import Graph, Job, flatten
from replicate.steps import RECORD
from replicate.studies.schema import Arm, OverallDifference


@dataclass(frozen=True)
class Variant:
    """A profile of a study: the command's with some fields changed."""

    title: str
    assignments: tuple[str, ...]


def assign(field: str, value: Any) -> str:
    """`field=value` as --set takes it."""
    return f"{field}={json.dumps(value)}"  # strings, numbers, booleans and lists are written alike in JSON and TOML


def of_form(form: str, **options: Any) -> tuple[str, ...]:
    """Assignments for a form of the layer: fields without a meaning in it return to their defaults."""
    defaults = CoherenceConfig()
    lost = {name: getattr(defaults, name) for name, forms in MEANT_IN.items() if form not in forms}
    if form in EXACT:  # no kernel per channel there
        lost["sharing"] = defaults.sharing
    values = {"form": form, **lost, **options}
    return tuple(assign(f"coherence.{name}", value) for name, value in values.items())


def coherent_column(column: str, besides: str = "") -> str:
    """The baseline of a coherent column that is trained; `besides` ends the list of choices.

    Raises:
        ConfigurationError: it is none.
    """
    found = COLUMNS[column]
    if not found.trained or found.baseline is None:
        choices = ", ".join(slug for slug, each in COLUMNS.items() if each.trained and each.baseline)
        reason = f"--model {column} has no temporal-coherence layer of its own"
        raise ConfigurationError(f"{reason}; give one of {choices}{besides}")
    return found.baseline


def description(profile: Profile, column: str) -> dict[str, Any]:
    """The fields of a Study."""
    return {
        "profile": profile.name,
        "title": profile.title,
        "data": "synthetic" if profile.dataset.name == "synthetic" else "real",
        "column": column,
        "baseline": COLUMNS[column].baseline,
        "seeds": profile.training.seeds,
        "configuration": dict(flatten(profile)),
    }


def train_records(graph: Graph, column: str, runs: Path) -> list[TrainRecord]:
    """The training of every seed."""
    jobs = [graph.train(column, seed) for seed in graph.profile.training.seeds]
    return [read_record(job.folder(runs) / RECORD, TrainRecord) for job in jobs]


def arm_jobs(graph: Graph, column: str) -> list[Job]:
    """What an Arm is made of."""
    baseline = COLUMNS[column].baseline
    trained = [graph.train(each, seed) for each in (baseline, column) for seed in graph.profile.training.seeds]
    return [*trained, graph.compare((baseline, column))]


def read_arm(graph: Graph, column: str, runs: Path) -> Arm:
    """What the jobs of an Arm found."""
    baseline = COLUMNS[column].baseline
    compared = read_record(graph.compare((baseline, column)).folder(runs) / RECORD, CompareRecord)
    overall = {each.metric: each for each in compared.differences if each.level == "overall" and each.column == column}
    trainings = train_records(graph, column, runs)
    return Arm(
        scores=_scores(graph, column, runs),
        baseline_scores=_scores(graph, baseline, runs),
        differences=tuple(_overall(overall[metric]) for metric in HEADLINE),
        tune_gap=tuple(each.tune_gap for each in trainings),
        status=tuple(each.status for each in trainings),
        baseline_status=tuple(each.status for each in train_records(graph, baseline, runs)),
        parameters=trainings[0].parameters,
    )


def _overall(found: Difference) -> OverallDifference:
    return OverallDifference(
        metric=found.metric,
        difference=found.difference,
        interval=found.interval,
        p=found.p,
        seeds=found.seeds,
        reason=found.reason,
    )


def _scores(graph: Graph, column: str, runs: Path) -> dict[str, float | None]:
    """Headline metrics, overall, mean over draws and seeds."""
    jobs = [graph.evaluate(column, seed) for seed in graph.profile.training.seeds]
    records = [read_record(job.folder(runs) / RECORD, EvaluateRecord) for job in jobs]
    cells = [{cell.metric: cell.mean for cell in record.cells if cell.level == "overall"} for record in records]
    return {metric: mean([each[metric] for each in cells]) for metric in HEADLINE}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is missing."""
    return None if None in values or not values else sum(values) / len(values)
