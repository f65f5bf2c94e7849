"""What stands in the records under `results/<profile>/records/`: the one interface between the stages and the report.

Stages validate what they write against these models, and tables, figures, claims and checks read records through them.
Shares, scores and differences are fractions in [0, 1]; only printing turns them into percent. Null always has a reason
beside it.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from replicate.errors import MissingResult
from replicate.record import read_json, write_json

# GAP keeps the top 20 nodes of a video; MAP is uncapped and over one class set; the last three stand beside them.
Metric = Literal["GAP", "MAP", "PERR", "Hit@1", "GAP uncapped", "MAP@20", "MAP all classes"]
HEADLINE: tuple[Metric, ...] = ("GAP", "MAP", "PERR", "Hit@1")
Level = Literal["overall", "0", "1", "2", "3"]
LEVELS: tuple[Level, ...] = ("overall", "0", "1", "2", "3")
Interval = tuple[float, float]
Family = Literal["primary", "secondary", "exploratory"]


class Record(pydantic.BaseModel):
    """A record; unknown keys and non-finite numbers are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cell(Record):
    """One metric at one level of one column and seed."""

    metric: Metric
    level: Level
    draws: tuple[float, ...] | None  # value on each test draw; null with `reason` where the metric is undefined
    mean: float | None
    sd: float | None  # over draws, n - 1 in the denominator; test-sampling noise only
    pool: float | None  # value on the whole pool
    reason: str | None = None


class ClassSet(Record):
    """The classes that MAP averages over at one level."""

    level: Level
    used: int
    of: int
    least_positives: float  # expected positives per draw that a class needs


class Support(Record):
    """How much there is to rank at one level."""

    level: Level
    nodes: int
    positives: int  # in the pool
    videos: int  # of the pool, with a positive at this level
    beyond_top: int  # positives beyond the 20th of a video


class EvaluateRecord(Record):
    """records/evaluate-<column>-<seed>.json: every metric x level x draw."""

    column: str
    seed: int
    videos: int  # in the pool
    draw_size: int
    disjoint: bool
    classes: tuple[ClassSet, ...]
    support: tuple[Support, ...]
    cells: tuple[Cell, ...]
    class_average_precision: tuple[float | None, ...]  # of each node on the pool, uncapped; null without a positive


class SeedNoise(Record):
    """Differences of one cell over training seeds, paired by construction."""

    differences: tuple[float, ...]
    mean: float
    sd: float
    interval: Interval  # t, S - 1 degrees of freedom
    p: float
    p_welch: float
    detectable: float
    two_level_interval: Interval  # bootstrap of seeds and of videos


class CrossCheck(Record):
    """Closed-form companions of a bootstrapped cell."""

    paired_t_p: float | None  # PERR, Hit@1: over videos
    mcnemar_p: float | None  # Hit@1
    discordant: tuple[int, int] | None  # Hit@1: videos that only the column, only the baseline gets right
    draws_interval: Interval | None  # t over draws, descriptive; null with one draw


class Equivalence(Record):
    """Two one-sided tests against the paper's increment."""

    paper: float
    margin: float
    interval: Interval  # 90 % of ours minus the paper's
    verdict: Literal["matches", "differs", "inconclusive"]


class Difference(Record):
    """A column minus its baseline in one cell: the mean over draws (and seeds) of the paired difference."""

    column: str
    baseline: str
    metric: Metric
    level: Level
    family: Family
    difference: float | None
    draws: tuple[float, ...] | None
    pool: float | None
    standard_error: float | None  # test noise
    interval: Interval | None  # 95 %, pointwise
    simultaneous: Interval | None  # 95 % for the whole family at once
    p: float | None  # two-sided bootstrap over videos
    p_adjusted: float | None  # step-down max-T within the family
    p_holm: float | None
    p_bh: float | None
    detectable: float | None  # smallest true difference found with power .8
    method: Literal["influence", "exact"] | None
    starred: bool  # p_adjusted below alpha, primary family, enough positives
    seeds: SeedNoise | None  # null with one seed
    check: CrossCheck | None
    equivalence: Equivalence | None
    reason: str | None = None


class InfluenceCheck(Record):
    """Exact replicates beside influence values on the same weight vectors."""

    replicates: int
    worst_ratio_gap: float  # largest |SE_influence / SE_exact - 1| over the primary cells
    worst_correlation: float
    fell_back: bool


