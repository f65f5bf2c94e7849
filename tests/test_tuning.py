"""Claims: every column is tried with the same combinations; one is chosen for all by the mean, never by the pool."""

import pytest
from click.testing import CliRunner

from replicate.cli.main import group
from replicate.profile_files import load_profile
from replicate.record import read_json
from replicate.studies.tuning import Trial, trials, tuning_record, tuning_text


def test_the_trials_are_all_combinations():
    profile = load_profile("smoke", ("tuning.learning_rates=[1e-3,2e-3]", 'tuning.normalisations=["l2","none"]'))
    assert {(each.learning_rate, each.normalisation) for each in trials(profile)} == {
        (1e-3, "l2"), (2e-3, "l2"), (1e-3, "none"), (2e-3, "none"),
    }  # fmt: skip


@pytest.mark.parametrize("reached", [None, 0.9])
def test_one_combination_is_chosen_for_all_by_the_mean_and_a_diverged_column_counts_as_nothing(reached):
    def result(gap, status="finished"):
        return {"tune_gap": gap, "best_epoch": 1, "epochs": 2, "status": status}

    low, high = Trial(1e-3, "l2", 2), Trial(1.0, "l2", 2)
    results = {
        low: {"rnn_attn": result(0.5), "tc_rnn": result(0.4)},
        high: {"rnn_attn": result(0.8), "tc_rnn": result(reached, "diverged")},
    }
    record = tuning_record(load_profile("smoke"), results)
    assert record["chosen"] == {"learning_rate": 1e-3, "normalisation": "l2"}
    assert "diverged" in tuning_text(record) and "50.00 (1)" in tuning_text(record)


def test_the_verb_trains_and_scores_nothing_else(tmp_path):
    words = ["tune", "--profile", "tiny", "--model", "tc_rnn", "--out", str(tmp_path), "--set"]
    result = CliRunner().invoke(group, [*words, "tuning.learning_rates=[1e-3]", "--set", "tuning.epochs=1"])
    assert result.exit_code == 0, result.output
    record = read_json(tmp_path / "results" / "tiny" / "tuning.json")
    assert all(each["epochs"] == 1 for row in record["trials"] for each in row["columns"].values())
    assert [set(row["columns"]) for row in record["trials"]] == [{"rnn_attn", "tc_rnn"}] * 2
    assert not (tmp_path / "predict").exists() and not (tmp_path / "evaluate").exists()
    assert f'normalisation = "{record["chosen"]["normalisation"]}"' in result.output
