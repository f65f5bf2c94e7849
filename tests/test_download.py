"""YouTube-8M: plans, samples, folders and batches of files, against a local server that serves a corpus of its own."""

import functools
import hashlib
import json
import os

import pytest
from click.testing import CliRunner
from patience import PATIENCE

from replicate.cli import download as cli_download
from replicate.cli.data import data as data_verbs
from replicate.data import download, parallel_transfer
from replicate.data.download import OFFICIAL, download_yt8m, read_plan, sample
from replicate.data.index import find_shards
from replicate.data.parallel_transfer import LEDGER
from replicate.data.transfer import DiskFullError
from replicate.data.web import BrokenTransferError, ChangedUpstreamError, UnavailableError
from replicate.errors import ConfigurationError, DataError, IncompleteRun
from replicate.profile_files import load_profile, profile_names
from replicate.progress import PlainLines
from tests.http_faults import Fault, FaultyServer, File, Hasty

NAMES = [f"train{first}{second}.tfrecord" for first in "aAbB0" for second in "xXyY1"]


@pytest.fixture
def server():
    """Serves two parts of YouTube-8M, of 25 small files each."""
    with FaultyServer() as running:
        for part in ("frame/train", "video/validate"):
            level, name = part.split("/")
            files = {each: os.urandom(3000 + len(part)) for each in NAMES}
            plan = {"files": {each: hashlib.md5(content).hexdigest() for each, content in files.items()}}
            running.files[f"/plans/{level}_{name}.json"] = File(json.dumps(plan).encode())
            for each, content in files.items():
                running.files[f"/us/{part}/{each}"] = File(content)
        yield running


def fetch(server, root, shard=(1, 1), part="frame/train", parallel=4, listener=None):
    listener = listener or PlainLines()
    return download_yt8m(root, part, shard, "us", parallel, listener, Hasty(), server.sources)


def holds(server, folder, part="frame/train", names=NAMES) -> bool:
    return all((folder / name).read_bytes() == server.files[f"/us/{part}/{name}"].content for name in names)


def set_plan(server, change, part="frame_train"):
    file = server.files[f"/plans/{part}.json"]
    files = json.loads(file.content)["files"]
    change(files)
    server.files[f"/plans/{part}.json"] = File(json.dumps({"files": files}).encode())


def test_official_addresses():
    filled = OFFICIAL.shard.format(mirror="eu", level="frame", part="train", name="trainpj.tfrecord")
    assert filled == "http://eu.data.yt8m.org/2/frame/train/trainpj.tfrecord"
    assert OFFICIAL.plan.format(level="video", part="validate") == (
        "http://data.yt8m.org/2/download_plans/video_validate.json"
    )
    assert OFFICIAL.archive.format(mirror="asia").startswith("http://storage.googleapis.com/asia_audioset/")


def test_samples_are_the_official_rule_and_share_out_the_files():
    names = [f"train{number:04d}.tfrecord" for number in range(3844)]
    parts = [sample(names, number, 100) for number in range(1, 101)]
    assert sorted(sum(parts, [])) == names
    for name in names[:50]:
        remainder = 0
        for byte in hashlib.md5(name.encode()).digest():  # the digest modulo 100, digit by digit
            remainder = (remainder * 256 + byte) % 100
        assert name in parts[remainder]


def test_a_part_is_fetched_whole_and_a_second_time_nothing_is(server, tmp_path):
    for name in NAMES[::3]:
        server.faults[f"/us/frame/train/{name}"].append(Fault(drop=1000))
    result = fetch(server, tmp_path)
    assert (result.planned, result.chosen, len(result.outcome.fetched)) == (25, 25, 25)
    assert holds(server, tmp_path / "frame/train")
    assert sorted(each.name for each in (tmp_path / "frame/train").iterdir()) == sorted([*NAMES, LEDGER])
    server.log.clear()
    again = fetch(server, tmp_path)
    assert (again.outcome.present, again.outcome.fetched, again.outcome.received) == (25, [], 0)
    assert [request.path for request in server.log] == ["/plans/frame_train.json"]


def test_only_the_sample_is_fetched(server, tmp_path):
    result = fetch(server, tmp_path, (2, 5))
    chosen = sample(NAMES, 2, 5)
    assert result.outcome.fetched and sorted(result.outcome.fetched) == chosen
    assert holds(server, tmp_path / "frame/train", names=chosen)
    with pytest.raises(ConfigurationError, match="holds none of the 25 files"):
        fetch(server, tmp_path, (1, 10**9))
    for wrong in ((0, 5), (6, 5)):
        with pytest.raises(ConfigurationError, match="X from 1 to Y"):
            fetch(server, tmp_path, wrong)


