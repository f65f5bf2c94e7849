"""Claims: a training ends with the same bytes whoever reads and wherever the records lie; a corpus on a remote store is
the same corpus, not another; the order of shards is another training; what cannot be read is one sentence."""

import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from records import video, write
from test_remote import Server

from replicate import preprocess
from replicate.cli import main as cli
from replicate.data.spec import SPECS
from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile
from replicate.stages import Graph

VIDEOS = 60
OPTIONS = [
    f"--set={assignment}" for assignment in (
        "dataset.name=yt8m", 'dataset.shards=["*.tfrecord"]', "dataset.frame_limit=4", "split.train=36", "split.tune=8",
        "split.pool=rest", "split.draws=1", "split.draw_size=16", "training.batch_size=8",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty short videos of YouTube-8M's format in three shards."""
    folder = tmp_path_factory.mktemp("data")
    for shard in range(3):
        numbers = range(20 * shard, 20 * shard + 20)
        payloads = [video(f"v{n:02d}", labels=(n % 4, 9), frames=n % 4 + 1, spec=SPECS["yt8m"]) for n in numbers]
        write(folder / f"s{shard}.tfrecord", payloads)
    return folder


def weights(replicate, data_dir, out, *more):
    """The trained weights' bytes, and the folder that they lie in."""
    words = ("train", "--profile", "tiny", "--model", "rnn", "--data-dir", data_dir, "--out", out, *OPTIONS, *more)
    code, output, errors = replicate(*words)
    assert code == 0, errors
    [line] = [line for line in output.splitlines() if line.startswith("train RNN")]
    folder = Path(line.partition(": ")[2])
    return (folder / "weights.safetensors").read_bytes(), folder


def test_a_training_is_the_same_wherever_records_lie_and_whoever_reads(replicate, data, tmp_path):
    local, folder = weights(replicate, data, tmp_path / "local")
    read, same = weights(replicate, data, tmp_path / "workers", "--set=reading.workers=2")
    assert read == local and same.name == folder.name
    shards = "--set=reading.order=shards", "--set=reading.window=5"
    other, another = weights(replicate, data, tmp_path / "local", *shards)
    assert other != local and another.name != folder.name
    server = Server()
    server.files = {f"/yt8m/{path.name}": path.read_bytes() for path in data.iterdir()}
    server.files["/yt8m/shards.txt"] = "\n".join(path.name for path in data.iterdir()).encode()
    try:
        far, there = weights(replicate, f"{server.url}/yt8m", tmp_path / "http", *shards, "--set=reading.workers=3")
        assert far == other and there.name == another.name
        code, output, _ = replicate(
            "train", "--profile", "tiny", "--model", "rnn", "--data-dir", f"{server.url}/yt8m", "--out",
            tmp_path / "local", *OPTIONS,
        )  # fmt: skip
        assert code == 0 and "nothing to do" in output, "the corpus is known, though it lies elsewhere now"
    finally:
        server.server.shutdown()


def test_verify_reads_a_remote_store(replicate, data):
    filesystem = fsspec.filesystem("memory")
    content = bytearray((data / "s1.tfrecord").read_bytes())
    content[1000] ^= 4
    filesystem.pipe_file("/yt8m/s0.tfrecord", (data / "s0.tfrecord").read_bytes())
    filesystem.pipe_file("/yt8m/s1.tfrecord", bytes(content))
    code, output, errors = replicate("data", "verify", "--profile", "tiny", "--data-dir", "memory://yt8m", *OPTIONS)
    filesystem.rm("/yt8m", recursive=True)
    assert code == 1 and "s1.tfrecord, record 0 at byte 0: CRC of the data differs" in output + errors


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("data", "index", "--profile", "paper", "--data-dir", "gs://b/x"), "for gs:// is not installed; pip install"),
        (("data", "index", "--profile", "audioset", "--data-dir", "memory://x"), "audioset is read from a folder of"),
        (("data", "download", "audioset", "--data-dir", "gs://b/x"), "downloads go to a folder of this machine"),
        (("data", "index", "--profile", "paper", "--data-dir", "memory://none"), "no file under memory://none matches"),
        (("data", "index", "--set=reading.window=5"), "has no meaning with reading.order = 'global'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_and_code_2(replicate, words, sentence, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    code, output, errors = replicate(*words, *(["--out", tmp_path] if "download" not in words else []))
    assert code == 2 and not output
    assert sentence in errors and len(errors.splitlines()) == 1


def test_doctor_looks_at_a_remote_store():
    found = CliRunner().invoke(cli.group, ["doctor", "--profile", "paper", "--data-dir", "memory://none"])
    assert "no file under memory://none" in " ".join(found.output.split()), found.output


def keys(*assignments):
    graph = Graph(load_profile("smoke", assignments), None, lambda *_: "files")
    return {job.label: job.key for target in graph.results() for job in target.ancestors()}


def test_the_order_is_part_of_what_a_training_is_and_its_workers_are_not():
    plain = keys()
    assert keys("reading.workers=5") == plain
    for assignments in (("reading.order=shards",), ("reading.order=shards", "reading.window=7")):
        changed = {label for label, key in keys(*assignments).items() if plain[label] != key}
        assert "train RNN, seed 0" in changed and not changed & {"index", "labels", "split"}
    assert keys("reading.order=shards") == keys("reading.order=shards", "reading.window=4096")


def test_a_window_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="reading.window"):
        load_profile("smoke", ("reading.order=shards", "reading.window=-1"))


def test_pinned_memory_is_asked_of_torch(monkeypatch):
    real, asked = torch.empty, []

    def empty(shape, dtype, pin_memory):
        asked.append(pin_memory)
        return real(shape, dtype=dtype)  # here may be no GPU, and without one there is no such memory

    monkeypatch.setattr(torch, "empty", empty)
    for kind in (np.uint8, "<f4"):
        array = preprocess.pinned((2, 3, 4), kind)
        assert array.shape == (2, 3, 4) and array.dtype == kind and array.flags.writeable
    assert asked == [True, True]
