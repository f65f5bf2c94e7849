"""A complete, plausible set of records, made through the schema in a second without running anything.

For tests of tables, figures, claims and pages. The scores are the paper's, moved down and jittered by a fixed
generator; they mean nothing. Equal arguments give equal bytes.
"""

import csv
import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from replicate.columns import AGGREGATOR, COLUMNS, pairs
from replicate.profile_files import load_profile
from replicate.schema import (
    HEADLINE,
    LEVELS,
    Attention,
    AttentionSample,
    Cell,
    ClassSet,
    CompareRecord,
    CrossCheck,
    Difference,
    EpochRecord,
    Equivalence,
    EvaluateRecord,
    Example,
    ExplainRecord,
    InfluenceCheck,
    Prediction,
    RunRecord,
    SeedNoise,
    Support,
    TimeRecord,
    TrainRecord,
    write_record,
)
from replicate.stages import flatten

ROOT = Path(__file__).resolve().parent.parent
ALL = tuple(COLUMNS)
PROFILES = {"synthetic": "smoke", "real": "audioset"}
METRICS = (*HEADLINE, "GAP uncapped", "MAP@20", "MAP all classes")
TOPS = ("Game", "Music", "Art", "Animals", "Sports")
DRAWS, DRAW_SIZE, POOL = 5, 1600, 8000
SHIFT = 0.12  # what every fixture score lies below the paper's
MACHINE = {"processor": "Fixture CPU", "cores": 2, "logical_cores": 2, "usable_cores": 2, "memory_bytes": 16 * 10**9,
           "system": "Linux", "python": "3.11.0", "gpus": None, "gpu_driver": None,
           "gpus_missing": "NVML: no driver"}  # fmt: skip
COMPUTE = {"device": "cpu", "precision": "float32", "threads": 1}


def write_fixture(
    folder: Path,
    columns: tuple[str, ...] = ALL,
    seeds: tuple[int, ...] = (0,),
    data: str = "synthetic",
    gain: float = 1.0,
    without_level: str | None = None,
) -> Path:
    """Write `folder`/records/*.json for some columns and return `folder`.

    Args:
        columns: slugs; pairs and Figure 9's examples follow from them.
        seeds: one or more; with more, differences carry seed noise.
        data: "synthetic" (profile smoke) or "real" (profile audioset).
        gain: what multiplies the paper's increments; 0 makes coherence do nothing, -1 harm.
        without_level: a level at which no metric is defined, e.g. "3".
    """
    made = _made(columns, seeds, data, gain, without_level)
    shutil.copytree(made, folder / "records", dirs_exist_ok=True)
    return folder


_TEMPORARY = tempfile.TemporaryDirectory(prefix="record_fixtures.")


@functools.cache  # writing flushes every file to the disk, copying does not
def _made(columns: tuple[str, ...], seeds: tuple[int, ...], data: str, gain: float, without_level: str | None) -> Path:
    records = Path(tempfile.mkdtemp(dir=_TEMPORARY.name))
    write_record(records / "run.json", run_record(columns, seeds, data))
    for column in columns:
        for seed in seeds:
            evaluated = evaluate_record(column, seed, gain, without_level)
            write_record(records / f"evaluate-{column}-{seed}.json", evaluated)
            if COLUMNS[column].trained:
                write_record(records / f"train-{column}-{seed}.json", train_record(column, seed))
            if COLUMNS[column].explained:
                write_record(records / f"explain-{column}-{seed}.json", explain_record(column, seed))
        if COLUMNS[column].trained:
            write_record(records / f"time-{column}.json", time_record(column, PROFILES[data]))
    if "dnn" in columns:
        write_record(records / f"train-{AGGREGATOR}-{seeds[0]}.json", train_record(AGGREGATOR, seeds[0]))
        write_record(records / f"time-{AGGREGATOR}.json", time_record(AGGREGATOR, PROFILES[data]))
    write_record(records / "compare.json", compare_record(columns, seeds, gain, without_level))
    return records


def paper_cells() -> dict[tuple[str, str, str], float]:
    """(metric, level, column) -> the paper's value, a fraction."""
    slugs = {column.title: slug for slug, column in COLUMNS.items()}
    with open(ROOT / "replicate" / "reference" / "table1.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["metric"], row["level"].lower(), slugs[title]): float(row[title].split()[0]) / 100
        for row in rows
        for title in row
        if title in slugs
    }


PAPER = paper_cells()


def nodes() -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and levels of the fixture's nodes: some tops of the real taxonomy with all below them."""
    with open(ROOT / "taxonomy_data" / "nodes.csv", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file) if row["path"].split(":")[0] in TOPS]
    names.sort(key=lambda name: (name.count(":"), name))
    return tuple(names), tuple(name.count(":") for name in names)