@pytest.mark.parametrize("profile", ("paper", "yt8m-1pct", "yt8m-video"))
def test_files_land_where_the_profiles_look(profile, server, tmp_path):
    """Every pattern of a YouTube-8M profile is the folder of a part, and no profile reads the unlabelled test parts."""
    patterns = load_profile(profile).dataset.shards
    folders = {f"{folder}/*.tfrecord" for part, folder in download.FOLDERS.items() if not part.endswith("test")}
    assert set(patterns) <= folders
    tests = {folder for part, folder in download.FOLDERS.items() if part.endswith("test")}
    assert not tests & {
        pattern.rpartition("/")[0] for name in profile_names() for pattern in load_profile(name).dataset.shards
    }
    if profile == "yt8m-video":
        fetch(server, tmp_path, part="video/validate")
        assert len(find_shards(tmp_path, list(patterns))) == len(NAMES)


HOSTILE = {
    "../x.tfrecord": "leads out of its folder",
    "a/../../x.tfrecord": "leads out of its folder",
    "/etc/x.tfrecord": "is absolute",
    "C:x.tfrecord": "is absolute",
    "a\\x.tfrecord": "contains a backslash",
    "x\0.tfrecord": "contains a NUL",
    "": "has no name",
    "sub/x.tfrecord": "contains a slash",
    ".x.tfrecord": "is no TFRecord file's",
    "x.exe": "is no TFRecord file's",
    "x\n.tfrecord": "is no TFRecord file's",
}


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_hostile_plan_is_refused_before_anything_is_written(name, server, tmp_path):
    set_plan(server, lambda files: files.update({name: "0" * 32}))
    with pytest.raises(UnavailableError, match=f"hostile plan: the name .* {HOSTILE[name]}; nothing was written"):
        fetch(server, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, says",
    [
        ("[]", "is no plan"),
        ("{", "is no plan"),
        ('{"files": 3}', "is no plan"),
        ('{"files": ["a.tfrecord"]}', "is no plan"),
        ("[" * 100_000, "is no plan"),
        ('{"files": ' * 100_000, "is no plan"),
        ('{"files": {}}', "lists no files"),
        ('{"files": {"a.tfrecord": "xyz"}}', "MD5 of a.tfrecord is 'xyz', which is none"),
        ('{"files": {"a.tfrecord": 3}}', "MD5 of a.tfrecord is 3, which is none"),
        ('{"files": {"a.tfrecord": "%s"}}' % ("AB" * 16), "MD5 of a.tfrecord is 'ABAB.*', which is none"),
    ],
)
def test_what_is_no_plan_is_refused(text, says):
    with pytest.raises(UnavailableError, match=says):
        read_plan(text, "plan.json")


def test_a_plan_that_breaks_off_is_asked_for_again_and_an_endless_one_refused(server, tmp_path, monkeypatch):
    server.faults["/plans/frame_train.json"].append(Fault(drop=100))
    fetch(server, tmp_path)
    monkeypatch.setattr(download, "_PLAN_LIMIT", 100)
    with pytest.raises(UnavailableError, match="more than 100 bytes"):
        fetch(server, tmp_path)


def test_names_that_differ_by_case_alone_need_a_disk_that_minds_it(server, tmp_path, monkeypatch):
    fetch(server, tmp_path / "minds")
    monkeypatch.setattr(download, "ignores_case", lambda folder: True)
    with pytest.raises(DataError, match="takes .* and .* for one file"):
        fetch(server, tmp_path / "does not")
    assert not (tmp_path / "does not").exists()


def test_files_that_cannot_be_had_do_not_keep_others_from_coming(server, tmp_path):
    bad = NAMES[3]
    del server.files[f"/us/frame/train/{bad}"]
    with pytest.raises(DataError, match="1 of 25 files could not be had; one of them: .*HTTP 404"):
        fetch(server, tmp_path)
    assert holds(server, tmp_path / "frame/train", names=[name for name in NAMES if name != bad])


def test_a_dead_server_is_not_asked_for_every_file(server, tmp_path):
    """One thread hears of failures while others go on; here they begin a tenth file only if it does not say stop."""
    for name in NAMES:
        server.always[f"/us/frame/train/{name}"] = Fault(500)

    def tried():
        return {request.path for request in server.log if request.method == "GET" and "/us/" in request.path}

    class Held(Hasty):
        def wait(self, seconds):
            if len(tried()) >= 9:
                self.stop.wait(PATIENCE)
            super().wait(seconds)

    with pytest.raises(IncompleteRun, match=r"files could not be had \(\d+ others were then not tried\)"):
        download_yt8m(tmp_path, "frame/train", (1, 1), "us", 4, PlainLines(), Held(), server.sources)
    assert len(tried()) < 15


