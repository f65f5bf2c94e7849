"""How a corpus's statistics compare with those of genuine records."""

import numpy as np

from replicate.data import calibration
from replicate.data.batches import RecordSource
from replicate.data.calibration import LAGS, PERCENTILES, frame_statistics, mean_statistics, node_variances
from replicate.data.index import Index
from replicate.data.label_sets import FREQUENT, combinations_of
from replicate.data.spec import DatasetSpec
from replicate.data.synthetic import MEAN_LENGTH
from replicate.errors import ConfigurationError
from replicate.taxonomy.tree import Taxonomy

SAMPLE = 600  # videos, evenly spaced, whose frames are looked at
Row = tuple[str, str, str, str]

ONE_VIDEO = "one genuine video (170 frames)"
ONE_VIDEO_AUDIO = "one genuine video, its live audio"
CLIPS = "AudioSet, 22,160 clips"
RECORDS = "11,790 genuine video-level records"
RELEASE = "size of the release; limit 300"


def describe(index: Index, spec: DatasetSpec, taxonomy: Taxonomy) -> list[Row]:
    """Statistics of a corpus beside the calibration facts.

    Args:
        index: the corpus.
        spec: its format.
        taxonomy: gives the nodes; only its labels count.

    Returns:
        (statistic, value in this corpus, calibration fact or "-", source of the fact), all text.
    """
    rows = [("videos", f"{index.count:,}", "-", ""), ("labels", f"{(taxonomy.label_nodes >= 0).sum():,}", "-", "")]
    rows += _label_rows(index, spec, taxonomy)
    chosen = np.unique(np.linspace(0, index.count - 1, min(SAMPLE, index.count)).astype(int))
    source = RecordSource(index, spec, spec.frame_limit)
    records = [source.record(int(row)) for row in chosen]
    offsets = np.concatenate([[0], np.cumsum([len(record.labels) for record in records])])
    positives = taxonomy.encode(offsets, np.concatenate([record.labels for record in records]))
    if spec.dtype == "uint8":
        fact = f"{MEAN_LENGTH:.0f}" if spec.name == "yt8m" else "-"
        rows.append(("mean length, frames", f"{index.frames.mean():.1f}", fact, RELEASE if fact != "-" else ""))
    for number, feature in enumerate(spec.features):
        arrays = [record.features[number] for record in records]
        name = {"mean_rgb": "rgb", "mean_audio": "audio", "audio_embedding": "audioset"}.get(feature.key, feature.key)
        if spec.dtype == "uint8":
            rows += _frame_rows(name, spec, arrays)
        means = np.stack([array.mean(axis=0, dtype=np.float64) * spec.scale + spec.bias for array in arrays])
        rows += _mean_rows(name, means, positives, taxonomy.levels)
    return rows


def _label_rows(index: Index, spec: DatasetSpec, taxonomy: Taxonomy) -> list[Row]:
    offsets, values = np.asarray(index.label_offsets), np.asarray(index.label_values)
    kept = np.asarray(taxonomy.label_nodes)[values] >= 0
    node_offsets, nodes = taxonomy.closed_nodes(offsets, values)
    videos = np.repeat(np.arange(index.count), np.diff(node_offsets))
    support = np.bincount(nodes, minlength=len(taxonomy.names))
    fact, source = label_facts(taxonomy) if spec.label_key == "labels" and spec.name != "audioset" else ({}, "")

    def row(statistic: str, value: float, key: str) -> Row:
        return (statistic, f"{value:.2f}", f"{fact[key]:.2f}" if key in fact else "-", source if key in fact else "")

    rows = [row("labels per video", kept.sum() / index.count, "labels")]
    rows.append(row("nodes per video", len(nodes) / index.count, "nodes"))
    for level in range(int(taxonomy.levels.max()) + 1):
        at_level = taxonomy.levels == level
        share = len(np.unique(videos[at_level[nodes]])) / index.count
        name = f"share of videos with one of the {at_level.sum()} nodes at level {level}"
        rows.append(row(name, share, f"level {level}"))
    rarest = int(np.argmin(support))
    rows.append(("positives of the rarest node", f"{support[rarest]:,}", "-", taxonomy.names[rarest]))
    return rows


