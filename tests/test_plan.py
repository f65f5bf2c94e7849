"""Claims: a plan's estimates rest on what was measured, nearest first, and on nothing of another size or device; the
published timings are near what a plan says without any run."""

import json

import pytest
from click.testing import CliRunner

from replicate import benchmark_records, plan, speed
from replicate.cli.main import group
from replicate.columns import AGGREGATOR
from replicate.profile_files import load_profile
from replicate.record import read_json, write_json
from replicate.speed import Speeds
from replicate.stages import Graph, flatten, in_order

SMOKE, PAPER = load_profile("smoke"), load_profile("paper")
RESULTS = benchmark_records.FOLDER.parent


def graph(profile, variant=""):
    return Graph(profile, None, lambda folder, profile: None, variant)


def finish(job, runs, record, timings=None):
    """What a job that is done leaves behind."""
    folder = job.folder(runs)
    write_json(folder / "record.json", record)
    if timings:
        write_json(folder / "timings.json", timings)
    manifest = {"identity": job.identity, "configuration": dict(flatten(job.profile)), "files": {}}
    write_json(folder / "manifest.json", manifest)


def trained(profile, runs, seconds, column="tc_rnn", seed=0):
    """A training whose epochs of 1,000 videos took so long."""
    epochs = [{"epoch": at, "train_seconds": each, "tune_seconds": 99.0} for at, each in enumerate(seconds, start=1)]
    record = {"column": column, "epochs": len(seconds), "examples": 1000 * len(seconds)}
    finish(graph(profile).train(column, seed), runs, record, {"epochs": epochs})


def timed(profile, runs, rate, column="tc_rnn"):
    finish(graph(profile).time(column), runs, {"column": column, "profile": "any", "videos_per_second": rate})


def benchmark(folder, profile, device, milliseconds, column="tc_rnn", reading=0.0):
    """A record of one column, its other figures of no account."""
    floor = dict.fromkeys(("compute", "memory", "latency", "copying", "total"), 1.0) | {"reading": reading}
    work = dict.fromkeys(
        ("flop", "state_bytes", "frame_bytes", "activation_bytes", "input_bytes", "operations", "recurrent_steps"), 1
    )
    row = {
        "column": column, "title": column, "milliseconds_per_step": milliseconds, "videos_per_second": 1.0,
        "work": {**work, "recurrent_cell": None}, "floor": floor, "times_floor": 1.0, "limited_by": "compute",
        "peak_rate_share": 1.0, "times_plain": {}, "times_baseline": None, "peak_memory_bytes": 1, "gpu": {},
        "projected_epoch_minutes": 1.0, "paper_minutes": None, "times_paper_rate": None,
    }  # fmt: skip
    limits = dict.fromkeys(
        ("float32_flop_per_second", "memory_bytes_per_second", "operation_seconds", "read_videos_per_second"), 1.0
    ) | dict.fromkeys(("tensor_float32_flop_per_second", "bfloat16_flop_per_second", "host_to_device_bytes_per_second"))
    record = benchmark_records.BenchmarkRecord.model_validate({
        "profile": profile.name, "title": "", "device": device, "compute": {"precision": "float32"},
        "batch_size": profile.training.batch_size, "micro_batch_size": 1, "frames": (1,), "valid_share": 1.0,
        "steps": 1, "warm_up_steps": 0, "ceilings": {**limits, "recurrent_step_seconds": {}}, "columns": [row],
        "load_average": (0, 0, 0), "configuration": dict(flatten(profile)), "machine": {}, "packages": {}, "code": {},
    })  # fmt: skip
    write_json(folder / benchmark_records.file_name(record), record.model_dump(mode="json"))


def ask(runs, profile=SMOKE, column="tc_rnn", benchmarks=None):
    return Speeds(runs, benchmarks or runs / "none").seconds_per_video(column, profile)


def test_finished_trainings_come_before_timings_and_those_before_benchmarks(tmp_path):
    bench = tmp_path / "bench"
    assert ask(tmp_path)[1] == "arithmetic at 50 GFLOP/s"
    benchmark(bench, SMOKE, "some processor", 640.0)
    assert ask(tmp_path, benchmarks=bench) == (pytest.approx(0.01), "the benchmark on some processor")
    timed(SMOKE, tmp_path, 50.0)
    assert ask(tmp_path, benchmarks=bench) == (pytest.approx(0.02), "timing records here")
    trained(SMOKE, tmp_path, [900.0, 30.0, 28.0])
    assert ask(tmp_path, benchmarks=bench) == (pytest.approx(0.03), "trainings that finished here")  # the median epoch


def test_several_seeds_give_their_median(tmp_path):
    for seed, seconds in enumerate((10.0, 30.0, 11.0)):
        trained(SMOKE, tmp_path, [seconds], seed=seed)
    assert ask(tmp_path)[0] == pytest.approx(0.011)


@pytest.mark.parametrize(
    "change",
    ["model.gru_width=128", "model.head=[96]", "dataset.frame_limit=32", "run.threads_per_job=2", "run.device=cuda"],
)
def test_another_size_or_device_does_not_count(tmp_path, change):
    trained(load_profile("smoke", (change,)), tmp_path, [30.0])
    assert "arithmetic" in ask(tmp_path)[1]


@pytest.mark.parametrize(
    "change",
    ["training.learning_rate=0.01", "training.epochs=3", "model.netvlad_width=50", "dataset.frame_order=shuffled"],
)
def test_what_does_not_change_a_step_does_not_matter(tmp_path, change):
    trained(load_profile("smoke", (change,)), tmp_path, [30.0])
    assert ask(tmp_path) == (pytest.approx(0.03), "trainings that finished here")


