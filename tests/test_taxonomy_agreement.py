"""Claims: kappa and alpha are the published statistics. Oracles: statsmodels, a literal coincidence matrix."""

from itertools import permutations

import numpy as np
import pytest
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_kappa

from replicate.errors import DataError
from replicate.taxonomy.agreement import (
    CAVEAT,
    agreement_report,
    agreement_text,
    count_votes,
    fleiss_kappa,
    krippendorff_alpha,
    path_distance,
)

NODES = ["A", "A:B", "A:B:C", "A:D", "E", "E:F"]


def random_votes(seed: int, labels: int = 40, raters: int = 5) -> list[list[str]]:
    generator = np.random.default_rng(seed)
    return [generator.choice(NODES, raters, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]).tolist() for _ in range(labels)]


def literal_alpha(votes, distance):
    """Krippendorff's definition by the coincidence matrix, pair by pair."""
    coincidences: dict[tuple[str, str], float] = {}
    for each in votes:
        for one, other in permutations(range(len(each)), 2):
            pair = (each[one], each[other])
            coincidences[pair] = coincidences.get(pair, 0) + 1 / (len(each) - 1)
    margins: dict[str, float] = {}
    for (one, _), weight in coincidences.items():
        margins[one] = margins.get(one, 0) + weight
    total = sum(margins.values())
    observed = sum(weight * distance(*pair) for pair, weight in coincidences.items()) / total
    expected = sum(margins[one] * margins[other] * distance(one, other) for one in margins for other in margins) / (
        total * (total - 1)
    )
    return 1 - observed / expected


@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_statsmodels(seed):
    votes = random_votes(seed)
    assert fleiss_kappa(votes) == pytest.approx(statsmodels_kappa(count_votes(votes), method="fleiss"), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [None, path_distance], ids=["nominal", "hierarchical"])
def test_alpha_is_the_literal_definition_also_with_unequal_numbers_of_votes(seed, distance):
    generator = np.random.default_rng(seed)
    votes = [each[: generator.integers(2, 6)] for each in random_votes(seed)]
    literal = literal_alpha(votes, distance or (lambda one, other: float(one != other)))
    assert krippendorff_alpha(votes, distance) == pytest.approx(literal, abs=1e-12)


def test_extremes():
    assert fleiss_kappa([["A"] * 5, ["E"] * 5]) == pytest.approx(1)
    assert krippendorff_alpha([["A"] * 5, ["E"] * 5]) == pytest.approx(1)
    assert fleiss_kappa([["A"] * 5] * 3) is None
    assert krippendorff_alpha([["A", "E"], ["E", "A"]]) < 0
    assert krippendorff_alpha([["A", "A"], ["E", "E"], ["A"]]) == pytest.approx(1), "a lone vote says nothing"


def test_kappa_refuses_unequal_numbers_of_votes():
    with pytest.raises(DataError, match="same number of votes"):
        fleiss_kappa([["A", "A"], ["A"]])


def test_path_distance_by_hand():
    assert path_distance("A:B", "A:B") == 0
    assert path_distance("A:B", "E:F") == 1
    assert path_distance("A", "A:B") == pytest.approx(1 / 3)
    assert path_distance("A:B:C", "A:D") == pytest.approx(1 - 2 / 5)


def test_committed_annotations():
    report = agreement_report(disputed=5)
    assert report.overall.labels == 3862 and len(report.tops) == 18 and len(report.disputes) == 5
    assert report.overall == report.levels[3]
    unanimous = [report.levels[level].unanimous for level in range(4)]
    assert unanimous == sorted(unanimous, reverse=True), "cutting paths can only join votes"
    assert report.disputes[0].distance >= report.disputes[-1].distance > 0
    assert agreement_text(report).startswith(CAVEAT)
