"""Claims: two processes train as one does, to rounding, whatever a batch's parts; they agree on how it ended; killed at
any step and resumed they write the same bytes; the first alone writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rank_program import CASES, gradients, run_case
from safetensors.torch import load_file

from replicate.errors import ConfigurationError, IncompleteRun
from replicate.training.ranks import Ranks, joined
from replicate.training.train import HISTORY, TIMINGS, WEIGHTS

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(folder, [what each process found])."""
    folder = tmp_path_factory.mktemp("two")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*words, "-m", "rank_program", folder], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"results-{rank}.json").read_text()) for rank in (0, 1)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != TIMINGS}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_one_process(name, two):
    alone = gradients(name, Ranks())
    for found in two[1]:
        together = found["gradients"][name]
        assert together.keys() == alone.keys()
        for weight, gradient in alone.items():
            torch.testing.assert_close(torch.tensor(together[weight]), torch.tensor(gradient), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name, two, tmp_path):
    """Weights and losses to rounding; the same steps, examples and best epoch."""
    folder, found = two
    alone = run_case(name, tmp_path, Ranks())
    assert found[0]["records"][name] == found[1]["records"][name]
    together = found[0]["records"][name]
    for key in ("status", "epochs", "best_epoch", "steps", "examples", "skipped_steps"):
        assert together[key] == alone[key]
    assert (together["compute"]["processes"], alone["compute"]["processes"]) == (2, 1)
    precision = 1e-2 if name == "float16" else 1e-4
    for ours, theirs in zip(together["history"], alone["history"], strict=True):
        assert ours["training_loss"] == pytest.approx(theirs["training_loss"], rel=precision)
    weights, expected = load_file(folder / name / WEIGHTS), load_file(tmp_path / WEIGHTS)
    for each in set(expected) - {"model.energy.bias"}:  # no score depends on it, and Adam makes steps of its rounding
        torch.testing.assert_close(weights[each], expected[each], rtol=precision, atol=precision / 10)


@pytest.mark.parametrize("step", [3, 7])
def test_killed_together_and_resumed_they_end_the_same(step, two):
    folder, found = two
    assert bytes_of(folder / f"killed {step}") == bytes_of(folder / "drawing")
    assert found[0]["records"][f"killed {step}"] == found[0]["records"]["drawing"]


def test_processes_draw_apart(two, tmp_path):
    """Each has random draws of its own: with those of one process, dropout would be the same in both parts."""
    assert two[1][0]["records"]["drawing"]["history"] != two[1][0]["records"]["whole"]["history"]


def test_a_divergence_of_one_process_is_one_of_all(two):
    for found in two[1]:
        record = found["records"]["diverging"]
        assert record["status"] == "diverged"
        assert record["diverged_at"] == {"epoch": 1, "step": 4, "what": "loss or gradient is not finite"}


def test_the_first_process_alone_writes(two):
    folder, found = two
    assert found[0]["saves"] > 0 and found[1]["saves"] == 0
    assert sorted(path.name for path in (folder / "whole").iterdir()) == sorted((HISTORY, TIMINGS, WEIGHTS))


def test_a_model_that_normalises_over_batches_is_refused(two):
    for found in two[1]:
        assert "run.processes_per_model is above 1, but this model normalises over batches" in found["normalising"]


def test_shares_are_all_items_once():
    for items in range(8):
        shares = [Ranks(rank, 3).share(items) for rank in range(3)]
        assert [row for share in shares for row in range(items)[share]] == list(range(items))


def place(monkeypatch, **words):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        **words,
    }.items():
        monkeypatch.setenv(name, value)


def test_processes_that_the_profile_does_not_name_are_refused(monkeypatch):
    place(monkeypatch, WORLD_SIZE="3")
    with pytest.raises(ConfigurationError, match="started 3 processes, but run.processes_per_model is 2"):
        joined(2, "cpu").__enter__()


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch):
    place(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="process 2 of this host has no GPU of its own, as there are 1"):
        joined(2, "cuda").__enter__()


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="run.processes_per_model is 17, but a batch has 16 videos"):
        run_case("whole", tmp_path, Ranks(0, 17))


class Apart(Ranks):
    """Another process is one step behind."""

    def gather(self, tensor):
        return torch.stack([tensor, tensor - 1])


def test_hosts_that_find_different_checkpoints_are_told_to_share_a_folder(tmp_path):
    with pytest.raises(IncompleteRun, match="is not the same for all processes; let all hosts use one shared folder"):
        run_case("whole", tmp_path, Apart())