def test_a_file_that_is_there_is_checked_and_never_overwritten(server, tmp_path):
    folder = tmp_path / "frame/train"
    folder.mkdir(parents=True)
    good, bad = NAMES[0], NAMES[1]
    (folder / good).write_bytes(server.files[f"/us/frame/train/{good}"].content)
    (folder / bad).write_bytes(b"mine")
    with pytest.raises(DataError, match="is not the plan's file .*: damaged, or of another release; move it away"):
        fetch(server, tmp_path)
    assert (folder / bad).read_bytes() == b"mine"
    assert server.gets(f"/us/frame/train/{good}") == []
    (folder / bad).unlink()
    assert fetch(server, tmp_path).outcome.fetched == [bad]


def test_what_changed_upstream_is_told_apart_from_what_changed_here(server, tmp_path):
    fetch(server, tmp_path)
    here, upstream = NAMES[4], NAMES[7]
    (tmp_path / "frame/train" / here).write_bytes(b"damaged on the disk")
    set_plan(server, lambda files: files.update({upstream: "0" * 32}))
    with pytest.raises(DataError, match="2 of 25") as raised:
        fetch(server, tmp_path)
    causes = {}
    ledger = parallel_transfer.Ledger(tmp_path / "frame/train")
    for name, md5 in ((here, "1" * 32), (upstream, "0" * 32)):
        with pytest.raises(DataError) as cause:
            ledger.confirm(download.Remote("", tmp_path / "frame/train" / name, md5))
        causes[name] = cause.value
    assert "it was changed on this disk since it was downloaded" in str(causes[here])
    assert isinstance(causes[upstream], ChangedUpstreamError)
    assert "changed upstream since it was downloaded" in str(causes[upstream])
    assert str(raised.value).count("\n") == 0


def test_a_ledger_with_a_line_cut_off_costs_a_checksum_not_a_file(server, tmp_path):
    fetch(server, tmp_path)
    ledger = tmp_path / "frame/train" / LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-40])
    again = fetch(server, tmp_path)
    assert (again.outcome.present, again.outcome.received) == (25, 0)
    assert len(parallel_transfer.Ledger(tmp_path / "frame/train")._entries) == 25


def test_room_is_looked_for_first(server, tmp_path, monkeypatch):
    size = len(server.files[f"/us/frame/train/{NAMES[0]}"].content)
    usage = parallel_transfer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(parallel_transfer.shutil, "disk_usage", lambda path: usage._replace(free=25 * size - 1))
    with pytest.raises(DiskFullError, match="not enough room: about 0.00 GB are to come"):
        fetch(server, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert len([request for request in server.log if request.method == "HEAD"]) <= parallel_transfer.ASKED_FOR_SIZE
    monkeypatch.setattr(parallel_transfer.shutil, "disk_usage", lambda path: usage._replace(free=25 * size))
    fetch(server, tmp_path / "data")


def test_progress_tells_rate_files_and_time_left(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel_transfer, "_NOTIFIED", 0.02)
    monkeypatch.setattr(PlainLines, "interval", 0.0)
    server.pace = 0.01
    fetch(server, tmp_path, parallel=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "start  frame/train" and lines[-1].startswith("done   frame/train (")
    middle = [line for line in lines if "%" in line]
    assert middle and all("MB/s" in line and "of 25 files" in line for line in middle)
    assert any(" left " in line for line in middle)


def test_the_verbs(server, tmp_path, monkeypatch):
    assert tuple(download.FOLDERS) == cli_download.PARTS
    monkeypatch.setattr(download, "download_yt8m", functools.partial(download_yt8m, sources=server.sources))
    run = functools.partial(CliRunner().invoke, data_verbs)
    words = ["download", "yt8m", "--part", "frame/train", "--data-dir", str(tmp_path / "new")]
    done = run([*words, "--shard", "1,2"])
    assert done.exit_code == 0, done.output
    chosen = len(sample(NAMES, 1, 2))
    assert f"{chosen} of the plan's 25 files of frame/train are in {tmp_path / 'new/frame/train'}" in done.output
    assert "3844 were expected" in done.output and "--profile yt8m-1pct" in done.output
    for wrong in ("2", "a,b", "0,3", "1,2,3"):
        assert isinstance(run([*words, "--shard", wrong]).exception, ConfigurationError)
    assert isinstance(run(["download", "audioset"], env={"REPLICATE_DATA": ""}).exception, ConfigurationError)
    assert run(["download", "yt8m", "--part", "frame/trian"]).exit_code == 2


def test_a_broken_transfer_ends_with_exit_code_4_and_a_lasting_one_with_2():
    assert (BrokenTransferError.exit_code, DiskFullError.exit_code) == (4, 4)
    assert (UnavailableError.exit_code, ChangedUpstreamError.exit_code) == (2, 2)
