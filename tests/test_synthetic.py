"""Claims: the synthetic corpus has YouTube-8M's format and is a pure function of its seed; bad arguments are one
sentence; an interrupted corpus is gone on with."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_corpus import SEED, SPEC, dequantised, small_corpus, small_labels, small_taxonomy

from replicate.data.synthetic import Generator, quantise, synthesize
from replicate.errors import ConfigurationError


@pytest.fixture(scope="module")
def taxonomy():
    return small_taxonomy()


@pytest.fixture(scope="module")
def labels():
    return small_labels()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A small corpus on disk, its index and its folder."""
    folder = tmp_path_factory.mktemp("corpus")
    return small_corpus(folder), folder


def contents(folder):
    """Every record's bytes by video, whatever the shard; read by TensorFlow."""
    import tensorflow as tf

    found = {}
    for path in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)):
            example = tf.train.SequenceExample.FromString(record.numpy())
            found[example.context.feature["id"].bytes_list.value[0]] = hashlib.sha256(record.numpy()).hexdigest()
    return found


# --- format -----------------------------------------------------------------------------------------------------------


def test_tensorflow_reads_exactly_the_format_of_youtube_8m(corpus, labels):
    import tensorflow as tf

    _, folder = corpus
    names = [path.name for path in sorted(folder.glob("*.tfrecord"))]
    assert names == [f"synthetic-{shard:05d}-of-00003.tfrecord" for shard in range(3)]
    ids = []
    for record in tf.data.TFRecordDataset([str(folder / name) for name in names]):
        example = tf.train.SequenceExample.FromString(record.numpy())
        assert set(example.context.feature) == {"id", "labels"}
        assert set(example.feature_lists.feature_list) == {"rgb", "audio"}
        lists = example.feature_lists.feature_list
        assert len(lists["rgb"].feature) == len(lists["audio"].feature) <= 16
        assert {len(frame.bytes_list.value[0]) for frame in lists["rgb"].feature} == {1024}
        assert {len(frame.bytes_list.value[0]) for frame in lists["audio"].feature} == {128}
        found = list(example.context.feature["labels"].int64_list.value)
        assert found
        assert found == sorted(set(found))
        assert set(found) <= set(labels)
        ids += example.context.feature["id"].bytes_list.value
    assert len(set(ids)) == 60
    assert all(each.startswith(b"synthetic-") for each in ids)


def test_read_back_frames_are_the_generated_ones(corpus, taxonomy, labels):
    from replicate.data.batches import RecordSource

    index, _ = corpus
    generator = Generator(SEED, taxonomy, labels, 16)
    for row in (0, 31, 59):
        found, (rgb, audio) = generator.video(row)
        record = RecordSource(index, SPEC, 16, reader="tensorflow").record(row)
        assert record.id == f"synthetic-{row:07d}"
        assert record.labels.tolist() == found.tolist()
        assert np.array_equal(record.features[0], rgb)
        assert np.array_equal(record.features[1], audio)


def test_quantise_takes_the_nearest_byte_and_clips():
    codes = np.arange(256)
    for nudge in (-0.49, 0.0, 0.49):  # of a step
        assert np.array_equal(quantise((dequantised(codes) + nudge * 4 / 255).astype(np.float32)), codes)
    assert quantise(np.array([-9, 9], np.float32)).tolist() == [0, 255]


# --- a pure function of the seed --------------------------------------------------------------------------------------

OTHER_PROCESS = """
import sys
from pathlib import Path
from replicate.data.synthetic import synthesize
from replicate.taxonomy.tree import frequent_labels, load_yt8m
labels = frequent_labels(80)
synthesize(Path(sys.argv[1]), 7, 60, 3, load_yt8m().restrict(labels), labels, 16)
"""


def test_same_seed_same_bytes_in_another_process(corpus, tmp_path):
    _, folder = corpus
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(tmp_path)], check=True, cwd=Path(__file__).parents[1])
    for path in folder.glob("*.tfrecord"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_two_processes_write_the_same_bytes_and_say_how_far_they_are(corpus, tmp_path, taxonomy, labels):
    told = []
    synthesize(tmp_path, SEED, 60, 3, taxonomy, labels, 16, lambda *progress: told.append(progress), processes=2)
    assert contents(tmp_path) == contents(corpus[1])
    assert told == [(20, 60), (40, 60), (60, 60)]


def test_content_does_not_depend_on_the_number_of_shards_or_videos(corpus, tmp_path, taxonomy, labels):
    _, folder = corpus
    synthesize(tmp_path, SEED, 40, 7, taxonomy, labels, 16)
    whole, part = contents(folder), contents(tmp_path)
    assert len(part) == 40
    assert part.items() <= whole.items()


def test_another_seed_gives_other_frames_and_labels(taxonomy, labels):
    one, other = (Generator(seed, taxonomy, labels, 16) for seed in (SEED, SEED + 1))
    first, second = ([generator.video(number) for number in range(20)] for generator in (one, other))
    assert [found.tolist() for found, _ in first] != [found.tolist() for found, _ in second]
    assert not np.array_equal(one.appearances[0].looks, other.appearances[0].looks)


def test_global_random_state_is_untouched(taxonomy, labels):
    np.random.seed(1)  # the global state that nobody may use
    before = np.random.get_state()[1].copy()
    Generator(SEED, taxonomy, labels, 16).video(0)
    assert np.array_equal(before, np.random.get_state()[1])


# --- bad arguments and interruptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": -1}, "synthetic.seed = -1"),
        ({"videos": 0}, "synthetic.videos = 0"),
        ({"shards": 0}, "synthetic.shards = 0"),
        ({"shards": 9}, "synthetic.shards = 9 is more than synthetic.videos = 8"),
        ({"frame_limit": 0}, "dataset.frame_limit = 0"),
        ({"frame_limit": 301}, "set it to 1..300"),
        ({"labels": []}, "at least one label"),
        ({"labels": [0, 3861]}, "not of 3861"),
        ({"labels": list(range(90))}, "has no node"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, taxonomy, labels, change, sentence):
    arguments = {"seed": 1, "videos": 8, "shards": 2, "labels": labels, "frame_limit": 8} | change
    with pytest.raises(ConfigurationError, match="^[^\n]+$") as caught:
        synthesize(tmp_path, taxonomy=taxonomy, **arguments)
    assert sentence in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_another_corpus_in_the_folder_is_refused(corpus, taxonomy, labels):
    _, folder = corpus
    with pytest.raises(ConfigurationError, match="holds another synthetic corpus"):
        synthesize(folder, SEED + 1, 60, 3, taxonomy, labels, 16)


def test_an_interrupted_shard_leaves_nothing_and_the_next_run_goes_on(corpus, tmp_path, taxonomy, labels):
    _, folder = corpus

    def interrupt(done, total):
        if done >= 50:
            raise KeyboardInterrupt

    synthesized = (tmp_path, SEED, 60, 1, taxonomy, labels, 16)
    with pytest.raises(KeyboardInterrupt):
        synthesize(*synthesized, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.json"]
    synthesize(*synthesized)
    assert contents(tmp_path) == contents(folder)
