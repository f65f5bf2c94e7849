"""What a command would do and why, from keys alone; and what it would cost, by a documented estimate.

The estimate of a training job is videos x epochs x seconds per video. Seconds per video come, in this order, from the
timing record of the same column and sizes in this run directory; for the paper's profile from the paper's own Table 2
(two RTX 2080 Ti); else from the column's arithmetic (forward FLOP x 3) at a stated rate. Epochs are the maximum.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from replicate import manifest, reference
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.config import Profile
from replicate.progress import duration
from replicate.record import read_json
from replicate.stages import Job, in_order

PAPER_VIDEOS, PAPER_FRAMES = 4_000_000, 300
VIDEOS = {"paper": 5_001_275, "audioset": 42_531}  # labelled videos of 2018; clips of the files that the profile names
AUDIOSET_TRAINING = 22_160  # clips of the balanced training set
NODES = {"synthetic": 120, "audioset": 557, "yt8m": 640, "yt8m-video": 640}
MEAN_LENGTH = 0.73  # of the frame limit: 218 of 300 frames
GENERATED = 30e6  # bytes of synthetic frames per second
RATE = {"cpu": 15e9, "cuda": 5e12}  # training FLOP per second and job that small models were seen to reach


@dataclass(frozen=True)
class Row:
    """One job of a plan: why it would run (empty when done), its estimated seconds and bytes, and their basis."""

    job: Job
    done: bool
    why: str
    seconds: float | None = None
    bytes: int | None = None
    basis: str = ""


def plan(targets: list[Job], profile: Profile, runs: Path) -> list[Row]:
    """All jobs that the targets need, in order. `runs` need not exist."""
    rows = []
    for job in in_order(targets):
        if manifest.is_done(job.folder(runs)):
            rows.append(Row(job, True, ""))
        else:
            rows.append(Row(job, False, reason(job, runs), *estimate(job, profile, runs)))
    return rows


def describe(targets: list[Job], profile: Profile, runs: Path) -> str:
    """The plan as text: a line per job, then totals and what they rest on."""
    rows = plan(targets, profile, runs)
    open_rows = [row for row in rows if not row.done]
    table = [(row.job.label, _time(row.seconds), _size(row.bytes), row.why) for row in open_rows]
    lines = [f"{profile.title}: {len(rows) - len(open_rows)} of {len(rows)} jobs are done"]
    if not open_rows:
        return "\n".join([*lines, "nothing to do"])
    lines += [tabulate(table, headers=("would run", "time", "disk", "because"), disable_numparse=True), ""]
    seconds = sum(row.seconds or 0 for row in open_rows)
    on_gpu = profile.run.device == "cuda"
    lines.append(
        f"time, all jobs one after the other: {duration(seconds)}" + (f" = {seconds / 3600:.0f} GPU hours" * on_gpu)
    )
    lines.append(f"disk for results: {_size(sum(row.bytes or 0 for row in open_rows))}")
    if profile.dataset.name == "yt8m" and profile.name == "paper":
        lines.append("disk for the corpus: 1.53 TB in all for train, validate and test; read once an epoch")
    memory = training_memory(profile)
    lines.append(
        "memory for training (weights, Adam, activations of a batch): "
        + ", ".join(
            f"{COLUMNS[column].title if column in COLUMNS else 'DNN LSTM'} {_size(size)}"
            for column, size in memory.items()
        )
    )
    lines.append("estimates of time rest on: " + "; ".join(sorted({row.basis for row in open_rows if row.basis})))
    return "\n".join(lines)


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
    """Which part of the key differs from the most similar finished job of the same stage and parameters."""
    best: list[str] | None = None
    for folder in sorted((runs / job.stage.name).glob("*")):
        if not manifest.is_done(folder):
            continue
        other = manifest.read_manifest(folder)["identity"]
        if other["parameters"] == job.identity["parameters"]:
            found = differences(other, job.identity)
            best = found if best is None or len(found) < len(best) else best
    if best:
        return "; ".join(best)
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
        found.append(f"input {', '.join(differing)} differs")
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


def estimate(job: Job, profile: Profile, runs: Path) -> tuple[float | None, int | None, str]:
    """(seconds, bytes on disk, where the seconds come from); None where nothing can be said."""
    counts = video_counts(profile)
    column = job.parameters.get("column", "")
    if job.stage.name == "synthesize":
        size = int(profile.synthetic.videos * profile.dataset.frame_limit * MEAN_LENGTH * 1152)
        return size / GENERATED, size, f"{GENERATED / 1e6:.0f} MB/s of generated frames"
    if column not in COLUMNS and column != AGGREGATOR or column in COLUMNS and not COLUMNS[column].trained:
        return None, None, ""
    per_video, basis = seconds_per_video(column, profile, runs)
    if job.stage.name == "train" and counts["train"]:
        return per_video * counts["train"] * profile.training.epochs, None, basis
    if job.stage.name == "time":
        timing = profile.timing
        steps = timing.repeats * (timing.steps + timing.warm_up_steps)
        return per_video * profile.training.batch_size * steps, None, basis
    rows = counts["all" if job.stage.name == "aggregate" else job.parameters.get("part", "pool")]
    if job.stage.name in ("predict", "explain", "aggregate") and rows:
        width = {"predict": NODES[profile.dataset.name], "aggregate": profile.model.lstm_width, "explain": 1}
        return per_video / 3 * rows, rows * width[job.stage.name] * 4, basis  # forward only: a third of a training step
    return None, None, ""


def seconds_per_video(column: str, profile: Profile, runs: Path) -> tuple[float, str]:
    """Training seconds per video and where the figure comes from."""
    for path in sorted(runs.glob("time/*/record.json")):
        record = read_json(path)
        if record.get("column") == column and record.get("profile") == profile.name:
            return 1 / record["videos_per_second"], "timed here"
    timed = "rnn" if column == AGGREGATOR else column  # the DNN's LSTM has no row in Table 2
    if profile.dataset.name == "yt8m" and timed in reference.table2():
        scale = profile.dataset.frame_limit / PAPER_FRAMES
        return reference.table2()[timed][0] * 60 / PAPER_VIDEOS * scale, "the paper's Table 2"
    return forward_flop(column, profile) * 3 / RATE[profile.run.device], f"{RATE[profile.run.device]:.0e} FLOP/s"


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


def training_memory(profile: Profile) -> dict[str, float]:
    """Bytes per column: weights, gradient and Adam's two moments (16 bytes a weight), plus the activations of one batch
    kept for the backward pass (float32). An estimate for choosing a device, not a measurement."""
    from replicate.model_sizes import parameter_counts

    batch = profile.training.micro_batch_size or profile.training.batch_size
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
