"""Slow definitions that judge `replicate.evaluate`'s influence values and replicates: no sort, no running sum."""

import numpy as np

LEVELS = ("overall", "0", "1", "2", "3")


def weighted_average_precision(scores, hits, weights, total):
    """sum over hits of w_i T_i / C_i / total, by comparing every hit with every pair."""
    value = 0.0
    for score, weight in zip(scores[hits], weights[hits], strict=True):
        at_or_above = scores >= score
        if weights[at_or_above].sum() > 0:
            value += weight * weights[at_or_above & hits].sum() / weights[at_or_above].sum()
    return value / total


def top_places(row, count):
    """The highest nodes of one video, equal scores by index."""
    return sorted(range(len(row)), key=lambda node: (-row[node], node))[:count]


def weighted_gap(scores, labels, weights, top_k=20):
    pairs = [(video, node) for video, row in enumerate(scores) for node in top_places(row, top_k)]
    videos, nodes = np.array(pairs).T
    total = (weights[:, None] * labels).sum()
    return weighted_average_precision(scores[videos, nodes], labels[videos, nodes], weights[videos], total)


def weighted_map(scores, labels, weights, classes):
    values = []
    for node in classes:
        total = weights[labels[:, node]].sum()
        if total > 0:
            values.append(weighted_average_precision(scores[:, node], labels[:, node], weights, total))
    return np.mean(values)


def weighted_perr(scores, labels, weights):
    values, used = [], []
    for row, truth, weight in zip(scores, labels, weights, strict=True):
        if truth.any():
            values.append(truth[top_places(row, truth.sum())].mean())
            used.append(weight)
    return np.average(values, weights=used)


def weighted_hit(scores, labels, weights):
    eligible = labels.any(axis=1)
    hits = [truth[top_places(row, 1)[0]] for row, truth in zip(scores[eligible], labels[eligible], strict=True)]
    return np.average(hits, weights=weights[eligible])


def weighted_metric(metric, level, scores, labels, weights, levels, classes):
    """One cell on one draw."""
    nodes = np.arange(len(levels)) if level == "overall" else np.flatnonzero(levels == int(level))
    if metric == "MAP":
        return weighted_map(scores, labels, weights, np.intersect1d(nodes, classes))
    if metric == "MAP all classes":
        return weighted_map(scores, labels, weights, nodes)
    function = {"GAP": weighted_gap, "PERR": weighted_perr, "Hit@1": weighted_hit}[metric]
    return function(scores[:, nodes], labels[:, nodes], weights)


def statistic(metric, level, scores, labels, weights, levels, classes, positions):
    """Mean over draws; weights are of the pool."""
    return np.mean(
        [
            weighted_metric(metric, level, scores[draw], labels[draw], weights[draw], levels, classes)
            for draw in positions
        ]
    )


def step_down_max_t(estimates, errors, deviations):
    """Adjusted p of Westfall and Young, by their words: remove the largest statistic, take maxima over the rest."""
    statistics, simulated = abs(estimates) / errors, abs(deviations) / errors
    remaining, adjusted, before = list(range(len(statistics))), np.empty(len(statistics)), 0.0
    while remaining:
        leader = max(remaining, key=lambda cell: statistics[cell])
        exceeding = sum(max(row[cell] for cell in remaining) >= statistics[leader] for row in simulated)
        before = adjusted[leader] = max(before, (1 + exceeding) / (len(simulated) + 1))
        remaining.remove(leader)
    return adjusted
