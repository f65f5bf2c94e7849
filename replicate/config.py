"""A profile: every choice of a run, typed, named and validated. How files become profiles: profile_files.py."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from replicate.columns import COLUMNS
from replicate.errors import did_you_mean
from replicate.presets import PRESETS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Normalisation = Literal["l2", "l2_sqrt_width", "none"]


def _check_amount(value: Any) -> int | float | str:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    share = isinstance(value, float) and 0 < value < 1
    if whole or share or value == "rest":
        return value
    raise ValueError("must be a count of videos (1, 2, ...), a share (between 0 and 1) or 'rest'")


Amount = Annotated[int | float | str, pydantic.PlainValidator(_check_amount)]


class Section(pydantic.BaseModel):
    """A table of a profile. Unknown keys and wrong types are errors; values never change after loading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class DatasetConfig(Section):
    """Which records are read."""

    name: Literal["synthetic", "audioset", "yt8m", "yt8m-video"] = "synthetic"
    shards: tuple[str, ...] = ()  # glob patterns under the data directory; the synthetic corpus has its own
    training_shards: tuple[str, ...] = ()  # patterns whose videos are the training material; empty: split by hash alone
    frame_limit: Count = 300  # frames; longer videos are cut
    label_limit: Annotated[int, Field(ge=0)] = 0  # keep the N most frequent labels; 0 keeps all
    max_corrupt: Annotated[int, Field(ge=0)] = 0  # records that may be skipped (and are listed) before indexing fails
    reader: Literal["native", "tensorflow"] = "native"
    modalities: tuple[str, ...] = ()  # those of a frame's features that are used, e.g. ["audio"]; empty: all
    frame_order: Literal["given", "shuffled"] = "given"  # shuffled: a control, each video in a fixed order of its own


class ReadingConfig(Section):
    """In which order videos are read for training, and by how many."""

    order: Literal["global", "shards"] = "global"  # shards: one after the other, for slow or remote disks
    window: Annotated[int, Field(ge=0, lt=2**31)] = 0  # videos that are mixed with order "shards"; 0: 4,096
    # Reading processes of each job, 0: a thread of the job's own; from a remote store, requests at a time, 0: 8.
    workers: Annotated[int, Field(ge=0)] = 0

    @pydantic.field_validator("window")
    @classmethod
    def _window_has_a_meaning(cls, window: int, info: pydantic.ValidationInfo) -> int:
        if info.data.get("order") == "shards":
            return window or 4096
        if window:
            raise ValueError("has no meaning with reading.order = 'global', which mixes all videos; leave it out")
        return window


class SyntheticConfig(Section):
    """Size of the synthetic corpus. Its statistics are fixed in `replicate.data.synthetic`."""

    seed: Seed = 2020
    videos: Count = 13_000
    shards: Count = 8


class SplitConfig(Section):
    """Train, tune and pool by rank of a keyed hash of the id: counts of videos, or shares of all videos."""

    seed: Seed = 0
    train: Amount = 4_000
    tune: Amount = 1_000
    pool: Amount = "rest"
    draws: Count = 5
    draw_size: Amount = 1_600  # a share is one of the pool


class ModelConfig(Section):
    """Sizes of the baselines; the defaults are those of preset C."""

    preset: Literal["A", "B", "C"] = "C"  # stands for the sizes that the profile does not name
    head: Annotated[tuple[Count, ...], Field(min_length=1)] = (384, 768)
    lstm_width: Count = 1024
    gru_width: Count = 512
    gru_features: Literal["all", "rgb"] = "all"
    netvlad_clusters: tuple[Count, ...] = (192, 96)  # one number per modality: video, audio
    netvlad_width: Count = 705
    netvlad_gate: bool = False
    transformer_width: Count = 768  # frames that have it already are not projected
    transformer_heads: Count = 12
    transformer_feedforward: Count = 2048
    transformer_layers: Count = 2
    transformer_positions: Literal["sinusoidal", "none"] = "sinusoidal"
    transformer_pooling: Literal["mean", "token", "query"] = "mean"  # token: a learned one, as BERT's CLS
    mask: bool = True  # false: padding to the frame limit takes part, as the literal "padded 0 frames" (erratum 24)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        preset = values.get("preset") if isinstance(values, dict) else None
        known = isinstance(preset, str) and preset in PRESETS
        return {**PRESETS[preset], **values} if known else values


def _check_kernel_size(value: Any) -> Any:
    sizes = value if isinstance(value, list | tuple) else (value,)
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)
    if not sizes or not whole or len(set(sizes)) != len(sizes):
        raise ValueError("must be a number of frames, e.g. 5, or different ones, e.g. [1, 5, 9]")
    if any(size % 2 == 0 for size in sizes):
        raise ValueError("must be odd, to be centred on a frame")
    return value


