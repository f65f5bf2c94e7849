"""Slow definitions of the metrics, independent of the code under test and of each other.

`pairwise_*` count, for every positive, who ranks at or above it. `swept_*` walk a sorted list group by group in exact
fractions. `challenge_*` follow the evaluation of the YouTube-8M challenge as facts, section A describes it, and hold
where no scores tie.
"""

from fractions import Fraction

import numpy as np


def pairwise_average_precision(pairs, positives):
    """Pairs are (score, hit); precision of each hit among all pairs that score at least as much."""
    total = 0.0
    for score, hit in pairs:
        if hit:
            reached = [other for other_score, other in pairs if other_score >= score]
            total += sum(reached) / len(reached)
    return total / positives


def swept_average_precision(pairs, positives):
    """The same by one walk from the highest score down, exact until the end."""
    groups: dict[float, list[bool]] = {}
    for score, hit in pairs:
        groups.setdefault(float(score), []).append(bool(hit))
    seen = found = 0
    area = Fraction(0)
    for score in sorted(groups, reverse=True):
        seen += len(groups[score])
        new = sum(groups[score])
        found += new
        area += Fraction(new, positives) * Fraction(found, seen)
    return float(area)


def kept_pairs(scores, labels, top_k):
    """(video, node, score, hit) of each video's highest nodes, equal scores by node index."""
    rows = []
    for video, (row, hits) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        order = sorted(range(len(row)), key=lambda node, row=row: (-row[node], node))
        rows += [(video, node, row[node], hits[node]) for node in order[:top_k]]
    return rows


def slow_gap(average_precision, scores, labels, top_k):
    """None without a positive."""
    positives = int(labels.sum())
    pairs = [(score, hit) for _, _, score, hit in kept_pairs(scores, labels, top_k)]
    return average_precision(pairs, positives) if positives else None


def slow_map(average_precision, scores, labels, top_k, classes):
    """None without a positive in the classes."""
    kept = kept_pairs(scores, labels, top_k)
    values = [
        average_precision([(score, hit) for _, owner, score, hit in kept if owner == node], int(labels[:, node].sum()))
        for node in classes
        if labels[:, node].any()
    ]
    return float(np.mean(values)) if values else None


def slow_perr(scores, labels, unlabelled):
    """None where no video is left."""
    values = []
    for row, hits in zip(scores.tolist(), labels.tolist(), strict=True):
        wanted = sum(hits)
        order = sorted(range(len(row)), key=lambda node, row=row: (-row[node], node))
        if wanted:
            values.append(sum(hits[node] for node in order[:wanted]) / wanted)
        elif unlabelled == "zero":
            values.append(0.0)
    return float(np.mean(values)) if values else None


def slow_hit_at_1(scores, labels, unlabelled):
    """None where no video is left."""
    values = []
    for row, hits in zip(scores.tolist(), labels.tolist(), strict=True):
        if any(hits):
            values.append(float(hits[row.index(max(row))]))
        elif unlabelled == "zero":
            values.append(0.0)
    return float(np.mean(values)) if values else None


def challenge_gap(probabilities, labels, top_k=20):
    """Pool each video's highest pairs, sort, average the precision at hits over all positives of the labels."""
    keep = min(top_k, probabilities.shape[1])
    nodes = np.argpartition(probabilities, -keep, axis=1)[:, -keep:]
    scores = np.take_along_axis(probabilities, nodes, axis=1).ravel()
    hits = np.take_along_axis(labels, nodes, axis=1).ravel()[np.argsort(-scores)]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / labels.sum())


def challenge_map(probabilities, labels, top_k=20):
    """Per class over the kept pairs of that class alone; classes with a positive count, kept or not."""
    keep = min(top_k, probabilities.shape[1])
    threshold = np.sort(probabilities, axis=1)[:, -keep, None]
    values = []
    for node in np.flatnonzero(labels.any(axis=0)):
        rows = np.flatnonzero(probabilities[:, node] >= threshold[:, 0])
        hits = labels[rows[np.argsort(-probabilities[rows, node])], node]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        values.append((precision * hits).sum() / labels[:, node].sum())
    return float(np.mean(values))


def challenge_perr(probabilities, labels):
    """Precision of a video's g highest, positive probabilities only; without labels all are selected and score 0."""
    values = []
    for row, hits in zip(probabilities, labels, strict=True):
        wanted = int(hits.sum())
        chosen = np.argpartition(row, -wanted)[-wanted:]
        values.append(np.mean([bool(hits[node]) and row[node] > 0 for node in chosen]))
    return float(np.mean(values))


def challenge_hit_at_1(probabilities, labels):
    """The label at the first maximum, over all videos."""
    return float(labels[np.arange(len(labels)), probabilities.argmax(axis=1)].mean())
