"""Preloaded by a worker: what is to be computed on a GPU is computed on the processor, to the same bytes as there."""

import dataclasses

from replicate import steps
from replicate.profile_files import with_changes


def dask_setup(_worker):
    def on_processor(work):
        return lambda step: work(dataclasses.replace(step, profile=with_changes(step.profile, ["run.device=cpu"])))

    for name, work in steps.STEPS.items():
        steps.STEPS[name] = on_processor(work)
