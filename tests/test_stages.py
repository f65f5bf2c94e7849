"""Claims: a job's key changes exactly with what its result depends on; every field of a profile is accounted for."""

import pytest

from replicate.profile_files import load_profile
from replicate.stages import ARITHMETIC_FIELDS, NOT_IN_KEYS, STAGES, Graph, flatten, in_order


def graph(*assignments: str, profile: str = "smoke") -> Graph:
    return Graph(load_profile(profile, assignments), None, lambda *_: "files")


def keys(made: Graph) -> dict[str, str]:
    return {job.label: job.key for job in in_order(made.results())}


def changed(*assignments: str) -> set[str]:
    before, after = keys(graph()), keys(graph(*assignments))
    return {label for label in before if before[label] != after.get(label)}


def test_every_field_is_in_a_key_or_excused():
    base = graph()
    declared = set(NOT_IN_KEYS) | set(ARITHMETIC_FIELDS)
    for job in in_order(base.results()):
        declared |= set(job.identity["fields"])
    missing = {path for path, _ in flatten(base.profile)} - declared
    assert not missing, f"neither in a key nor excused: {missing}"


def test_a_netvlad_size_reruns_netvlad_alone():
    labels = changed("model.netvlad_width=97")
    assert "train NetV, seed 0" in labels and "train TC-NetV, seed 0" in labels
    assert "evaluate Base-Ens, seed 0" in labels
    assert not {label for label in labels if "RNN" in label or " TM" in label or "TC-TM" in label}
    assert not labels & {"index", "labels", "split", "synthesize", "taxonomy"}


def test_a_kernel_size_reruns_tc_columns_alone():
    labels = changed("coherence.kernel_size=9")
    assert "train TC-RNN, seed 0" in labels
    assert not {label for label in labels if label.startswith("train") and "TC" not in label}


def test_epochs_rerun_training_but_not_data():
    labels = changed("training.epochs=3")
    assert "train RNN, seed 0" in labels
    assert not labels & {"index", "labels", "split", "synthesize", "taxonomy"}


def test_split_seed_keeps_the_index():
    labels = changed("split.seed=1")
    assert "split" in labels and "train RNN, seed 0" in labels
    assert not labels & {"index", "labels", "synthesize", "taxonomy"}


@pytest.mark.parametrize(
    "assignment", ["run.processes_per_model=2", "run.compile=true", "run.deterministic=false", "run.precision=float16"]
)
def test_what_changes_rounding_changes_the_keys_of_trainings(assignment):
    found = changed(assignment)
    assert "train RNN, seed 0" in found and "time RNN" in found
    assert not found & {"index", "labels", "split", "synthesize", "taxonomy"}


@pytest.mark.parametrize(
    "assignment",
    ["run.checkpoint_minutes=1", "run.workers=1", "run.engine=inline", "title=x", "dataset.reader=tensorflow"],
)
def test_what_changes_no_result_changes_no_key(assignment):
    assert changed(assignment) == set()


def test_threads_change_arithmetic():
    assert "train RNN, seed 0" in changed("run.threads_per_job=2")


def test_another_seed_adds_jobs_and_keeps_the_old():
    before, after = keys(graph()), keys(graph("training.seeds=[0,1]"))
    kept = {label for label in before if not label.startswith("compare")}
    assert all(before[label] == after[label] for label in kept)
    assert "train TC-RNN, seed 1" in after
    assert "train DNN's LSTM, seed 1" not in after  # trained once


def test_one_model_needs_only_its_baseline():
    jobs = in_order(graph().results(("rnn_attn", "tc_rnn")))
    trained = {job.parameters["column"] for job in jobs if job.stage.name == "train"}
    assert trained == {"rnn_attn", "tc_rnn"}


def test_inputs_come_first_and_exclusive_jobs_last():
    jobs = in_order(graph().results())
    place = {job.key: number for number, job in enumerate(jobs)}
    assert all(place[needed.key] < place[job.key] for job in jobs for needed in job.inputs.values())
    exclusive = [job.stage.exclusive for job in jobs]
    assert exclusive == sorted(exclusive)


def test_stage_version_is_part_of_the_key(monkeypatch):
    import dataclasses

    before = graph().split.key
    monkeypatch.setitem(STAGES, "split", dataclasses.replace(STAGES["split"], version=99))
    assert graph().split.key != before
