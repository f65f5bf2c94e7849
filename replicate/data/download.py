"""Get YouTube-8M's shards and AudioSet's features from where their makers publish them, into the folders that the
profiles read.

YouTube-8M is served by a plan, a JSON file with the MD5 of every shard, and three mirrors; a sample "shard X of Y"
keeps the files whose name's MD5 falls into it, so that the same X and Y are the same files everywhere. Frame-level
shards go to `frame/<part>/`, video-level ones to `yt8m_video/`. AudioSet is one archive, of which the two small parts
are kept, each joined into one TFRecord file, and two lists of its classes.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import filelock

from replicate.data.archive import hostile_path, unpack
from replicate.data.parallel_transfer import Ledger, Outcome, existing, fetch_all
from replicate.data.transfer import Remote
from replicate.data.web import Client, UnavailableError
from replicate.errors import ConfigurationError, DataError
from replicate.progress import Listener

# Part of YouTube-8M -> folder under the data directory. The unlabelled test parts lie apart: no profile reads them.
FOLDERS = {
    "frame/train": "frame/train",
    "frame/validate": "frame/validate",
    "frame/test": "frame/test",
    "video/train": "yt8m_video",
    "video/validate": "yt8m_video",
    "video/test": "yt8m_video_test",
}
FILES_PER_PART = 3844  # of the release of 2018, train and validate
AUDIOSET_PARTS = ("bal_train", "eval")
_UNPACKED = 300_000_000  # bytes that joining AudioSet's parts needs for a while: both, twice, and room to spare
_PLAN_LIMIT = 1 << 24  # bytes; the genuine plans have 0.23 MB
_NAME = re.compile(r"[A-Za-z0-9_-]+\.tfrecord")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Sources:
    """Addresses, with places for the mirror, level ("frame" or "video"), part and name."""

    plan: str = "http://data.yt8m.org/2/download_plans/{level}_{part}.json"
    shard: str = "http://{mirror}.data.yt8m.org/2/{level}/{part}/{name}"
    archive: str = "http://storage.googleapis.com/{mirror}_audioset/youtube_corpus/v1/features/features.tar.gz"
    classes: str = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"
    ontology: str = "https://raw.githubusercontent.com/audioset/ontology/master/ontology.json"


OFFICIAL = Sources()


@dataclass(frozen=True)
class Result:
    """What a download left: its folder, files of the plan, files chosen of them, and what was done for those."""

    folder: Path
    planned: int
    chosen: int
    outcome: Outcome


def download_yt8m(
    root: Path,
    part: str,
    shard: tuple[int, int],
    mirror: str,
    parallel: int,
    listener: Listener,
    client: Client,
    sources: Sources = OFFICIAL,
) -> Result:
    """Fetch a part of YouTube-8M, or a sample of it.

    Args:
        root: the data directory.
        part: a key of FOLDERS.
        shard: (X, Y): the X-th of Y samples, X from 1.
        mirror: us, eu or asia.
        parallel: transfers at the same time.
        listener: told how far it is.
        client: how to ask.
        sources: where to ask.

    Raises:
        ConfigurationError: there is no such shard.
        UnavailableError: the plan is not there, is no plan, or names a hostile file; nothing is written then.
        DataError, IncompleteRun: as fetch_all.
    """
    number, of = shard
    if not 1 <= number <= of:
        raise ConfigurationError(f"--shard {number},{of}: give X,Y with X from 1 to Y, e.g. 1,100")
    level, name = part.split("/")
    url = sources.plan.format(level=level, part=name)
    plan = read_plan(client.text(url, _PLAN_LIMIT), url)
    chosen = sample(plan, number, of)
    if not chosen:
        raise ConfigurationError(f"--shard {number},{of}: holds none of the {len(plan)} files; give a smaller Y")
    folder = root / FOLDERS[part]
    _refuse_equal_names(chosen, folder)
    remotes = [
        Remote(sources.shard.format(mirror=mirror, level=level, part=name, name=file), folder / file, plan[file])
        for file in chosen
    ]
    return Result(folder, len(plan), len(chosen), fetch_all(remotes, client, parallel, part, listener))


def read_plan(text: str, url: str) -> dict[str, str]:
    """Name -> MD5 of every file of a plan; every name is a harmless TFRecord file's.

    Raises:
        UnavailableError: it is no plan, or a hostile one.
    """
    try:
        files = json.loads(text)["files"]
        items = list(files.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnavailableError(
            f'{url}: is no plan of the form {{"files": {{name: MD5}}}}; nothing was written'
        ) from None
    for name, md5 in items:
        why = hostile_path(name)
        why = why or ("contains a slash" if "/" in name else "" if _NAME.fullmatch(name) else "is no TFRecord file's")
        if why:
            raise UnavailableError(f"{url}: hostile plan: the name {name!r} {why}; nothing was written")
        if not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise UnavailableError(f"{url}: the plan's MD5 of {name} is {md5!r}, which is none; nothing was written")
    if not items:
        raise UnavailableError(f"{url}: the plan lists no files")
    return files


def sample(names: Iterable[str], number: int, of: int) -> list[str]:
    """The names in the `number`-th (from 1) of `of` samples, sorted: the official rule, by the MD5 of the name."""
    return sorted(name for name in names if int(hashlib.md5(name.encode()).hexdigest(), 16) % of == number - 1)


def _refuse_equal_names(names: list[str], folder: Path) -> None:
    """Names in the plans differ by case alone; where the disk ignores case they would overwrite one another."""
    twins: dict[str, list[str]] = {}
    for name in names:
        twins.setdefault(name.casefold(), []).append(name)
    pair = next((pair for pair in twins.values() if len(pair) > 1), None)
    if pair and ignores_case(existing(folder)):
        raise DataError(f"{folder}: this disk takes {pair[0]} and {pair[1]} for one file; use one that minds case")


def ignores_case(folder: Path) -> bool:
    """Whether the disk takes names that differ by case for one."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".Case", dir=folder) as file:
            path = Path(file.name)
            return path.with_name(path.name.swapcase()).exists()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to: {error.strerror}") from None


