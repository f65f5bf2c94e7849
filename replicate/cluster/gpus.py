"""The GPUs that worker processes share out, found without CUDA being started in the process that asks."""

import os
from collections.abc import Mapping

from replicate.hardware import nvml


def shared_out(per_worker: int, environ: Mapping[str, str] = os.environ) -> tuple[list[str], str]:
    """CUDA_VISIBLE_DEVICES of each worker, if each has so many GPUs; and what there is, for people."""
    found, reason = visible(environ)
    groups = [found[start : start + per_worker] for start in range(0, len(found), per_worker)]
    there = f"there are {len(found)}" if found else reason or "there is none"
    return [",".join(group) for group in groups if len(group) == per_worker], there


def visible(environ: Mapping[str, str] = os.environ) -> tuple[list[str], str | None]:
    """What CUDA_VISIBLE_DEVICES must be for each GPU or MIG instance alone; why there is none.

    NVML names them by UUID. Where it cannot be used, or cannot tell which GPU a number means (several models), torch
    counts, and numbers or the words that are in the variable already stand for them.
    """
    try:
        with nvml.session():
            gpus, reason = nvml.job_gpus(environ)
            if gpus:
                return [gpu.uuid for gpu in gpus], None
    except nvml.NoNvmlError as error:
        reason = str(error)

    import torch

    value = environ.get(nvml.VISIBLE)
    count = torch.cuda.device_count()
    words = [word.strip() for word in value.split(",")] if value is not None else [str(n) for n in range(count)]
    return words[:count], None if count else reason
