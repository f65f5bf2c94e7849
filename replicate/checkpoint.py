"""One file from which an interrupted training goes on exactly: weights, Adam's state, best weights, and where it was.

A safetensors file (loading it executes nothing) whose header carries the rest as JSON with a checksum of the tensors.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as to_bytes

from replicate.errors import IncompleteRun
from replicate.record import canonical_json, read_json, write_bytes

Tensors = dict[str, torch.Tensor]


def save(path: Path, groups: dict[str, Tensors], identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; the one before stays until then.

    Args:
        path: the file.
        groups: tensors by group and name.
        identity: what the training is of; `load` refuses another's.
        state: where it was, JSON values.
    """
    tensors = {f"{group}/{name}": _plain(tensor) for group, named in groups.items() for name, tensor in named.items()}
    header = {"identity": identity, "state": state, "sha256": _checksum(tensors)}
    write_bytes(path, to_bytes(tensors, {"checkpoint": canonical_json(header)}))


def load(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """(groups, state) as they were saved.

    Raises:
        IncompleteRun: the file is damaged, or is of another training.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        stored, state, checksum = header["identity"], header["state"], header["sha256"]
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise IncompleteRun(_damaged(path, str(error) or type(error).__name__)) from None
    if checksum != _checksum(tensors):
        raise IncompleteRun(_damaged(path, "its checksum does not match its tensors"))
    refuse_other(path, stored, identity)
    groups: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return groups, state


def refuse_other(path: Path, stored: dict[str, Any], identity: dict[str, Any]) -> None:
    """Stop if a file is of another training than the one that finds it.

    Raises:
        IncompleteRun: naming the first thing that differs.
    """
    for key in sorted(stored.keys() | identity.keys()):
        if stored.get(key) != identity.get(key):
            there, here = (canonical_json(each.get(key)) for each in (stored, identity))
            what = f"{key} is {there[:60]} there and {here[:60]} here"
            raise IncompleteRun(f"{path} is of another training ({what}); delete it, or train into another folder")


def read_state(path: Path) -> dict[str, Any]:
    """The JSON object that a training left in a file.

    Raises:
        IncompleteRun: the file is damaged.
    """
    try:
        return dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise IncompleteRun(_damaged(path, str(error))) from None


def weights_bytes(tensors: Tensors) -> bytes:
    """The content of a weights file; equal weights, equal bytes."""
    return to_bytes({name: _plain(tensor) for name, tensor in tensors.items()})


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _checksum(tensors: Tensors) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}); delete it and issue the same command again: training then starts afresh"
