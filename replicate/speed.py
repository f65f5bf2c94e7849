"""How fast a column trains, for plans: as measured, else as the paper printed, else by arithmetic at a stated rate.

In this order, each only of the same column with the same sizes, on the same kind of device:

1. trainings that finished in this run directory, whatever their protocol was;
2. timing records in this run directory;
3. benchmark records (docs/benchmarks.md): of this machine's device, else of the slowest;
4. on GPUs, for YouTube-8M, the paper's Table 2 (two RTX 2080 Ti);
5. the column's arithmetic (forward operations x 3) at a rate that small models were seen to reach.

Of several measurements those count that differ in the fewest other choices: coherence layer, modalities, batch.
"""

import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate import benchmark_records, manifest, reference
from replicate.benchmark_records import BenchmarkRecord
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.config import Profile
from replicate.hardware import accounting
from replicate.record import read_json
from replicate.stages import Graph, flatten

PAPER_VIDEOS, PAPER_FRAMES = 4_000_000, 300
RATE = {"cpu": 50e9, "cuda": 5e12}  # training FLOP per second and job that small models were seen to reach
# Fields of a training that do not change how long a step takes, or hardly.
UNTIMED = {
    "dataset.frame_order", "model.preset", "training.learning_rate", "training.epochs", "training.patience",
    "training.gradient_clip", "training.decay", "training.decay_examples", "training.normalisation",
    "run.deterministic",
}  # fmt: skip
# Fields that change it somewhat: a measurement where they differ is better than none.
CHOICES = ("coherence.", "training.batch_size", "training.micro_batch_size", "dataset.modalities", "model.mask")


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        column: whose training was measured.
        configuration: the profile's fields then, by dotted name.
        seconds: per video.
    """

    column: str
    configuration: dict[str, Any]
    seconds: float


class Speeds:
    """Seconds per video of training, from the best source there is."""

    def __init__(self, runs: Path, benchmarks: Path = benchmark_records.FOLDER):
        """
        Args:
            runs: the run directory; it need not exist.
            benchmarks: folder of benchmark records; it need not exist.
        """
        self.sources = [
            ("trainings that finished here", list(_trained(runs))),
            ("timing records here", list(_timed(runs))),
        ]
        self.benchmarks = benchmark_records.read_all(benchmarks)

    def seconds_per_video(self, column: str, profile: Profile) -> tuple[float, str]:
        """Seconds, and where the figure comes from."""
        for basis, found in (*self.sources, *self._benchmarked(column, profile)):
            alike = _most_alike(found, column, profile)
            if alike:
                return statistics.median(each.seconds for each in alike), basis
        timed = "rnn" if column == AGGREGATOR else column  # the DNN's LSTM has no row in Table 2
        if profile.dataset.name == "yt8m" and profile.run.device == "cuda" and timed in reference.table2():
            scale = profile.dataset.frame_limit / PAPER_FRAMES
            return reference.table2()[timed][0] * 60 / PAPER_VIDEOS * scale, "the paper's Table 2"
        rate = RATE[profile.run.device]
        return forward_flop(column, profile) * 3 / rate, f"arithmetic at {rate / 1e9:,.0f} GFLOP/s"

    def _benchmarked(self, column: str, profile: Profile) -> list[tuple[str, list[Measured]]]:
        """Every device's measurement of the column: this machine's first, then from the slowest to the fastest."""
        matching = [
            (record, each)
            for record in self.benchmarks
            for each in _of_record(record)
            if _most_alike([each], column, profile)
        ]
        own = _own_devices() if matching else ()
        matching.sort(key=lambda pair: (pair[0].device not in own, -pair[1].seconds))
        return [(f"the benchmark on {record.device}", [each]) for record, each in matching]


def _trained(runs: Path) -> Iterator[Measured]:
    """Of every finished training its median epoch; the tune videos' part is not in it."""
    for folder in _finished(runs, "train"):
        timings, record = folder / "timings.json", read_json(folder / "record.json")
        epochs = read_json(timings)["epochs"] if timings.is_file() else []
        if epochs and record["epochs"]:
            videos = record["examples"] / record["epochs"]
            seconds = statistics.median(each["train_seconds"] for each in epochs) / videos
            yield Measured(record["column"], manifest.read_manifest(folder)["configuration"], seconds)