class CompareRecord(Record):
    """records/compare.json: paired differences of all pairs of the run."""

    protocol: dict[str, Any]
    protocol_hash: str
    seeds: tuple[int, ...]
    conditional: bool  # one seed: every statement is conditional on one trained model per column
    videos: int  # in the union of the draws
    replicates: int
    influence_check: InfluenceCheck | None
    differences: tuple[Difference, ...]
    examples: tuple["Example", ...]  # Figure 9: videos of the pool, first seed; empty without both ensembles


class Prediction(Record):
    """A node and the probability that a column gave it."""

    node: str
    probability: float


class Example(Record):
    """A video on which the coherent ensemble differs most from the baseline's, by change in per-video average
    precision."""

    video: str
    change: float
    truth: tuple[str, ...]
    baseline: tuple[Prediction, ...]
    coherent: tuple[Prediction, ...]


class EpochRecord(Record):
    """One epoch of a training."""

    epoch: int
    examples: int
    learning_rate: float
    training_loss: float
    tune_gap: float


class TrainRecord(Record):
    """records/train-<column>-<seed>.json."""

    column: str
    seed: int
    status: Literal["finished", "stopped early", "diverged"]
    epochs: int
    best_epoch: int  # from 1; 0 are the initial weights
    tune_gap: float | None
    steps: int
    examples: int
    parameters: int
    weights_bytes: int
    batch_size: int
    micro_batch_size: int
    parts_per_step: int
    skipped_steps: int = 0  # under float16, because gradients exceeded it
    compute: dict[str, Any]  # device, precision, ...; what stays nondeterministic
    diverged_at: dict[str, Any] | None
    history: tuple[EpochRecord, ...]


class AttentionSample(Record):
    """Attention of one video over its own frames."""

    row: int
    id: str
    attention: tuple[float, ...]


class Attention(Record):
    """Effective number of attended frames over the pool, and the attention of some videos."""

    videos: int
    frames: float  # mean length
    effective_frames: dict[str, Any]  # mean, sd, quantiles
    share: dict[str, Any]  # the same of effective / all frames, and its histogram over [0, 1]
    samples: tuple[AttentionSample, ...]


class ExplainRecord(Record):
    """records/explain-<column>-<seed>.json: Figures 8 and 10."""

    column: str
    seed: int
    kernels: dict[str, Any]  # by name of the layer: weights with the kernel along the last axis, maps before it
    attention: Attention | None


class TimeRecord(Record):
    """records/time-<column>.json: the exclusive timing run (Table 2). Durations differ from run to run."""

    column: str
    profile: str
    batch_size: int
    micro_batch_size: int
    warm_up_steps: int
    steps: int
    repeats: list[dict[str, float]]
    seconds_per_step: float
    data_wait_seconds_per_step: float
    compute_seconds_per_step: float
    videos_per_second: float
    epoch_videos: int
    projected_seconds_per_epoch: float
    weights_megabytes: float
    peak_memory_bytes: int  # of the process, resident
    memory_before_bytes: int
    process: dict[str, Any] = {}  # with child processes: memory, processor time
    gpu: dict[str, Any]  # peak_memory_bytes (torch's allocator), nvml_peak_memory_bytes, energy_joules, ..., reasons
    compute: dict[str, Any]
    machine: dict[str, Any]


class RunRecord(Record):
    """records/run.json: what was run, on what, by which code."""

    profile: str
    title: str
    data: Literal["synthetic", "real"]
    dataset: str
    columns: tuple[str, ...]
    seeds: tuple[int, ...]
    configuration: dict[str, Any]
    split: dict[str, Any]
    shards: list[dict[str, Any]]
    skipped: list[dict[str, Any]]
    nodes: int
    nodes_per_level: tuple[int, ...]
    node_names: tuple[str, ...]
    node_levels: tuple[int, ...]
    train_positives: tuple[int, ...]  # training videos of each node
    keys: dict[str, str]
    code: dict[str, Any]
    packages: dict[str, str]
    machine: dict[str, Any]
    command: tuple[str, ...]


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write a validated record, whole or not at all."""
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read a record.

    Raises:
        MissingResult: it is absent, or not of this kind; names the file and the remedy.
    """
    try:
        return kind.model_validate(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingResult(f"{path} is missing; run the command that makes it (`replicate all`) first") from None
    except OSError as error:
        raise MissingResult(f"{path} cannot be read ({error.strerror}); restore it") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    except ValueError as error:
        what = str(error)
    raise MissingResult(f"{path} is no {kind.__name__} ({what}); make it anew with `replicate all`")
