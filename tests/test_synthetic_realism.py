"""Claims: the synthetic corpus has the real labels' frequencies and is near genuine records; the figures are those of
the design, tolerances as docs/synthetic.md states them."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_corpus import SEED, SPEC, dequantised, small_labels, small_taxonomy

from replicate.data import calibration
from replicate.data.calibration import frame_statistics
from replicate.data.label_sets import combinations_of, count_combinations
from replicate.data.synthetic import DEAD_AUDIO, Generator
from replicate.taxonomy.tree import frequent_labels, load_yt8m, read_rows


@pytest.fixture(scope="module")
def taxonomy():
    return small_taxonomy()


@pytest.fixture(scope="module")
def labels():
    return small_labels()


@pytest.fixture(scope="module")
def videos(taxonomy, labels):
    """200 videos of full length: (labels, (frames, 1024) bytes, (frames, 128) bytes)."""
    generator = Generator(SEED, taxonomy, labels, 300)
    made = (generator.video(number) for number in range(200))
    return [(found, rgb, audio) for found, (rgb, audio) in made]


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


# --- frames -----------------------------------------------------------------------------------------------------------


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
