"""Every parameter starts from a generator of its own, seeded with (seed, qualified name).

So a layer that is added to a model, or a hook that is filled, moves no other weight, and two columns of one seed share
all the weights that they have in common.
"""

import hashlib

import torch
from torch import nn


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters anew: uniform within 1/sqrt(fan), where fan is the width that a unit of the layer sums over
    (for recurrent layers, the hidden width), as torch does by default; normalisation layers start as the identity. A
    module that has `reset_parameters(generator)` is asked instead.

    Args:
        model: any module whose parameters belong to Linear, GRU, LSTM, LayerNorm, BatchNorm1d or modules with a
            `reset_parameters` of ours.
        seed: names the weights.

    Raises:
        TypeError: a parameter belongs to a module that this function does not know.
    """
    for prefix, module in model.named_modules():
        own = list(module.named_parameters(recurse=False))
        if not own:
            continue
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
        elif isinstance(module, nn.GRU | nn.LSTM):
            bound = module.hidden_size**-0.5
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            module.reset_parameters()
            continue
        elif type(module).__module__.startswith("torch."):
            raise TypeError(f"{prefix} is a {type(module).__name__}, for which no initialisation is stated")
        else:
            module.reset_parameters(generator=_generator(seed, prefix))
            continue
        for name, parameter in own:
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=_generator(seed, f"{prefix}.{name}"))
    return model


def _generator(seed: int, name: str) -> torch.Generator:
    number = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(number >> 1)  # torch takes 63 bits
