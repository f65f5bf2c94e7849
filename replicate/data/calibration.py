"""Statistics of genuine records, from which the synthetic corpus is made and beside which it is held.

`python -m replicate.data.calibration DATA_DIR` computes them all again and writes calibration.json and label_sets.csv.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from replicate.data.example import Record, parse
from replicate.data.label_sets import as_csv, count_combinations, read_label_sets
from replicate.data.spec import SPECS, DatasetSpec
from replicate.data.tfrecord import iterate_records
from replicate.record import read_json, write_json, write_text
from replicate.taxonomy.tree import Taxonomy, load_yt8m

LAGS = (1, 2, 3, 5, 10, 20, 40)  # frames
PERCENTILES = (5, 25, 50, 75, 95)
BANDS = {"rgb": (0, 3, 10, 30, 60, 100, 200, 300, 450, 600, 800, 1024), "audio": (0, 3, 10, 30, 60, 100, 128)}
SUPPORT = 30  # videos that a node needs to take part in the explained share
LABELS = Path("yt8m_labels", "labels_2018.parquet")
DEAD_AUDIO_FROM = 143  # frame of the genuine video


def committed() -> dict[str, Any]:
    """The statistics in calibration.json."""
    return read_json(Path(__file__).with_name("calibration.json"))


def frame_statistics(spec: DatasetSpec, quantised: list[np.ndarray]) -> dict[str, Any]:
    """What one modality's frames look like.

    Args:
        spec: gives the dequantisation.
        quantised: (frames, width) uint8 of each video.

    Returns:
        frames; mean `norm`; `deviation` (root mean square per dimension); share of bytes `clipped` to 0 or 255;
        `cosine` between frames at each of LAGS (text -> mean over pairs; left out where no video is long enough);
        PERCENTILES of the `step` distance between consecutive frames.
    """
    norms, squares, clipped, cosines, steps = [], [], [], {lag: [] for lag in LAGS}, []
    for raw in quantised:
        values = raw.astype(np.float32) * np.float32(spec.scale) + np.float32(spec.bias)
        norm = np.linalg.norm(values, axis=1)
        unit = values / np.maximum(norm, 1e-6)[:, None]
        norms.append(norm)
        squares.append(np.mean(values**2))
        clipped.append(np.mean((raw == 0) | (raw == 255)))
        steps.append(np.linalg.norm(np.diff(values, axis=0), axis=1))
        for lag in LAGS:
            cosines[lag].append(np.einsum("tw,tw->t", unit[lag:], unit[:-lag]))
    weights = [len(each) for each in norms]
    joined = {lag: np.concatenate(each) for lag, each in cosines.items()}
    step = np.concatenate(steps)
    return {
        "frames": int(sum(weights)),
        "norm": float(np.concatenate(norms).mean()),
        "deviation": float(np.sqrt(np.average(squares, weights=weights))),
        "clipped": float(np.average(clipped, weights=weights)),
        "cosine": {str(lag): float(each.mean()) for lag, each in joined.items() if len(each)},
        "step": {str(q): float(np.percentile(step, q)) for q in PERCENTILES} if len(step) else {},
    }


def mean_statistics(means: np.ndarray) -> dict[str, Any]:
    """Of videos' means (videos, width): variance per dimension over videos, norm of the global mean (without what
    sampling adds to it), and percentiles of a video's power, the mean square of its mean."""
    variance = means.var(axis=0, dtype=np.float64)
    square = np.square(means.mean(axis=0, dtype=np.float64)).sum() - variance.sum() / len(means)
    power = np.mean(means.astype(np.float64) ** 2, axis=1)
    return {
        "videos": len(means),
        "variance": float(variance.mean()),
        "global_norm": float(np.sqrt(max(0.0, square))),
        "power": {str(q): float(np.percentile(power, q)) for q in PERCENTILES},
    }


def node_variances(means: np.ndarray, positives: np.ndarray, levels: np.ndarray) -> list[float]:
    """Variance per dimension that a shared node of each level lends to videos' means.

    In the model "a video's mean is the sum of its nodes' directions and something of its own", the expected product of
    two different videos' means, per dimension, is the sum of these variances over the nodes that they share. This is
    the least-squares fit over all pairs of videos, without forming them: sums over pairs of products are squared norms
    of cross products.

    Args:
        means: (videos, width).
        positives: (videos, nodes) bool, ancestors included.
        levels: (nodes,) 0..3.
    """
    centred = means - means.mean(axis=0)
    parts = [np.ones((len(means), 1))] + [positives[:, levels == level].astype(np.float64) for level in range(4)]
    squares = [np.square(part).sum(axis=1) for part in parts]

    def over_pairs(one: np.ndarray, other: np.ndarray, own: np.ndarray) -> float:
        return float(np.square(one.T @ other).sum() - own.sum())

    both = list(zip(parts, squares, strict=True))
    gram = [[over_pairs(a, b, s * t) for b, t in both] for a, s in both]
    power = np.square(centred).sum(axis=1)
    target = [over_pairs(centred, part, power * square) for part, square in both]
    fit = np.linalg.lstsq(np.array(gram), np.array(target), rcond=None)[0]  # a level without nodes gets zero
    return [float(max(0.0, each)) for each in fit[1:] / means.shape[1]]


