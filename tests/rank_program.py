"""What tests/test_ranks.py has two processes do together: `torchrun ... -m rank_program FOLDER`.

The cases are also run by one process, in the test. Each process writes what it found into results-<rank>.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from test_coherence import toy
from torch import nn
from toy_corpus import SPEC, corpus, split
from toy_training import PROTOCOL, Killed, Toy

from replicate import checkpoint
from replicate.compute import Compute
from replicate.data.batches import batches
from replicate.errors import ConfigurationError
from replicate.training import train
from replicate.training.optimise import Optimiser
from replicate.training.ranks import Ranks, joined

SHORT = PROTOCOL.model_copy(update={"epochs": 2})


def calm() -> nn.Module:
    """Without what is drawn at random."""
    model = Toy()
    model.dropout = nn.Identity()
    return model


def unused() -> nn.Module:
    """With a weight that no output depends on."""
    model = calm()
    model.spare = nn.Linear(2, 2)
    return model


CASES = {  # model, changes of the protocol, training videos, precision
    "whole": (calm, {}, 72, "float32"),
    "odd": (calm, {"batch_size": 7}, 72, "float32"),
    "odd parts": (calm, {"batch_size": 7, "micro_batch_size": 3}, 72, "float32"),  # one process has one, one has two
    "one left": (calm, {}, 65, "float32"),  # the last batch is one video, and a process has none
    "one left, Eq. 1": (lambda: toy("tc_rnn", form="output", z="distance", label_prior=3.0), {}, 65, "float32"),
    "unused": (unused, {}, 72, "float32"),
    "float16": (calm, {}, 72, "float16"),
}


def run_case(name: str, folder: Path, ranks: Ranks, **changes) -> dict:
    """The record of a short training."""
    make, protocol, videos, precision = CASES[name]
    source, labels = corpus()
    divided = split(videos=videos + 24, tune=24) if videos == 72 else split(videos=videos + 23, tune=23)
    arguments = (SHORT.model_copy(update=protocol), SPEC, 0, folder, None, Compute(precision=precision), ranks)
    return train.train(changes.get("model") or make(), source, labels, divided, *arguments)


def gradients(name: str, ranks: Ranks) -> dict[str, list]:
    """Of one batch of 7 videos, and of a batch of one, added up; zeros where a weight has none."""
    source, labels = corpus()
    make, protocol, _, _ = CASES[name]
    model = make().train()
    optimiser = Optimiser(model, SHORT.model_copy(update=protocol), SPEC, Compute(), ranks)
    for rows in (np.arange(7), np.arange(40, 41)):
        for batch in batches(source, labels, rows, 7, rank=ranks.rank, ranks=ranks.count):
            optimiser.gradients(batch, len(rows))
    return {n: (torch.zeros_like(p) if p.grad is None else p.grad).tolist() for n, p in model.named_parameters()}


def killed_and_resumed(folder: Path, ranks: Ranks, step: int) -> dict:
    """A training that draws at random, with a checkpoint after every second step, killed before a step and resumed."""
    count, real = iter(range(99)), Optimiser.step

    def die(*arguments):
        if next(count) == step:
            raise Killed
        return real(*arguments)

    Optimiser.step = die
    try:
        drawing(folder, ranks, Toy())
    except Killed:
        ranks.wait()
    finally:
        Optimiser.step = real
    return drawing(folder, ranks, Toy(99))


def drawing(folder: Path, ranks: Ranks, model: nn.Module) -> dict:
    source, labels = corpus()
    return train.train(model, source, labels, split(), SHORT, SPEC, 0, folder, ranks=ranks, checkpoint_minutes=1e-9)


def diverging(folder: Path, ranks: Ranks) -> dict:
    """The loss of the last process alone is infinite, from the fourth step on."""
    model, calls = calm(), iter(range(99))

    def spoil(_, __, logits):
        return logits + torch.inf if model.training and next(calls) >= 3 and ranks.rank == ranks.count - 1 else None

    model.register_forward_hook(spoil)
    return run_case("whole", folder, ranks, model=model)


def main(folder: Path) -> None:
    train.LOOK_EVERY = 2
    saves, real = [], checkpoint.save
    checkpoint.save = lambda *arguments: (saves.append(1), real(*arguments))
    with joined(2, "cpu") as ranks:
        found = {"rank": ranks.rank, "records": {}, "gradients": {}}
        for name in CASES:
            found["records"][name] = run_case(name, folder / name, ranks)
            found["gradients"][name] = gradients(name, ranks)
        found["records"]["drawing"] = drawing(folder / "drawing", ranks, Toy())
        for step in (3, 7):
            found["records"][f"killed {step}"] = killed_and_resumed(folder / f"killed {step}", ranks, step)
        found["records"]["diverging"] = diverging(folder / "diverging", ranks)
        found["saves"] = len(saves)
        try:
            ranks.wrap(nn.BatchNorm1d(3))
        except ConfigurationError as error:
            found["normalising"] = str(error)
    (folder / f"results-{found['rank']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
