"""Claim: on the real files, our reader equals TensorFlow's byte for byte: ids, labels, lengths and frames of the
genuine YouTube-8M video, of the two extractor fixtures, of all AudioSet clips and of all video-level records."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from replicate.data.example import FormatError, Record, _parse_strided, parse
from replicate.data.spec import SPECS, DatasetSpec
from replicate.data.tensorflow_reader import parse as parse_with_tensorflow
from replicate.data.tensorflow_reader import tensorflow
from replicate.data.tfrecord import iterate_records

pytestmark = pytest.mark.data
BATCH = 4096


def read_by_tensorflow(spec: DatasetSpec, path: Path) -> Iterator[tuple[str, list[int], list[np.ndarray]]]:
    """Id, labels and frames of every record: TensorFlow's file reader, its parser of many records at once."""
    tf = tensorflow()
    context = {spec.id_key: tf.io.FixedLenFeature([], tf.string), spec.label_key: tf.io.RaggedFeature(tf.int64)}
    for block in tf.data.TFRecordDataset(str(path)).batch(BATCH):
        if spec.layout == "example":
            vectors = {feature.key: tf.io.FixedLenFeature([feature.width], tf.float32) for feature in spec.features}
            values = tf.io.parse_example(block, context | vectors)
            columns = [values[feature.key].numpy()[:, None] for feature in spec.features]
        else:
            lists = {feature.key: tf.io.RaggedFeature(tf.string) for feature in spec.features}
            values, frames, _ = tf.io.parse_sequence_example(block, context, lists)
            columns = [decoded(tf, frames[feature.key]) for feature in spec.features]
        ids, labels = values[spec.id_key].numpy(), values[spec.label_key]
        bounds, flat = labels.row_splits.numpy(), labels.values.numpy()
        for row, name in enumerate(ids):
            yield name.decode(), flat[bounds[row] : bounds[row + 1]].tolist(), [column[row] for column in columns]


def decoded(tf, frames) -> list[np.ndarray]:
    """Per record a (frames, width) array, out of ragged (record, frame, value) byte strings."""
    values = tf.io.decode_raw(frames.flat_values, tf.uint8).numpy()
    bounds = frames.values.row_splits.numpy()[frames.row_splits.numpy()]
    return [values[begin:end] for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]


def compare(spec: DatasetSpec, path: Path) -> int:
    """Hold every record of a file against TensorFlow's reading; how many there were."""
    count = 0
    ours = (parse(spec, payload) for _, payload in iterate_records(path))
    for record, (name, labels, frames) in zip(ours, read_by_tensorflow(spec, path), strict=True):
        assert record.id == name
        assert record.labels.tolist() == labels
        for mine, theirs in zip(record.features, frames, strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            assert mine.tobytes() == theirs.tobytes(), (path, count)
        count += 1
    return count


@pytest.mark.parametrize(("name", "clips"), [("bal_train", 22_160), ("eval", 20_371)])
def test_all_audioset_clips(data_dir, name, clips):
    assert compare(SPECS["audioset"], data_dir / "audioset" / f"{name}.tfrecord") == clips


def test_all_video_level_records(data_dir):
    paths = sorted((data_dir / "yt8m_video").glob("*.tfrecord"))
    assert len(paths) == 40
    assert sum(compare(SPECS["yt8m-video"], path) for path in paths) == 11_790


FRAME_LEVEL = [("genuine_SjJ3", 170), ("extractor_fixture_0", 184), ("extractor_fixture_1", 141)]


@pytest.mark.parametrize(("name", "frames"), FRAME_LEVEL)
def test_youtube_8m_frame_level_records(data_dir, name, frames):
    path = data_dir / "yt8m_frame" / f"{name}.tfrecord"
    assert compare(SPECS["yt8m"], path) == 1
    [(_, payload)] = iterate_records(path)
    for strided in (True, False):
        assert same(parse(SPECS["yt8m"], payload, strided), parse_with_tensorflow(SPECS["yt8m"], payload))
    assert parse(SPECS["yt8m"], payload).frames == frames


def same(one: Record, other: Record) -> bool:
    arrays = zip((one.labels, *one.features), (other.labels, *other.features), strict=True)
    return one.id == other.id and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


def test_the_genuine_video_is_what_is_known_of_it(data_dir):
    [(_, payload)] = iterate_records(data_dir / "yt8m_frame" / "genuine_SjJ3.tfrecord")
    record = parse(SPECS["yt8m"], payload)
    assert (record.id, record.labels.tolist()) == ("SjJ3", [11])
    audio = record.features[1]
    assert (audio[143:] == audio[143]).all() and (audio[142] != audio[143]).any()


def test_real_records_take_the_fast_path(data_dir):
    files = [("audioset", "audioset/eval"), *(("yt8m", f"yt8m_frame/{name}") for name, _ in FRAME_LEVEL)]
    for spec, name in files:
        for _, payload in iterate_records(data_dir / f"{name}.tfrecord"):
            assert _parse_strided(SPECS[spec], payload) is not None


def test_a_file_of_another_dataset_is_refused(data_dir):
    [(_, payload)] = iterate_records(data_dir / "yt8m_frame" / "genuine_SjJ3.tfrecord")
    with pytest.raises(FormatError, match=r"has no id \(key 'video_id'\)"):
        parse(SPECS["audioset"], payload)
