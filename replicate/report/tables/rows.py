"""Tables 1 and 2 as structured rows, made of records alone.

What a cell of Table 1 says follows the protocol: the mean over the test draws is the paper's figure; its standard
deviation over draws is test-sampling noise; the one over training seeds is another noise, and the two are never merged.
"""

import dataclasses
import math
import statistics
from dataclasses import dataclass

from replicate import reference
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.report.records import Records
from replicate.schema import HEADLINE, LEVELS, Interval, TimeRecord

TEST_MARK, SEED_MARK = "*", "†"
DIVERGED = " diverged"  # ends the marks of a column whose training did


@dataclass(frozen=True)
class Cell1:
    """One cell of Table 1. Scores and differences are fractions; None is explained by `reason`.

    Attributes:
        ours: mean over draws (and over seeds, if there are several).
        sd_draws: standard deviation over the draws of one trained model (root mean square over seeds): test noise.
        sd_seeds: standard deviation over training seeds of the mean over draws; None with one seed.
        pool: value on the whole pool (mean over seeds).
        paper: the paper's value, None for a column that is not the paper's; `against_paper` is ours minus it.
        baseline: slug of the column that the increment refers to; None where there is none.
        gain: the increment over `baseline`, ours: the mean over draws (and seeds) of the paired difference.
        interval, simultaneous: of `gain`, 95 %, for this cell alone and for its family at once; test noise.
        p_adjusted: step-down max-T within the family; test noise.
        detectable: the smallest true increment that would be found with power .8; test noise.
        sd_gain_seeds, interval_seeds, detectable_seeds: of `gain`, over training seeds, paired.
        paper_gain: the difference of the paper's values; `paper_printed` what its brackets say (two are misprints).
        marks: any of TEST_MARK, SEED_MARK and DIVERGED.
    """

    metric: str
    level: str
    column: str
    data: str
    ours: float | None
    sd_draws: float | None
    sd_seeds: float | None
    pool: float | None
    paper: float | None
    against_paper: float | None
    baseline: str | None
    gain: float | None
    interval: Interval | None
    simultaneous: Interval | None
    p_adjusted: float | None
    detectable: float | None
    sd_gain_seeds: float | None
    interval_seeds: Interval | None
    detectable_seeds: float | None
    paper_gain: float | None
    paper_printed: float | None
    family: str | None
    marks: str
    reason: str | None


def table1(records: Records) -> list[Cell1]:
    """Every headline metric at every level of every column that was run, in the order of the paper's table."""
    slugs = [column.slug for column in records.columns]
    return [_cell1(records, metric, level, slug) for metric in HEADLINE for level in LEVELS for slug in slugs]


def _cell1(records: Records, metric: str, level: str, column: str) -> Cell1:
    seeds = records.run.seeds
    cells = [records.cell(column, seed, metric, level) for seed in seeds]
    means = records.seed_means(column, metric, level)
    ours = statistics.fmean(means) if means else None
    paper = reference.table1().get((metric, level, column), reference.NOT_IN_PAPER)
    baseline = COLUMNS[column].baseline
    found = records.difference(column, metric, level)
    noise = found.seeds if found else None
    missing = next((cell.reason for cell in cells if cell.mean is None), None)
    if found is None and baseline and missing is None:
        missing = f"{COLUMNS[baseline].title}, whose increment this is, was not run"
    return Cell1(
        metric=metric,
        level=level,
        column=column,
        data=records.run.data,
        ours=ours,
        sd_draws=math.sqrt(statistics.fmean(cell.sd**2 for cell in cells)) if means else None,
        sd_seeds=statistics.stdev(means) if len(means) > 1 else None,
        pool=statistics.fmean(cell.pool for cell in cells) if means else None,
        paper=paper.value,
        against_paper=None if ours is None or paper.value is None else ours - paper.value,
        baseline=baseline,
        gain=found.difference if found else None,
        interval=found.interval if found else None,
        simultaneous=found.simultaneous if found else None,
        p_adjusted=found.p_adjusted if found else None,
        detectable=found.detectable if found else None,
        sd_gain_seeds=noise.sd if noise else None,
        interval_seeds=noise.interval if noise else None,
        detectable_seeds=noise.detectable if noise else None,
        paper_gain=paper.increment,
        paper_printed=paper.printed,
        family=found.family if found else None,
        marks=_marks(found.starred if found else False, noise.interval if noise else None)
        + DIVERGED * bool(records.diverged(column)),
        reason=missing or (found.reason if found else None),
    )


def _marks(starred: bool, seeds: Interval | None) -> str:
    outside = seeds is not None and (seeds[0] > 0 or seeds[1] < 0)
    return TEST_MARK * starred + SEED_MARK * outside