def download_audioset(
    root: Path, mirror: str, listener: Listener, client: Client, sources: Sources = OFFICIAL
) -> Result:
    """Fetch AudioSet's frame features and classes, as the audioset profile reads them.

    Args:
        root: the data directory; files go to `root`/audioset.
        mirror: us, eu or asia.
        listener, client, sources: as in download_yt8m.

    Raises:
        DataError: a file is there already and differs, the archive is damaged or hostile, or the classes make no sense.
        DataError, IncompleteRun: as fetch_all.
    """
    folder = root / "audioset"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".download.lock", timeout=0):
            return _download_audioset(folder, mirror, listener, client, sources)
    except filelock.Timeout:
        raise DataError(f"{folder}: another process is fetching AudioSet into it; wait for it, or end it") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to: {error.strerror}") from None


def _download_audioset(folder: Path, mirror: str, listener: Listener, client: Client, sources: Sources) -> Result:
    from replicate.taxonomy.tree import load_audioset

    archive = Remote(sources.archive.format(mirror=mirror), folder / "features.tar.gz", encoding="gzip")
    ontology = Remote(sources.ontology, folder / "ontology.json")
    classes = Remote(sources.classes, folder / "class_labels_indices.csv")
    missing = tuple(part for part in AUDIOSET_PARTS if not (folder / f"{part}.tfrecord").exists())
    ledger = Ledger(folder)
    notes = [ledger.confirm(Remote("", folder / f"{part}.tfrecord")) for part in AUDIOSET_PARTS if part not in missing]
    remotes = [ontology, classes, *[archive] * bool(missing)]
    outcome = fetch_all(remotes, client, len(remotes), "audioset", listener, _UNPACKED * bool(missing))
    try:
        load_audioset(ontology.path, classes.path)
    except DataError as error:
        raise DataError(f"{error}; delete both files and issue the same command again") from None
    if missing:
        unpack(archive.path, folder, missing)
        for part in missing:
            path = folder / f"{part}.tfrecord"
            with open(path, "rb") as file:
                ledger.add(path, hashlib.file_digest(file, "md5").hexdigest())
        archive.path.unlink()
    outcome.notes += [note for note in notes if note]
    return Result(folder, len(remotes), len(remotes), outcome)
