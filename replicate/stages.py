"""The stage graph as data: what each stage depends on, and the content key that names its result.

A job is one stage for one set of parameters (a column, a seed). Its key is a hash of the profile's fields that the
stage declares, the keys of its inputs, the stage's version, and what changes arithmetic. Equal keys, equal results.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.columns import AGGREGATOR, COLUMNS, OWN
from replicate.config import Profile, SlurmConfig
from replicate.errors import ConfigurationError
from replicate.record import digest, file_digest


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    Attributes:
        name: the verb on the command line and the folder under the run directory.
        version: raised by hand when a change of the code changes the stage's results.
        fields: dotted names of the profile's fields (or whole sections) that its result depends on.
        arithmetic: device, precision, threads per job and what else changes rounding are part of its identity.
        exclusive: nothing else runs beside it.
    """

    name: str
    version: int
    fields: tuple[str, ...] = ()
    arithmetic: bool = False
    exclusive: bool = False


INPUT_FIELDS = ("dataset.frame_limit", "dataset.frame_order", "dataset.modalities")
TRAINING_FIELDS = (
    *INPUT_FIELDS,
    "training.learning_rate",
    "training.batch_size",
    "training.micro_batch_size",
    "training.epochs",
    "training.patience",
    "training.gradient_clip",
    "training.decay",
    "training.decay_examples",
    "training.normalisation",
    "reading.order",
    "reading.window",
    "run.compile",
    "run.processes_per_model",
)
READING_FIELDS = (*INPUT_FIELDS, "training.normalisation")

STAGES = {
    stage.name: stage
    for stage in (
        Stage("taxonomy", 1, ("dataset.name", "dataset.label_limit")),
        Stage("synthesize", 1, ("synthetic", "dataset.frame_limit")),
        Stage("index", 2, ("dataset.name", "dataset.shards", "dataset.max_corrupt")),
        Stage("labels", 1),
        Stage("split", 2, ("split", "dataset.training_shards")),
        Stage("train", 1, TRAINING_FIELDS, arithmetic=True),
        Stage("aggregate", 1, READING_FIELDS, arithmetic=True),
        Stage("predict", 1, READING_FIELDS, arithmetic=True),
        Stage("explain", 1, READING_FIELDS, arithmetic=True),
        Stage("time", 2, ("timing", *TRAINING_FIELDS), arithmetic=True, exclusive=True),
        Stage("evaluate", 1),
        Stage("compare", 1),
    )
}

# Fields that no key contains, each with the reason; every other field is declared by a stage (tested).
NOT_IN_KEYS = {
    "name": "a label",
    "title": "a label",
    "model.preset": "the sizes that it stands for are fields themselves",
    "dataset.reader": "both readers return the same bytes (tested)",
    "reading.workers": "batches are the same bytes in the same order, whoever reads them (tested)",
    "training.seeds": "each seed is a job of its own",
    "tuning.learning_rates": "each variant is a job of its own",
    "tuning.normalisations": "each variant is a job of its own",
    "tuning.epochs": "each variant has it as training.epochs",
    "grid.kernel_sizes": "each variant is a job of its own",
    "grid.controls": "each variant is a job of its own",
    "grid.maps": "each variant is a job of its own",
    "grid.heads": "each variant is a job of its own",
    "run.columns": "each column is a job of its own",
    "run.own_columns": "each column is a job of its own",
    "run.engine": "where jobs run does not change what they compute",
    "run.checkpoint_minutes": "a resumed training ends with the same bytes (tested)",
    "run.workers": "how many jobs run at once does not change what they compute",
    **dict.fromkeys((f"slurm.{name}" for name in SlurmConfig.model_fields), "where jobs run, as run.engine"),
}

# A model's sizes by the first word of the field's name; a field of no family belongs to every column.
_FAMILY_OF_PREFIX = {"lstm": "dnn", "gru": "rnn", "rnn": "rnn", "netvlad": "netvlad", "transformer": "transformer"}


@dataclass(frozen=True)
class Job:
    """One stage with its parameters and inputs.

    Attributes:
        stage, parameters, inputs: what is done, for which column and seed, from what.
        profile: the profile that it is done under; a study walks jobs of several profiles together.
        identity: what `key` is the hash of.
        variant: names the profile among those of a study; empty elsewhere. Jobs of equal keys are one job.
    """

    stage: Stage
    parameters: dict[str, Any]
    inputs: dict[str, "Job"]
    profile: Profile
    identity: dict[str, Any]
    key: str
    variant: str = ""

    @property
    def label(self) -> str:
        """For people: 'train TC-RNN, seed 0'; in a study with its variant."""
        column = self.parameters.get("column")
        title = "DNN's LSTM" if column == AGGREGATOR else COLUMNS[column].title if column else ""
        seed = f"seed {self.parameters['seed']}" if "seed" in self.parameters else ""
        videos = "tune videos" if self.parameters.get("part") == "tune" else ""
        variant = self.variant if column or self.stage.name == "compare" else ""  # others belong to many variants
        return " ".join([self.stage.name, ", ".join(part for part in (title, seed, videos, variant) if part)]).strip()

    def folder(self, runs: Path) -> Path:
        """Where the job's files lie."""
        return runs / self.stage.name / self.key

    def ancestors(self) -> Iterator["Job"]:
        """The job and all that it depends on, inputs first, with repetitions."""
        for job in self.inputs.values():
            yield from job.ancestors()
        yield self


