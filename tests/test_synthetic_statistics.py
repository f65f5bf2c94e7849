"""Claims: the statistics behind the synthetic corpus are those of literal computations; the committed ones are what
the genuine records give; `data info` holds a corpus beside them."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_corpus import SPEC, dequantised, small_corpus, small_taxonomy

from replicate.data import calibration
from replicate.data.calibration import frame_statistics, node_variances
from replicate.data.index import Index, build_index
from replicate.data.label_sets import as_csv, committed, count_combinations, read_label_sets
from replicate.data.spec import SPECS
from replicate.data.synthetic_statistics import describe, label_facts
from replicate.taxonomy.tree import load_audioset, load_yt8m

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


def test_describe_holds_the_corpus_beside_the_facts(tmp_path):
    index, taxonomy = small_corpus(tmp_path), small_taxonomy()
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
