"""Videos per second of one thread, every CRC checked: our reader against tf.data on the same files.

    python -m benchmarks.reader [--file FILE.tfrecord --dataset yt8m]

Both give every record's id, labels and frames as uint8 arrays, in the order of the file, which the system holds in
memory; what they give is compared before anything is timed. tf.data reads with one parallel call and is given its
better way of two: parsing record by record, or many records at once. Without --file the records are of YouTube-8M's
frame-level format, of random content; with REPLICATE_DATA, AudioSet's clips are read too, for information: they are 1.5
kB each, and tf.data parses many of those at once as fast as Python handles them one by one.

Seconds are of this process's processor time, all its threads together, so that neither what else runs on the machine
nor a second processor plays a part. The best of some repeats counts, taken in turn. Exit code 1 if ours is not at least
three times as fast on the first file.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from replicate.data.example import parse
from replicate.data.spec import SPECS, DatasetSpec
from replicate.data.synthetic import sequence_example
from replicate.data.tensorflow_reader import tensorflow
from replicate.data.tfrecord import iterate_records

VIDEOS, SHORTEST, LONGEST = 1000, 120, 300  # about 245 MB
REPEATS, BLOCK, GATE, AIM = 5, 64, 3.0, 4.0
COPIED = 1 << 28  # bytes of the memory bandwidth's measurement, far more than a cache holds

Video = tuple[str, np.ndarray, list[np.ndarray]]


def ours(spec: DatasetSpec, path: Path) -> Iterator[Video]:
    """Id, labels and frames of every record, by our reader."""
    for _, payload in iterate_records(path):
        record = parse(spec, payload)
        yield record.id, record.labels, list(record.features)


def by_record(spec: DatasetSpec, path: Path) -> Iterator[Video]:
    """The same by tf.data: one record after the other, one parallel call."""
    tf = tensorflow()
    context = {spec.id_key: tf.io.FixedLenFeature([], tf.string), spec.label_key: tf.io.RaggedFeature(tf.int64)}
    lists = {feature.key: tf.io.FixedLenSequenceFeature([], tf.string) for feature in spec.features}

    def read(payload):
        values, frames = tf.io.parse_single_sequence_example(payload, context, lists)
        decoded = tuple(tf.io.decode_raw(frames[each.key], tf.uint8) for each in spec.features)
        return values[spec.id_key], values[spec.label_key], decoded

    for name, labels, decoded in tf.data.TFRecordDataset(str(path)).map(read, num_parallel_calls=1):
        yield name.numpy().decode(), labels.numpy(), [each.numpy() for each in decoded]


def by_block(spec: DatasetSpec, path: Path) -> Iterator[Video]:
    """The same by tf.data: many records at once, one parallel call; a video's frames are a slice of the block's."""
    tf = tensorflow()
    context = {spec.id_key: tf.io.FixedLenFeature([], tf.string), spec.label_key: tf.io.RaggedFeature(tf.int64)}
    lists = {each.key: tf.io.RaggedFeature(tf.string) for each in spec.features}

    def read(payloads):
        values, frames, _ = tf.io.parse_sequence_example(payloads, context, lists)
        labels, strings = values[spec.label_key], [frames[each.key] for each in spec.features]
        decoded = tuple(tf.io.decode_raw(each.flat_values, tf.uint8) for each in strings)
        bounds = tuple(each.row_splits for each in strings)
        return values[spec.id_key], labels.values, labels.row_splits, decoded, bounds

    for block in tf.data.TFRecordDataset(str(path)).batch(BLOCK).map(read, num_parallel_calls=1):
        ids, labels, label_bounds, decoded, bounds = tf.nest.map_structure(lambda tensor: tensor.numpy(), block)
        for row, name in enumerate(ids):
            frames = [values[at[row] : at[row + 1]] for values, at in zip(decoded, bounds, strict=True)]
            yield name.decode(), labels[label_bounds[row] : label_bounds[row + 1]], frames


READERS: dict[str, Callable[[DatasetSpec, Path], Iterator[Video]]] = {
    "ours": ours, "tf.data by record": by_record, "tf.data by block": by_block,
}  # fmt: skip


def write_random(path: Path, videos: int = VIDEOS, seed: int = 0) -> None:
    """Records of YouTube-8M's frame-level format, each with an id of its own under each seed."""
    tf, spec, generator = tensorflow(), SPECS["yt8m"], np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(seed * videos, (seed + 1) * videos):
            frames = int(generator.integers(SHORTEST, LONGEST + 1))
            labels = np.sort(generator.choice(spec.label_count, 3, replace=False))
            arrays = [generator.integers(0, 256, (frames, each.width), np.uint8) for each in spec.features]
            writer.write(sequence_example(tf, f"video{number:04d}", labels, arrays))


def compare(spec: DatasetSpec, path: Path) -> int:
    """Make sure that all readers give the same; the number of videos."""
    count = 0
    for video, *others in zip(*(reader(spec, path) for reader in READERS.values()), strict=True):
        for other in others:
            same = video[0] == other[0] and np.array_equal(video[1], other[1])
            if not same or any(not np.array_equal(a, b) for a, b in zip(video[2], other[2], strict=True)):
                raise SystemExit(f"the readers differ at video {count} of {path}")
        count += 1
    return count


def best_seconds(actions: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The shortest of some repeats, taken in turn so that all meet the same machine."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(REPEATS):
        for name, action in actions.items():
            started = time.process_time()
            action()
            best[name] = min(best[name], time.process_time() - started)
    return best


def measure(title: str, spec: DatasetSpec, path: Path) -> float:
    """Print what each reader does in a second; how many times ours is as fast as the better way of tf.data."""
    videos, size = compare(spec, path), path.stat().st_size
    source, target = np.ones(COPIED, np.uint8), np.ones(COPIED, np.uint8)

    def exhaust(reader: Callable[[DatasetSpec, Path], Iterator[Video]]) -> Callable[[], None]:
        def run() -> None:
            for _ in reader(spec, path):
                pass

        return run

    actions = {name: exhaust(reader) for name, reader in READERS.items()}
    seconds = best_seconds({**actions, "copy": lambda: np.copyto(target, source)})
    bandwidth = COPIED / seconds.pop("copy")
    print(f"{title}: {videos:,} videos, {size / 1e6:.0f} MB; copying memory: {bandwidth / 1e9:.1f} GB/s")
    for name, each in seconds.items():
        share = size / each / bandwidth
        print(f"  {name:<18} {videos / each:9,.0f} videos/s  {size / each / 1e9:6.2f} GB/s  {share:5.0%} of copying")
    ratio = min(seconds["tf.data by record"], seconds["tf.data by block"]) / seconds["ours"]
    print(f"  ratio {ratio:.1f}")
    return ratio


def main() -> None:
    """Measure all files that are there."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--file", type=Path, help="read this file instead of random records")
    options.add_argument("--dataset", choices=["yt8m", "audioset"], default="yt8m", help="its format")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.file:
            ratio = measure(given.file.name, SPECS[given.dataset], given.file)
        else:
            write_random(Path(folder) / "random.tfrecord")
            ratio = measure("YouTube-8M's format", SPECS["yt8m"], Path(folder) / "random.tfrecord")
            clips = Path(os.environ.get("REPLICATE_DATA", folder)) / "audioset" / "eval.tfrecord"
            if clips.is_file():
                measure("AudioSet, evaluation clips", SPECS["audioset"], clips)
    print(f"ratio of the first file: {ratio:.1f} (gate {GATE:.0f}, aim {AIM:.0f})")
    sys.exit(ratio < GATE)


if __name__ == "__main__":
    main()