def _timed(runs: Path) -> Iterator[Measured]:
    for folder in _finished(runs, "time"):
        record = read_json(folder / "record.json")
        configuration = manifest.read_manifest(folder)["configuration"]
        yield Measured(record["column"], configuration, 1 / record["videos_per_second"])


def _finished(runs: Path, stage: str) -> list[Path]:
    return [folder for folder in sorted((runs / stage).glob("*")) if manifest.is_done(folder)]


def _of_record(record: BenchmarkRecord) -> list[Measured]:
    """A column's seconds per video; where reading is slower than the step, reading's."""
    return [
        Measured(
            each.column,
            record.configuration,
            max(each.milliseconds_per_step, each.floor.reading) / 1000 / record.batch_size,
        )
        for each in record.columns
    ]


def _own_devices() -> tuple[str, ...]:
    """Names of this machine's processor and GPUs."""
    machine = accounting.describe()
    return machine["processor"], *(gpu["name"] for gpu in machine["gpus"] or ())


def _most_alike(found: list[Measured], column: str, profile: Profile) -> list[Measured]:
    """Those of the column and its sizes that differ in the fewest choices."""
    sizes, choices = _decisive(column, profile)
    defaults = dict(flatten(Profile(name="")))
    by_difference: dict[int, list[Measured]] = {}
    for each in found:
        then = {**defaults, **each.configuration}  # a field that is newer than the measurement had its default
        same_format = _format(then["dataset.name"]) == _format(profile.dataset.name)
        if each.column == column and same_format and all(then.get(name) == value for name, value in sizes.items()):
            differing = sum(then.get(name) != value for name, value in choices.items())
            by_difference.setdefault(differing, []).append(each)
    return by_difference[min(by_difference)] if by_difference else []


@functools.cache
def _decisive(column: str, profile: Profile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that decide how long a column's step takes: those that must agree, and those that should. All are the
    timing stage's, which knows what each column uses."""
    fields = Graph(profile, None, lambda folder, profile: None).time(column).identity["fields"]
    timed = {name: value for name, value in fields.items() if name not in UNTIMED and not name.startswith("timing.")}
    choices = {name: value for name, value in timed.items() if name.startswith(CHOICES)}
    return {name: value for name, value in timed.items() if name not in choices}, choices


def _format(dataset: str) -> str:
    """The synthetic corpus has YouTube-8M's format."""
    return "yt8m" if dataset == "synthetic" else dataset


def forward_flop(column: str, profile: Profile) -> float:
    """Multiply-adds x 2 of one video through a column's widest layers, within a factor of two, and without torch, which
    a machine under examination may lack; `model_sizes` counts exactly."""
    model, frames = profile.model, profile.dataset.frame_limit
    width = 128 if profile.dataset.name == "audioset" else 1152
    family = "dnn" if column == AGGREGATOR else COLUMNS[column].family
    if column == "dnn":
        return 2.0 * (model.lstm_width * model.head[0] + 640 * model.head[-1])
    if family in ("dnn", "rnn"):
        gates, hidden = (4, model.lstm_width) if family == "dnn" else (3, model.gru_width)
        return 2.0 * frames * gates * hidden * (width + hidden)
    if family == "netvlad":
        clusters = max(model.netvlad_clusters)
        return 4.0 * frames * width * clusters + 2.0 * clusters * width * model.netvlad_width
    size = model.transformer_width
    layer = 8 * size * size + 4 * size * model.transformer_feedforward + 4 * frames * size
    return frames * (2.0 * width * size + model.transformer_layers * layer)