def generator(*words: object) -> np.random.Generator:
    """Random numbers that are a function of the words alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8]))


def value(metric: str, level: str, column: str, gain: float) -> float:
    """The noiseless fixture score of a cell."""
    plain = metric if metric in HEADLINE else metric.split("@")[0].split()[0]
    baseline = COLUMNS[column].baseline
    here = PAPER[plain, level, column]
    if baseline:
        before = PAPER[plain, level, baseline]
        here = before + gain * (here - before)
    return here - SHIFT - (0.0 if metric in HEADLINE else 0.01)


def run_record(columns: tuple[str, ...], seeds: tuple[int, ...], data: str) -> RunRecord:
    """What was run."""
    profile = load_profile(PROFILES[data])
    names, levels = nodes()
    rng = generator("train positives")
    return RunRecord(
        profile=profile.name,
        title=profile.title,
        data=data,
        dataset=profile.dataset.name,
        columns=columns,
        seeds=seeds,
        configuration=dict(flatten(profile)),
        split={"videos": 13000, "train": 4000, "tune": 1000, "pool": POOL, "draws": DRAWS, "draw_size": DRAW_SIZE,
               "disjoint": True},
        shards=[{"name": "shard-0.tfrecord", "bytes": 1000, "sha256": "0" * 64, "records": 13000}],
        skipped=[],
        nodes=len(names),
        nodes_per_level=tuple(levels.count(level) for level in range(4)),
        node_names=names,
        node_levels=levels,
        train_positives=tuple(int(4000 / (1 + n) ** 0.8 * rng.uniform(0.7, 1.3)) + 5 for n in range(len(names))),
        keys={"labels": "fixture", "split": "fixture"}
        | {f"{name}-{slug}-{s}": "fixture" for name in ("evaluate", "predict") for slug in columns for s in seeds},
        code={"commit": "0" * 40, "dirty": False},
        packages={"python": "3.11.0", "torch": "2.13.0", "numpy": "2.4.6"},
        machine=MACHINE,
        command=("replicate", "all"),
    )  # fmt: skip


def evaluate_record(column: str, seed: int, gain: float = 1.0, without_level: str | None = None) -> EvaluateRecord:
    """Every metric x level x draw of one column."""
    names, levels = nodes()
    cells = []
    for metric in METRICS:
        for level in LEVELS:
            if level == without_level:
                reason = f"no video of the pool has a positive at level {level}"
                cells.append(Cell(metric=metric, level=level, draws=None, mean=None, sd=None, pool=None, reason=reason))
                continue
            draws = value(metric, level, column, gain) + _noise(metric, level, seed, column)
            cells.append(
                Cell(metric=metric, level=level, draws=tuple(draws), mean=draws.mean(), sd=draws.std(ddof=1),
                     pool=draws.mean() + 1e-4)
            )  # fmt: skip
    rng = generator("classes", seed)
    base = rng.beta(6, 3, size=len(names)) - 0.05
    shift = gain * 0.03 * (COLUMNS[column].baseline is not None) + generator("class noise", column, seed).normal(
        0, 0.01, len(names)
    )
    return EvaluateRecord(
        column=column, seed=seed, videos=POOL, draw_size=DRAW_SIZE, disjoint=True,
        classes=tuple(
            ClassSet(level=level, used=len(_at(levels, level)) - 1, of=len(_at(levels, level)), least_positives=10.0)
            for level in LEVELS
        ),
        support=tuple(
            Support(level=level, nodes=len(_at(levels, level)), positives=POOL * 4 // (1 + place),
                    videos=int(POOL * (1.0, 1.0, 0.98, 0.72, 0.28)[place]), beyond_top=0)
            for place, level in enumerate(LEVELS)
        ),
        cells=tuple(cells),
        class_average_precision=tuple(float(v) for v in np.clip(base + shift, 0.01, 0.99)),
    )  # fmt: skip


def _at(levels: tuple[int, ...], level: str) -> list[int]:
    return [number for number, each in enumerate(levels) if level in ("overall", str(each))]


def _noise(metric: str, level: str, seed: int, column: str) -> np.ndarray:
    """Draw noise that all columns share, seed noise that a pair mostly shares, and a little of a column's own."""
    shared = generator("draws", metric, level).normal(0, 0.004, DRAWS)
    family = COLUMNS[column].baseline or column
    trained = generator("seed", metric, level, seed, family).normal(0, 0.002) if seed else 0.0
    own = generator("own", metric, level, seed, column).normal(0, 0.0008, DRAWS)
    return shared + trained + own