def test_the_most_alike_layer_counts(tmp_path):
    trained(load_profile("smoke", ("coherence.kernel_size=9", "coherence.maps=16")), tmp_path, [50.0])
    trained(load_profile("smoke", ("coherence.kernel_size=9",)), tmp_path, [40.0])
    assert ask(tmp_path)[0] == pytest.approx(0.04)
    trained(SMOKE, tmp_path, [30.0])
    assert ask(tmp_path)[0] == pytest.approx(0.03)
    wide = load_profile("smoke", ("coherence.kernel_size=9", "coherence.maps=16"))
    assert ask(tmp_path, wide)[0] == pytest.approx(0.05)


def test_an_unfinished_training_does_not_count(tmp_path):
    trained(SMOKE, tmp_path, [30.0])
    (manifest,) = tmp_path.glob("train/*/manifest.json")
    manifest.unlink()
    assert "arithmetic" in ask(tmp_path)[1]


def test_the_name_of_the_profile_does_not_matter(tmp_path):
    """A sample of YouTube-8M trains the paper's models."""
    sample = load_profile("yt8m-1pct")
    timed(load_profile("paper", ("timing.steps=20",)), tmp_path, 50.0)
    assert ask(tmp_path, sample) == (pytest.approx(0.02), "timing records here")


def test_table_2_is_a_gpus(tmp_path):
    seconds, basis = ask(tmp_path, PAPER, "tc_netv")
    assert basis == "the paper's Table 2" and seconds * 4e6 / 60 == pytest.approx(133)
    assert ask(tmp_path, PAPER, AGGREGATOR)[0] * 4e6 / 60 == pytest.approx(55)  # the RNN's
    assert "arithmetic" in ask(tmp_path, load_profile("paper", ("run.device=cpu",)), "tc_netv")[1]


def test_this_machine_comes_first_else_the_slowest(tmp_path, monkeypatch):
    for device, milliseconds in (("fast", 64.0), ("slow", 640.0), ("middling", 128.0)):
        benchmark(tmp_path, SMOKE, device, milliseconds)
    assert ask(tmp_path / "runs", benchmarks=tmp_path) == (pytest.approx(0.01), "the benchmark on slow")
    machine = {"processor": "some", "gpus": [{"name": "middling", "memory_bytes": 1}]}
    monkeypatch.setattr(speed.accounting, "describe", lambda: machine)
    assert ask(tmp_path / "runs", benchmarks=tmp_path) == (pytest.approx(0.002), "the benchmark on middling")


def test_reading_that_is_slower_than_a_step_counts(tmp_path):
    benchmark(tmp_path, PAPER, "a GPU", 12.8, reading=128.0)
    assert ask(tmp_path / "runs", PAPER, benchmarks=tmp_path)[0] == pytest.approx(0.001)


def test_a_study_is_estimated_by_its_variants_and_names_each_source(tmp_path):
    """Under 'literal protocol' a variant trains fewer epochs; the kernel of a variant that never ran is borrowed."""
    trained(SMOKE, tmp_path, [30.0])
    short = load_profile("smoke", ("training.epochs=2", "coherence.kernel_size=1"))
    job = graph(short, "kernel of 1").train("tc_rnn", 0)
    seconds, _, basis = plan.estimate(job, Speeds(tmp_path, tmp_path / "none"))
    assert seconds == pytest.approx(0.03 * (4000 + 1000 / 3) * 2) and basis == "trainings that finished here"
    text = plan.describe([job, graph(short).train("netv", 0)], SMOKE, tmp_path)
    lines = text.splitlines()
    assert "- trainings that finished here: TC-RNN" in lines
    assert any(line.startswith("- ") and line.endswith(": NetV") for line in lines)


def test_a_plan_needs_no_run_directory(tmp_path):
    result = CliRunner().invoke(group, ["plan", "--out", str(tmp_path / "runs")])
    assert result.exit_code == 0 and "estimates of time rest on" in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("benchmarks", [None, benchmark_records.FOLDER], ids=["arithmetic alone", "benchmark records"])
@pytest.mark.parametrize("name", ["smoke", "audioset"])
def test_published_timings_are_near_the_estimate(tmp_path, name, benchmarks):
    """In all within a factor of 2, as processors of one name differ (with or without AVX-512); columns stand to one
    another within 2.5."""
    profile = load_profile(name)
    ratios, estimated, published = {}, 0.0, 0.0
    for path in sorted((RESULTS / name / "records").glob("time-*.json")):
        record = read_json(path)
        seconds, _ = ask(tmp_path, profile, record["column"], benchmarks)
        ratios[record["column"]] = seconds * record["videos_per_second"]
        estimated, published = estimated + seconds, published + 1 / record["videos_per_second"]
    assert len(ratios) == 9
    machine = estimated / published
    assert 1 / 2 < machine < 2
    assert all(1 / 2.5 < ratio / machine < 2.5 for ratio in ratios.values()), json.dumps(ratios)


def test_what_others_wait_for_longest_begins_first(tmp_path):
    jobs = in_order(graph(SMOKE).results())
    found = plan.urgent_first(jobs, tmp_path)
    place = {job.key: number for number, job in enumerate(found)}
    assert sorted(place) == sorted(job.key for job in jobs)
    assert all(place[each.key] < place[job.key] for job in jobs for each in job.inputs.values())
    training = [job.parameters["column"] for job in found if job.stage.name == "train"]
    seconds = [Speeds(tmp_path).seconds_per_video(column, SMOKE)[0] for column in training if column != "dnn"]
    assert seconds == sorted(seconds, reverse=True) and training[-1] == "dnn", training
    assert set(training[:2]) == {"tm", "tc_tm"}
    first_scored = min(place[job.key] for job in jobs if job.stage.name == "evaluate")
    assert first_scored > max(place[graph(SMOKE).train(column, 0).key] for column in training[:-1])
