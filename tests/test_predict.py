"""Claims: a video's scores stand in its row whatever its company; files are whole or absent; memory does not grow with
the number of videos; scores that cannot be used are a sentence."""

import gc

import numpy as np
import psutil
import pytest
import torch
from scipy.special import logsumexp
from torch import nn
from toy_corpus import NODES, SPEC, WIDTH, corpus

from replicate.compute import Compute
from replicate.data.spec import DatasetSpec, Feature
from replicate.ensembles import mean_probability
from replicate.errors import DataError
from replicate.predict import aggregate, infer, predict, write_rows
from replicate.scores import open_scores, write_ensemble


class Toy(nn.Module):
    """A linear map of the frames' sum over time; `states` is that sum."""

    def __init__(self, width: int = WIDTH, nodes: int = NODES):
        super().__init__()
        self.map = nn.Linear(width, nodes)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def states(self, frames, mask):
        return (frames * mask[:, :, None]).sum(dim=1)

    def forward(self, frames, mask):
        return self.map(self.states(frames, mask))


def expected(source, rows):
    """(states, logits) in float64, one video at a time: dequantise, length 1 per frame, sum, linear map."""
    model = Toy()
    weight, bias = (tensor.detach().double().numpy() for tensor in (model.map.weight, model.map.bias))
    states = []
    for row in rows:
        frames = source.features[row, : source.lengths[row]] * SPEC.scale + SPEC.bias
        states.append((frames / np.sqrt((frames**2).sum(axis=1, keepdims=True))).sum(axis=0))
    return np.array(states), np.array(states) @ weight.T + bias


ROWS = np.random.default_rng(2).permutation(96)[:41]


