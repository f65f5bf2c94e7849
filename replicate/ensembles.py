"""How an ensemble makes one score of its members'. No torch here."""

from typing import Literal

import numpy as np

Rule = Literal["probability", "logit", "tuned"]
BLOCK = 1 << 18  # values per member that are combined at a time, so that they stay in the cache
MOST_ROUNDS, TOLERANCE = 500, 1e-6  # of the search for weights, and the change of a weight that ends it


def mean_probability(logits: list[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """The logit of the mean of probabilities: float32, computed in float64, from logits of one shape.

    logit(mean p) = log sum w p - log sum w (1 - p), both by logsumexp of log p = -log(1 + exp(-z)) and
    log(1 - p) = log p - z, so that it is finite at any logit; probabilities round to 1 from a logit of 37 on.

    Args:
        logits: z of every member.
        weights: (members,) w, positive; equal by default.
    """
    result = np.empty(logits[0].shape, np.float32)
    flat, sources = result.reshape(-1), [np.ascontiguousarray(each).reshape(-1) for each in logits]
    share = np.zeros((len(logits), 1)) if weights is None else np.log(weights)[:, None]
    for begin in range(0, len(flat), BLOCK):
        part = slice(begin, begin + BLOCK)
        values = np.stack([each[part] for each in sources]).astype(np.float64)
        positive = share + np.minimum(values, 0) - np.log1p(np.exp(-np.abs(values)))
        flat[part] = _log_sum_exp(positive) - _log_sum_exp(positive - values)
    return result


def mean_logit(logits: list[np.ndarray]) -> np.ndarray:
    """The equal-weight mean of logits, float32: the geometric mean of odds (erratum 25)."""
    return np.mean(np.stack(logits), axis=0, dtype=np.float64).astype(np.float32)


def tuned_weights(logits: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Weights of the mean probability that make the labels of the tune videos most likely (least cross-entropy).

    The likelihood is concave in the weights and is climbed by expectation and maximisation for a mixture, which never
    leaves the simplex: a weight becomes the mean share that its member has in the probability of what was observed.

    Args:
        logits: of every member, (videos, nodes).
        labels: (videos, nodes) bool.

    Returns:
        (members,) float64, positive, with sum 1.
    """
    signs = np.where(labels, -1, 1).astype(np.float32)
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that is meant
        observed = np.stack([1 / (1 + np.exp(signs * each)) for each in logits]).reshape(len(logits), -1)
    weights = np.full(len(logits), 1 / len(logits))
    for _ in range(MOST_ROUNDS):
        shares = np.zeros(len(logits))
        for begin in range(0, observed.shape[1], BLOCK):
            part = weights[:, None] * np.maximum(observed[:, begin : begin + BLOCK].astype(np.float64), 1e-30)
            shares += (part / part.sum(axis=0)).sum(axis=1)
        before, weights = weights, shares / observed.shape[1]
        if np.abs(weights - before).max() < TOLERANCE:
            break
    return np.maximum(weights, 1e-9) / np.maximum(weights, 1e-9).sum()


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=0)
    return largest + np.log(np.exp(values - largest).sum(axis=0))