@dataclass(frozen=True)
class Column2:
    """One column of Table 2. What was not measured is None, with the reason under the same name in `reasons`.

    Attributes:
        seconds_per_epoch: projected from steps: seconds per step times the steps of one epoch of this run's split.
        slower: seconds per step as a multiple of the baseline column's; None where there is none.
        gpu_torch_bytes, gpu_nvml_bytes: peak GPU memory, torch's allocator's and the device's as NVML sampled it.
        joules_per_1000_videos: the GPU's energy counter over the measured steps.
        rss_bytes: peak resident memory of the process.
        megabytes: weights, 10^6 bytes, float32.
        paper_minutes, paper_megabytes: as printed; None for the DNN's LSTM, which the paper does not list.
    """

    column: str
    title: str
    data: str
    seconds_per_epoch: float | None = None
    epoch_videos: int | None = None
    seconds_per_step: float | None = None
    slowest_step: float | None = None
    fastest_step: float | None = None
    slower: float | None = None
    videos_per_second: float | None = None
    gpu_torch_bytes: float | None = None
    gpu_nvml_bytes: float | None = None
    joules_per_1000_videos: float | None = None
    rss_bytes: float | None = None
    megabytes: float | None = None
    parameters: int | None = None
    paper_minutes: float | None = None
    paper_megabytes: float | None = None
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)


UNTIMED = "this run did not time the column"
UNTRAINED = "this run has no training record of the column"
NO_SAMPLE = "NVML was not sampled"
# Figure of the table -> its key in a time record's `gpu`.
GPU_FIGURES = {
    "gpu_torch_bytes": "peak_memory_bytes",
    "gpu_nvml_bytes": "nvml_peak_memory_bytes",
    "joules_per_1000_videos": "energy_joules",
}


def table2(records: Records) -> list[Column2]:
    """Every trained column that was run, then the LSTM behind the DNN's features, in the order of the paper's table."""
    trained = [column.slug for column in records.columns if column.trained]
    made = [_column2(records, slug, COLUMNS[slug].title) for slug in trained]
    if "dnn" in trained and records.run.dataset != "yt8m-video":
        made.insert(trained.index("dnn") + 1, _column2(records, AGGREGATOR, "DNN's LSTM"))
    return made


def _column2(records: Records, slug: str, title: str) -> Column2:
    timed = records.time.get(slug)
    trained = next((each for (column, _), each in sorted(records.train.items()) if column == slug), None)
    values = _measured(timed) if timed else {}
    values["parameters"] = trained.parameters if trained else None
    values["megabytes"] = trained.weights_bytes / 1e6 if trained else timed.weights_megabytes if timed else None
    values["paper_minutes"], values["paper_megabytes"] = reference.table2().get(slug, (None, None))
    baseline = records.time.get(COLUMNS[slug].baseline) if slug != AGGREGATOR else None
    if timed and baseline:
        values["slower"] = timed.seconds_per_step / baseline.seconds_per_step
    return Column2(column=slug, title=title, data=records.run.data, reasons=_reasons(values, timed), **values)


def _measured(timed: TimeRecord) -> dict[str, float | None]:
    steps = [repeat["seconds_per_step"] for repeat in timed.repeats]
    energy = timed.gpu.get("energy_joules")
    videos = len(timed.repeats) * timed.steps * timed.batch_size
    return {
        "seconds_per_epoch": timed.projected_seconds_per_epoch,
        "epoch_videos": timed.epoch_videos,
        "seconds_per_step": timed.seconds_per_step,
        "slowest_step": max(steps),
        "fastest_step": min(steps),
        "videos_per_second": timed.videos_per_second,
        "gpu_torch_bytes": timed.gpu.get("peak_memory_bytes"),
        "gpu_nvml_bytes": timed.gpu.get("nvml_peak_memory_bytes"),
        "joules_per_1000_videos": 1000 * energy / videos if energy is not None else None,
        "rss_bytes": timed.peak_memory_bytes,
    }


def _reasons(values: dict[str, float | None], timed: TimeRecord | None) -> dict[str, str]:
    """Why each of our figures that is blank is blank."""
    reasons = {}
    for name in ("seconds_per_epoch", "videos_per_second", "rss_bytes"):
        if values.get(name) is None:
            reasons[name] = UNTIMED
    for name, key in GPU_FIGURES.items():
        if values.get(name) is None:
            reasons[name] = UNTIMED if timed is None else _gpu_reason(timed.gpu, key)
    for name in ("parameters", "megabytes"):
        if values.get(name) is None:
            reasons[name] = UNTRAINED
    return reasons


def _gpu_reason(gpu: dict, key: str) -> str:
    return gpu.get("reasons", {}).get(key) or gpu.get("reason") or NO_SAMPLE
