"""What a command would do and why, from keys alone; and what it would cost, by a documented estimate.

The estimate of a training job is videos x epochs x seconds per video, scoring of the tune videos included; epochs are
the maximum. `replicate.speed` says where seconds per video come from; the plan names the source of each column.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from replicate import manifest
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.config import Profile
from replicate.progress import duration
from replicate.speed import Speeds
from replicate.stages import Job, in_order

WHOLE_CORPUS = ("paper", "dual-2080ti")  # profiles that need every shard of YouTube-8M
VIDEOS = {**dict.fromkeys(WHOLE_CORPUS, 5_001_275), "audioset": 42_531}  # labelled in 2018; clips of the named files
AUDIOSET_TRAINING = 22_160  # clips of the balanced training set
NODES = {"synthetic": 120, "audioset": 557, "yt8m": 640, "yt8m-video": 640}
MEAN_LENGTH = 0.73  # of the frame limit: 218 of 300 frames
GENERATED = 30e6  # bytes of synthetic frames per second
FORWARD = 1 / 3  # of a training step's time, which is a forward and a backward pass
SHOWN = 3  # differences, and inputs that differ, of one job; the rest are counted


@dataclass(frozen=True)
class Row:
    """One job of a plan: why it would run (empty when done), its estimated seconds and bytes, and their basis."""

    job: Job
    done: bool
    why: str
    seconds: float | None = None
    bytes: int | None = None
    basis: str = ""


def plan(targets: list[Job], runs: Path) -> list[Row]:
    """All jobs that the targets need, in order. `runs` need not exist."""
    rows, speeds = [], Speeds(runs)
    for job in in_order(targets):
        if manifest.is_done(job.folder(runs)):
            rows.append(Row(job, True, ""))
        else:
            rows.append(Row(job, False, reason(job, runs), *estimate(job, speeds)))
    return rows


def urgent_first(jobs: list[Job], runs: Path) -> list[Job]:
    """The same jobs, inputs still before what uses them, by how long it takes from a job's start to the end of the last
    one that waits for it, as estimated: begun in this order, no long training is left over for one worker at the end.

    Args:
        jobs: inputs before what uses them.
        runs: the run directory; it need not exist.
    """
    speeds, seconds = Speeds(runs), dict.fromkeys((job.key for job in jobs), 0.0)
    for job in reversed(jobs):
        seconds[job.key] += estimate(job, speeds)[0] or 0.0
        for each in job.inputs.values():
            seconds[each.key] = max(seconds.get(each.key, 0.0), seconds[job.key])
    return sorted(jobs, key=lambda job: -seconds[job.key])


def describe(targets: list[Job], profile: Profile, runs: Path) -> str:
    """The plan as text: a line per job, then totals and what they rest on."""
    rows = plan(targets, runs)
    open_rows = [row for row in rows if not row.done]
    table = [(row.job.label, _time(row.seconds), _size(row.bytes), row.why) for row in open_rows]
    lines = [f"{profile.title}: {len(rows) - len(open_rows)} of {len(rows)} jobs are done"]
    if not open_rows:
        return "\n".join([*lines, "nothing to do"])
    lines += [tabulate(table, headers=("would run", "time", "disk", "because"), disable_numparse=True), ""]
    seconds = sum(row.seconds or 0 for row in open_rows)
    on_gpu, gpus = profile.run.device == "cuda", profile.run.processes_per_model
    hours = f" = {seconds / 3600:.0f} " + ("GPU hours" if gpus == 1 else f"hours on {gpus} GPUs")
    lines.append(f"time, all jobs one after the other: {duration(seconds)}" + hours * on_gpu)
    lines.append(f"disk for results: {_size(sum(row.bytes or 0 for row in open_rows))}")
    if profile.name in WHOLE_CORPUS:
        lines.append("disk for the corpus: 1.53 TB in all for train, validate and test; read once an epoch")
    memory = training_memory(profile)
    lines.append(
        "memory for training (weights, Adam, activations of a batch): "
        + ", ".join(
            f"{COLUMNS[column].title if column in COLUMNS else 'DNN LSTM'} {_size(size)}"
            for column, size in memory.items()
        )
    )
    lines.append("estimates of time rest on")
    return "\n".join([*lines, *(f"- {basis}: {', '.join(columns)}" for basis, columns in _bases(open_rows).items())])


def _bases(rows: list[Row]) -> dict[str, list[str]]:
    """What the estimates rest on, and which columns each source is for."""
    found: dict[str, list[str]] = {}
    for row in rows:
        column = row.job.parameters.get("column")
        title = "DNN's LSTM" if column == AGGREGATOR else COLUMNS[column].title if column else row.job.stage.name
        if row.basis and title not in found.setdefault(row.basis, []):
            found[row.basis].append(title)
    return found


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _size(size: float | None) -> str:
    if size is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def reason(job: Job, runs: Path) -> str:
    """Which part of the key differs from the most similar finished job of the same dataset, stage and parameters."""
    best: list[str] | None = None
    for folder in sorted((runs / job.stage.name).glob("*")):
        if not manifest.is_done(folder):
            continue
        note = manifest.read_manifest(folder)
        other, dataset = note["identity"], note["configuration"].get("dataset.name")
        if other["parameters"] == job.identity["parameters"] and dataset == job.profile.dataset.name:
            found = differences(other, job.identity)
            best = found if best is None or len(found) < len(best) else best
    if best:
        return "; ".join(best[:SHOWN]) + (f"; {len(best) - SHOWN} more" if len(best) > SHOWN else "")
    if (job.folder(runs)).is_dir():
        return "was started and not finished"
    return "never run"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """'training.epochs: 12 -> 3', 'input labels differs', ... between two identities."""
    found = []
    if old["version"] != new["version"]:
        found.append(f"stage version: {old['version']} -> {new['version']}")
    for name in sorted(old["fields"].keys() | new["fields"].keys()):
        before, after = old["fields"].get(name, "absent"), new["fields"].get(name, "absent")
        if before != after:
            found.append(f"{name}: {_short(before)} -> {_short(after)}")
    if old["data"] != new["data"]:
        found.append("its data files differ")
    roles = sorted(old["inputs"].keys() | new["inputs"].keys())
    differing = [role for role in roles if old["inputs"].get(role) != new["inputs"].get(role)]
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        found.append(f"input {', '.join(differing[:SHOWN])}{more} differs")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def video_counts(profile: Profile) -> dict[str, int | None]:
    """Videos in all and of train, tune and pool, as far as they are known without the data."""
    total = profile.synthetic.videos if profile.dataset.name == "synthetic" else VIDEOS.get(profile.name)
    counts: dict[str, int | None] = {"all": total}
    for name in ("train", "tune", "pool"):
        amount = getattr(profile.split, name)
        share = isinstance(amount, float) and total
        counts[name] = round(amount * total) if share else amount if isinstance(amount, int) else None
    if counts["pool"] is None and total and counts["train"] and counts["tune"]:
        counts["pool"] = total - counts["train"] - counts["tune"]
    if profile.dataset.training_shards and total:
        counts |= {"train": AUDIOSET_TRAINING - (counts["tune"] or 0), "pool": total - AUDIOSET_TRAINING}
    return counts


def estimate(job: Job, speeds: Speeds) -> tuple[float | None, int | None, str]:
    """(seconds, bytes on disk, where the seconds come from) under the job's own profile, which in a study is that of a
    variant; None where nothing can be said."""
    profile, counts = job.profile, video_counts(job.profile)
    column = job.parameters.get("column", "")
    if job.stage.name == "synthesize":
        size = int(profile.synthetic.videos * profile.dataset.frame_limit * MEAN_LENGTH * 1152)
        return size / GENERATED, size, f"{GENERATED / 1e6:.0f} MB/s of generated frames"
    if column not in COLUMNS and column != AGGREGATOR or column in COLUMNS and not COLUMNS[column].trained:
        return None, None, ""
    per_video, basis = speeds.seconds_per_video(column, profile)
    if job.stage.name == "train" and counts["train"]:
        videos = counts["train"] + FORWARD * (counts["tune"] or 0)
        return per_video * videos * profile.training.epochs, None, basis
    if job.stage.name == "time":
        timing = profile.timing
        steps = timing.repeats * (timing.steps + timing.warm_up_steps)
        return per_video * profile.training.batch_size * steps, None, basis
    rows = counts["all" if job.stage.name == "aggregate" else job.parameters.get("part", "pool")]
    if job.stage.name in ("predict", "explain", "aggregate") and rows:
        width = {"predict": NODES[profile.dataset.name], "aggregate": profile.model.lstm_width, "explain": 1}
        return per_video * FORWARD * rows, rows * width[job.stage.name] * 4, basis
    return None, None, ""


def training_memory(profile: Profile) -> dict[str, float]:
    """Bytes per column and GPU: weights, gradient and Adam's two moments (16 bytes a weight), plus the activations kept
    for the backward pass of its part of a batch (float32). An estimate for choosing a device, not a measurement."""
    from replicate.model_sizes import parameter_counts

    whole = -(-profile.training.batch_size // profile.run.processes_per_model)
    batch = min(profile.training.micro_batch_size or whole, whole)
    frames, model = profile.dataset.frame_limit, profile.model
    width = 128 if profile.dataset.name == "audioset" else 1152
    layer = model.transformer_width * 10 + model.transformer_feedforward * 2 + model.transformer_heads * frames
    kept = {
        "dnn": model.lstm_width * 6,
        "rnn": model.gru_width * 6,
        "netvlad": sum(model.netvlad_clusters) * 3,
        "transformer": model.transformer_layers * layer,
    }
    memory = {}
    for column, count in parameter_counts(profile).items():
        family = COLUMNS[column].family if column in COLUMNS else "dnn"
        activations = 0 if column == "dnn" else batch * frames * (2 * width + kept[family])
        memory[column] = 16.0 * count + 4.0 * activations
    return memory
