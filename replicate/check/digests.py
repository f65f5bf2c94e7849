"""The first layer of the golden reference: digests of what must be the same everywhere, to the last bit.

They are taken of a fixed corpus of 64 small videos in YouTube-8M's format, which is committed beside them, of splits
and orders, and of the first records of genuine files where those are at hand. Nothing here is trained.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replicate.check.cells import Cell
from replicate.data.batches import RecordSource, batches, epoch_order
from replicate.data.example import parse
from replicate.data.index import Index, build_index
from replicate.data.labels import LabelStore
from replicate.data.messages import SequenceExample
from replicate.data.spec import BIAS, SCALE, SPECS, DatasetSpec, Feature
from replicate.data.splits import Split, make_split
from replicate.data.tfrecord import RecordError, frame, iterate_records
from replicate.errors import DataError, MissingResult
from replicate.record import read_json, write_bytes, write_json
from replicate.taxonomy.tree import Taxonomy

DIGESTS, CORPUS = "digests.json", "corpus.tfrecord"
VIDEOS, LONGEST, FRAME_LIMIT, BATCH = 64, 20, 16, 16
# Twelve nodes in four levels; a video's labels are its nodes, ancestors included.
PARENTS = (-1, -1, 0, 0, 1, 2, 2, 3, 4, 5, 6, 8)
LEVELS = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
SPEC = DatasetSpec(
    "golden", "sequence", "id", "labels", (Feature("rgb", 24), Feature("audio", 8)), "uint8", LONGEST, len(PARENTS),
    SCALE, BIAS,
)  # fmt: skip
# Genuine files under the data directory, and the format of each; the first RECORDS of a file are read.
REAL = {
    "yt8m_frame/genuine_SjJ3.tfrecord": "yt8m",
    "yt8m_frame/extractor_fixture_0.tfrecord": "yt8m",
    "yt8m_video/validate0000.tfrecord": "yt8m-video",
    "audioset/bal_train.tfrecord": "audioset",
    "audioset/eval.tfrecord": "audioset",
}
RECORDS = 8


@dataclass(frozen=True)
class FixedCorpus:
    """The opened fixed corpus."""

    index: Index
    source: RecordSource
    labels: LabelStore

    @property
    def rows(self) -> np.ndarray:
        """All rows of the index."""
        return np.arange(self.index.count)


@contextmanager
def fixed_corpus(folder: Path, frame_limit: int = FRAME_LIMIT) -> Iterator[FixedCorpus]:
    """Open the fixed corpus that lies in a reference folder, through the index and the reader.

    Raises:
        MissingResult: it is not there.
        DataError: a record is damaged.
    """
    if not (folder / CORPUS).is_file():
        raise MissingResult(f"{folder / CORPUS} is missing; restore it, or name the reference's folder by --golden")
    with tempfile.TemporaryDirectory(prefix="golden.") as out:
        build_index(SPEC, folder, [CORPUS], Path(out))
        index = Index.open(Path(out), folder)
        labels = LabelStore(index.label_offsets, index.label_values, len(PARENTS))
        yield FixedCorpus(index, RecordSource(index, SPEC, frame_limit), labels)


def write_corpus(folder: Path) -> None:
    """Make the fixed corpus: each node is a direction in feature space, seen in about half of a video's frames."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([0x601D])))
    looks = random.standard_normal((len(PARENTS), SPEC.width))
    payloads = []
    for number in range(VIDEOS):
        nodes = _with_ancestors(random.choice(len(PARENTS), size=random.integers(1, 3), replace=False))
        frames = int(random.integers(4, LONGEST + 1))
        shown = np.repeat(random.random((LONGEST, len(nodes))) < 0.5, 3, axis=0)[:frames]  # scenes of three frames
        values = shown @ looks[nodes] * 0.5 + random.standard_normal((frames, SPEC.width)) * 0.6
        quantised = np.clip(np.rint((values - BIAS) / SCALE), 0, 255).astype(np.uint8)
        payloads.append(_payload(f"golden-{number:02d}", nodes, quantised))
    write_bytes(folder / CORPUS, b"".join(map(frame, payloads)))


def _with_ancestors(nodes: np.ndarray) -> list[int]:
    closed = set()
    for node in nodes.tolist():
        while node >= 0:
            closed.add(node)
            node = PARENTS[node]
    return sorted(closed)


def _payload(video: str, nodes: list[int], frames: np.ndarray) -> bytes:
    message, column = SequenceExample(), 0
    message.context.feature[SPEC.id_key].bytes_list.value.append(video.encode())
    message.context.feature[SPEC.label_key].int64_list.value.extend(nodes)
    for modality in SPEC.features:
        values = frames[:, column : column + modality.width]
        column += modality.width
        for each in values:
            message.feature_lists.feature_list[modality.key].feature.add().bytes_list.value.append(each.tobytes())
    return message.SerializeToString(deterministic=True)


