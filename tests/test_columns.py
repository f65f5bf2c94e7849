"""Claims, for every column on every kind of dataset: it learns; what is saved is what scores; it scores a video alike
in any company; several processes compute one process's gradients. A column of one's own joins by what its page says."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from toy_corpus import LONGEST, NODES, SPEC, TRAINING, WIDTH, corpus, split

import baselines
from replicate import engine, models
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.compute import Compute
from replicate.config import CoherenceConfig, ModelConfig
from replicate.data.batches import ArraySource, Batch
from replicate.data.spec import Feature
from replicate.ensembles import mean_probability
from replicate.errors import ConfigurationError
from replicate.predict import aggregate, infer
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from replicate.record import read_json
from replicate.scores import open_scores, write_ensemble
from replicate.stages import Graph
from replicate.training.optimise import Optimiser
from replicate.training.train import WEIGHTS, train

SIZES = {
    "head": (16,), "lstm_width": 12, "gru_width": 12, "netvlad_width": 12, "transformer_width": 12,
    "transformer_heads": 3, "transformer_feedforward": 16,
}  # fmt: skip
# As YouTube-8M, video and audio; as AudioSet, audio alone.
DATASETS = {
    "two modalities": (
        dataclasses.replace(SPEC, features=(Feature("rgb", 6), Feature("audio", 2))),
        ModelConfig(netvlad_clusters=(4, 2), **SIZES),
    ),
    "one modality": (SPEC, ModelConfig(netvlad_clusters=(4,), **SIZES)),
}
PROTOCOL = TRAINING.model_copy(update={"epochs": 4})
TRAINED = [AGGREGATOR, *(slug for slug, column in COLUMNS.items() if column.trained)]
FRAME_MODELS = [column for column in TRAINED if column != "dnn"]


def build(column: str, dataset: str, seed: int = 0) -> nn.Module:
    spec, model = DATASETS[dataset]
    widths = (model.lstm_width,) if column == "dnn" else tuple(feature.width for feature in spec.features)
    return models.build(column, model, CoherenceConfig(), widths, NODES, seed, LONGEST)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """trained(column, dataset) -> (record, model with the saved weights, source): each trained once."""

    @functools.cache
    def trained(column: str, dataset: str):
        folder = tmp_path_factory.mktemp(column)
        source, labels = corpus()
        if column == "dnn":
            lstm = trained(AGGREGATOR, dataset)[1]
            aggregate(lstm, source, np.arange(96), 96, DATASETS[dataset][0], "l2_sqrt_width", 16, folder)
            source = ArraySource(np.load(folder / "states.npy"))
        model = build(column, dataset)
        record = train(model, source, labels, split(), PROTOCOL, DATASETS[dataset][0], 0, folder)
        loaded = build(column, dataset, seed=1)  # other initial weights: none may survive loading
        loaded.load_state_dict(load_file(folder / WEIGHTS))
        return record, loaded, source

    return trained


def logits(model: nn.Module, source, dataset: str, size: int = 24) -> np.ndarray:
    blocks = infer(model.eval(), source, np.arange(48), DATASETS[dataset][0], "l2_sqrt_width", size, Compute())
    return np.concatenate(list(blocks))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("column", [*TRAINED, "base_ens", "tc_ens"])
def test_column(column, dataset, trainings, tmp_path):
    members = COLUMNS[column].members
    if members:
        scores = []
        for member in members:
            _, model, source = trainings(member, dataset)
            (tmp_path / member).mkdir()
            scores.append(logits(model, source, dataset))
            np.save(tmp_path / member / "logits.npy", scores[-1])
        write_ensemble(tmp_path, [tmp_path / member for member in members])
        found = open_scores(tmp_path).read(slice(None))
        mean = np.mean([1 / (1 + np.exp(-each.astype(float))) for each in scores], axis=0)
        np.testing.assert_allclose(1 / (1 + np.exp(-found.astype(float))), mean, atol=1e-6)
        np.testing.assert_array_equal(found, mean_probability(scores))
        return
    record, model, source = trainings(column, dataset)
    losses = [entry["training_loss"] for entry in record["history"]]
    assert losses[-1] < 0.9 * losses[0] and record["status"] == "finished"

    alone, together = logits(model, source, dataset, 1), logits(model, source, dataset)
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)  # padding differs with the company

    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(saved, tmp_path / "weights")
    again = build(column, dataset, seed=2)
    again.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    np.testing.assert_array_equal(logits(again, source, dataset), together)


def test_saved_weights_are_those_of_the_best_epoch(tmp_path):
    source, labels = corpus()
    model = build("tc_rnn", "one modality")
    record = train(model, source, labels, split(), PROTOCOL, SPEC, 0, tmp_path)
    assert record["best_epoch"] == record["epochs"]  # so the model in memory is the saved one
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.parametrize("column", ["tc_rnn", "netv", "tc_tm"])
def test_gradients_accumulate_over_parts(column):
    """A batch in parts, each padded to its own longest, gives the whole batch's gradients."""
    source, labels = corpus()
    rows = np.arange(24)
    batch = Batch(*source.read(rows), labels.encode(rows), rows)
    gradients = []
    for size in (0, 7):
        model = build(column, "one modality")
        protocol = PROTOCOL.model_copy(update={"micro_batch_size": size})
        Optimiser(model, protocol, SPEC, Compute()).gradients(batch)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_divergence_keeps_the_last_good_weights(tmp_path):
    """72 videos in batches of 16 make 5 steps; a weight overflows in the eighth, which is the third of epoch 2."""
    source, labels = corpus()
    good, spoilt = tmp_path / "good", tmp_path / "spoilt"
    short = PROTOCOL.model_copy(update={"epochs": 1})
    record = train(build("tc_rnn", "one modality"), source, labels, split(), short, SPEC, 0, good)
    model, calls = build("tc_rnn", "one modality"), iter(range(1, 100))

    def overflow(module: nn.Module, *_: object) -> None:
        if module.training and next(calls) == 8:
            module.energy.weight.data.fill_(torch.inf)

    model.register_forward_pre_hook(overflow)
    diverged = train(model, source, labels, split(), PROTOCOL, SPEC, 0, spoilt)
    assert diverged["status"] == "diverged" and (diverged["epochs"], diverged["best_epoch"]) == (1, 1)
    assert diverged["diverged_at"] == {"epoch": 2, "step": 3, "what": "loss or gradient is not finite"}
    assert diverged["history"] == record["history"]
    assert (spoilt / WEIGHTS).read_bytes() == (good / WEIGHTS).read_bytes()


