"""Claims: prepare equals its definition in float64; padding further changes nothing; computed states stay."""

import numpy as np
import pytest
import torch

from baselines.rnn import AttentionRNN, RecurrentClassifier
from replicate import preprocess
from replicate.data.batches import Batch
from replicate.data.spec import SPECS
from replicate.errors import DataError
from replicate.preprocess import prepare

NORMALISATIONS = ["l2", "l2_sqrt_width", "none"]


def batch(features, lengths) -> Batch:
    rows = np.arange(len(features))
    return Batch(features, np.asarray(lengths), np.zeros((len(features), 1), bool), rows)


def random_batch(dataset: str, videos: int = 5, longest: int = 9, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    lengths = np.concatenate([[longest, 1], generator.integers(1, longest + 1, videos - 2)])
    features = generator.integers(0, 256, (videos, longest, SPECS[dataset].width), dtype=np.uint8)
    return batch(features, lengths)


def definition(given: Batch, spec, normalisation: str) -> np.ndarray:
    """One value at a time as the starter code says it: dequantise, put zeros after the end, divide by the length."""
    result = np.zeros(given.features.shape, np.float64)
    for video, length in enumerate(given.lengths):
        for frame in range(length):
            values = given.features[video, frame].astype(np.float64) * 4 / 255 + (4 / 512 - 2)
            if normalisation != "none":
                values = values / np.sqrt(max((values**2).sum(), 1e-12))
            if normalisation == "l2_sqrt_width":
                values = values * np.sqrt(spec.width)
            result[video, frame] = values
    return result


@pytest.mark.parametrize("dataset", ["yt8m", "audioset"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_equals_its_definition(dataset, normalisation):
    given, spec = random_batch(dataset), SPECS[dataset]
    frames, mask = prepare(given, spec, normalisation)
    assert frames.dtype == torch.float32
    np.testing.assert_allclose(frames.numpy(), definition(given, spec, normalisation), atol=2e-6)
    assert mask.tolist() == [[frame < length for frame in range(9)] for length in given.lengths]


def test_padding_is_exactly_zero_whatever_its_bytes_are():
    given = random_batch("audioset")
    frames, mask = prepare(given, SPECS["audioset"], "l2")
    assert given.features[~mask.numpy()].any() and not frames[~mask].any()


@pytest.mark.parametrize("values", [1, 9 * 128, 1 << 20])
def test_the_size_of_the_parts_does_not_matter(monkeypatch, values):
    given = random_batch("audioset", videos=7)
    monkeypatch.setattr(preprocess, "CACHE_VALUES", values)
    frames, _ = prepare(given, SPECS["audioset"], "l2")
    np.testing.assert_allclose(frames.numpy(), definition(given, SPECS["audioset"], "l2"), atol=2e-6)


@pytest.mark.parametrize("model", ["rnn", "rnn_attn"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_batch_trimmed_to_its_longest_video_scores_as_one_padded_to_300(model, normalisation):
    spec, given = SPECS["audioset"], random_batch("audioset")
    padded = np.zeros((5, 300, 128), np.uint8)
    padded[:, :9] = given.features
    head = {"width": 128, "hidden": 16, "head": (8,), "nodes": 4, "seed": 0}
    made = AttentionRNN(**head) if model == "rnn_attn" else RecurrentClassifier(torch.nn.GRU, **head)
    with torch.inference_mode():
        trimmed = made(*prepare(given, spec, normalisation))
        whole = made(*prepare(batch(padded, given.lengths), spec, normalisation))
    torch.testing.assert_close(trimmed, whole, atol=1e-5, rtol=1e-5)


def test_video_level_vectors_are_normalised_as_the_option_says():
    values = np.random.default_rng(0).normal(size=(3, 1, 1152)).astype(np.float32)
    values[1] = 0
    given = batch(values.copy(), [1, 1, 1])
    frames, _ = prepare(given, SPECS["yt8m-video"], "l2")
    np.testing.assert_allclose(np.linalg.norm(frames.numpy(), axis=2).ravel(), [1, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(prepare(given, SPECS["yt8m-video"], "none")[0].numpy(), values)
    np.testing.assert_array_equal(given.features, values)  # the source's array is not written to


def test_computed_states_pass_unchanged():
    states = np.random.default_rng(0).normal(size=(4, 1, 16)).astype(np.float32)
    states.flags.writeable = False  # as from a memory-mapped file
    frames, mask = prepare(batch(states, [1, 1, 1, 1]), SPECS["yt8m"], "l2_sqrt_width")
    np.testing.assert_array_equal(frames.numpy(), states)
    assert mask.all()


def test_another_type_is_refused():
    with pytest.raises(DataError, match="float64"):
        prepare(batch(np.zeros((1, 1, 128)), [1]), SPECS["audioset"], "l2")
