"""Claims: a step's arithmetic is the closed form's; the floor is its largest part; the program's record is what it says
and what `plan` reads."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import ceilings as machine
from benchmarks import roofline, train
from benchmarks.training_steps import Group, groups, random_batch
from replicate import models
from replicate.benchmark_records import BenchmarkRecord, Ceilings, Work, file_name
from replicate.compute import Compute
from replicate.data.spec import SPECS
from replicate.profile_files import load_profile
from replicate.record import read_json
from replicate.speed import Speeds
from replicate.training.optimise import Optimiser

PAPER = load_profile("paper")
VIDEOS, FRAMES, WIDTH, NODES = 4, 7, 1152, 640
LIMITS = Ceilings(
    float32_flop_per_second=1e9, tensor_float32_flop_per_second=4e9, bfloat16_flop_per_second=8e9,
    memory_bytes_per_second=1e9, host_to_device_bytes_per_second=1e9, operation_seconds=1e-6,
    recurrent_step_seconds={"GRU": 1e-3}, read_videos_per_second=1000.0,
)  # fmt: skip
NOTHING = Work(
    flop=0, state_bytes=0, frame_bytes=0, activation_bytes=0, input_bytes=0, operations=0, recurrent_steps=0,
    recurrent_cell=None,
)  # fmt: skip


def flop(column):
    return roofline.meta_step(column, PAPER, (1024, 128), (VIDEOS, FRAMES, WIDTH), NODES)[0]


def product(rows, inputs, outputs):
    return 2 * rows * inputs * outputs


def head(width):
    """Forward, and gradients of inputs and of weights."""
    return 3 * sum(product(VIDEOS, a, b) for a, b in pairwise((width, *PAPER.model.head, NODES)))


@pytest.mark.parametrize(("column", "gates", "hidden"), [("rnn", 3, 512), ("dnn_lstm", 4, 1024)])
def test_recurrent_layers_are_counted(column, gates, hidden):
    """Frames need no gradient, nor does the state before the first. (On a CPU torch's counter misses an LSTM.)"""
    frames = VIDEOS * FRAMES
    inputs = 2 * product(frames, WIDTH, gates * hidden)
    states = 3 * product(frames, hidden, gates * hidden) - product(VIDEOS, hidden, gates * hidden)
    assert flop(column) == inputs + states + head(hidden)


def test_a_transformer_is_counted():
    frames, width, inner = VIDEOS * FRAMES, 768, 2048
    layer = 4 * product(frames, width, width) + 2 * product(frames, width, inner) + 2 * product(frames, FRAMES, width)
    pooled = 2 * product(frames, width, 1)  # weights of the mean need no gradient
    assert flop("tm") == 2 * product(frames, WIDTH, width) + 2 * 3 * layer + pooled + head(width)


def test_a_coherence_layer_adds_its_kernel():
    """Maps are linear, so one kernel of 5 frames is applied; on keys and values of two layers of the Transformer."""
    smoothed = 2 * 2 * VIDEOS * FRAMES * 768
    assert flop("tc_tm") - flop("tm") == 3 * 2 * 5 * smoothed


def test_bytes_that_are_kept_are_those_of_the_graph():
    """Head alone: the inputs of four products, of which the first is the batch itself, and the loss's logits and labels
    are kept; what ReLU keeps is its output, the next product's input."""
    kept = roofline.meta_step("dnn", PAPER, (1024,), (VIDEOS, 1, 1024), NODES)[1]
    assert kept == 4 * VIDEOS * (384 + 768 + 2 * NODES)


def test_the_floor_is_the_largest_part():
    parts = {
        "compute": NOTHING.model_copy(update={"flop": 2_000_000}),
        "memory": NOTHING.model_copy(
            update={"state_bytes": 1_000_000, "frame_bytes": 400_000, "activation_bytes": 600_000}
        ),
        "latency": NOTHING.model_copy(update={"operations": 2000}),
        "copying": NOTHING.model_copy(update={"input_bytes": 2_000_000}),
    }
    for name, work in parts.items():
        found = roofline.floor(work, LIMITS, Compute("cuda"), 0)
        assert found.total == pytest.approx(2.0) == pytest.approx(getattr(found, name))
        assert roofline.limit(found, measured=2.5) == name
    everything = Work(**{key: max(getattr(each, key) or 0 for each in parts.values()) for key in (
        "flop", "state_bytes", "frame_bytes", "activation_bytes", "input_bytes", "operations", "recurrent_steps",
    )}, recurrent_cell=None)  # fmt: skip
    assert roofline.floor(everything, LIMITS, Compute("cuda"), 0).total == pytest.approx(2.0)


def test_frames_that_wait_for_one_another_are_latency():
    work = NOTHING.model_copy(update={"operations": 2000, "recurrent_steps": 300, "recurrent_cell": "GRU"})
    assert roofline.floor(work, LIMITS, Compute(), 0).latency == pytest.approx(300)


def test_reading_limits_only_what_is_faster():
    found = roofline.floor(NOTHING, LIMITS, Compute(), read=128)
    assert found.reading == pytest.approx(128) and found.total == 0
    assert roofline.limit(found, measured=127) == "reading" and roofline.limit(found, measured=129) != "reading"


def test_the_rate_is_that_of_the_precision():
    assert roofline.rate(LIMITS, Compute("cuda")) == 1e9
    assert roofline.rate(LIMITS, Compute("cuda", tf32=True)) == 4e9
    assert roofline.rate(LIMITS, Compute("cuda", "bfloat16")) == 8e9
    on_cpu = LIMITS.model_copy(update={"bfloat16_flop_per_second": None, "tensor_float32_flop_per_second": None})
    assert roofline.rate(on_cpu, Compute("cpu", "bfloat16")) == 1e9


def test_counted_operations_are_those_that_touch_memory():
    values = torch.ones(4, 4)
    with roofline.CountOperations() as counter:
        values.t().reshape(2, 8)[:1].add_(1)
    assert counter.count == 2  # the reshape of a transposed matrix copies (a clone), add_ writes; the rest are views
    with roofline.CountOperations() as counter:
        torch.zeros(2, requires_grad=True).exp().sum().backward()
    assert counter.count > 4  # the backward pass is seen, too


def test_what_a_step_has_to_do():
    profile, spec = load_profile("tiny"), SPECS["yt8m"]
    batch = random_batch(profile, spec, 6, np.random.default_rng(0))
    model = models.build("rnn", profile.model, profile.coherence, (1024, 128), 6, 0, 12)
    count = sum(parameter.numel() for parameter in model.parameters())
    work = roofline.step_work("rnn", profile, (1024, 128), batch, Optimiser(model, profile.training, spec, Compute()),
                              Compute())  # fmt: skip
    videos, frames, width = batch.features.shape
    assert work.state_bytes == 44 * count and work.frame_bytes == 13 * videos * frames * width
    assert work.recurrent_cell == "GRU" and work.recurrent_steps == frames < work.operations


def test_steps_back_to_back_are_as_many_as_a_gpu_is_watched_in(monkeypatch):
    """As on a GPU, but on the processor."""
    profile, spec = load_profile("tiny"), SPECS["yt8m"]
    batch = random_batch(profile, spec, 6, np.random.default_rng(0))
    group = Group(["rnn"], profile, spec, Compute(), 6)
    group.run({"rnn": [batch]}, steps=2, warm_up=0)
    assert group.seconds_per_step("rnn") == np.median(group.ours["rnn"]) and group.peaks["rnn"] > 1e8
    taken = []
    monkeypatch.setattr(group.optimisers["rnn"], "step", lambda batch: taken.append(batch))
    group.ours["rnn"] = [0.125]
    group.watch("rnn", [batch], steps=2)
    assert len(taken) == 16 and group.seconds_per_step("rnn") == group.back_to_back["rnn"] < 0.125


def test_columns_alternate_with_their_baseline():
    assert list(groups(train.MODELS)) == [
        ["dnn_lstm"], ["dnn"], ["rnn"], ["rnn_attn", "tc_rnn"], ["netv", "tc_netv"], ["tm", "tc_tm"],
    ]  # fmt: skip
    assert list(groups(["tc_tm", "rnn", "tm"])) == [["tc_tm", "tm"], ["rnn"]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The program run at sizes for tests, and the folder that it wrote its record to."""
    folder = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "MATRIX", {"cpu": 64})
        patch.setattr(machine, "COPIED", {"cpu": 1 << 20})
        words = ["--preset", "tiny", "--steps", "2", "--columns", "dnn,rnn_attn,tc_rnn", "--record", str(folder)]
        result = CliRunner().invoke(train.main, words)
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_the_record_says_what_was_measured(recorded):
    folder, output = recorded
    (path,) = folder.iterdir()
    record = BenchmarkRecord.model_validate(read_json(path))
    assert path.name == file_name(record) and record.profile == "tiny" and str(path) in output
    by_column = {each.column: each for each in record.columns}
    assert list(by_column) == ["dnn", "rnn_attn", "tc_rnn"]
    for each in record.columns:
        assert each.times_floor == pytest.approx(each.milliseconds_per_step / each.floor.total)
        assert each.videos_per_second == pytest.approx(1000 * record.batch_size / each.milliseconds_per_step)
        slower = max(each.milliseconds_per_step, each.floor.reading)
        assert each.projected_epoch_minutes == pytest.approx(4e6 / record.batch_size * slower / 60_000)
        assert each.paper_minutes is None and each.gpu["utilisation"] is None and each.gpu["reason"]
        assert each.peak_memory_bytes > 1e8
    assert by_column["dnn"].floor.reading == 0 and not by_column["dnn"].times_plain  # it reads no frames
    assert set(by_column["tc_rnn"].times_plain) == {"12", "300"}
    assert by_column["rnn_attn"].times_baseline is None and len(by_column["tc_rnn"].times_baseline) == 3


def test_the_record_is_shown_as_it_was_printed(recorded):
    folder, output = recorded
    shown = CliRunner().invoke(train.main, ["--show", str(folder)]).output.strip()
    assert shown and shown in output and "projected" in shown


def test_a_plan_rests_on_the_record(recorded, tmp_path):
    folder, _ = recorded
    (path,) = folder.iterdir()
    milliseconds = {each["column"]: each["milliseconds_per_step"] for each in read_json(path)["columns"]}
    seconds, basis = Speeds(tmp_path, folder).seconds_per_video("tc_rnn", load_profile("tiny"))
    assert "benchmark" in basis and seconds >= milliseconds["tc_rnn"] / 1000 / 32


def test_table_2_stands_beside_the_papers_sizes_alone():
    assert train.paper_minutes("tc_netv", PAPER) == 133 and train.paper_minutes("dnn_lstm", PAPER) == 40
    assert train.paper_minutes("tm", load_profile("smoke")) is None
    assert train.paper_minutes("tm", load_profile("paper", ("dataset.frame_limit=64",))) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--columns", "rnn,tc_ens"], "--columns tc_ens"),
        (["--preset", "smok"], "did you mean 'smoke'"),
        (["--show", "nowhere"], "there are no records"),
        (["--device", "cuda"], "no GPU can be used here"),
        (["--steps", "0"], "--steps"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words, says):
    if words[0] == "--device" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = CliRunner().invoke(train.main, words)
    assert result.exit_code and says in result.output and "Traceback" not in result.output


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "some.json").write_text(json.dumps({"profile": "smoke"}), encoding="utf-8")
    result = CliRunner().invoke(train.main, ["--show", str(tmp_path)])
    assert result.exit_code and "some.json is no benchmark record" in result.output


def test_the_file_is_named_after_device_profile_and_precision(recorded):
    (path,) = recorded[0].iterdir()
    record = BenchmarkRecord.model_validate(read_json(path))
    other = record.model_copy(update={
        "device": "NVIDIA H100 80GB HBM3", "profile": "paper",
        "compute": dataclasses.asdict(Compute("cuda", "bfloat16")),
    })  # fmt: skip
    assert file_name(other) == "nvidia-h100-80gb-hbm3-paper-bfloat16.json"