def compare_record(
    columns: tuple[str, ...], seeds: tuple[int, ...], gain: float = 1.0, without_level: str | None = None
) -> CompareRecord:
    """Paired differences of the pairs among `columns`."""
    differences = tuple(
        _difference(column, baseline, metric, level, seeds, gain, level == without_level)
        for column, baseline in pairs(columns)
        for metric in METRICS
        for level in LEVELS
    )
    protocol = {"alpha": 0.05, "sided": 2, "replicates": 9999, "min_positives": 10, "statistic": "mean over draws"}
    ensembles = {"base_ens", "tc_ens"} <= set(columns)
    return CompareRecord(
        protocol=protocol,
        protocol_hash=hashlib.sha256(repr(protocol).encode()).hexdigest(),
        seeds=seeds,
        conditional=len(seeds) == 1,
        videos=DRAWS * DRAW_SIZE,
        replicates=9999,
        influence_check=InfluenceCheck(replicates=50, worst_ratio_gap=0.012, worst_correlation=0.9998, fell_back=False)
        if differences
        else None,
        differences=differences,
        examples=EXAMPLES if ensembles else (),
    )


def _difference(
    column: str, baseline: str, metric: str, level: str, seeds: tuple[int, ...], gain: float, undefined: bool
) -> Difference:
    family = "exploratory" if metric not in HEADLINE else "primary" if level == "overall" else "secondary"
    if undefined:
        empty = dict.fromkeys(("difference", "draws", "pool", "standard_error", "interval", "simultaneous", "p",
                               "p_adjusted", "p_holm", "p_bh", "detectable", "method", "seeds", "check",
                               "equivalence"))  # fmt: skip
        return Difference(
            column=column, baseline=baseline, metric=metric, level=level, family=family, starred=False,
            reason=f"no video of the pool has a positive at level {level}", **empty,
        )  # fmt: skip
    per_seed = [
        value(metric, level, column, gain) + _noise(metric, level, seed, column)
        - value(metric, level, baseline, gain) - _noise(metric, level, seed, baseline)
        for seed in seeds
    ]  # fmt: skip
    draws = np.mean(per_seed, axis=0)
    mean, error = float(draws.mean()), 0.0012
    p = float(np.clip(2 * np.exp(-0.5 * (mean / error) ** 2), 1e-4, 1.0))
    adjusted = None if family == "exploratory" else min(1.0, 2 * p)
    paper = None if metric not in HEADLINE else PAPER[metric, level, column] - PAPER[metric, level, baseline]
    return Difference(
        column=column, baseline=baseline, metric=metric, level=level, family=family,
        difference=mean, draws=tuple(draws), pool=mean + 1e-4, standard_error=error,
        interval=(mean - 1.96 * error, mean + 1.96 * error),
        simultaneous=None if adjusted is None else (mean - 2.8 * error, mean + 2.8 * error),
        p=p, p_adjusted=adjusted, p_holm=None if adjusted is None else min(1.0, 3 * p), p_bh=min(1.0, 1.5 * p),
        detectable=2.8 * error, method="influence",
        starred=family == "primary" and adjusted is not None and adjusted < 0.05,
        seeds=_seed_noise([each.mean() for each in per_seed]) if len(seeds) > 1 else None,
        check=CrossCheck(
            paired_t_p=p if metric in ("PERR", "Hit@1") else None,
            mcnemar_p=p if metric == "Hit@1" else None,
            discordant=(120, 80) if metric == "Hit@1" else None,
            draws_interval=(mean - 0.003, mean + 0.003),
        ),
        equivalence=None if paper is None else Equivalence(
            paper=paper, margin=0.005, interval=(mean - paper - 0.002, mean - paper + 0.002),
            verdict="matches" if abs(mean - paper) < 0.003 else "inconclusive",
        ),
    )  # fmt: skip


def _seed_noise(differences: list[float]) -> SeedNoise:
    mean, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = 12.7 * sd / np.sqrt(len(differences))
    return SeedNoise(
        differences=tuple(differences), mean=mean, sd=sd, interval=(mean - half, mean + half), p=0.2, p_welch=0.25,
        detectable=2 * half, two_level_interval=(mean - 0.8 * half, mean + 0.8 * half),
    )  # fmt: skip


def _given(**probabilities: float) -> tuple[Prediction, ...]:
    return tuple(Prediction(node=node, probability=each) for node, each in probabilities.items())


EXAMPLES = (
    Example(
        video="v0001", change=0.61, truth=("Sports", "Sports:Water", "Sports:Water:Swimming"),
        baseline=_given(**{"Music": 0.53, "Music:MusicInstrument": 0.31}),
        coherent=_given(**{"Sports": 0.94, "Sports:Water:Swimming": 0.87}),
    ),
    Example(
        video="v0002", change=-0.42, truth=("Art", "Art:Painting"),
        baseline=_given(**{"Art": 0.8, "Art:Painting": 0.6}), coherent=_given(Game=0.52, Art=0.5),
    ),
    Example(
        video="v<b>3</b>", change=0.3, truth=("Music", "Music:Concert"),
        baseline=_given(Game=0.52), coherent=_given(**{"Music": 0.99, "Music:Concert": 0.98}),
    ),
)  # fmt: skip