@pytest.mark.parametrize("what", [torch.inf, torch.nan], ids=str)
def test_a_gradient_that_is_not_finite_is_a_divergence_though_the_loss_is(what, tmp_path):
    """In the last step of an epoch, so that no later loss could tell; 72 videos in batches of 16 make 5 steps."""
    source, labels = corpus()
    good, spoilt = tmp_path / "good", tmp_path / "spoilt"
    short = PROTOCOL.model_copy(update={"epochs": 1})
    record = train(build("tc_rnn", "one modality"), source, labels, split(), short, SPEC, 0, good)
    model, calls = build("tc_rnn", "one modality"), iter(range(1, 100))

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        if next(calls) == 10:
            gradient = gradient.clone()
            gradient.view(-1)[0] = what
        return gradient

    model.energy.weight.register_hook(spoil)
    diverged = train(model, source, labels, split(), PROTOCOL, SPEC, 0, spoilt)
    assert (diverged["status"], diverged["epochs"], diverged["best_epoch"]) == ("diverged", 1, 1)
    assert diverged["diverged_at"] == {"epoch": 2, "step": 5, "what": "loss or gradient is not finite"}
    assert diverged["history"] == record["history"]
    assert (spoilt / WEIGHTS).read_bytes() == (good / WEIGHTS).read_bytes()


