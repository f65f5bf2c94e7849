"""Claims: another training's files, or damaged ones, are refused with a sentence; a full disk leaves the checkpoint
before."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from toy_corpus import NODES, WIDTH, split
from toy_training import PROTOCOL, Killed, run

from replicate import checkpoint
from replicate.errors import IncompleteRun
from replicate.training import train as module
from replicate.training.train import CHECKPOINT, HISTORY

CHANGES = {
    "learning_rate": {"protocol": PROTOCOL.model_copy(update={"learning_rate": 0.02})},
    "seed": {"seed": 1},
    "train": {"split": dataclasses.replace(split(), train=split().train[::-1].copy())},
    "shapes": {"model": nn.Sequential(nn.Linear(WIDTH, NODES))},
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
def test_files_of_another_training_are_refused(changed, finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        if not finished:
            patched.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
        try:
            run(tmp_path)
        except Killed:
            assert not finished
    name = HISTORY if finished else CHECKPOINT
    message = rf"{name} is of another training \({changed} is .* there and .* here\); delete it"
    with pytest.raises(IncompleteRun, match=message):
        run(tmp_path, **CHANGES[changed])


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A folder with a checkpoint of epoch 3."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_a_sentence(fault, interrupted):
    path = interrupted / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes({"cut": content[:-50], "flipped": content, "empty": b"", "text": b"not a checkpoint"}[fault])
    with pytest.raises(IncompleteRun, match=f"{CHECKPOINT} is damaged .*; delete it and issue the same command again"):
        run(interrupted)


def test_every_flipped_bit_of_tensors_is_noticed(interrupted):
    path = interrupted / CHECKPOINT
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in np.random.default_rng(0).integers(begin, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(place) % 8
        path.write_bytes(damaged)
        with pytest.raises(IncompleteRun, match="its checksum does not match its tensors"):
            checkpoint.load(path, {})


def test_a_damaged_history_is_a_sentence(tmp_path):
    run(tmp_path)
    (tmp_path / HISTORY).write_text("{")
    with pytest.raises(IncompleteRun, match=f"{HISTORY} is damaged"):
        run(tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    real, calls = checkpoint.write_bytes, iter(range(9))

    def full(path, content):
        if next(calls) == 1:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    _, state = checkpoint.load(tmp_path / CHECKPOINT, read_identity(tmp_path))
    assert state["epoch"] == 1


def read_identity(folder: Path):
    import safetensors

    with safetensors.safe_open(folder / CHECKPOINT, "pt") as file:
        return json.loads(file.metadata()["checkpoint"])["identity"]
