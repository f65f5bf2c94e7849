"""This machine, line by line: beside the paper's (section 4.2), for the chosen profile, and what is installed.

Every finding says what it means for the results. Nothing here fails: what cannot be found out is a finding too.
"""

import glob
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from replicate import plan, speed
from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.data.index import find_shards, sizes_of
from replicate.data.remote import RemotePath
from replicate.determinism import open_elsewhere, open_here
from replicate.errors import ReplicateError
from replicate.hardware import accounting
from replicate.stages import Graph

# Section 4.2; the paper prints "Ubuntu 18.0 LTS" and "12 GB", which are 18.04 and 11 GB (erratum 38).
PAPER_SYSTEM, PAPER_PROCESSOR = "Ubuntu 18.04", "Intel Core i9-9820X"
PAPER_CORES, PAPER_CLOCK_MHZ, PAPER_MEMORY = 10, 3300, 64e9
PAPER_GPU, PAPER_GPUS, PAPER_GPU_MEMORY = "GeForce RTX 2080 Ti", 2, 11e9
DECODED = "418 MB/s"  # of shards, which the DNN's 40 minutes per epoch come to (Table 2 x 251 kB per video)

# Folder of a profile's pattern -> files and bytes of the whole release (videos x 251 kB; mean of video-level files).
WHOLE = {
    "frame/train": (3844, 0.98e12),
    "frame/validate": (3844, 0.28e12),
    "yt8m_video": (7688, 25e9),
    "audioset": (1, 1.3e9),  # of each of two files; the archive that both come from has 2.4 GB
}
NOMINAL = 0.93  # a machine shows a little less than the memory that its label says
YEAR = 365.25 * 24 * 3600

