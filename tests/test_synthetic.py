"""The synthetic corpus: its format, that it is a pure function of its seed, and how near it is to genuine records."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replicate.data import calibration
from replicate.data.calibration import frame_statistics, node_variances
from replicate.data.index import Index, build_index, find_shards
from replicate.data.label_sets import as_csv, combinations_of, committed, count_combinations, read_label_sets
from replicate.data.spec import SPECS
from replicate.data.synthetic import DEAD_AUDIO, Generator, quantise, synthesize
from replicate.data.synthetic_statistics import describe, label_facts
from replicate.errors import ConfigurationError
from replicate.taxonomy.tree import frequent_labels, load_audioset, load_yt8m, read_rows

SPEC = SPECS["yt8m"]
SEED = 7


@pytest.fixture(scope="module")
def taxonomy():
    return load_yt8m().restrict(frequent_labels(80))


@pytest.fixture(scope="module")
def labels():
    return frequent_labels(80)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, taxonomy, labels):
    """A small corpus on disk, its index and its folder."""
    folder = tmp_path_factory.mktemp("corpus")
    synthesize(folder, SEED, 60, 3, taxonomy, labels, 16)
    build_index(SPEC, folder, find_shards(folder, ["*.tfrecord"]), folder / "index")
    return Index.open(folder / "index", folder), folder


@pytest.fixture(scope="module")
def videos(taxonomy, labels):
    """200 videos of full length: (labels, (frames, 1024) bytes, (frames, 128) bytes)."""
    generator = Generator(SEED, taxonomy, labels, 300)
    made = (generator.video(number) for number in range(200))
    return [(found, rgb, audio) for found, (rgb, audio) in made]


def dequantised(raw):
    return raw.astype(np.float64) * 4 / 255 + 4 / 512 - 2


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


# --- labels -----------------------------------------------------------------------------------------------------------


def test_label_frequencies_are_the_real_ones(labels):
    sets, shares = combinations_of(labels)
    drawn = np.zeros(3862)
    for members, share in zip(sets, shares, strict=True):
        drawn[members] += share
    rows = read_rows(Path(calibration.__file__).parents[2] / "taxonomy_data" / "label_statistics.csv", ("videos",))
    real = np.array([int(row["videos"]) for row in rows], float)
    ratio = drawn[labels] / real[labels]
    assert shares.sum() == pytest.approx(1)
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.04
    assert drawn.sum() == pytest.approx(drawn[labels].sum())


def test_drawn_labels_follow_the_shares(taxonomy, labels):
    generator = Generator(SEED, taxonomy, labels, 1)
    drawn = [tuple(generator.video(number)[0]) for number in range(3000)]
    sets, shares = combinations_of(labels)
    for members, share in sorted(zip(map(tuple, sets), shares, strict=True), key=lambda item: -item[1])[:10]:
        assert abs(drawn.count(members) - 3000 * share) < 4.5 * np.sqrt(3000 * share * (1 - share))


def test_rare_combinations_lose_their_rarest_label_and_no_video_is_lost():
    sets = [np.array(each) for each in ([1, 2], [1, 2], [1, 2, 3], [1], [1, 4], [9])]
    assert count_combinations(sets, frequent=4, least=2) == {(1, 2): 3, (1,): 2}
    assert count_combinations(sets, frequent=5, least=2) == {(1, 2): 3, (1,): 2, (9,): 1}


@pytest.mark.parametrize("count", [1, 12, 200, 300])
def test_any_number_of_frequent_labels_will_do(count):
    labels = frequent_labels(count)
    found, rgb_audio = Generator(SEED, load_yt8m().restrict(labels), labels, 4).video(3)
    assert set(found.tolist()) <= set(labels)
    assert [array.shape[1] for array in rgb_audio] == [1024, 128]


# --- near genuine records: the figures are those of the design, tolerances as docs/synthetic.md states them -----------


def test_frames_look_like_a_genuine_video(videos):
    rgb = frame_statistics(SPEC, [rgb for _, rgb, _ in videos])
    audio = frame_statistics(SPEC, [audio for _, _, audio in videos])
    assert rgb["deviation"] == pytest.approx(1.0, abs=0.05)
    assert rgb["norm"] == pytest.approx(32, abs=1)
    assert rgb["clipped"] == pytest.approx(0.07, abs=0.015)
    assert audio["norm"] == pytest.approx(10.4, rel=0.15)
    assert [audio["cosine"][lag] for lag in "123"] == pytest.approx([0.58, 0.49, 0.44], abs=0.12)


def test_videos_as_changeable_as_the_genuine_one_have_its_coherence(videos):
    power = [np.mean(dequantised(rgb).mean(axis=0) ** 2) for _, rgb, _ in videos]
    akin = [rgb for (_, rgb, _), each in zip(videos, power, strict=True) if 0.05 < each < 0.09]  # the genuine one: .07
    assert len(akin) >= 15
    found = frame_statistics(SPEC, akin)
    cosine = [found["cosine"][lag] for lag in ("1", "2", "3", "5", "10", "20", "40")]
    assert cosine == pytest.approx([0.49, 0.36, 0.30, 0.23, 0.12, 0.06, 0.03], abs=0.06)
    steps = [found["step"][q] for q in ("5", "25", "50", "75", "95")]
    assert steps[:2] == pytest.approx([0.1, 1.4], abs=3)
    assert steps[2:] == pytest.approx([35.6, 43.7, 49.4], rel=0.2)


def test_means_vary_between_videos_as_in_genuine_records(videos):
    for column, variance, tolerance in ((1, 0.21, 0.04), (2, 0.47, 0.08)):
        means = np.stack([dequantised(video[column]).mean(axis=0) for video in videos])
        assert means.var(axis=0).mean() == pytest.approx(variance, abs=tolerance)


def test_lengths(videos):
    lengths = np.array([len(rgb) for _, rgb, _ in videos])
    assert lengths.min() >= 120
    assert lengths.max() == 300
    assert lengths.mean() == pytest.approx(218, abs=4.5 * lengths.std() / np.sqrt(len(lengths)))


def test_a_label_is_to_be_seen(taxonomy, labels):
    generator = Generator(SEED, taxonomy, labels, 40)
    node = taxonomy.label_nodes[0]
    look = generator.appearances[0].looks[node]
    have, lack = [], []
    for number in range(150):
        found, (rgb, _) = generator.video(number)
        (have if 0 in found else lack).append(dequantised(rgb).mean(axis=0) @ look / np.linalg.norm(look))
    error = np.hypot(np.std(have) / len(have) ** 0.5, np.std(lack) / len(lack) ** 0.5)
    assert np.mean(have) > np.mean(lack) + 4.5 * error


def test_kin_look_more_alike_than_strangers(taxonomy, labels):
    generator = Generator(SEED, taxonomy, labels, 16)
    looks, closure = generator.appearances[0].looks, taxonomy.closure
    shown = closure.astype(np.float32) @ looks
    unit = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    pairs = [(child, parents[0]) for child, parents in enumerate(taxonomy.parents) if parents]
    likeness, related = unit @ unit.T, (closure.astype(int) @ closure.astype(int).T).toarray() > 0
    assert np.mean([likeness[pair] for pair in pairs]) > 0.4
    assert abs(likeness[~related].mean()) < 0.05
    assert likeness[~related].max() < 0.5


def test_glitches_occur(videos):
    dead = sum(len(np.unique(audio[-5:], axis=0)) == 1 for _, _, audio in videos)
    black = sum((rgb == 127).all(axis=1).any() for _, rgb, _ in videos)
    expected = DEAD_AUDIO * len(videos)
    assert 1 <= dead <= expected + 4.5 * expected**0.5
    assert 1 <= black <= expected + 4.5 * expected**0.5


# --- the calibration itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [[0, 0, 1, 1, 2, 3, 3], [0, 0, 0, 1, 1, 1, 1]])
def test_node_variances_equal_the_fit_over_explicit_pairs(levels):
    random, levels = np.random.default_rng(5), np.array(levels)
    means = random.standard_normal((30, 6))
    positives = random.random((30, 7)) < 0.5
    design, target = [], []
    centred = means - means.mean(axis=0)
    for one in range(30):
        for other in range(one):
            shared = positives[one] & positives[other]
            design.append([1, *((shared & (levels == level)).sum() for level in range(4))])
            target.append(centred[one] @ centred[other] / 6)
    fit = np.linalg.lstsq(np.array(design, float), np.array(target), rcond=None)[0][1:]
    assert node_variances(means, positives, levels) == pytest.approx(np.maximum(fit, 0), abs=1e-9)


def test_frame_statistics_by_hand():
    raw = np.random.default_rng(3).integers(0, 256, (4, 128), dtype=np.uint8)
    values = dequantised(raw)
    found = frame_statistics(SPEC, [raw])
    unit = [row / np.linalg.norm(row) for row in values]
    assert found["cosine"] == pytest.approx(
        {"1": np.mean([unit[i] @ unit[i + 1] for i in range(3)]), "2": (unit[0] @ unit[2] + unit[1] @ unit[3]) / 2,
         "3": unit[0] @ unit[3]}, abs=1e-5)  # fmt: skip
    assert found["clipped"] == np.mean((raw == 0) | (raw == 255))
    assert found["norm"] == pytest.approx(np.mean([np.linalg.norm(row) for row in values]), rel=1e-5)


@pytest.mark.data
def test_committed_calibration_is_what_the_genuine_records_give(data_dir):
    made, kept = calibration.rounded(calibration.calibrate(data_dir, load_yt8m())), calibration.committed()

    def compare(one, other, where):
        if isinstance(one, dict):
            assert one.keys() == other.keys(), where
            for key in one:
                compare(one[key], other[key], f"{where}.{key}")
        elif isinstance(one, list):
            for number, pair in enumerate(zip(one, other, strict=True)):
                compare(*pair, f"{where}[{number}]")
        else:
            assert one == pytest.approx(other, rel=1e-3), where

    compare(made, kept, "calibration")
    video = made["frame_level"]["rgb"]  # and that is what the design says of it
    assert [round(video["cosine"][lag], 2) for lag in ("1", "2", "3", "5", "10", "20", "40")] == [
        0.49, 0.36, 0.30, 0.23, 0.12, 0.06, 0.03]  # fmt: skip
    assert [round(made["video_level"][name]["variance"], 2) for name in ("rgb", "audio")] == [0.21, 0.47]
    assert round(made["label_sets"]["labels_per_video"], 2) == 3.01


@pytest.mark.data
def test_committed_label_sets_are_what_the_genuine_ones_give(data_dir):
    sets = read_label_sets(data_dir / calibration.LABELS)
    path = Path(calibration.__file__).with_name("label_sets.csv")
    assert path.read_text() == as_csv(count_combinations(sets))
    assert sum(committed().values()) <= len(sets)


# --- data info --------------------------------------------------------------------------------------------------------


def test_describe_holds_the_corpus_beside_the_facts(corpus, taxonomy):
    index, _ = corpus
    rows = {statistic: (value, fact, source) for statistic, value, fact, source in describe(index, SPEC, taxonomy)}
    assert rows["videos"][0] == "60"
    assert float(rows["labels per video"][0]) == pytest.approx(len(index.label_values) / 60, abs=0.005)
    assert rows["rgb: cosine between frames at lag 1"][1] == "0.49"
    assert rows["audio: cosine between frames at lag 3"][1] == "0.44; 0.41"
    assert "rgb: cosine between frames at lag 20" not in rows  # no video of this corpus is so long
    facts, source = label_facts(taxonomy)
    assert "80 labels" in source
    assert f"{facts['nodes']:.2f}" == rows["nodes per video"][1]


@pytest.mark.data
def test_describe_of_the_genuine_video_says_what_the_design_says(data_dir, tmp_path):
    root = data_dir / "yt8m_frame"
    build_index(SPEC, root, ["genuine_SjJ3.tfrecord"], tmp_path / "index")
    rows = {row[0]: row[1] for row in describe(Index.open(tmp_path / "index", root), SPEC, load_yt8m())}
    cosines = [rows[f"rgb: cosine between frames at lag {lag}"] for lag in (1, 2, 3, 5, 10, 20, 40)]
    assert cosines == ["0.49", "0.36", "0.30", "0.23", "0.12", "0.06", "0.03"]
    assert rows["rgb: step between frames, 5/25/50/75/95 %"] == "0.1 1.4 35.6 43.7 49.4"
    assert rows["rgb: share of bytes clipped"] == "0.071"
    assert rows["audio: mean norm of a frame"] == "10.4"


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "shard"),
    [("yt8m-video", "yt8m_video/validate0000.tfrecord"), ("audioset", "audioset/eval.tfrecord")],
)
def test_describe_serves_every_dataset(data_dir, tmp_path, dataset, shard):
    spec, found = SPECS[dataset], [shard]
    build_index(spec, data_dir, found, tmp_path / "index")
    ontology = data_dir / "audioset"
    taxonomy = load_yt8m()
    if dataset == "audioset":
        taxonomy = load_audioset(ontology / "ontology.json", ontology / "class_labels_indices.csv")
    rows = describe(Index.open(tmp_path / "index", data_dir), spec, taxonomy)
    assert all(len(row) == 4 and all(isinstance(cell, str) for cell in row) for row in rows)
    assert any("variance of the video's mean" in row[0] for row in rows)


def test_label_facts_of_all_labels_are_those_of_the_design():
    facts, _ = label_facts(load_yt8m())
    assert facts["labels"] == pytest.approx(3.01, abs=0.005)
    assert [facts[f"level {level}"] for level in range(4)] == pytest.approx([1.0, 0.98, 0.72, 0.28], abs=0.05)


# --- bad arguments ----------------------------------------------------------------------------------------------------


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
