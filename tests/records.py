"""Records for tests, built by TensorFlow: its messages, its serialisation, its file writer."""

from pathlib import Path

import numpy as np

from replicate.data.index import Index, build_index
from replicate.data.spec import DatasetSpec, Feature
from replicate.data.tensorflow_reader import tensorflow

TWO = DatasetSpec("two", "sequence", "id", "labels", (Feature("rgb", 5), Feature("audio", 2)), "uint8", 6, 10)
"""A small dataset of YouTube-8M's shape: two modalities, at most 6 frames, labels 0..9."""


def feature(values):
    """A tf.train.Feature: of bytes, of floats or of integers, as the values are; None gives one of no kind."""
    tf = tensorflow()
    if values is None:
        return tf.train.Feature()
    if any(isinstance(value, bytes) for value in values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if any(isinstance(value, float) for value in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def sequence(context: dict, lists: dict) -> bytes:
    """A serialised SequenceExample; a list is one value list per frame."""
    tf = tensorflow()
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={key: feature(values) for key, values in context.items()}),
        feature_lists=tf.train.FeatureLists(
            feature_list={
                key: tf.train.FeatureList(feature=[feature(values) for values in frames])
                for key, frames in lists.items()
            }
        ),
    ).SerializeToString(deterministic=True)


def video(name: str, labels=(1,), frames: int = 3, spec: DatasetSpec = TWO, seed: int = 0, **context) -> bytes:
    """A well-formed record of a dataset with random frames."""
    generator = np.random.default_rng([seed, frames, *name.encode()])
    lists = {
        each.key: [[generator.bytes(each.width)] for _ in range(frames)] for each in spec.features
    }  # fmt: skip
    return sequence({spec.id_key: [name.encode()], spec.label_key: list(labels), **context}, lists)


def write(path: Path, payloads: list[bytes]) -> Path:
    """A TFRecord file."""
    tf = tensorflow()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
    return path


def indexed(folder: Path) -> Index:
    """Twelve videos v00 to v11 of 1 to 6 frames in the shards s0, s1 and s2 under `folder`/data, and their index."""
    names = [f"s{shard}.tfrecord" for shard in range(3)]
    for shard, name in enumerate(names):
        numbers = range(4 * shard, 4 * shard + 4)
        write(folder / "data" / name, [video(f"v{n:02d}", frames=n % 6 + 1) for n in numbers])
    build_index(TWO, folder / "data", names, folder / "index")
    return Index.open(folder / "index", folder / "data")


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Invert one bit of a file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)
