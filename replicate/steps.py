"""What each stage does: open its inputs, call the library with plain arguments, write into its folder.

The only module that translates a profile and folders of runs into calls; the library below it knows neither.
"""

import fnmatch
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.errors import ConfigurationError
from replicate.record import read_json, write_json
from replicate.schema import ExplainRecord, TimeRecord, TrainRecord, write_record
from replicate.stages import Job
from replicate.training import torchrun

RECORD = "record.json"  # the small record that a results folder takes from a job
ATTENTION_SAMPLES = 3  # videos of the pool whose attention is drawn (Figure 10)


@dataclass(frozen=True)
class Step:
    """One job at work."""

    job: Job
    profile: Profile
    runs: Path
    data_dir: Path | None
    progress: Callable[..., None]

    @property
    def out(self) -> Path:
        """The folder that the job fills."""
        return self.job.folder(self.runs)

    def input(self, role: str) -> Path:
        """The folder of one input."""
        return self.job.inputs[role].folder(self.runs)

    @property
    def column(self) -> str:
        """The column that the job is about."""
        return self.job.parameters["column"]

    @property
    def seed(self) -> int:
        """The training seed that the job is about."""
        return self.job.parameters["seed"]


def specification(profile: Profile) -> Any:
    """The format of the profile's records; the synthetic corpus has YouTube-8M's."""
    from replicate.data.spec import SPECS

    return SPECS["yt8m" if profile.dataset.name == "synthetic" else profile.dataset.name]


def data_root(profile: Profile, data_dir: Path | None, synthesized: Path | None) -> Path:
    """The folder that shard names are relative to."""
    if profile.dataset.name == "synthetic":
        return synthesized
    if data_dir is None:
        name = profile.dataset.name
        raise ConfigurationError(f"the {name} dataset needs its files: give --data-dir or set REPLICATE_DATA")
    return data_dir


def shard_patterns(profile: Profile) -> list[str]:
    """Which files under the root are read."""
    return ["*.tfrecord"] if profile.dataset.name == "synthetic" else list(profile.dataset.shards)


def open_taxonomy(folder: Path) -> Any:
    """The taxonomy that a taxonomy stage wrote."""
    from replicate.taxonomy.tree import Taxonomy

    return Taxonomy.from_dict(read_json(folder / "taxonomy.json"))


def run_taxonomy(step: Step) -> None:
    """Write the tree and the node of every label; ours is derived anew and must equal the committed map."""
    from replicate.taxonomy.build import build
    from replicate.taxonomy.tree import frequent_labels, load_audioset, load_yt8m

    dataset = step.profile.dataset
    if dataset.name == "audioset":
        root = data_root(step.profile, step.data_dir, None) / "audioset"
        taxonomy = load_audioset(root / "ontology.json", root / "class_labels_indices.csv")
    else:
        build(check=True)
        taxonomy = load_yt8m()
        if dataset.label_limit:
            taxonomy = taxonomy.restrict(frequent_labels(dataset.label_limit))
    write_json(step.out / "taxonomy.json", taxonomy.to_dict())


