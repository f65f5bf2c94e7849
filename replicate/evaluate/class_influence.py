"""MAP: one ranking of videos per node, in every draw."""

from dataclasses import dataclass

import numpy as np

from replicate.evaluate.average_precision import add_influence, influence, place_pairs
from replicate.evaluate.draws import DrawView, Sample
from replicate.evaluate.rows import Rows
from replicate.evaluate.threads import in_threads

_BYTES = 1 << 28  # of scores held node by node at a time
_LANES = 4  # running sums that nodes are dealt to; a constant, so that no result depends on the number of threads


@dataclass(frozen=True)
class ClassMeasures:
    """Sums over classes; divided by `counted` where they are means.

    Attributes:
        influence: (groups, videos of the union) float64, of the mean over draws.
        values: (groups, draws) float64: MAP over the class set; NaN where a draw has none of it.
        replicates: (2, groups, draws, replicates) float64: MAP over the class set, and over all classes with a
            positive under the weights.
    """

    influence: np.ndarray
    values: np.ndarray
    replicates: np.ndarray


class _Sums:
    """What the nodes of one lane add up to."""

    def __init__(self, groups: int, sample: Sample):
        draws, replicates = sample.draws.count, sample.replicates
        self.influence = np.zeros((groups, len(sample.labels)))
        self.values = np.zeros((groups, draws))
        self.exact = np.zeros((2, groups, draws, replicates))
        self.counted = np.zeros((2, groups, draws, replicates))


def measure_classes(
    rows: Rows, sample: Sample, levels: np.ndarray, classes: np.ndarray, groups: int, threads: int
) -> ClassMeasures:
    """MAP of every group on every draw, its influence values and exact replicates.

    Args:
        rows: scores of the union of the draws.
        sample: draws, labels, weights.
        levels: (nodes,) int64; group 0 has all nodes, group 1 + l those of level l.
        classes: node indices of the class set.
        groups: how many.
        threads: how many classes are ranked at once.
    """
    nodes = sample.labels.nodes
    chosen = np.isin(np.arange(nodes), classes)
    positives = np.stack([np.bincount(view.labels.values, minlength=nodes) for view in sample.views])  # (draws, nodes)
    used = chosen & (positives > 0)
    sizes = np.stack([used.sum(axis=1), *((used & (levels == level)).sum(axis=1) for level in range(groups - 1))])
    lanes = [_Sums(groups, sample) for _ in range(_LANES)]
    width = max(_LANES, _BYTES // (4 * max(1, len(rows))))
    buffer = np.empty((min(width, nodes), len(rows)), np.float32)
    for first in range(0, nodes, width):
        columns = buffer[: nodes - first]
        rows.columns(first, columns)

        def add(lane: int, first: int = first, columns: np.ndarray = columns) -> None:
            for node in range(first, first + len(columns)):
                if node % _LANES == lane:
                    _add_node(lanes[lane], columns[node - first], node, 1 + levels[node], sample, chosen[node], sizes)

        in_threads(add, range(_LANES), threads)
    total = {name: sum(getattr(lane, name) for lane in lanes) for name in ("influence", "values", "exact", "counted")}
    with np.errstate(invalid="ignore"):
        values = np.where(sizes > 0, total["values"], np.nan)
        return ClassMeasures(total["influence"], values, total["exact"] / total["counted"])


def _add_node(
    sums: _Sums, scores: np.ndarray, node: int, level_group: int, sample: Sample, chosen: bool, sizes: np.ndarray
) -> None:
    """Add one node in all draws to group 0 and to its level's group.

    Args:
        scores: (videos of the union,) float32.
        chosen: the node is of the class set.
        sizes: (groups, draws) classes of the set that have a positive there.
    """
    groups = np.array([0, level_group])
    for draw, view in enumerate(sample.views):
        hits = _hits(view, node)
        if not hits.any():
            continue
        placed = place_pairs(scores[view.videos], hits, view.videos)
        if chosen:
            of, positives = influence(placed), np.count_nonzero(hits)
            precision = of.total / positives
            of = of._replace(of_hit=of.of_hit - precision)
            scales = 1 / (positives * sizes[groups, draw] * sample.draws.count)
            add_influence(placed, of, groups, scales, sums.influence)
            sums.values[groups, draw] += precision / sizes[groups, draw]
        totals, weight = sample.replicated(placed)
        exact = totals / np.maximum(weight, 1)
        for variant in (0, 1) if chosen else (1,):
            sums.exact[variant, groups, draw] += exact
            sums.counted[variant, groups, draw] += weight > 0


def _hits(view: DrawView, node: int) -> np.ndarray:
    offsets, videos = view.labels.by_node
    hits = np.zeros(len(view.videos), bool)
    hits[videos[offsets[node] : offsets[node + 1]]] = True
    return hits
