"""Claims: what is settled by computation is so: the module's formulas against literal loops and against the layer."""

import math

import numpy as np
import pytest
import torch
from judged_claims import judged
from record_fixtures import write_fixture

import tc
from replicate.report.claims import mathematics
from replicate.report.claims.verdicts import REFUTED, SUPPORTED


def literal(energies, features, i, reach, sign=-1):
    """exp(e_i) exp(sum over neighbours of e_j exp(sign ||h_i - h_j||)), Eq. 4 as printed."""
    total = 0.0
    for j in range(len(energies)):
        if j != i and abs(i - j) <= reach:
            distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(features[i], features[j], strict=True)))
            total += energies[j] * math.exp(sign * distance)
    return math.exp(energies[i]) * math.exp(total)


@pytest.mark.parametrize("sign", [-1, 1])
def test_neighbour_sum_is_equation_4_and_the_layer(sign):
    generator = np.random.default_rng(4)
    energies, features = generator.normal(size=6), generator.normal(size=(6, 3))
    weights = [literal(energies, features, i, 2, sign) for i in range(6)]
    oracle = np.array(weights) / sum(weights)
    summed = mathematics.neighbour_sum(energies, mathematics.pairwise(features), 2, sign)
    assert mathematics.softmax(summed) == pytest.approx(oracle, abs=1e-12)
    arguments = (
        torch.tensor(energies)[None, :, None],
        torch.tensor(features)[None],
        torch.ones(1, 6, dtype=torch.bool),
    )
    layer = tc.NeighbourhoodSum(reach=2, sign=sign)(*arguments)[0, :, 0].numpy()
    assert summed == pytest.approx(layer, abs=1e-5)


def test_computed_verdicts(tmp_path):
    results = judged(write_fixture(tmp_path, columns=("dnn",)))
    verdicts = {claim.name: results[claim.name].verdict for claim in mathematics.CLAIMS}
    assert verdicts == {
        "alpha-equal": REFUTED,
        "alpha-unequal": SUPPORTED,
        "neighbours-weigh-more-when-near": REFUTED,
        "boundary-switches": SUPPORTED,
        "eq7-follows-from-eq6": REFUTED,
        "eq7-is-a-convolution": REFUTED,
        "netvlad-ignores-order": SUPPORTED,
        "seven-labels-of-one-game": SUPPORTED,
    }
    difference = 0.8 * (1 - math.exp(-1))  # of the logits: (e_i - e_j)(1 - d)
    assert results["alpha-equal"].effect == pytest.approx(math.tanh(difference / 2), abs=1e-12)


def test_small_differences_of_rounding_do_not_reach_the_files(tmp_path):
    results = judged(write_fixture(tmp_path, columns=("dnn",)))
    assert results["netvlad-ignores-order"].effect == results["boundary-switches"].effect == 0
    assert not any("e-1" in results[claim.name].evidence for claim in mathematics.CLAIMS)