def toy_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(LONGEST) < torch.randint(1, LONGEST + 1, (8, 1), generator=generator)
    frames = torch.randn(8, LONGEST, WIDTH, generator=generator) * mask[..., None]
    return frames, mask, torch.rand(8, NODES, generator=generator)


def gradients_of(model: nn.Module, frames: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> dict:
    loss = nn.functional.binary_cross_entropy_with_logits(model(frames, mask), labels, reduction="sum") / len(frames)
    loss.backward()
    return {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}


def half(rank: int, address: str, folder: str) -> None:
    """One of two processes: the gradients of every column on its half of the batch, averaged by gloo."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=2)
    mine = [each[4 * rank : 4 * rank + 4] for each in toy_batch()]
    found = {}
    for column in FRAME_MODELS:
        found[column] = gradients_of(DistributedDataParallel(build(column, "two modalities")), *mine)
    torch.distributed.barrier()
    torch.save(found, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_compute_one_processs_gradients(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(half, (f"file://{tmp_path}/meeting", str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert list(first) == FRAME_MODELS
    for column, gradients in first.items():
        expected = gradients_of(build(column, "two modalities"), *toy_batch())
        assert expected.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=f"{column}, {name}")
            assert torch.equal(gradient, second[column][name])


PAGE = Path(__file__).resolve().parent.parent / "docs" / "own_column.md"


def test_the_page_on_ones_own_column(tmp_path, monkeypatch):
    """The page's file, its lines of replicate/models.py and its profile, and nothing else, give two scored columns."""
    blocks = re.findall(r"```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    source, line, profile, coherent = blocks
    (tmp_path / "attention_pool.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    namespace = dict(vars(models))
    exec("from baselines.attention_pool import AttentionPool\nadded = {" + line + coherent + "}", namespace)
    monkeypatch.setattr(models, "BUILDERS", models.BUILDERS | namespace["added"])
    row = profile.replace('"smoke"', '"tiny"').replace("attention_pool", 'attention_pool", "tc_attention_pool')
    (tmp_path / "own.toml").write_text(row, encoding="utf-8")
    loaded = load_profile(str(tmp_path / "own.toml"), ('run.columns=["rnn"]',))
    assert loaded.run.columns == ("rnn", "attention_pool", "tc_attention_pool")

    graph, runs = Graph(loaded, None, lambda *_: None), tmp_path / "runs"
    settings = engine.Settings(loaded, runs, None, ("replicate", "all"))
    for column in loaded.run.columns[1:]:
        targets = [graph.predict(column, 0), graph.explain(column, 0), graph.time(column)]
        engine.walk(targets, settings, PlainLines())
        assert open_scores(targets[0].folder(runs)).shape[0] == 160
        record = read_json(graph.train(column, 0).folder(runs) / "record.json")
        assert record["status"] == "finished" and record["column"] == column
        assert read_json(targets[1].folder(runs) / "record.json")["attention"]["videos"] == 160
    assert "model.gru_width" in graph.train("attention_pool", 0).identity["fields"]  # any size may be its own


def test_a_column_that_nothing_builds():
    with pytest.raises(ConfigurationError, match="BUILDERS"):
        models.build("mine", ModelConfig(), CoherenceConfig(), (8,), NODES, 0, LONGEST)


def test_a_tc_column_of_ones_own_is_compared_with_what_its_name_says():
    profile = load_profile("tiny", ('run.own_columns=["mean_pool", "tc_mean_pool"]',))
    assert profile.run.columns[-2:] == ("mean_pool", "tc_mean_pool")
    assert COLUMNS["tc_mean_pool"].baseline == "mean_pool" and COLUMNS["mean_pool"].baseline is None
    fields = Graph(profile, None, lambda *_: None).train("tc_mean_pool", 0).identity["fields"]
    assert "coherence.maps" in fields
