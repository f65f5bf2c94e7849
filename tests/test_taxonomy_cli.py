"""Claims: the verbs under `replicate taxonomy` print what their functions say; failures are one sentence."""

import pytest
from click.testing import CliRunner

from replicate.cli import main as cli
from replicate.errors import DataError, ReplicateError
from replicate.taxonomy.agreement import CAVEAT
from replicate.taxonomy.browse import show, stats


def run(*words: str):
    return CliRunner().invoke(cli.group, ["taxonomy", *words])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("build", "--check"), "label_map.csv is what the annotations give"),
        (("agreement", "--disputed", "2"), CAVEAT),
        (("show", "Music:Concert"), show("Music:Concert")),
        (("show",), show()),
        (("find", "choir"), "Music:Concert:Choir"),
        (("stats",), stats()),
        (("review",), "right, stratified"),
    ],
)
def test_verbs_print_what_their_functions_say(words, sentence):
    result = run(*words)
    assert result.exit_code == 0 and sentence in result.output


@pytest.mark.parametrize("verb", ["build", "agreement", "show", "find", "stats", "validate", "review"])
def test_every_verb_has_help_with_an_example(verb):
    result = run(verb, "--help")
    below_usage = result.output.split("Options:")[0].split("\n", 1)[1]
    assert result.exit_code == 0 and f"replicate taxonomy {verb}" in below_usage


def test_a_vocabulary_that_differs_fails_with_the_labels_named(tmp_path):
    file = tmp_path / "vocabulary.csv"
    file.write_text("Index,Name\n0,Game\n1,Videogame\n", encoding="utf-8")
    result = run("validate", "--vocabulary", str(file))
    assert isinstance(result.exception, DataError) and "differs from the map's labels in 3861" in str(result.exception)
    assert "label 1 'Video game' is called 'Videogame'" in result.output and "... and 3841 more" in result.output


@pytest.mark.data
def test_the_official_vocabulary_passes(data_dir):
    result = run("validate", "--vocabulary", str(data_dir / "yt8m_labels" / "vocabulary.csv"))
    assert result.exit_code == 0 and "lists the labels that the map was made for" in result.output


@pytest.mark.parametrize("words", [("show", "Nowhere"), ("find", " "), ("validate", "--vocabulary", "absent.csv")])
def test_bad_arguments_are_one_sentence(words):
    error = run(*words).exception
    assert isinstance(error, ReplicateError) and "\n" not in str(error)