OneKernelSize = Annotated[int, pydantic.BeforeValidator(_check_kernel_size)]
KernelSize = Annotated[int | tuple[int, ...], pydantic.BeforeValidator(_check_kernel_size)]
LAYERS = ("convolution", "exact", "distance_convolution")
LEARNED = ("convolution", "distance_convolution")
EXACT = ("exact", "distance_convolution")
# The forms of temporal coherence in which a field of CoherenceConfig means something; the others are refused there.
MEANT_IN = {
    "kernel_size": LAYERS,
    "maps": LEARNED,
    "initialisation": LEARNED,
    "trainable": LEARNED,
    "relu": LEARNED,
    "sharing": LAYERS,
    "boundary": ("convolution",),
    "sign": EXACT,
    "include_self": EXACT,
    "normalise": EXACT,
    "z": (*EXACT, "output"),
    "z_threshold": (*EXACT, "output"),
    "label_prior": ("output",),
    "rnn_site": LAYERS,
    "netvlad_site": LAYERS,
    "transformer_site": LAYERS,
}


class CoherenceConfig(Section):
    """The temporal-coherence layer that a TC column adds. Numbers in brackets are the paper's errata."""

    # convolution: the method as run; exact: Eqs. 2-6, 8; distance_convolution: Eq. 7, taps and distances; output: Eq. 1
    form: Literal["convolution", "exact", "distance_convolution", "output"] = "convolution"
    kernel_size: KernelSize = 5  # frames, 2 L + 1; several sizes are averaged [10]
    maps: Count = 4  # of each size
    initialisation: Literal["random", "identity", "box"] = "random"  # [13]; box: a moving average
    trainable: bool = True  # false: kernels stay as initialised
    relu: bool = False  # rectify each map before the mean [12]
    sharing: Literal["default", "shared", "depthwise"] = "default"  # shared, but per head in a Transformer [11, 19]
    boundary: Literal["zero", "replicate"] = "zero"  # beyond the first and last frame [14]
    sign: Literal[-1, 1] = -1  # of the distance in the exponent [1]
    include_self: bool = False  # a frame is its own neighbour and counts twice [4]
    normalise: bool = False  # divide by the sum of the weights [8]
    # Scene boundaries: none; steps beyond a distance; steps that are unusual in their video; a learned distance [43]
    z: Literal["constant", "distance", "adaptive", "learned"] = "constant"
    # Of two frames' directions, 1 is a cosine of 1/2; with z = "adaptive", standard deviations above the mean step.
    z_threshold: Annotated[float, Field(gt=0)] = 1.0
    label_prior: Annotated[float, Field(gt=0)] = 1.0  # lambda of Eq. 1 [44]
    rnn_site: Literal["default", "states", "energies", "everywhere"] = "default"  # [17]
    netvlad_site: Literal["default", "frames", "assignments", "everywhere"] = "default"  # [16]
    transformer_site: Literal["default", "keys", "values", "keys_and_values"] = "default"  # [18]

    @pydantic.field_validator(*MEANT_IN)
    @classmethod
    def _has_a_meaning(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        form = info.data.get("form", "convolution")
        if form not in MEANT_IN[info.field_name] and value != cls.model_fields[info.field_name].default:
            raise ValueError(f"has no meaning with coherence.form = {form!r}; leave it out")
        if info.field_name == "kernel_size" and form in EXACT and not isinstance(value, int):
            raise ValueError(f"must be one size with coherence.form = {form!r}")
        if (info.field_name, value, form) == ("z", "learned", "output"):
            raise ValueError("cannot be learned with coherence.form = 'output', whose segments are given")
        if (info.field_name, value) in (("sharing", "depthwise"), ("boundary", "replicate")) and form in EXACT:
            raise ValueError(f"has no meaning with coherence.form = {form!r}, which has one distance for all channels")
        return value


class EnsembleConfig(Section):
    """How an ensemble makes one score of its members' (erratum 25)."""

    # Means with equal weights of probabilities or of logits, or of probabilities with weights tuned on the tune split.
    rule: Literal["probability", "logit", "tuned"] = "probability"


class TrainingConfig(Section):
    """The training protocol (section 4.2 of the paper)."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    batch_size: Count = 128
    micro_batch_size: Annotated[int, Field(ge=0)] = 0  # gradients accumulate over parts of this size; 0: whole batch
    epochs: Count = 10
    patience: Count = 3  # epochs without a better tune GAP before training stops
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0  # L2 norm of each tensor's gradient
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    decay_examples: Count = 4_000_000  # the learning rate is multiplied by `decay` each time so many examples were seen
    normalisation: Normalisation = "l2"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)

    @pydantic.field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must differ, but {list(seeds)} repeats one; remove the repetition")
        return seeds


class TuningConfig(Section):
    """What `replicate tune` tries on the tune split, the same for every column."""

    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (5e-4, 1e-3, 2e-3)
    normalisations: Annotated[tuple[Normalisation, ...], Field(min_length=1)] = ("l2", "l2_sqrt_width")
    epochs: Count = 10  # the budget of every trial of every column


class GridConfig(Section):
    """What `replicate grid` tries; scored on the tune split."""

    kernel_sizes: Annotated[tuple[OneKernelSize, ...], Field(min_length=1)] = (5, 9, 13, 17, 21)  # section 4.2
    controls: tuple[OneKernelSize, ...] = (1, 3)  # sizes that the paper lacks; the least of its own won [15]
    maps: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8, 16)
    heads: Annotated[tuple[Annotated[tuple[Count, ...], Field(min_length=1)], ...], Field(min_length=1)] = (
        (1024,), (512, 512), (384, 768), (768, 384), (1024, 1024), (384, 512, 512),
    )  # fmt: skip  # hidden widths of the DNN


class TimingConfig(Section):
    """The exclusive timing run of each column (Table 2)."""

    warm_up_steps: Count = 5
    steps: Annotated[int, Field(ge=1)] = 50
    repeats: Annotated[int, Field(ge=1)] = 3


class RunConfig(Section):
    """What is run, and on what."""

    own_columns: tuple[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], ...] = ()  # built in replicate/models.py
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(COLUMNS)  # loading adds the own ones
    engine: Literal["dask", "inline"] = "dask"
    workers: Annotated[int, Field(ge=0)] = 0  # worker processes; 0: as many as cores / threads_per_job
    threads_per_job: Count = 1
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # the others: mixed, with float32 weights
    tf32: bool = False  # a GPU may round what it multiplies to TF32; false: float32 throughout
    compile: bool = False  # training steps through torch.compile
    deterministic: bool = True  # only algorithms that give the same bytes each time
    processes_per_model: Count = 1  # that train one model together, one per GPU, each with its part of a batch
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 15.0  # between checkpoints within an epoch

    @pydantic.field_validator("tf32")
    @classmethod
    def _tf32_needs_a_gpu(cls, tf32: bool, info: pydantic.ValidationInfo) -> bool:
        if tf32 and info.data.get("device") == "cpu":
            raise ValueError("has no meaning with run.device = 'cpu'; leave it out")
        return tf32

    @pydantic.field_validator("columns")
    @classmethod
    def _know_columns(cls, columns: tuple[str, ...], info: pydantic.ValidationInfo) -> tuple[str, ...]:
        own = info.data.get("own_columns", ())
        known = [*COLUMNS, *own]
        for slug in columns:
            if slug not in known:
                hint = did_you_mean(slug, known)
                raise ValueError(f"there is no column {slug!r}{hint}; known: {', '.join(known)}")
        return tuple(dict.fromkeys((*columns, *own)))


class SlurmConfig(Section):
    """What `--slurm` submits: jobs of Slurm, each with one worker."""

    jobs: Count = 4  # for work that needs no GPU
    gpu_jobs: Count = 4  # for work that does, where run.device is "cuda"
    partition: str = ""  # empty: Slurm's default, here and for account and walltime
    gpu_partition: str = ""  # empty: as the others
    account: str = ""
    walltime: str = ""  # e.g. "24:00:00"; what it cuts off goes on with the next command
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")] = "16GB"  # of each job
    cores: Annotated[int, Field(ge=0)] = 0  # of each job; at least run.threads_per_job
    gpu_directive: str = "--gres=gpu:{gpus}"  # how this Slurm is asked for GPUs; as many as a job trains a model on
    directives: tuple[str, ...] = ()  # further ones, e.g. "--constraint=a100", "--qos=long"
    prologue: tuple[str, ...] = ()  # shell lines before a worker starts, e.g. "module load cuda"
    interface: str = ""  # network between the machines, e.g. "ib0"; empty: Dask chooses


class Profile(Section):
    """One complete description of a run."""

    name: str
    title: str = ""
    dataset: DatasetConfig = DatasetConfig()
    reading: ReadingConfig = ReadingConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    coherence: CoherenceConfig = CoherenceConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    training: TrainingConfig = TrainingConfig()
    tuning: TuningConfig = TuningConfig()
    grid: GridConfig = GridConfig()
    timing: TimingConfig = TimingConfig()
    run: RunConfig = RunConfig()
    slurm: SlurmConfig = SlurmConfig()
