"""Claims: the verbs about records say what they did and where it lies, end with the promised exit codes, leave out and
list up to --max-corrupt records for every column alike, and never show a traceback."""

import json
from pathlib import Path

import pytest
from records import flip, video, write

from replicate.data.index import Index
from replicate.data.spec import SPECS
from replicate.data.tfrecord import iterate_records
from replicate.record import read_json

YT8M = SPECS["yt8m"]


@pytest.fixture
def shards(tmp_path):
    """Two shards of three short videos each, and the options that read them."""
    for shard in "ab":
        payloads = [video(f"{shard}{number}", labels=(number, 9), frames=2, spec=YT8M) for number in range(3)]
        write(tmp_path / "data" / f"{shard}.tfrecord", payloads)
    options = ("--profile", "yt8m-1pct", "--data-dir", tmp_path / "data", "--out", tmp_path / "runs")
    return tmp_path, (*options, "--set", 'dataset.shards=["*.tfrecord"]', "--set", "run.engine=inline")


def index_folder(output, name="index"):
    [line] = [line for line in output.splitlines() if line.startswith(f"{name}: ")]
    return line.removeprefix(f"{name}: ")


def test_index_says_where_it_lies_and_then_that_there_is_nothing_to_do(replicate, shards):
    root, options = shards
    code, output, errors = replicate("data", "index", *options)
    assert code == 0 and output.endswith("1 jobs ran\n")
    assert [line.split(" (")[0] for line in errors.splitlines()] == ["start  index", "done   index"]
    index = Index.open(Path(index_folder(output)), root / "data")
    assert [name.decode() for name in index.ids] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    code, output, errors = replicate("data", "index", *options)
    assert code == 0 and output.endswith("nothing to do: all jobs were done\n") and not errors


def damage(root):
    """Flip a bit in the frames of b1; where that record begins."""
    begin = [offset for offset, _ in iterate_records(root / "data" / "b.tfrecord")][1]
    flip(root / "data" / "b.tfrecord", begin + 500)
    return begin


def test_a_damaged_record_ends_the_command_with_one_sentence_and_code_2(replicate, shards):
    root, options = shards
    begin = damage(root)
    code, output, errors = replicate("data", "index", *options)
    assert code == 2 and not output
    *_, sentence = errors.splitlines()
    assert sentence.startswith(f"replicate: index: {root}/data/b.tfrecord, record 1 at byte {begin}: CRC of the data")
    assert "Traceback" not in errors


def test_the_same_through_a_worker_process(replicate, shards):
    root, options = shards
    begin = damage(root)
    code, _, errors = replicate("data", "index", *options, "--set", "run.engine=dask")
    *_, sentence = errors.splitlines()
    assert code == 2
    assert sentence.startswith(f"replicate: index: {root}/data/b.tfrecord, record 1 at byte {begin}: CRC of the data")
    assert "Traceback" not in errors


def test_max_corrupt_leaves_out_and_lists_in_the_manifest_too(replicate, shards):
    root, options = shards
    begin = damage(root)
    code, output, errors = replicate("data", "index", *options, "--max-corrupt", 1)
    assert code == 0
    folder = Path(index_folder(output))
    skipped = [{"file": "b.tfrecord", "record": 1, "offset": begin, "reason": "CRC of the data differs (flipped bits)"}]
    assert read_json(folder / "index.json")["skipped"] == skipped
    assert read_json(folder / "manifest.json")["skipped"] == skipped
    assert f"NOTE   index: 1 unusable records are left out and listed in {folder / 'manifest.json'}" in errors
    code, again, _ = replicate("data", "index", *options, "--set", "dataset.max_corrupt=1")
    assert index_folder(again) == str(folder)  # the option is the field's short form
    amounts = ("--set", "split.train=2", "--set", "split.tune=1", "--set", "split.draw_size=1")
    code, output, _ = replicate("split", *options, "--max-corrupt", 1, *amounts)
    assert code == 0
    summary = read_json(Path(index_folder(output, "split")) / "split.json")
    assert summary["videos"] == 5  # so every column reads the same records


