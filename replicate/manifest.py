"""The note that makes a stage done: what it was made of, by which code, on which machine, and the hash of every file.

Written last, after its files are on the disk. Nothing in it changes between two runs of the same command on the same
machine: durations and dates are in `timings.json`, messages in `log.txt`, and neither is listed.
"""

import functools
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from replicate.errors import IncompleteRun
from replicate.record import file_digest, read_json, write_json
from replicate.stages import Job, flatten

MANIFEST = "manifest.json"
UNLISTED = ("timings.json", "log.txt", MANIFEST)
PACKAGES = (
    "torch",
    "tensorflow-cpu",
    "tensorflow",
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "safetensors",
    "google-crc32c",
)


def is_done(folder: Path) -> bool:
    """Whether the stage whose folder this is has finished."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        IncompleteRun: the file is damaged; the remedy is to delete the folder.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        manifest["identity"], manifest["files"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        message = f"{folder / MANIFEST} is not a manifest ({error!r}); delete that folder and issue the command again"
        raise IncompleteRun(message) from None
    return manifest


def write_manifest(
    folder: Path, job: Job, command: list[str], machine: dict[str, Any], notes: dict[str, Any] | None = None
) -> None:
    """Declare a stage done. Its files' hashes are listed, so that a later change to one can be found.

    Args:
        folder, job, command: the stage's folder, and what it is of.
        machine: what it ran on.
        notes: what a reader of the result must know, e.g. which records were left out.
    """
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNLISTED and not path.name.endswith(".part")
    }
    manifest = {
        "identity": job.identity,
        "key": job.key,
        "configuration": dict(flatten(job.profile)),
        "files": files,
        "code": code_version(),
        "packages": package_versions(),
        "machine": machine,
        "command": command,
        **(notes or {}),
    }
    write_json(folder / MANIFEST, manifest)


@functools.cache
def code_version() -> dict[str, Any]:
    """Commit of the checkout and whether files differ from it; null where the package is not a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of what computes."""
    versions = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