class Graph:
    """Every job of a profile, built once, found by stage and parameters."""

    def __init__(
        self, profile: Profile, data_dir: Path | None, fingerprint: Callable[[Path, Profile], Any], variant: str = "",
        aggregate: Job | None = None,
    ):  # fmt: skip
        """
        Args:
            profile: the resolved profile.
            data_dir: folder of real data; None when there is none (keys of what reads it then say "no data").
            fingerprint: gives the identity of the dataset's files under the data directory.
            variant: what to call this profile in a study, e.g. "kernel 9, maps 4".
            aggregate: the job whose LSTM states the DNN reads, instead of one of this profile's own.
        """
        self.profile = profile
        self.variant = variant
        self.data_dir = data_dir
        self._fingerprint = fingerprint
        self._aggregate = aggregate

    def results(self, columns: Iterable[str] | None = None) -> list[Job]:
        """The jobs whose records the tables, figures and claims of `columns` are made of."""
        columns = tuple(columns or self.profile.run.columns)
        seeds = self.profile.training.seeds
        jobs = [self.evaluate(column, seed) for column in columns for seed in seeds]
        jobs.append(self.compare(columns))
        models = [column for column in columns if COLUMNS[column].trained]
        jobs += [self.explain(column, seed) for column in models if COLUMNS[column].explained for seed in seeds]
        timed = [*models, AGGREGATOR] if self._aggregated("dnn" in models) else models
        return jobs + [self.time(column) for column in timed]

    def job(
        self, name: str, inputs: dict[str, Job], fields: tuple[str, ...] = (), data: Any = None, **parameters
    ) -> Job:
        """Make a job: gather its identity and hash it."""
        stage = STAGES[name]
        values = {path: value for path, value in flatten(self.profile) if _declared(path, (*stage.fields, *fields))}
        if stage.arithmetic:
            values |= {path: value for path, value in flatten(self.profile) if path in ARITHMETIC_FIELDS}
        identity = {
            "stage": name,
            "version": stage.version,
            "parameters": parameters,
            "fields": values,
            "inputs": {role: job.key for role, job in inputs.items()},
            "data": data,
        }
        return Job(stage, parameters, inputs, self.profile, identity, digest(identity)[:20], self.variant)

    @functools.cached_property
    def data_identity(self) -> Any:
        """Identity of the real files, computed once; None for the synthetic corpus."""
        if self.profile.dataset.name == "synthetic":
            return None
        return self._fingerprint(self.data_dir, self.profile) if self.data_dir else "no data"

    @functools.cached_property
    def taxonomy(self) -> Job:
        """The tree and the node of every label."""
        return self.job("taxonomy", {}, data=taxonomy_identity(self.profile, self.data_dir))

    @functools.cached_property
    def index(self) -> Job:
        """Where every record lies."""
        if self.profile.dataset.name == "synthetic":
            corpus = self.job(
                "synthesize", {"taxonomy": self.taxonomy}, data=package_data_identity("replicate", "data")
            )
            return self.job("index", {"synthesize": corpus})
        return self.job("index", {}, data=self.data_identity)

    @functools.cached_property
    def labels(self) -> Job:
        """The nodes of every video."""
        return self.job("labels", {"index": self.index, "taxonomy": self.taxonomy})

    @functools.cached_property
    def split(self) -> Job:
        """Who trains, who tunes, who tests."""
        return self.job("split", {"index": self.index})

    @property
    def corpus(self) -> dict[str, Job]:
        """What every stage that reads videos needs."""
        return {"index": self.index, "labels": self.labels, "split": self.split}

    @functools.cache  # noqa: B019 - a graph lives as long as the command
    def train(self, column: str, seed: int) -> Job:
        """Weights of one column."""
        return self.job("train", self._model_inputs(column), self._model_fields(column), column=column, seed=seed)

    @functools.cached_property
    def aggregate(self) -> Job:
        """The last LSTM state of every video: the DNN's input. Trained once, with the profile's first seed."""
        if self._aggregate:
            return self._aggregate
        seed = self.profile.training.seeds[0]
        inputs = {"train": self.train(AGGREGATOR, seed), **self.corpus}
        return self.job("aggregate", inputs, column=AGGREGATOR, seed=seed)

    @functools.cache  # noqa: B019
    def predict(self, column: str, seed: int, part: str = "pool") -> Job:
        """Logits of the pool, or of the tune videos; an ensemble's are read through its members."""
        members = COLUMNS[column].members
        if members:
            inputs = {member: self.predict(member, seed) for member in members}
            if self.profile.ensemble.rule == "tuned":
                inputs |= {f"tune:{member}": self.predict(member, seed, "tune") for member in members} | self.corpus
            return self.job("predict", inputs, ("ensemble",), column=column, seed=seed)
        inputs = {"train": self.train(column, seed), **self._model_inputs(column)}
        named = {} if part == "pool" else {"part": part}
        return self.job("predict", inputs, column=column, seed=seed, **named)

    def explain(self, column: str, seed: int) -> Job:
        """Kernels and attention."""
        inputs = {"train": self.train(column, seed), **self._model_inputs(column)}
        return self.job("explain", inputs, column=column, seed=seed)

    def time(self, column: str) -> Job:
        """Seconds per step, alone on the machine."""
        return self.job("time", self._model_inputs(column), self._model_fields(column), column=column)

    def evaluate(self, column: str, seed: int) -> Job:
        """Metrics of one column on every draw."""
        inputs = {"predict": self.predict(column, seed), **self._scored}
        return self.job(
            "evaluate", inputs, data=package_data_identity("replicate", "evaluate"), column=column, seed=seed
        )

    def compare(self, columns: tuple[str, ...]) -> Job:
        """Paired differences of the columns that have a baseline."""
        seeds = self.profile.training.seeds
        inputs = {f"{column}:{seed}": self.evaluate(column, seed) for column in columns for seed in seeds}
        scores = {f"scores:{column}:{seed}": self.predict(column, seed) for column in columns for seed in seeds}
        paper = package_data_identity("replicate", "reference")
        data = {"protocol": package_data_identity("replicate", "evaluate"), "paper": paper}
        return self.job("compare", {**inputs, **scores, "index": self.index, **self._scored}, data=data)

    @property
    def _scored(self) -> dict[str, Job]:
        return {"labels": self.labels, "split": self.split, "taxonomy": self.taxonomy}

    def _model_inputs(self, column: str) -> dict[str, Job]:
        return {**self.corpus, "states": self.aggregate} if self._aggregated(column == "dnn") else self.corpus

    def _aggregated(self, dnn: bool) -> bool:
        """Whether the DNN is asked for and reads the states of an LSTM of its own; video-level records need none."""
        return dnn and self.profile.dataset.name != "yt8m-video"

    def _model_fields(self, column: str) -> tuple[str, ...]:
        """The profile's model and coherence fields that one column uses."""
        family = "dnn" if column == AGGREGATOR else COLUMNS[column].family
        fields = []
        for path, _ in flatten(self.profile):
            section, _, name = path.partition(".")
            owner = _FAMILY_OF_PREFIX.get(name.split("_")[0])
            used = section == "model" or (section == "coherence" and column.startswith("tc_"))
            if used and (owner in (None, family) or family == OWN):
                fields.append(path)
        return tuple(fields)