PARAMETERS = {"dnn": 1_181_440, "dnn_lstm": 10_102_528, "rnn": 3_543_808, "rnn_attn": 3_544_321, "tc_rnn": 3_544_345,
              "netv": 148_749_409,
              "tc_netv": 148_749_433, "tm": 12_996_608, "tc_tm": 12_997_760}  # fmt: skip


def train_record(column: str, seed: int) -> TrainRecord:
    """Eight epochs that rise and flatten."""
    history = tuple(
        EpochRecord(epoch=epoch, examples=4000 * epoch, learning_rate=1e-3, training_loss=9 - 2 * np.log(epoch),
                    tune_gap=0.75 - 0.3 / epoch + 0.001 * seed)
        for epoch in range(1, 9)
    )  # fmt: skip
    return TrainRecord(
        column=column, seed=seed, status="finished", epochs=8, best_epoch=8, tune_gap=history[-1].tune_gap, steps=500,
        examples=32000, parameters=PARAMETERS[column], weights_bytes=4 * PARAMETERS[column], batch_size=64,
        micro_batch_size=64, parts_per_step=1, compute=COMPUTE, diverged_at=None, history=history,
    )  # fmt: skip


KERNELS = {
    "tc_rnn": {"on_states.layer": 1},
    "tc_netv": {"on_assignments.layer": 1},
    "tc_tm": {f"layers.{layer}.{site}.layer": 12 for layer in range(2) for site in ("on_keys", "on_values")},
}


def explain_record(column: str, seed: int) -> ExplainRecord:
    """Bell-shaped kernels (groups, maps, size) of TC columns; attention of the RNN columns."""
    bell = np.array([0.1, 0.25, 0.6, 0.25, 0.1])
    kernels = {
        name: (bell + generator(column, seed, name).normal(0, 0.05, (groups, 4, 5))).tolist()
        for name, groups in KERNELS.get(column, {}).items()
    }
    if column not in ("rnn_attn", "tc_rnn"):
        return ExplainRecord(column=column, seed=seed, kernels=kernels, attention=None)
    coherent = column == "tc_rnn"
    quantiles = {"0.05": 10.0, "0.25": 20.0, "0.5": 28.0, "0.75": 36.0, "0.95": 50.0}
    samples = []
    for number in range(3):
        weights = generator("attention", number).gamma(4.0 if coherent else 0.5, size=40) + 1e-6
        samples.append(AttentionSample(row=number, id=f"v{number:04d}", attention=tuple(weights / weights.sum())))
    attention = Attention(
        videos=POOL,
        frames=48.0,
        effective_frames={"mean": 38.0 if coherent else 26.0, "sd": 9.0, "quantiles": quantiles},
        share={"mean": 0.8 if coherent else 0.55, "sd": 0.15, "histogram": [POOL // 20] * 20,
               "quantiles": {name: each / 60 for name, each in quantiles.items()}},
        samples=tuple(samples),
    )  # fmt: skip
    return ExplainRecord(column=column, seed=seed, kernels=kernels, attention=attention)


def time_record(column: str, profile: str = "smoke") -> TimeRecord:
    """A CPU timing; a TC column is four percent slower than its baseline."""
    plain = {"dnn": 0.004, "dnn_lstm": 0.07, "rnn": 0.05, "rnn_attn": 0.06, "netv": 0.04, "tm": 0.11}
    seconds = plain[column] if column in plain else plain[COLUMNS[column].baseline] * 1.04
    repeats = [
        {"seconds_per_step": seconds * factor, "data_wait_seconds_per_step": 0.001,
         "compute_seconds_per_step": seconds * factor - 0.001}
        for factor in (0.99, 1.0, 1.02)
    ]  # fmt: skip
    return TimeRecord(
        column=column, profile=profile, batch_size=64, micro_batch_size=64, warm_up_steps=3, steps=50, repeats=repeats,
        seconds_per_step=seconds, data_wait_seconds_per_step=0.001, compute_seconds_per_step=seconds - 0.001,
        videos_per_second=64 / seconds, epoch_videos=4000, projected_seconds_per_epoch=seconds * 63,
        weights_megabytes=4 * PARAMETERS[column] / 1e6, peak_memory_bytes=900_000_000, memory_before_bytes=600_000_000,
        gpu={"peak_memory_bytes": None, "energy_joules": None, "reason": "the run used no GPU"}, compute=COMPUTE,
        machine=MACHINE,
    )  # fmt: skip
