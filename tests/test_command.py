"""Claims: the command line answers at once, because it loads no library of numbers; a second command on finished work
computes nothing and loads none either; the same words mean the same jobs."""

import subprocess
import sys

import pytest

from replicate.cli.command import resolve
from replicate.errors import ConfigurationError

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
    return subprocess.run(command, capture_output=True, text=True, timeout=200).stdout.splitlines()


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