ARITHMETIC_FIELDS = ("run.device", "run.precision", "run.threads_per_job", "run.tf32", "run.deterministic")


def flatten(profile: Profile) -> list[tuple[str, Any]]:
    """(dotted name, JSON value) of every field of a profile."""
    rows = []
    for section, value in profile.model_dump(mode="json").items():
        rows += (
            [(f"{section}.{name}", v) for name, v in value.items()] if isinstance(value, dict) else [(section, value)]
        )
    return rows


def _declared(path: str, fields: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in fields)


@functools.cache
def package_data_identity(package: str, folder: str) -> dict[str, str]:
    """Digests of the data files (not code) that the package brings for a stage."""
    from importlib import resources

    root = Path(str(resources.files(package))) / folder
    return {
        path.name: file_digest(path)
        for path in sorted(root.iterdir())
        if path.suffix in (".toml", ".json", ".npz", ".csv")
    }


def taxonomy_identity(profile: Profile, data_dir: Path | None) -> Any:
    """Digests of the files that the taxonomy stage reads."""
    if profile.dataset.name != "audioset":
        read = ("adjudication.csv", "label_map.csv", "label_statistics.csv", "labels.csv", "nodes.csv")
        digests = package_data_identity("taxonomy_data", ".")
        return {name: digests[name] for name in read} | package_data_identity("taxonomy_data", "annotations")
    if data_dir is None:
        return "no data"
    files = [data_dir / "audioset" / name for name in ("ontology.json", "class_labels_indices.csv")]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ConfigurationError(f"{missing[0]} is missing; point --data-dir at the folder that holds audioset/")
    return {path.name: file_digest(path) for path in files}


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """All jobs that `jobs` need, each once, inputs before what uses them, exclusive ones last."""
    unique = {job.key: job for target in jobs for job in target.ancestors()}
    return sorted(unique.values(), key=lambda job: job.stage.exclusive)
