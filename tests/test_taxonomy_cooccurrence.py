"""Claims: company weights are the stated formula; a planted misplacement is found, a right placement is not."""

import math

import numpy as np
import pytest

from replicate.taxonomy.cooccurrence import company_text, company_weights, count_together, find_contradictions
from replicate.taxonomy.tree import Taxonomy


def videos_of(*groups: tuple[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Label sets: each (count, labels) repeated."""
    sets = [labels for count, labels in groups for _ in range(count)]
    return np.concatenate([[0], np.cumsum([len(each) for each in sets])]), np.concatenate(sets)


SETS = videos_of((10, [0, 1]), (4, [0]), (10, [2, 3]), (10, [3, 4]), (2, [0, 4]), (30, [5]))
NAMES = ["zero", "one", "two", "three", "", "five"]


def test_weights_are_the_formula():
    offsets, values = SETS
    together = count_together(offsets, values, 6)
    assert together.diagonal().tolist() == [16, 10, 10, 20, 12, 30]
    weights = company_weights(together, len(offsets) - 1).toarray()
    assert weights[0, 1] == pytest.approx(10 * math.log(10 * 66 / (16 * 10)))
    assert weights[3, 4] == pytest.approx(10 * math.log(10 * 66 / (20 * 12)))
    assert weights[0, 4] == 0, "two videos are too few"
    assert (weights == weights.T).all() and not weights.diagonal().any()


@pytest.mark.parametrize(("node_of_three", "contradicted"), [(1, False), (0, True)])
def test_a_planted_misplacement_is_found(node_of_three, contradicted):
    names, parents = ("A", "B"), ((), ())
    taxonomy = Taxonomy(names, parents, np.array([0, 0, 1, node_of_three, 1, 0], np.int32))
    offsets, values = SETS
    found = find_contradictions(taxonomy, company_weights(count_together(offsets, values, 6), len(offsets) - 1))
    of_three = [each for each in found if each.label == 3]
    assert bool(of_three) == contradicted
    if contradicted:
        assert (of_three[0].node, of_three[0].rival, of_three[0].own_share) == ("A", "B", 0)
        assert of_three[0].rival_share == 1


def test_siblings_are_compared_inside_their_parent_only():
    names, parents = ("A", "A:x", "A:y", "B", "B:z"), ((), (0,), (0,), (), (3,))
    taxonomy = Taxonomy(names, parents, np.array([2, 2, 2, 1, 2, 4], np.int32))
    offsets, values = videos_of((4, [0, 1]), (10, [2, 3]), (10, [3, 4]), (20, [1, 5]), (9, [5]), (10, [4]))
    found = find_contradictions(taxonomy, company_weights(count_together(offsets, values, 6), len(offsets) - 1))
    found = [each for each in found if each.level]
    assert {(each.label, each.level, each.node, each.rival) for each in found} == {
        (2, 1, "A:y", "A:x"),
        (3, 1, "A:x", "A:y"),
        (4, 1, "A:y", "A:x"),
    }


def test_figures_name_the_closest_companions():
    offsets, values = SETS
    text = company_text(count_together(offsets, values, 6), NAMES, 3)
    assert text == "Share of its 20 videos with: two 0.50, label 4 0.50"