@pytest.mark.parametrize("size", [1, 8, 41, 100])
def test_every_video_is_scored_in_its_row(size, tmp_path):
    source, _ = corpus()
    told = []
    predict(Toy(), source, ROWS, SPEC, "l2", size, tmp_path, lambda *event: told.append(event))
    logits = np.load(tmp_path / "logits.npy")
    assert (logits.dtype, logits.shape) == (np.float32, (41, NODES))
    np.testing.assert_allclose(logits, expected(source, ROWS)[1], rtol=1e-5, atol=1e-5)
    assert told[-1][:2] == (41, 41) and len(told) == -(-41 // size)


def test_dropout_is_off_and_gradients_are_not_kept(tmp_path):
    class Random(Toy):
        def forward(self, frames, mask):
            assert not self.training and not torch.is_grad_enabled()
            return super().forward(frames, mask)

    source, _ = corpus()
    predict(Random().train(), source, ROWS, SPEC, "l2", 8, tmp_path)


def test_states_stand_in_the_rows_of_the_index_and_others_are_nan(tmp_path):
    source, _ = corpus()
    wanted = np.concatenate([ROWS, ROWS[:5]])  # twice is once
    aggregate(Toy(), source, wanted, 96, SPEC, "l2", 8, tmp_path)
    states = np.load(tmp_path / "states.npy")
    assert (states.dtype, states.shape) == (np.float32, (96, WIDTH))
    np.testing.assert_allclose(states[ROWS], expected(source, ROWS)[0], rtol=1e-5, atol=1e-5)
    assert np.isnan(np.delete(states, ROWS, axis=0)).all()


def test_memory_does_not_grow_with_the_number_of_videos(tmp_path):
    """Twenty times as many videos, 48 MB more of scores: the process needs less than a fifth of that more. Pages of
    files, its libraries, are left out: the system takes them back and reads them anew as it likes."""
    spec = DatasetSpec("wide", "sequence", "id", "labels", (Feature("x", 64),), "uint8", 4, 1, SPEC.scale, SPEC.bias)
    process, model = psutil.Process(), Toy(64, 600)

    class Generated:
        def read(self, rows):
            return np.full((len(rows), 4, 64), 7, np.uint8), np.full(len(rows), 4)

    def peak(videos):
        seen = []
        gc.collect()

        def look(*_):
            memory = process.memory_info()
            seen.append(memory.rss - getattr(memory, "shared", 0))

        predict(model, Generated(), np.arange(videos), spec, "l2", 100, tmp_path, look)
        assert (tmp_path / "logits.npy").stat().st_size > videos * 600 * 4
        return max(seen)

    peak(1000)
    few = peak(1000)  # before the many: what they would have freed may stay with the process
    assert peak(21_000) - few < 10e6


def test_a_death_leaves_no_file(tmp_path):
    source, _ = corpus()

    def die(done, *_):
        if done > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(Toy(), source, ROWS, SPEC, "l2", 8, tmp_path, die)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_finite_are_a_sentence(tmp_path):
    source, _ = corpus()
    model = Toy()
    model.map.bias.data[2] = torch.nan
    with pytest.raises(DataError, match="outputs are not finite; its training diverged"):
        predict(model, source, ROWS, SPEC, "l2", 8, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_rows_are_never_a_file(tmp_path):
    with pytest.raises(DataError, match="2 of 3 rows were computed"):
        write_rows(tmp_path / "x.npy", iter([np.zeros((2, 4), np.float32)]), 3, None)
    assert list(tmp_path.iterdir()) == []


def test_results_come_in_the_order_of_rows():
    source, _ = corpus()
    lengths = infer(lambda frames, mask: mask.sum(dim=1, keepdim=True), source, ROWS, SPEC, "l2", 8, Compute())
    assert np.concatenate(list(lengths))[:, 0].tolist() == source.lengths[ROWS].tolist()


def store(folder, logits):
    folder.mkdir()
    np.save(folder / "logits.npy", logits)
    return folder


def test_an_ensemble_is_the_logit_of_the_mean_probability(tmp_path):
    """Against logsumexp over members in float64: log p = -logsumexp(0, -z), log(1 - p) = -logsumexp(0, z)."""
    generator = np.random.default_rng(0)
    wide = generator.normal(size=(3, 300, 9)) * 10 ** generator.uniform(-2, 3, (3, 300, 9))
    logits = list(wide.astype(np.float32))
    wide = np.array(logits, np.float64)
    zero = np.zeros_like(wide)
    positive, negative = (-logsumexp([zero, sign * wide], axis=0) for sign in (-1, 1))
    oracle = logsumexp(positive, axis=0) - logsumexp(negative, axis=0)
    np.testing.assert_allclose(mean_probability(logits), oracle, rtol=3e-7, atol=1e-6)
    members = [store(tmp_path / name, values) for name, values in zip("abc", logits, strict=True)]
    (tmp_path / "ensemble").mkdir()
    write_ensemble(tmp_path / "ensemble", members)
    scores = open_scores(tmp_path / "ensemble")
    assert scores.shape == (300, 9)
    positions = np.array([7, 0, 299, 7])
    np.testing.assert_array_equal(scores.read(positions), mean_probability(logits)[positions])
    assert sum(path.stat().st_size for path in (tmp_path / "ensemble").iterdir()) < 1000  # nothing is stored twice
    (tmp_path / "a").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="holds no scores"):
        open_scores(tmp_path / "ensemble")


def test_what_is_read_may_be_changed(tmp_path):
    scores = open_scores(store(tmp_path / "a", np.ones((4, 3), np.float32)))
    scores.read(slice(None))[...] = 5
    assert (scores.read(slice(None)) == 1).all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"logits.npy holds no scores \(No such file or directory\); delete its folder and predict again"),
        (b"", r"logits.npy holds no scores \(.*\); delete its folder and predict again"),
        (b"text", r"logits.npy holds no scores \(.*\)"),
        (np.zeros((3, 4)), r"logits.npy holds float64 \(3, 4\), not float32 \(videos, nodes\); predict again"),
        (np.zeros(3, np.float32), r"logits.npy holds float32 \(3,\), not float32"),
    ],
)
def test_scores_that_cannot_be_used_are_a_sentence(content, sentence, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "logits.npy").write_bytes(content)
    elif content is not None:
        np.save(tmp_path / "logits.npy", content)
    with pytest.raises(DataError, match=sentence):
        open_scores(tmp_path)


def test_a_cut_file_is_a_sentence(tmp_path):
    store(tmp_path / "a", np.ones((40, 30), np.float32))
    content = (tmp_path / "a" / "logits.npy").read_bytes()
    (tmp_path / "a" / "logits.npy").write_bytes(content[:-7])
    with pytest.raises(DataError, match="logits.npy holds no scores"):
        open_scores(tmp_path / "a")
