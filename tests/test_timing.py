"""The timing run: what is measured is the measured steps, and the record says what was not."""

import itertools

import numpy as np
import pytest
from torch import nn

from baselines.rnn import RecurrentClassifier
from replicate.config import TimingConfig
from replicate.hardware import meters
from replicate.schema import TimeRecord
from replicate.training import timing
from tests.toy_corpus import NODES, SPEC, TRAINING, WIDTH, corpus

CONFIG = TimingConfig(warm_up_steps=3, steps=4, repeats=2)


def run(progress=None):
    source, labels = corpus()
    model = RecurrentClassifier(nn.GRU, WIDTH, 4, (4,), NODES, seed=0)
    return timing.time_training(model, source, labels, np.arange(64), TRAINING, CONFIG, SPEC, 0, progress)


def test_meters_run_during_the_measured_steps_alone(monkeypatch):
    steps, edges = itertools.count(), []
    done = 0

    def progress(number, _total, _message):
        nonlocal done
        done = next(steps) + 1
        assert number == done

    for name in ("ProcessMeter", "GpuMeter"):
        kind = getattr(meters, name)

        class Watched(kind):
            def __enter__(self):
                edges.append(done)
                return super().__enter__()

            def __exit__(self, *exception):
                edges.append(done)
                return super().__exit__(*exception)

        monkeypatch.setattr(meters, name, Watched)
    run(progress)
    assert done == CONFIG.repeats * (CONFIG.warm_up_steps + CONFIG.steps)
    assert edges == [3, 3, 7, 7, 10, 10, 14, 14], "twice (a meter each): three steps to warm up, four to measure"


def test_the_record_says_what_was_not_measured():
    record = TimeRecord(column="rnn", profile="toy", **run())
    assert record.gpu["reason"] == meters.NO_GPU_USED
    for name in ("peak_memory_bytes", "nvml_peak_memory_bytes", "energy_joules", "utilisation"):
        assert record.gpu[name] is None
    assert record.process["peak_memory_with_children_bytes"] >= record.peak_memory_bytes > 0
    assert record.process["cpu_seconds"] > 0
    for repeat in record.repeats:
        assert repeat["data_wait_seconds_per_step"] + repeat["compute_seconds_per_step"] == pytest.approx(
            repeat["seconds_per_step"]
        )


def test_a_record_written_before_processes_were_metered_still_reads():
    values = TimeRecord(column="rnn", profile="toy", **run()).model_dump()
    del values["process"]
    assert TimeRecord(**values).process == {}