def spectrum(means: np.ndarray, positives: np.ndarray, edges: tuple[int, ...]) -> list[dict[str, float]]:
    """Bands of the principal directions of videos' means, strongest first: mean variance, and the share of it that the
    nodes explain (adjusted R squared of a linear model on the nodes with at least SUPPORT videos)."""
    centred = (means - means.mean(axis=0)).astype(np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    scores = centred @ directions[:, ::-1]
    used = positives[:, positives.sum(axis=0) >= SUPPORT]
    design = np.column_stack([np.ones(len(means)), used.astype(np.float64)])
    basis, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, singular > 1e-8 * singular[0]]
    total = np.square(scores).sum(axis=0)
    residual = total - np.square(basis.T @ scores).sum(axis=0)
    freedom = (len(means) - 1) / (len(means) - basis.shape[1])
    bands = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        explained = 1 - residual[first:end].sum() / total[first:end].sum() * freedom
        variance = total[first:end].mean() / (len(means) - 1)
        bands.append({"from": first, "to": end, "variance": float(variance), "explained": float(max(0.0, explained))})
    return bands


def calibrate(data_dir: Path, taxonomy: Taxonomy) -> dict[str, Any]:
    """All statistics of the genuine records under the data directory."""
    shards = sorted((data_dir / "yt8m_video").glob("*.tfrecord"))
    videos = [video for path in shards for video in _records("yt8m-video", path)]
    offsets = np.concatenate([[0], np.cumsum([len(video.labels) for video in videos])])
    positives = taxonomy.encode(offsets, np.concatenate([video.labels for video in videos]))
    result: dict[str, Any] = {"video_level": {}, "frame_level": {}}
    for number, (name, edges) in enumerate(BANDS.items()):
        means = np.concatenate([video.features[number] for video in videos])
        result["video_level"][name] = {
            **mean_statistics(means),
            "node_variance": node_variances(means, positives, taxonomy.levels),
            "bands": spectrum(means, positives, edges),
        }
    genuine = _records("yt8m", data_dir / "yt8m_frame" / "genuine_SjJ3.tfrecord")[0]
    rgb, audio = genuine.features
    result["frame_level"]["rgb"] = frame_statistics(SPECS["yt8m"], [rgb])
    result["frame_level"]["audio"] = frame_statistics(SPECS["yt8m"], [audio[:DEAD_AUDIO_FROM]])
    clips = [clip.features[0] for clip in _records("audioset", data_dir / "audioset" / "bal_train.tfrecord")]
    result["frame_level"]["audioset"] = frame_statistics(SPECS["audioset"], clips)
    result["label_sets"] = _label_statistics(read_label_sets(data_dir / LABELS), taxonomy)
    return result


def _label_statistics(sets: list[np.ndarray], taxonomy: Taxonomy) -> dict[str, Any]:
    counts = np.array([len(each) for each in sets])
    offsets, values = taxonomy.closed_nodes(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(sets))
    levels = taxonomy.levels[values]
    videos = np.repeat(np.arange(len(sets)), np.diff(offsets))
    return {
        "videos": len(sets),
        "labels_per_video": float(counts.mean()),
        "labels_per_video_deviation": float(counts.std()),
        "nodes_per_video": float(np.diff(offsets).mean()),
        "nodes_per_video_and_level": [float((levels == level).sum() / len(sets)) for level in range(4)],
        "share_with_level": [len(np.unique(videos[levels == level])) / len(sets) for level in range(4)],
    }


def _records(dataset: str, path: Path) -> list[Record]:
    return [parse(SPECS[dataset], payload) for _, payload in iterate_records(path)]


def rounded(value: Any) -> Any:
    """Floats to five significant digits: more would be noise, and would differ between machines."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(data_dir: Path, out: Path) -> None:
    """Write calibration.json and label_sets.csv."""
    write_json(out / "calibration.json", rounded(calibrate(data_dir, load_yt8m())))
    write_text(out / "label_sets.csv", as_csv(count_combinations(read_label_sets(data_dir / LABELS))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
