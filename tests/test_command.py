"""Claims: the command line answers at once, because it loads no library of numbers; a second command on finished work
computes nothing and loads none either; the same words mean the same jobs; help says whole sentences of every verb;
wrong words get one sentence; a reader that goes away is no finding."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from replicate.cli import main as cli
from replicate.cli.command import known_column, resolve, result_folders
from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile

HEAVY = ("torch", "tensorflow", "pandas", "numba", "scipy", "matplotlib", "distributed", "sklearn", "statsmodels")
LOADED = f"""
import sys
from replicate.cli import main as cli
sys.argv = ["replicate", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("loaded", [name for name in {HEAVY!r} if name in sys.modules])
"""


def issue(*words):
    command = [sys.executable, "-c", LOADED, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout.splitlines()


def test_help_loads_nothing_heavy():
    assert issue("--help")[-1] == "loaded []"


def test_a_second_command_does_nothing_and_loads_nothing_heavy(tmp_path):
    words = ("split", "--profile", "tiny", "--set", "synthetic.videos=240", "--set", "split.pool=40", "--out", tmp_path)
    assert "4 jobs ran" in issue(*words)
    *_, said, loaded = issue(*words)
    assert said == "nothing to do: all jobs were done"
    assert loaded == "loaded []"


def test_options_are_short_forms_of_fields(tmp_path):
    def keys(*assignments):
        return resolve("tiny", assignments, None, str(tmp_path)).graph.index.key

    assert keys("dataset.max_corrupt=3") != keys()
    assert keys("dataset.reader=tensorflow") == keys()


def test_a_data_directory_that_is_none_is_a_sentence(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere is not a folder; name the one that holds"):
        resolve("tiny", (), str(tmp_path / "nowhere"), str(tmp_path))


@pytest.mark.parametrize("words", [[], ["data"], ["data", "download"], ["taxonomy"]], ids=" ".join)
def test_help_lists_every_verb_once_with_its_whole_first_sentence(words):
    verbs = cli.group
    for word in words:
        verbs = verbs.commands[word]
    said = CliRunner().invoke(cli.group, [*words, "--help"], env={"COLUMNS": "60"}).output
    assert "..." not in said.partition("\n\n")[2]  # behind the line of usage
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  ") and line[2:3].strip()]
    assert all(listed.count(name) == 1 for name in verbs.commands)


@pytest.mark.parametrize("words", [["models", "--profile", "tiny"], ["--help"], ["data", "--help"]], ids=" ".join)
def test_a_reader_that_goes_away_ends_the_command_as_sigpipe_does(words):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "replicate.cli.main", *words]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_without_its_data_a_real_profile_says_so_once_and_is_planned_nevertheless(tmp_path):
    command = resolve("audioset", (), None, str(tmp_path / "runs"))
    with pytest.raises(ConfigurationError, match="^the audioset dataset needs its files: give --data-dir"):
        command.walk(command.graph.results(command.profile.run.columns))
    said = CliRunner().invoke(cli.group, ["plan", "--profile", "paper", "--data-dir", str(tmp_path)])
    assert said.exit_code == 0 and "planned without the data: no file under" in said.output


def test_published_records_are_found_under_a_folder_and_in_one(tmp_path):
    command = resolve("tiny", (), None, str(tmp_path / "runs"))
    for name in ("a", "b"):
        (tmp_path / name / "records").mkdir(parents=True)
        (tmp_path / name / "records" / "run.json").touch()
    assert result_folders(command, str(tmp_path)) == [tmp_path / "a", tmp_path / "b"]
    assert result_folders(command, str(tmp_path / "b")) == [tmp_path / "b"]
    with pytest.raises(ConfigurationError, match="replicate all --profile tiny"):
        result_folders(command, None)


def test_a_mistyped_column_is_told_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'tc_rnn'"):
        known_column(load_profile("tiny"), "tc-rnn")