State = Literal["same", "enough", "differs", "fine", "attention", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        group: "paper" (this machine beside the paper's), "profile" or "software".
        topic: what it is about.
        here: how it is here.
        expected: how it is there, or should be.
        state: beside the paper "same", "enough" (as much or more) or "differs"; elsewhere "fine" or "attention"; or
            "unknown".
        meaning: for the results; empty where nothing follows.
    """

    group: Literal["paper", "profile", "software"]
    topic: str
    here: str
    expected: str
    state: State
    meaning: str = ""


def examine(profile: Profile, data_dir: Path | None, runs: Path) -> dict[str, Any]:
    """Everything, as plain values: "profile", "findings", "machine"."""
    machine = surroundings()
    findings = [
        *beside_paper(machine, profile),
        *for_profile(machine, profile, data_dir, runs),
        *software(machine, Path(__file__).parents[2] / "requirements.lock"),
    ]
    return {"profile": profile.name, "findings": [asdict(finding) for finding in findings], "machine": machine}


def surroundings() -> dict[str, Any]:
    """What accounting.describe says, with the distribution's name and the processor's clock in MHz (None: unknown)."""
    machine = accounting.describe()
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        distribution = None
    stated = re.search(r"@ ([\d.]+) ?GHz", machine["processor"])
    frequency = psutil.cpu_freq()
    clock = 1000 * float(stated[1]) if stated else (frequency.max or frequency.current or None) if frequency else None
    return {**machine, "distribution": distribution or machine["system"], "clock_mhz": clock}


def beside_paper(machine: dict[str, Any], profile: Profile) -> list[Finding]:
    """Section 4.2, line by line."""
    cores, memory, clock = machine["cores"], machine["memory_bytes"], machine["clock_mhz"]
    usable = min(cores or machine["usable_cores"], machine["usable_cores"])
    return [
        _beside(
            "system", machine["distribution"], PAPER_SYSTEM, PAPER_SYSTEM in machine["distribution"],
            "No result depends on it by name; the versions of what computes are in every record.",
        ),
        _beside(
            "processor", machine["processor"], PAPER_PROCESSOR, "i9-9820X" in machine["processor"],
            "Scores: other vector instructions round otherwise, within the bands of `replicate check`. Times: compare "
            "columns with each other, not minutes with the paper's.",
        ),
        _beside(
            "cores", f"{cores or 'unknown'}, of which {usable} may be used", str(PAPER_CORES), usable >= PAPER_CORES,
            f"Fewer cores decode less: the paper's fastest column reads {DECODED} of shards. Table 2 may then show the "
            "input; its records tell waiting for data apart.", "enough",
        ),
        _beside(
            "clock", "unknown" if clock is None else f"{clock / 1000:.2f} GHz", f"{PAPER_CLOCK_MHZ / 1000:.2f} GHz",
            None if clock is None else abs(clock - PAPER_CLOCK_MHZ) < 50, "Times only.",
        ),
        _beside(
            "memory", _gigabytes(memory), _gigabytes(PAPER_MEMORY), memory > NOMINAL * PAPER_MEMORY,
            "Scores: none. Times: an epoch of 1.0 TB streams from disk on either machine; less of it stays cached.",
            "enough",
        ),
        *_gpus_beside_paper(machine["gpus"] or [], machine["gpus_missing"], profile),
    ]  # fmt: skip


def _gpus_beside_paper(gpus: list[dict[str, Any]], missing: str | None, profile: Profile) -> list[Finding]:
    expected = f"{PAPER_GPUS} x {PAPER_GPU}"
    if not gpus:
        meaning = "Table 2 shows no GPU figures; nothing else follows for this profile, which uses none."
        if profile.run.device == "cuda":
            meaning = (
                "Scores: a processor computes the same within rounding. Table 2 shows no GPU figures. This profile "
                f"would take about {_years(processor_seconds(profile))} on a processor core."
            )
        return [_beside("GPUs", f"none ({missing})", expected, False, meaning)]
    names = [gpu["name"] or "unnamed" for gpu in gpus]
    here = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    memory = _least_memory(gpus)
    return [
        _beside(
            "GPUs", here, expected, len(names) == PAPER_GPUS and all(PAPER_GPU in name for name in names),
            "Scores: other kernels round otherwise, which is like another seed. Times: compare columns with each "
            "other; the paper's batches of 128 videos were split over two.",
        ),
        _beside(
            "GPU memory", "unknown" if memory is None else f"{_gigabytes(memory)} each",
            f"{_gigabytes(PAPER_GPU_MEMORY)} each (printed as 12)",
            None if memory is None else memory > NOMINAL * PAPER_GPU_MEMORY,
            "Where a batch does not fit, training.micro_batch_size splits it; gradients add up to the same batch.",
            "enough",
        ),
    ]  # fmt: skip


def _least_memory(gpus: list[dict[str, Any]]) -> int | None:
    known = [gpu["memory_bytes"] for gpu in gpus]
    return None if None in known else min(known)


def _beside(topic: str, here: str, expected: str, same: bool | None, meaning: str, word: State = "same") -> Finding:
    """A line beside the paper; `same` None: not known here."""
    return Finding(
        "paper",
        topic,
        here,
        expected,
        "unknown" if same is None else word if same else "differs",
        "" if same else meaning,
    )


def processor_seconds(profile: Profile) -> float:
    """Of training every column of a profile on processor cores, by the plan's rate of arithmetic."""
    videos = plan.video_counts(profile)["train"] or 0
    columns = [column for column in profile.run.columns if column in COLUMNS and COLUMNS[column].trained]
    flop = sum(3 * speed.forward_flop(column, profile) for column in columns)
    return flop * videos * profile.training.epochs / speed.RATE["cpu"]


def _years(seconds: float) -> str:
    return f"{seconds / YEAR:.1f} years" if seconds > YEAR / 10 else f"{seconds / 3600:.1f} hours"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.0f} GB" if size >= 10e9 else f"{size / 1e9:.1f} GB"


def for_profile(machine: dict[str, Any], profile: Profile, data_dir: Path | None, runs: Path) -> list[Finding]:
    """Data, disk, memory and device of the chosen profile."""
    findings = _data(profile, data_dir) if profile.dataset.name != "synthetic" else []
    graph = Graph(profile, None, lambda folder, profile: None)
    needed = sum(row.bytes or 0 for row in plan.plan(graph.results(profile.run.columns), runs))
    findings.append(_room("disk for results", runs, needed, "choose another --out, or make room"))
    return [*findings, *_device(machine, profile), *_repeatability(profile)]


def _repeatability(profile: Profile) -> list[Finding]:
    """What results are when the same command is issued again, on this machine and on another."""
    run, again = profile.run, "the same bytes"
    found = open_here(run.deterministic, run.compile, run.processes_per_model)
    here, state = ("other bytes are possible", "attention") if found else (again, "fine")
    meaning = f"{' '.join(open_elsewhere(run.device))} The bands of `replicate check` allow for it."
    elsewhere = "the same but for rounding"
    return [
        Finding("profile", "results, run again here", here, again, state, " ".join(found)),
        Finding("profile", "results, run elsewhere", elsewhere, elsewhere, "fine", meaning),
    ]


def _data(profile: Profile, data_dir: Path | RemotePath | None) -> list[Finding]:
    if data_dir is None:
        return [Finding("profile", "data", "no --data-dir", "a folder of data", "attention", _how_to_get(profile))]
    if isinstance(data_dir, RemotePath):
        return [_remote_data(profile, data_dir)]
    findings, absent = [], 0.0
    for pattern in profile.dataset.shards:
        files = [Path(data_dir, name) for name in glob.glob(pattern, root_dir=data_dir)]
        begun = len(glob.glob(f"{pattern}.part", root_dir=data_dir))
        folder = str(Path(pattern).parent)
        count, size = WHOLE.get(folder, (None, 0.0))
        here = f"{len(files)} files, {_gigabytes(sum(file.stat().st_size for file in files))}"
        here += f", {begun} more begun" if begun else ""
        meaning = ""
        if begun or not files:
            meaning = _how_to_get(profile)
        elif profile.name in plan.WHOLE_CORPUS and len(files) < count:
            meaning = f"The split of 4,000,000 training videos needs all {count} files. {_how_to_get(profile)}"
        if not files:
            absent += size
        expected = (
            "some files"
            if count is None or profile.name not in plan.WHOLE_CORPUS
            else f"{count} files, {_gigabytes(size)}"
        )
        findings.append(
            Finding("profile", f"data, {pattern}", here, expected, "attention" if meaning else "fine", meaning)
        )
    if absent:
        findings.append(_room("disk for data", data_dir, absent, "choose another folder, or a sample (`--shard X,Y`)"))
    return findings


def _remote_data(profile: Profile, root: RemotePath) -> Finding:
    try:
        shards = find_shards(root, list(profile.dataset.shards))
        here = f"{len(shards)} files, {_gigabytes(sum(sizes_of(root, shards)))}"
    except ReplicateError as error:
        return Finding("profile", f"data, {root}", "cannot be read", "some files", "attention", str(error))
    return Finding("profile", f"data, {root}", here, "some files", "fine")


def _how_to_get(profile: Profile) -> str:
    if profile.dataset.name == "audioset":
        return "Get it: replicate data download audioset."
    parts = (
        "video/train and video/validate" if profile.dataset.name == "yt8m-video" else "frame/train and frame/validate"
    )
    sample = " --shard 1,100" if profile.name == "yt8m-1pct" else ""
    return f"Get it: replicate data download yt8m --part ...{sample}, for {parts}."


def _room(topic: str, folder: Path, needed: float, remedy: str) -> Finding:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding("profile", topic, f"{place} cannot be written to", "a folder to write to", "attention", remedy)
    enough = free > needed
    here, expected = f"{_gigabytes(free)} free", f"about {_gigabytes(needed)}"
    return Finding("profile", topic, here, expected, "fine" if enough else "attention", "" if enough else remedy)


def _device(machine: dict[str, Any], profile: Profile) -> list[Finding]:
    gpus = machine["gpus"] or []
    if profile.run.device == "cuda" and not gpus:
        remedy = "The run stops with an error; --set run.device=cpu computes on the processor."
        return [Finding("profile", "device", f"no GPU ({machine['gpus_missing']})", "a GPU", "attention", remedy)]
    processes = profile.run.processes_per_model
    if profile.run.device == "cuda" and len(gpus) < processes:
        remedy = "Models train on several GPUs; use more hosts (docs/hardware.md), or --set run.processes_per_model=1."
        return [Finding("profile", "device", f"{len(gpus)} GPUs", f"{processes} GPUs", "attention", remedy)]
    memory = plan.training_memory(profile)
    largest = f"about {_gigabytes(max(memory.values(), default=0.0))} for the largest column"
    there = machine["memory_bytes"] if profile.run.device == "cpu" else _least_memory(gpus)
    topic = f"memory to train ({profile.run.device})"
    if there is None:
        return [Finding("profile", topic, "unknown", largest, "unknown")]
    tight = [column for column, size in memory.items() if size > there]
    meaning = f"Does not fit: {', '.join(tight)}; give --set training.micro_batch_size=16, or less." if tight else ""
    return [Finding("profile", topic, _gigabytes(there), largest, "attention" if tight else "fine", meaning)]


TORCH = (
    "import json, torch; there = torch.cuda.is_available(); print(json.dumps({'version': torch.__version__, "
    "'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count() if there else 0}))"
)
TENSORFLOW = "import json, tensorflow; print(json.dumps({'version': tensorflow.__version__}))"


def software(machine: dict[str, Any], lock: Path) -> list[Finding]:
    """Versions beside the lock; whether the two frameworks load, each in a process of its own, as they may crash."""
    findings = [_versions(lock)]
    torch, why = imported(TORCH)
    if torch is None:
        findings.append(Finding("software", "torch", why, "loads", "attention", "Nothing trains. Run `make setup`."))
    else:
        build = f"CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
        unseen = bool(machine["gpus"]) and not torch["gpus"]
        meaning = "The machine has a GPU that torch cannot use; install torch's CUDA build." if unseen else ""
        here = f"{torch['version']}, {build}, sees {torch['gpus']} GPUs"
        findings.append(Finding("software", "torch", here, "loads", "attention" if unseen else "fine", meaning))
    loaded, why = imported(TENSORFLOW)
    meaning = "" if loaded else "No synthetic corpus and no --reader tensorflow; real data can be read without it."
    here = loaded["version"] if loaded else why
    findings.append(Finding("software", "tensorflow", here, "loads", "fine" if loaded else "attention", meaning))
    driver, missing = machine["gpu_driver"], machine["gpus_missing"]
    meaning = "" if driver else "Energy, utilisation and memory of a GPU stay null, with this reason."
    here = f"driver {driver}" if driver else missing
    findings.append(Finding("software", "NVML", here, "answers", "fine" if driver else "attention", meaning))
    return findings


def _versions(lock: Path) -> Finding:
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError:
        meaning = "The package was installed without its lock file, so versions are not compared."
        return Finding("software", "versions", "no lock file", "requirements.lock", "unknown", meaning)
    wanted = dict(re.findall(r"^([\w.-]+)==([^\s;]+)(?!.*;)", text, re.MULTILINE))
    other = [
        f"{name} {found or 'absent'} ({version})"
        for name, version in wanted.items()
        if (found := _installed(name)) != version
    ]
    here = f"{len(wanted) - len(other)} of {len(wanted)} as locked"
    meaning = f"Results may differ in rounding or more: {', '.join(other)}. Run `make setup`." if other else ""
    return Finding("software", "versions", here, "requirements.lock", "attention" if other else "fine", meaning)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).partition("+")[0]  # torch's build is a local part: 2.13.0+cpu
    except importlib.metadata.PackageNotFoundError:
        return None


def imported(program: str, seconds: float = 300.0) -> tuple[dict[str, Any] | None, str]:
    """(what a program printed as JSON, ""), or (None, why it did not)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"did not load within {seconds:.0f} s"
    if done.returncode < 0:
        return None, f"crashed ({signal.Signals(-done.returncode).name}); on SIGILL its build is for another processor"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["failed without a word"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), ""
