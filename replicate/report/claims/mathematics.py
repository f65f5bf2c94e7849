"""Claims of sections 2 to 4 that are settled by computing or counting: small float64 examples, no run needed."""

import csv
from importlib import resources

import numpy as np

from replicate.report.claims.claim import Claim
from replicate.report.claims.verdicts import REFUTED, SUPPORTED, Judgement

TOLERANCE = 1e-12
PAPER_SIMS = 7  # section 4.1


def softmax(values: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def neighbour_sum(values: np.ndarray, distances: np.ndarray, reach: int, sign: int = -1) -> np.ndarray:
    """s_i + sum over 0 < |i - j| <= reach of exp(sign * distance_ij) s_j, frames on the first axis (Eqs. 2, 4, 6)."""
    places = np.arange(len(values))
    gap = np.abs(places[:, None] - places[None, :])
    weights = np.where((gap > 0) & (gap <= reach), np.exp(sign * distances), 0.0)
    return values + np.tensordot(weights, values, axes=1)


def pairwise(features: np.ndarray) -> np.ndarray:
    """Euclidean distances of (frames, width) features."""
    return np.linalg.norm(features[:, None] - features[None, :], axis=-1)


def _within(gap: float) -> str:
    """Whether a difference counts, in words: its last bits are another processor's own."""
    return "the same" if gap < TOLERANCE else f"other (by up to {gap:.2g})"


def _settled(gap: float) -> float:
    """A difference that counts; 0 for one that is rounding."""
    return float(gap) if gap >= TOLERANCE else 0.0


def _mutual_neighbours(_: object) -> Judgement:
    """Two frames, each the other's only neighbour: logits differ by (e_i - e_j)(1 - d)."""
    energies = np.array([1.0, 0.2])
    far, same = (softmax(neighbour_sum(energies, np.array([[0.0, d], [d, 0.0]]), 1)) for d in (1.0, 0.0))
    equal = abs(far[0] - far[1]) < TOLERANCE
    evidence = (
        f"With e = (1.0, 0.2) at distance 1 the weights are {far[0]:.2f} and {far[1]:.2f}; they are equal only at "
        f"distance 0 ({same[0]:.2f}, {same[1]:.2f}) or for equal energies, because the logits differ by (e_i - e_j)(1 "
        "- d) (erratum 7)."
    )
    return Judgement(SUPPORTED if equal else REFUTED, evidence, float(far[0] - far[1]), None, None, 0.0, None)


def _other_neighbours(_: object) -> Judgement:
    """Three frames: the middle one has two neighbours, the first one has one."""
    energies, features = np.array([0.5, 0.5, 2.0]), np.zeros((3, 1))
    weights = softmax(neighbour_sum(energies, pairwise(features), 1))
    differ = abs(weights[0] - weights[1]) > TOLERANCE
    evidence = f"Three alike frames with e = (0.5, 0.5, 2.0) get {weights[0]:.2f}, {weights[1]:.2f}, {weights[2]:.2f}."
    return Judgement(SUPPORTED if differ else REFUTED, evidence, float(weights[1] - weights[0]))


def _example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seven frames of width five, three clusters, from a fixed generator."""
    generator = np.random.default_rng(7)
    return generator.normal(size=(7, 5)), generator.normal(size=(5, 3)), generator.normal(size=3)


def _convolution(_: object) -> Judgement:
    """A convolution is linear in its input, with one kernel everywhere; Eq. 7 with d_ij from the data is not."""
    frames, weights, _bias = _example()

    def equation(values: np.ndarray) -> np.ndarray:
        return neighbour_sum(values, pairwise(values), 2) @ weights

    gap = np.abs(equation(2 * frames) - 2 * equation(frames)).max()
    kernel = np.array([0.2, 0.5, 1.0, 0.5, 0.2])
    distances = np.zeros((7, 7)) + np.inf
    for offset, weight in ((1, 0.5), (2, 0.2)):
        distances[np.abs(np.subtract.outer(np.arange(7), np.arange(7))) == offset] = -np.log(weight)
    convolved = np.stack([np.convolve(channel, kernel, mode="same") for channel in frames.T], axis=1) @ weights
    fixed = np.abs(neighbour_sum(frames, distances, 2) @ weights - convolved).max()
    linear = gap < TOLERANCE and fixed < TOLERANCE
    evidence = (
        f"Doubling the frames changes Eq. 7's logits by {gap:.2f} more than twice, so with weights taken from the data "
        f"it is no convolution; with weights fixed by offset it gives {_within(fixed)} logits. The layer "
        "that was run learns fixed weights (erratum 6)."
    )
    return Judgement(SUPPORTED if linear else REFUTED, evidence, _settled(gap), None, None, 0.0, None)


def _bias(_: object) -> Judgement:
    """Eq. 6 with q = w x + b inserted against Eq. 7, which keeps b once."""
    frames, weights, bias = _example()
    distances = pairwise(frames)
    exact = neighbour_sum(frames @ weights + bias, distances, 2)
    printed = neighbour_sum(frames, distances, 2) @ weights + bias
    gap = np.abs(softmax(exact) - softmax(printed)).max()
    evidence = f"The assignments differ by up to {gap:.2f}: inserting q keeps b (1 + sum of d_ij), not b (erratum 5)."
    return Judgement(SUPPORTED if gap < TOLERANCE else REFUTED, evidence, _settled(gap), None, None, 0.0, None)


def _boundary(_: object) -> Judgement:
    """Eq. 3 at z = 0 against NetVLAD's own assignment, at z = 1 against Eq. 2."""
    frames, weights, bias = _example()
    logits, distances = frames @ weights + bias, pairwise(frames)
    plain = softmax(logits)
    none = softmax(neighbour_sum(logits, np.full_like(distances, np.inf), 2))  # z = 0 makes every neighbour's weight 0
    gap = np.abs(none - plain).max()
    evidence = (
        f"At z = 0 the sum is empty and leaves {_within(gap)} assignments; at z = 1 every factor is 1 and Eq. 3 is "
        "Eq. 2 as printed."
    )
    return Judgement(SUPPORTED if gap < TOLERANCE else REFUTED, evidence, _settled(gap), None, None, 0.0, None)


def _sign(_: object) -> Judgement:
    """Eqs. 2, 3 and 5 print exp(+distance): near frames would count less than far ones."""
    near, far = np.exp([0.1, 2.0])
    energies, distances = np.array([1.0, 0.2]), np.array([[0.0, 1.0], [1.0, 0.0]])
    plus = softmax(neighbour_sum(energies, distances, 1, sign=1))
    evidence = (
        f"exp(+d) gives a frame at distance 0.1 the weight {near:.2f} and one at 2.0 {far:.2f}; two frames with e = "
        f"(1.0, 0.2) at distance 1 get {plus[0]:.2f} and {plus[1]:.2f}, their order reversed (erratum 1). Eqs. 4, 6, 8 "
        "print exp(-d)."
    )
    return Judgement(SUPPORTED if near > far else REFUTED, evidence, float(near - far))


def _order_of_frames(_: object) -> Judgement:
    """NetVLAD's residuals of frames and of the same frames backwards."""
    frames, weights, bias = _example()
    centres = weights.T

    def residuals(values: np.ndarray) -> np.ndarray:
        assigned = softmax(values @ weights + bias)
        return assigned.T @ values - assigned.sum(axis=0)[:, None] * centres

    gap = np.abs(residuals(frames) - residuals(frames[::-1])).max()
    evidence = f"Backwards, the frames give {_within(gap)} residuals."
    return Judgement(SUPPORTED if gap < TOLERANCE else REFUTED, evidence, _settled(gap), None, None, 0.0, None)


def _sims(_: object) -> Judgement:
    """Labels of the 2018 vocabulary that begin with the game's name."""
    text = (resources.files("taxonomy_data") / "labels.csv").read_text(encoding="utf-8")
    names = [row["name"] for row in csv.DictReader(text.splitlines()) if row["name"].startswith("The Sims")]
    verdict = SUPPORTED if len(names) == PAPER_SIMS else REFUTED
    return Judgement(verdict, f"{', '.join(names)}.", float(len(names) - PAPER_SIMS), None, None, 0.0, None)


def _claim(name: str, text: str, section: str, statistic: str, rule: str, judge) -> Claim:
    return Claim(name, text, section, statistic, rule, "number", judge, depends_on_data=False)


EQUAL_RULE = "computed in float64: supported when the difference is below 1e-12, else refuted by this counterexample"

CLAIMS = [
    _claim(
        "alpha-equal",
        "If i and j are each other's only neighbours, alpha_i = alpha_j.",
        "2.3, Eqs. 4 and 5",
        "alpha_i - alpha_j of two frames",
        EQUAL_RULE,
        _mutual_neighbours,
    ),
    _claim(
        "alpha-unequal",
        "If their neighbours differ, alpha_i need not equal alpha_j.",
        "2.3",
        "alpha_j - alpha_i in a chain of three frames",
        "one example in which they differ by more than 1e-12 supports it",
        _other_neighbours,
    ),
    _claim(
        "neighbours-weigh-more-when-near",
        "Eqs. 2, 3 and 5 as printed let near frames weigh more than far ones.",
        "2.2, 2.3",
        "weight at distance 0.1 minus weight at distance 2.0",
        "computed: supported when positive, else refuted",
        _sign,
    ),
    _claim(
        "boundary-switches",
        "With z = 0 Eq. 3 becomes NetVLAD's assignment, with z = 1 Eq. 2.",
        "2.2, Eq. 3",
        "largest difference of the assignments",
        EQUAL_RULE,
        _boundary,
    ),
    _claim(
        "eq7-follows-from-eq6",
        "Eq. 7 follows from Eq. 6 by inserting q = w x + b.",
        "3.1, Eq. 7",
        "largest difference of the assignments",
        EQUAL_RULE,
        _bias,
    ),
    _claim(
        "eq7-is-a-convolution",
        "Eq. 7 (and Eq. 8 likewise) has the form of a one-dimensional convolution.",
        "3.1, 3.2, Eqs. 7 and 8",
        "departure from linearity when the frames are doubled",
        EQUAL_RULE,
        _convolution,
    ),
    _claim(
        "netvlad-ignores-order",
        "NetVLAD clusters frames regardless of time.",
        "4.3",
        "largest difference of its residuals when the frames are reversed",
        EQUAL_RULE,
        _order_of_frames,
    ),
    _claim(
        "seven-labels-of-one-game",
        "The vocabulary has seven labels for the game The Sims.",
        "4.1",
        "labels of the 2018 vocabulary that begin with its name, minus 7",
        "counted: supported when there are seven, else refuted",
        _sims,
    ),
]
