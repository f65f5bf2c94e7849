"""Preloaded by a worker: what is to be computed on a GPU is computed on the processor, to the same bytes as there."""

from replicate import steps
from replicate.config import with_changes


def dask_setup(_worker):
    real = steps.compute_of
    steps.compute_of = lambda profile: real(with_changes(profile, ["run.device=cpu"]))