def test_verify_lists_faults_and_ends_with_code_1(replicate, shards):
    root, options = shards
    code, output, _ = replicate("data", "verify", *options)
    assert (code, output) == (0, "2 shards read, 0 faults\n")
    begin = damage(root)
    (root / "data" / "c.tfrecord").touch()
    code, output, errors = replicate("data", "verify", *options)
    assert code == 1
    assert output.splitlines() == [
        f"{root}/data/b.tfrecord, record 1 at byte {begin}: CRC of the data differs (flipped bits)",
        f"{root}/data/c.tfrecord: the file is empty; download it again",
        "3 shards read, 2 faults",
    ]
    code, output, _ = replicate("data", "verify", *options, "a.tfrecord")
    assert (code, output) == (0, "1 shards read, 0 faults\n")


@pytest.mark.parametrize("verb", ["index", "verify"])
def test_real_data_without_a_folder_is_a_sentence(replicate, monkeypatch, tmp_path, verb):
    monkeypatch.delenv("REPLICATE_DATA", raising=False)
    words = ["--profile", "audioset", "--set", "run.engine=inline", "--out", str(tmp_path)]
    code, _, errors = replicate("data", verb, *words)
    assert code == 2
    assert errors.splitlines()[-1].endswith("give --data-dir or set REPLICATE_DATA")


def test_no_matching_file_is_a_sentence(replicate, shards):
    _, options = shards
    code, _, errors = replicate("data", "verify", *options, "x*.tfrecord")
    assert code == 2 and "no file under" in errors and "'x*.tfrecord'" in errors


def test_synthesize_verify_and_describe_a_corpus(replicate, tmp_path):
    options = ("--profile", "tiny", "--set", "synthetic.videos=40", "--out", tmp_path)
    code, _, errors = replicate("data", "verify", *options)
    assert code == 2 and errors.endswith("holds no corpus yet; make it with `replicate data synthesize`\n")
    code, output, _ = replicate("data", "synthesize", *options)
    assert code == 0 and output.endswith("2 jobs ran\n")
    code, output, _ = replicate("data", "verify", *options)
    assert (code, output) == (0, "2 shards read, 0 faults\n")
    code, output, errors = replicate("data", "verify", *options, "nofile")
    assert (code, output) == (2, "") and "--data-dir" not in errors
    assert "matches 'nofile'; it has synthetic-00000-of-00002.tfrecord, synthetic-00001-of-00002.tfrecord" in errors
    code, output, _ = replicate("data", "verify", *options, "*-00001-*")
    assert (code, output) == (0, "1 shards read, 0 faults\n")
    code, output, _ = replicate("data", "info", *options)
    assert code == 0 and "synthetic records" in output and "calibration fact" in output


def test_real_records_cannot_be_synthesized(replicate, shards):
    _, options = shards
    code, _, errors = replicate("data", "synthesize", *options)
    assert code == 2 and "reads real records; choose a synthetic one" in errors


@pytest.mark.parametrize("words", [("--max-corrupt", "-1"), ("--max-corrupt", "x"), ("--reader", "other")])
def test_wrong_options_are_usage_errors(replicate, words):
    code, _, errors = replicate("data", "index", *words)
    assert code == 2 and words[0] in errors and "Traceback" not in errors


@pytest.mark.data
def test_real_records_are_whole(replicate, data_dir):
    code, output, _ = replicate("data", "verify", "--profile", "audioset", "--data-dir", data_dir)
    assert (code, output) == (0, "2 shards read, 0 faults\n")
    code, output, _ = replicate("data", "verify", "--profile", "yt8m-video", "--data-dir", data_dir)
    assert (code, output) == (0, "40 shards read, 0 faults\n")
    code, output, _ = replicate("data", "verify", "--profile", "paper", "--data-dir", data_dir, "yt8m_frame/*")
    assert (code, output) == (0, "3 shards read, 0 faults\n")


def test_manifest_is_plain_json(replicate, shards):
    root, options = shards
    _, output, _ = replicate("data", "index", *options)
    text = (Path(index_folder(output)) / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["skipped"] == []