def run_synthesize(step: Step) -> None:
    """Write the synthetic corpus."""
    import numpy as np

    from replicate.data.synthetic import SPEC, synthesize

    taxonomy = open_taxonomy(step.input("taxonomy"))
    profile, corpus = step.profile, step.profile.synthetic
    labels = np.flatnonzero(np.asarray(taxonomy.label_nodes) >= 0)
    longest = profile.dataset.frame_limit * SPEC.width  # bytes of a video
    sizes = [longest * corpus.videos // corpus.shards] * corpus.shards
    synthesize(
        step.out, corpus.seed, corpus.videos, corpus.shards, taxonomy, labels, profile.dataset.frame_limit,
        step.progress, processes_on(profile, sizes),
    )  # fmt: skip


def processes_on(profile: Profile, sizes: Iterable[int]) -> int:
    """How many processes work on shards of so many bytes: `run.workers`, or the cores; one where jobs run inline."""
    from replicate.data.processes import processes_for

    return processes_for(1 if profile.run.engine == "inline" else profile.run.workers, sizes)


def run_index(step: Step) -> dict[str, Any]:
    """Find every record; returns those that were left out, for the manifest."""
    from replicate.data.index import build_index, find_shards, sizes_of

    profile = step.profile
    synthesized = step.input("synthesize") if "synthesize" in step.job.inputs else None
    root = data_root(profile, step.data_dir, synthesized)
    shards, corrupt = find_shards(root, shard_patterns(profile)), profile.dataset.max_corrupt
    processes = processes_on(profile, sizes_of(root, shards))
    skipped = build_index(specification(profile), root, shards, step.out, corrupt, step.progress, processes)
    return {"skipped": skipped}


def open_index(job: Job, profile: Profile, runs: Path, data_dir: Path | None) -> Any:
    """An index job's result, with the folder that its shards lie in."""
    from replicate.data.index import Index

    corpus = job.inputs.get("synthesize")
    root = data_root(profile, data_dir, corpus.folder(runs) if corpus else None)
    return Index.open(job.folder(runs), root)


def _index(step: Step) -> Any:
    return open_index(step.job.inputs["index"], step.profile, step.runs, step.data_dir)


def run_labels(step: Step) -> None:
    """Write the nodes of every video, ancestors included."""
    from replicate.data.labels import LabelStore

    index, taxonomy = _index(step), open_taxonomy(step.input("taxonomy"))
    LabelStore.closed(taxonomy, index.label_offsets, index.label_values).save(step.out)


def run_split(step: Step) -> None:
    """Divide the videos, draw the test sets, write their sizes."""
    import numpy as np

    from replicate.data.splits import make_split

    index, split, dataset = _index(step), step.profile.split, step.profile.dataset
    rows = None
    if dataset.training_shards:
        chosen = [
            number
            for number, shard in enumerate(index.shards)
            if any(fnmatch.fnmatch(shard["name"], pattern) for pattern in dataset.training_shards)
        ]
        rows = np.flatnonzero(np.isin(index.shard, chosen))
    amounts = (split.train, split.tune, split.pool, split.draws, split.draw_size)
    made = make_split(index.ids, split.seed, *amounts, training_rows=rows)
    made.save(step.out)
    summary = {"videos": index.count, "train": len(made.train), "tune": len(made.tune), "pool": len(made.pool)}
    draws = {"draws": len(made.draws), "draw_size": made.draws.shape[1], "disjoint": made.disjoint}
    write_json(step.out / "split.json", {**summary, **draws})


class Corpus:
    """The videos as one stage sees them: where and in which order to read, the nodes of each, who trains, who tests."""

    def __init__(self, step: Step):
        from replicate.data.batches import ArraySource
        from replicate.data.labels import LabelStore
        from replicate.data.reading import order_of, source_of
        from replicate.data.splits import Split
        from replicate.preprocess import pinned

        dataset, reading = step.profile.dataset, step.profile.reading
        self.spec = specification(step.profile)
        self.index = _index(step)
        self.split = Split.open(step.input("split"))
        self.labels = LabelStore.open(step.input("labels")) if "labels" in step.job.inputs else None
        self.order = order_of(self.index, reading.order, reading.window)
        if "states" in step.job.inputs:
            self.source: Any = ArraySource(np_load(step.input("states") / "states.npy"))
            self.widths: tuple[int, ...] = (step.profile.model.lstm_width,)
        else:
            self.source, self.widths = source_of(
                self.index, self.spec, dataset.frame_limit, dataset.reader, dataset.modalities,
                dataset.frame_order == "shuffled", reading.workers, reading.window,
                pinned if step.profile.run.device == "cuda" else None,
            )  # fmt: skip

    def build(self, step: Step) -> Any:
        """The column's untrained model, every weight a function of the seed and its own name."""
        from replicate import models

        profile = step.profile
        seed = step.job.parameters.get("seed", profile.training.seeds[0])
        sizes = self.widths, self.labels.nodes, seed, profile.dataset.frame_limit
        return models.build(step.column, profile.model, profile.coherence, *sizes)


def np_load(path: Path) -> Any:
    """A memory-mapped array."""
    import numpy as np

    return np.load(path, mmap_mode="r")


def compute_of(profile: Profile) -> Any:
    """Device, precision, threads and what else changes rounding in the profile's jobs."""
    from replicate.compute import Compute

    run = profile.run
    return Compute(run.device, run.precision, run.threads_per_job, run.tf32, run.compile, run.deterministic)


def by_processes(work: Callable[[Step, Any], Any]) -> Callable[[Step], None]:
    """A step that `run.processes_per_model` processes do together; the first writes the record that `work` gives."""

    @functools.wraps(work)
    def run(step: Step) -> None:
        from replicate.training.ranks import joined

        if torchrun.needed(step):
            torchrun.run(step)
            return
        with joined(step.profile.run.processes_per_model, step.profile.run.device) as ranks:
            record = work(step, ranks)
            if ranks.first:
                write_record(step.out / RECORD, record)

    return run


@by_processes
def run_train(step: Step, ranks: Any) -> TrainRecord:
    """Train one column with one seed."""
    from replicate.training.train import train

    corpus, profile = Corpus(step), step.profile
    record = train(
        corpus.build(step), corpus.source, corpus.labels, corpus.split, profile.training, corpus.spec,
        step.seed, step.out, step.progress, compute_of(profile), ranks, profile.run.checkpoint_minutes,
        corpus.order,
    )  # fmt: skip
    return TrainRecord(column=step.column, seed=step.seed, **record)


def _trained(step: Step, corpus: Corpus) -> Any:
    from safetensors.torch import load_file

    model = corpus.build(step)
    model.load_state_dict(load_file(step.input("train") / "weights.safetensors"))
    return model.eval()


def run_aggregate(step: Step) -> None:
    """Write the LSTM's last state of every video."""
    import numpy as np

    from replicate.predict import aggregate

    corpus, training = Corpus(step), step.profile.training
    rows = np.concatenate([corpus.split.train, corpus.split.tune, corpus.split.pool])
    aggregate(
        _trained(step, corpus), corpus.source, rows, corpus.index.count, corpus.spec, training.normalisation,
        training.batch_size, step.out, step.progress, compute_of(step.profile),
    )  # fmt: skip


def run_predict(step: Step) -> None:
    """Score the pool (or another part), or note an ensemble's members and rule."""
    from replicate.predict import predict, write_ensemble

    members = COLUMNS[step.column].members
    if members:
        rule = step.profile.ensemble.rule
        weights = _tuned_weights(step, members) if rule == "tuned" else None
        write_ensemble(step.out, [step.input(member) for member in members], rule, weights)
        return
    corpus, training = Corpus(step), step.profile.training
    rows = getattr(corpus.split, step.job.parameters.get("part", "pool"))
    predict(
        _trained(step, corpus), corpus.source, rows, corpus.spec, training.normalisation,
        training.batch_size, step.out, step.progress, compute_of(step.profile),
    )  # fmt: skip


def _tuned_weights(step: Step, members: tuple[str, ...]) -> Any:
    """The ensemble's weights that fit the tune videos best."""
    from replicate.ensembles import tuned_weights
    from replicate.scores import open_scores

    corpus = Corpus(step)
    logits = [open_scores(step.input(f"tune:{member}")).read(slice(None)) for member in members]
    return tuned_weights(logits, corpus.labels.encode(corpus.split.tune))


def run_explain(step: Step) -> None:
    """Write kernels and attention of a trained column."""
    from replicate import models
    from replicate.explain import explain

    corpus, training = Corpus(step), step.profile.training
    model = _trained(step, corpus)
    record = explain(
        model, models.kernels(model), corpus.source, corpus.split.pool, corpus.index.ids, ATTENTION_SAMPLES,
        corpus.spec, training.normalisation, training.batch_size, step.out, step.progress, compute_of(step.profile),
    )  # fmt: skip
    write_record(step.out / RECORD, ExplainRecord(column=step.column, seed=step.seed, **record))


@by_processes
def run_time(step: Step, ranks: Any) -> TimeRecord:
    """Time training steps of an untrained column."""
    from replicate.training.timing import time_training

    corpus, profile = Corpus(step), step.profile
    record = time_training(
        corpus.build(step), corpus.source, corpus.labels, corpus.split.train, profile.training, profile.timing,
        corpus.spec, profile.training.seeds[0], step.progress, compute_of(profile), ranks, corpus.order,
    )  # fmt: skip
    return TimeRecord(column=step.column, profile=profile.name, **record)


def _pool(step: Step, protocol: Any) -> Any:
    from replicate.data.labels import LabelStore
    from replicate.data.splits import Split
    from replicate.evaluation import Pool

    levels = open_taxonomy(step.input("taxonomy")).levels
    return Pool.of(LabelStore.open(step.input("labels")), Split.open(step.input("split")), levels, protocol)


def run_evaluate(step: Step) -> None:
    """Write every metric of one column on every draw, and its influence values."""
    from replicate.evaluate.protocol import load_protocol
    from replicate.evaluation import evaluate_column

    protocol, threads = load_protocol(), step.profile.run.threads_per_job
    pool = _pool(step, protocol)
    record = evaluate_column(
        step.input("predict"), pool, protocol, step.column, step.seed, step.out, threads, step.progress
    )
    write_record(step.out / RECORD, record)


def run_compare(step: Step) -> None:
    """Write the paired differences of all pairs of the run."""
    from replicate.comparison.pairs import Evaluated, compare_columns
    from replicate.evaluate.protocol import load_protocol
    from replicate.reference import table1

    protocol, taxonomy = load_protocol(), open_taxonomy(step.input("taxonomy"))
    evaluated = {}
    for role, job in step.job.inputs.items():
        if job.stage.name == "evaluate":
            place = job.parameters["column"], job.parameters["seed"]
            evaluated[place] = Evaluated(step.input(role), step.input(f"scores:{role}"))
    paper = {place: cell.increment for place, cell in table1().items() if cell.increment is not None}
    record = compare_columns(
        evaluated, _pool(step, protocol), protocol, paper, taxonomy.names, _index(step).ids,
        step.profile.run.threads_per_job, step.progress,
    )  # fmt: skip
    write_record(step.out / RECORD, record)


STEPS = {
    "taxonomy": run_taxonomy,
    "synthesize": run_synthesize,
    "index": run_index,
    "labels": run_labels,
    "split": run_split,
    "train": run_train,
    "aggregate": run_aggregate,
    "predict": run_predict,
    "explain": run_explain,
    "time": run_time,
    "evaluate": run_evaluate,
    "compare": run_compare,
}