def digest_arrays(*arrays: np.ndarray) -> str:
    """SHA-256 (hex) of arrays' types, shapes and values."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.str} {array.shape};".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


def compute_digests(folder: Path) -> dict[str, str]:
    """Name -> digest of everything that needs no genuine data."""
    with fixed_corpus(folder) as corpus:
        digests = _corpus_digests(corpus)
    ids = np.array([f"video-{number:04d}".encode() for number in range(1000)])
    training = np.arange(0, 1000, 3)
    splits = {
        "split by counts, disjoint draws": make_split(ids, 7, 600, 100, "rest", 5, 50),
        "split by shares, overlapping draws": make_split(ids, 7, 0.6, 0.1, "rest", 5, 0.4),
        "split of divided material": make_split(ids, 7, "rest", 100, 0.5, 2, 100, training_rows=training),
    }
    digests |= {name: _split_digest(split) for name, split in splits.items()}
    orders = [epoch_order(np.arange(1000), seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    return digests | {
        "order of two epochs under two seeds": digest_arrays(*orders),
        "nodes of labels, ancestors included, and levels": _tree_digest(),
    }


def _tree_digest() -> str:
    """Every node of the fixed tree as a label of its own; the last one has a second parent."""
    parents = [() if parent < 0 else (parent,) for parent in PARENTS]
    parents[-1] += (PARENTS.index(-1),)
    tree = Taxonomy(tuple(f"node {node}" for node in range(len(PARENTS))), tuple(parents), np.arange(len(PARENTS)))
    offsets, nodes = tree.closed_nodes(np.arange(len(PARENTS) + 1), np.arange(len(PARENTS)))
    return digest_arrays(offsets, nodes, tree.levels)


def _corpus_digests(corpus: FixedCorpus) -> dict[str, str]:
    everything = corpus.source.read(corpus.rows)
    parts = batches(corpus.source, corpus.labels, epoch_order(corpus.rows, 0, 1), BATCH)
    batched = [array for batch in parts for array in (batch.rows, batch.lengths, batch.features, batch.labels)]
    return {
        "ids, labels and lengths of the fixed records": digest_arrays(
            corpus.index.ids, corpus.index.frames, corpus.labels.encode(corpus.rows)
        ),
        "decoded frames of the fixed records": digest_arrays(*everything),
        "batches of an epoch": digest_arrays(*batched),
    }


def _split_digest(split: Split) -> str:
    return digest_arrays(split.train, split.tune, split.pool, split.draws)


def real_digests(data_dir: Path) -> dict[str, str]:
    """File -> digest of its first records, of those genuine files that the data directory holds.

    Raises:
        DataError: a record cannot be read.
    """
    return {name: _real_digest(data_dir / name, SPECS[REAL[name]]) for name in REAL if (data_dir / name).is_file()}


def _real_digest(path: Path, spec: DatasetSpec) -> str:
    arrays: list[np.ndarray] = []
    for number, (_, payload) in enumerate(iterate_records(path)):
        if number == RECORDS:
            break
        if isinstance(payload, RecordError):
            raise payload
        record = parse(spec, payload)
        arrays += [np.frombuffer(record.id.encode(), np.uint8), record.labels, *record.features]
    return digest_arrays(*arrays)


def check_digests(folder: Path, data_dir: Path | None) -> list[Cell]:
    """The cells of this layer.

    Args:
        folder: of the reference.
        data_dir: where genuine files are; those that are not there are not checked.
    """
    try:
        reference = read_layer(folder / DIGESTS, ("fixed", "real"), REMEDY)
    except MissingResult as error:
        return [Cell("digests", "reference", "missing", reason=str(error))]
    cells = _compared(reference["fixed"], lambda: compute_digests(folder), required=True)
    return cells + _compared(reference["real"], lambda: real_digests(data_dir) if data_dir else {}, required=False)


REMOVE = "restore it, or remove it and with it the reasons that it holds"
REMEDY = "restore it, or make it with `replicate check --update-golden --layer digests --reason '...'`"


def read_layer(path: Path, keys: tuple[str, ...], remedy: str) -> dict[str, Any]:
    """A layer's JSON file.

    Raises:
        MissingResult: it is not there, or is not an object with these keys.
    """
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingResult(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise MissingResult(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise MissingResult(f"{path} is damaged ({error}); {remedy}") from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise MissingResult(f"{path} is damaged (it has no {missing[0]!r}); {remedy}")
    return found


def _compared(expected: dict[str, str], compute: Callable[[], dict[str, str]], required: bool) -> list[Cell]:
    try:
        found = compute()
    except (DataError, MissingResult) as error:
        state = "missing" if isinstance(error, MissingResult) else "outside"
        return [Cell("digests", "reading", state, reason=str(error))]
    cells = []
    for name, digest in expected.items():
        if name not in found:
            state, reason = ("missing", "not computed") if required else ("not checked", "no --data-dir holds it")
        else:
            state = "inside" if found[name] == digest else "outside"
            reason = "" if state == "inside" else f"these bytes changed; if that is meant, {REMEDY.split(', or ')[1]}"
        cells.append(Cell("digests", name, state, found.get(name, "")[:12], digest[:12], reason))
    return cells


def update_digests(folder: Path, data_dir: Path | None, reason: str) -> None:
    """Write this layer from what the present code computes; the digests of genuine files that are not here stay."""
    if not (folder / CORPUS).is_file():
        write_corpus(folder)
    path = folder / DIGESTS
    before = read_layer(path, ("real", "reasons"), REMOVE) if path.exists() else {"real": {}, "reasons": []}
    real = before["real"] | (real_digests(data_dir) if data_dir else {})
    reasons = [*before["reasons"], reason]
    write_json(path, {"fixed": compute_digests(folder), "real": real, "reasons": reasons})
