"""Gather the small records of a run into one folder: all that tables, figures, claims and checks are made of."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from replicate import manifest
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.data.labels import LabelStore
from replicate.engine import Settings
from replicate.hardware import accounting
from replicate.record import digest, file_digest, read_json, write_json, write_text
from replicate.schema import RunRecord
from replicate.stages import Graph, Job, flatten, in_order
from replicate.steps import RECORD
from replicate.studies.schema import study_records

RENDERED = ".rendered"
# Stages whose keys the run record holds: what is shown, and what tells whether two runs scored the same videos.
KEYED = ("labels", "split", "train", "predict", "evaluate", "compare", "explain", "time")


def collect(graph: Graph, columns: tuple[str, ...], settings: Settings, results: Path) -> None:
    """Write `results/records/*.json` from finished jobs; records of earlier runs that are not among them are removed,
    save those of studies, which other commands make.

    Args:
        graph: the profile's graph, whose jobs for `columns` are done.
        columns: slugs in the order of the table.
        settings: where the run directory is.
        results: folder of one profile's results.
    """
    records = {"run": _run_record(graph, columns, settings)}
    for job in graph.results(columns):
        records[_name(job)] = read_json(job.folder(settings.runs) / RECORD)
    for job in _training_jobs(graph, columns):
        records[_name(job)] = read_json(job.folder(settings.runs) / RECORD)
    folder = results / "records"
    kept = {folder / f"{name}.json" for name in records} | set(study_records(results))
    for stale in set(folder.glob("*.json")) - kept:
        stale.unlink()
    for name, record in records.items():
        write_json(folder / f"{name}.json", record)


def is_rendered(results: Path) -> bool:
    """Whether tables, figures and report were made of the present records by the present code."""
    mark = results / RENDERED
    return mark.is_file() and mark.read_text(encoding="utf-8") == _rendering(results)


def mark_rendered(results: Path) -> None:
    """Note that tables, figures and report are up to date."""
    write_text(results / RENDERED, _rendering(results))


def _rendering(results: Path) -> str:
    code = sorted(Path(__file__).with_name("report").rglob("*"))
    records = sorted((results / "records").glob("*.json"))
    sources = [*records, *(path for path in code if path.suffix not in ("", ".pyc"))]
    return digest({path.name: file_digest(path) for path in sources})


def publish(source: Path, target: Path) -> list[Path]:
    """Copy one profile's results to the place where they are committed; files that are no longer made are removed."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(RENDERED))
    return sorted(path for path in target.rglob("*") if path.is_file())


def _training_jobs(graph: Graph, columns: tuple[str, ...]) -> list[Job]:
    seeds = graph.profile.training.seeds
    jobs = [graph.train(column, seed) for column in columns if COLUMNS[column].trained for seed in seeds]
    if any(job.parameters.get("column") == AGGREGATOR for job in graph.results(columns)):
        jobs.append(graph.train(AGGREGATOR, seeds[0]))  # trained once, whatever the number of seeds
    return jobs


def _name(job: Job) -> str:
    words = [job.stage.name, *(str(job.parameters[name]) for name in ("column", "seed") if name in job.parameters)]
    return "-".join(words)


def _run_record(graph: Graph, columns: tuple[str, ...], settings: Settings) -> dict[str, Any]:
    profile = settings.profile
    split = read_json(graph.split.folder(settings.runs) / "split.json")
    index = read_json(graph.index.folder(settings.runs) / "index.json")
    taxonomy = read_json(graph.taxonomy.folder(settings.runs) / "taxonomy.json")
    labels = LabelStore.open(graph.labels.folder(settings.runs))
    train = np.load(graph.split.folder(settings.runs) / "train.npy")
    record = {
        "profile": profile.name,
        "title": profile.title,
        "data": "synthetic" if profile.dataset.name == "synthetic" else "real",
        "dataset": profile.dataset.name,
        "columns": list(columns),
        "seeds": list(profile.training.seeds),
        "configuration": dict(flatten(profile)),
        "split": split,
        "shards": index["shards"],
        "skipped": index["skipped"],
        "nodes": len(taxonomy["names"]),
        "nodes_per_level": [taxonomy["levels"].count(level) for level in range(4)],
        "node_names": taxonomy["names"],
        "node_levels": taxonomy["levels"],
        "train_positives": labels.counts(train).tolist(),
        "keys": {_name(job): job.key for job in in_order(graph.results(columns)) if job.stage.name in KEYED},
        "code": manifest.code_version(),
        "packages": manifest.package_versions(),
        "machine": accounting.describe(),
        "command": list(settings.command),
    }
    return RunRecord(**record).model_dump(mode="json")
