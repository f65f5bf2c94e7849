"""How far the annotation passes agree: Fleiss' kappa, Krippendorff's alpha, and agreement along the tree.

Votes are nominal categories (node paths). Per level, a vote is cut to its first level + 1 names, so that level 0 asks
for the same top and level 3 for the same node. Per top, the labels are those with at least one vote under it.
Hierarchical agreement replaces same-or-not by a distance: d(a, b) = 1 - 2 |a and b's common ancestors| / (|a| + |b|)
with path lengths |.| that count the node itself (Wu and Palmer, 1994); 0 for the same node, 1 for different tops.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from replicate.errors import DataError
from replicate.taxonomy.build import ancestors, read_names, read_votes
from replicate.taxonomy.tree import DEEPEST, data_folder, read_rows

CAVEAT = (
    "These are five passes of one language model, not five people: the agreement measures how consistently the "
    "guidelines can be applied, not how right the label map is."
)
Votes = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Agreement:
    """Agreement on one set of labels; `kappa` and `alpha` are None where every vote is the same category."""

    labels: int
    unanimous: float
    kappa: float | None
    alpha: float | None


@dataclass(frozen=True)
class Dispute:
    """A label that the passes placed differently: mean distance of its pairs of votes, and the votes."""

    label: int
    name: str
    distance: float
    votes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AgreementReport:
    """Everything that `agreement_report` finds; levels are keyed by number, tops by name."""

    overall: Agreement
    levels: dict[int, Agreement]
    tops: dict[str, Agreement]
    hierarchical_alpha: float | None
    mean_similarity: float
    disputes: tuple[Dispute, ...]


def count_votes(votes: Votes) -> np.ndarray:
    """(labels, categories) int64: how often each category was chosen, categories in sorted order."""
    categories = {category: place for place, category in enumerate(sorted({vote for each in votes for vote in each}))}
    counts = np.zeros((len(votes), len(categories)), np.int64)
    for row, each in enumerate(votes):
        for vote in each:
            counts[row, categories[vote]] += 1
    return counts


def fleiss_kappa(votes: Votes) -> float | None:
    """Fleiss' kappa (1971): agreement of pairs of votes beyond what the categories' shares give by chance.

    Raises:
        DataError: the labels have different numbers of votes, or fewer than two.
    """
    counts = count_votes(votes)
    raters = counts.sum(axis=1)
    if len(np.unique(raters)) != 1 or raters[0] < 2:
        raise DataError("Fleiss' kappa needs the same number of votes, at least two, on every label")
    number = int(raters[0])
    observed = ((counts**2).sum(axis=1) - number).mean() / (number * (number - 1))
    expected = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def krippendorff_alpha(votes: Votes, distance: Callable[[str, str], float] | None = None) -> float | None:
    """Krippendorff's alpha: 1 - observed / expected disagreement. Labels with one vote are left out.

    Args:
        votes: votes of each label; numbers of votes may differ.
        distance: disagreement of two categories, symmetric, 0 for equal ones; same-or-not if missing.
    """
    votes = [each for each in votes if len(each) > 1]
    counts = count_votes(votes)
    names = sorted({vote for each in votes for vote in each})
    if distance is None:
        apart = 1.0 - np.eye(len(names))
    else:
        apart = np.array([[distance(one, other) for other in names] for one in names])
    raters = counts.sum(axis=1)
    within = np.einsum("lc,cd,ld->l", counts, apart, counts, optimize=True)
    totals = counts.sum(axis=0)
    observed = (within / (raters - 1)).sum() / totals.sum()
    expected = totals @ apart @ totals / (totals.sum() * (totals.sum() - 1))
    return None if expected == 0 else float(1 - observed / expected)


def path_distance(one: str, other: str) -> float:
    """The hierarchical distance of two nodes, from 0 (same) to 1 (different tops)."""
    first, second = ancestors(one), ancestors(other)
    return 1 - 2 * len(set(first) & set(second)) / (len(first) + len(second))


def cut(path: str, level: int) -> str:
    """The node's ancestor at a level, or the node itself where it lies higher."""
    return ":".join(path.split(":")[: level + 1])


def measure(votes: Votes) -> Agreement:
    """Share of unanimous labels, kappa and alpha."""
    unanimous = np.mean([len(set(each)) == 1 for each in votes])
    return Agreement(len(votes), float(unanimous), fleiss_kappa(votes), krippendorff_alpha(votes))


def mean_distance(votes: Sequence[str]) -> float:
    """Mean path distance of a label's pairs of votes."""
    return float(np.mean([path_distance(one, other) for one, other in combinations(votes, 2)]))


def agreement_report(folder: Path | None = None, disputed: int = 20) -> AgreementReport:
    """Agreement of the committed annotations, overall, per level, per top and along the tree.

    Args:
        folder: where nodes.csv, labels.csv and annotations/ lie; the committed taxonomy if missing.
        disputed: so many of the most disputed labels are listed.
    """
    folder = folder or data_folder()
    paths = {row["path"] for row in read_rows(folder / "nodes.csv", ("path", "scope"))}
    by_label, names = read_votes(folder, paths), read_names(folder)
    votes = [by_label[label] for label in range(len(names))]
    tops = sorted(path for path in paths if ":" not in path)
    under = {top: [each for each in votes if any(cut(vote, 0) == top for vote in each)] for top in tops}
    distances = np.array([mean_distance(each) for each in votes])
    order = np.lexsort((np.arange(len(votes)), -distances))[:disputed]
    return AgreementReport(
        overall=measure(votes),
        levels={
            level: measure([[cut(vote, level) for vote in each] for each in votes]) for level in range(DEEPEST + 1)
        },
        tops={top: measure(each) for top, each in under.items() if each},
        hierarchical_alpha=krippendorff_alpha(votes, path_distance),
        mean_similarity=float(1 - distances.mean()),
        disputes=tuple(
            Dispute(int(label), names[label], float(distances[label]), tuple(Counter(votes[label]).most_common()))
            for label in order
            if distances[label] > 0
        ),
    )


def agreement_text(report: AgreementReport) -> str:
    """The report as plain text, opened by what the numbers mean."""

    def line(title: str, found: Agreement) -> str:
        kappa, alpha = ("    -" if value is None else f"{value:.3f}" for value in (found.kappa, found.alpha))
        return f"{title:<24}{found.labels:>7}{found.unanimous:>11.1%}  {kappa:>7}  {alpha:>7}"

    lines = [CAVEAT, "", f"{'':<24}{'labels':>7}{'unanimous':>11}  {'kappa':>7}  {'alpha':>7}"]
    lines.append(line("overall", report.overall))
    lines += [line(f"cut at level {level}", found) for level, found in report.levels.items()]
    lines += [line(top, found) for top, found in report.tops.items()]
    alpha = "-" if report.hierarchical_alpha is None else f"{report.hierarchical_alpha:.3f}"
    lines += ["", f"Along the tree: alpha {alpha}, mean similarity of two votes {report.mean_similarity:.4f}"]
    lines += ["", "Most disputed labels (mean distance of two votes):"]
    for dispute in report.disputes:
        votes = ", ".join(f"{node} {count}" for node, count in dispute.votes)
        lines.append(f"{dispute.distance:.2f}  {dispute.label} {dispute.name or '(no name)'}: {votes}")
    return "\n".join(lines) + "\n"