def label_facts(taxonomy: Taxonomy) -> tuple[dict[str, float], str]:
    """Labels and nodes per video and shares with a positive per level among genuine YouTube-8M videos that have any of
    the taxonomy's labels, and where the figures come from; nothing where joint frequencies are not known."""
    facts = calibration.committed()["label_sets"]
    labels = np.flatnonzero(np.asarray(taxonomy.label_nodes) >= 0)
    everyone = f"{facts['videos']:,} genuine label sets"
    if len(labels) == len(taxonomy.label_nodes):
        shares = {f"level {level}": share for level, share in enumerate(facts["share_with_level"])}
        return {"labels": facts["labels_per_video"], "nodes": facts["nodes_per_video"], **shares}, everyone
    try:
        sets, weights = combinations_of(labels)
    except ConfigurationError:
        return {}, f"only known of the {FREQUENT} most frequent labels"
    counts = np.array([len(each) for each in sets])
    encoded = taxonomy.encode(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(sets))
    result = {"labels": weights @ counts, "nodes": weights @ encoded.sum(axis=1)}
    for level in range(4):
        result[f"level {level}"] = weights @ encoded[:, taxonomy.levels == level].any(axis=1)
    return result, f"{everyone}, cut to these {len(labels)} labels"


def _frame_rows(name: str, spec: DatasetSpec, arrays: list[np.ndarray]) -> list[Row]:
    found, fact = frame_statistics(spec, arrays), calibration.committed()["frame_level"][name]
    source = {"rgb": ONE_VIDEO, "audio": ONE_VIDEO_AUDIO, "audioset": CLIPS}[name]
    rows = [
        (f"{name}: mean norm of a frame", f"{found['norm']:.1f}", f"{fact['norm']:.1f}", source),
        (f"{name}: deviation per dimension", f"{found['deviation']:.2f}", f"{fact['deviation']:.2f}", source),
        (f"{name}: share of bytes clipped", f"{found['clipped']:.3f}", f"{fact['clipped']:.3f}", source),
    ]
    other = calibration.committed()["frame_level"]["audioset"]["cosine"] if name == "audio" else {}
    for lag in map(str, LAGS):
        if lag in found["cosine"]:
            known = f"{fact['cosine'][lag]:.2f}" if lag in fact["cosine"] else "-"
            known += f"; {other[lag]:.2f}" if lag in other else ""
            origin = "" if known == "-" else source + (f"; {CLIPS}" if lag in other else "")
            rows.append((f"{name}: cosine between frames at lag {lag}", f"{found['cosine'][lag]:.2f}", known, origin))
    steps = [" ".join(f"{each['step'][str(q)]:.1f}" for q in PERCENTILES) for each in (found, fact) if each["step"]]
    percentiles = "/".join(map(str, PERCENTILES))
    if found["step"]:
        rows.append((f"{name}: step between frames, {percentiles} %", *steps, source))
    return rows


def _mean_rows(name: str, means: np.ndarray, positives: np.ndarray, levels: np.ndarray) -> list[Row]:
    """Rows about the means over time, (videos, width)."""
    known = calibration.committed()["video_level"].get(name)
    found = mean_statistics(means)
    nodes_per_video = [positives[:, levels == level].sum(axis=1).mean() for level in range(4)]
    explained = np.dot(node_variances(means, positives, levels), nodes_per_video)
    share = f"{explained / found['variance']:.3f}" if found["variance"] > 0 else "-"  # of one video there is none
    values = {
        f"{name}: variance of the video's mean": f"{found['variance']:.2f}",
        f"{name}: power of the video's mean, {'/'.join(map(str, PERCENTILES))} %": _percentiles(found),
        f"{name}: norm of the global mean": f"{found['global_norm']:.2f}",
        f"{name}: share of that variance that shared nodes explain": share,
    }
    if known is None:
        return [(statistic, value, "-", "") for statistic, value in values.items()]
    shared = np.dot(known["node_variance"], nodes_per_video) / known["variance"]
    beside = (f"{known['variance']:.2f}", _percentiles(known), f"{known['global_norm']:.2f}", f"{shared:.3f}")
    sources = (RECORDS, RECORDS, RECORDS, f"{RECORDS}, with as many nodes per video as here")
    return [(*item, fact, source) for item, fact, source in zip(values.items(), beside, sources, strict=True)]


def _percentiles(statistics: dict) -> str:
    return " ".join(f"{statistics['power'][str(q)]:.2f}" for q in PERCENTILES)
