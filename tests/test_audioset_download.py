"""AudioSet: lists and archive from a local server; an archive that is hostile or damaged leaves nothing."""

import gzip
import io
import json
import tarfile

import pytest

from replicate.data import archive, messages
from replicate.data.download import download_audioset
from replicate.data.index import find_shards
from replicate.data.tfrecord import frame, iterate_records
from replicate.errors import DataError
from replicate.profile_files import load_profile
from replicate.progress import PlainLines
from tests.http_faults import Fault, FaultyServer, File, Hasty

CLASSES = "index,mid,display_name\n0,/m/a,A\n1,/m/b,B\n"
ONTOLOGY = [{"id": "/m/a", "name": "A", "child_ids": ["/m/b"]}, {"id": "/m/b", "name": "B", "child_ids": []}]
PREFIX = "audioset_v1_embeddings"


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


def record(name: str) -> bytes:
    """A clip of two frames, framed as TFRecord."""
    made = messages.SequenceExample()
    made.context.feature["video_id"].bytes_list.value.append(name.encode())
    made.context.feature["labels"].int64_list.value.append(1)
    for second in range(2):
        made.feature_lists.feature_list["audio_embedding"].feature.add().bytes_list.value.append(bytes([second]) * 128)
    return frame(made.SerializeToString())


def tar(members: dict, extra: list[tarfile.TarInfo] = ()) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as made:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            made.addfile(info, io.BytesIO(body))
        for info in extra:
            made.addfile(info, io.BytesIO(b"\0" * info.size))
    return content.getvalue()


def good_members() -> dict:
    """Members in another order than their names'; each file holds two clips, one part is not asked for."""
    parts = {"eval": "zab", "bal_train": "cAa", "unbal_train": "q"}
    return {
        f"{PREFIX}/{part}/{letter}.tfrecord": record(f"{part}{letter}0") + record(f"{part}{letter}1")
        for part, letters in parts.items()
        for letter in letters
    }


def serve_audioset(server, content: bytes) -> None:
    server.files["/us/features.tar.gz"] = File(content, goog_md5=True)
    server.files["/classes.csv"] = File(CLASSES.encode())
    server.files["/ontology.json"] = File(json.dumps(ONTOLOGY).encode())


def fetch_audioset(server, root):
    return download_audioset(root, "us", PlainLines(), Hasty(), server.sources)


def test_audioset_lands_where_its_profile_looks(server, tmp_path):
    members = good_members()
    serve_audioset(server, tar(members))
    server.faults["/us/features.tar.gz"].append(Fault(drop=100))
    fetch_audioset(server, tmp_path)
    assert find_shards(tmp_path, list(load_profile("audioset").dataset.shards))
    for part in ("bal_train", "eval"):
        expected = b"".join(members[name] for name in sorted(members) if f"/{part}/" in name)
        assert (tmp_path / "audioset" / f"{part}.tfrecord").read_bytes() == expected
    assert (
        not (tmp_path / "audioset/features.tar.gz").exists() and not (tmp_path / "audioset" / archive.SCRATCH).exists()
    )
    server.log.clear()
    again = fetch_audioset(server, tmp_path)
    assert server.log == [] and again.outcome.notes == []


def test_a_missing_part_is_unpacked_and_the_other_left_alone(server, tmp_path):
    serve_audioset(server, tar(good_members()))
    (tmp_path / "audioset").mkdir()
    (tmp_path / "audioset/eval.tfrecord").write_bytes(b"mine")
    result = fetch_audioset(server, tmp_path)
    assert (tmp_path / "audioset/eval.tfrecord").read_bytes() == b"mine"
    assert (tmp_path / "audioset/bal_train.tfrecord").exists()
    assert ["was there already and is kept" in note for note in result.outcome.notes] == [True]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


BAD_MEMBERS = {
    "path traversal": (member(f"{PREFIX}/../../x.tfrecord"), "leads out of its folder"),
    "absolute": (member("/etc/x.tfrecord"), "is absolute"),
    "drive": (member("C:x.tfrecord"), "is absolute"),
    "backslash": (member("a\\..\\x.tfrecord"), "contains a backslash"),
    "symbolic link": (member(f"{PREFIX}/eval/x.tfrecord", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
    "hard link": (member(f"{PREFIX}/eval/x.tfrecord", tarfile.LNKTYPE, f"{PREFIX}/eval/a.tfrecord"), "is a link"),
    "device": (member("d", tarfile.CHRTYPE), "is no plain file"),
    "pipe": (member("p", tarfile.FIFOTYPE), "is no plain file"),
    "twice": (member(f"{PREFIX}/eval/a.tfrecord"), "occurs twice"),
    "no name": (member(""), "has no name"),
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_a_hostile_member_is_refused_before_anything_is_unpacked(kind, server, tmp_path):
    bad, why = BAD_MEMBERS[kind]
    serve_audioset(server, tar(good_members(), [bad]))
    with pytest.raises(DataError, match=f"hostile archive: its member .* {why}; nothing was unpacked"):
        fetch_audioset(server, tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord")) and not (tmp_path / "audioset" / archive.SCRATCH).exists()


def test_a_part_of_absurd_size_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 100)
    serve_audioset(server, tar(good_members()))
    with pytest.raises(DataError, match="hostile archive: bal_train would have"):
        fetch_audioset(server, tmp_path)


def damaged(content: bytes, how: str) -> bytes:
    plain = gzip.decompress(content)
    if how == "not gzip":
        return b"x" * 1000
    if how == "cut":
        return content[: len(content) // 2]
    if how == "checksum of gzip":
        return content[:-8] + bytes(4) + content[-4:]
    broken = plain.find(f"{PREFIX}/eval/b".encode())
    return gzip.compress(plain[:broken] + b"\xff" * 512 + plain[broken + 512 :])


@pytest.mark.parametrize("how", ("not gzip", "cut", "checksum of gzip", "header in the middle"))
def test_a_damaged_archive_is_a_sentence(how, server, tmp_path):
    serve_audioset(server, damaged(tar(good_members()), how))
    with pytest.raises(DataError, match=r"features\.tar\.gz: is damaged .*; delete it"):
        fetch_audioset(server, tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_records_are_read_before_they_get_their_names(server, tmp_path):
    members = good_members()
    name = f"{PREFIX}/eval/a.tfrecord"
    serve_audioset(server, tar(members | {name: members[name][:-1] + b"\0"}))
    with pytest.raises(DataError, match="of its records are no AudioSet records; the first: .*CRC"):
        fetch_audioset(server, tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord"))
    without = {name: body for name, body in members.items() if "/eval/" not in name}
    serve_audioset(server, tar(without))
    (tmp_path / "audioset/features.tar.gz").unlink()
    with pytest.raises(DataError, match="has no member .*/eval/"):
        fetch_audioset(server, tmp_path)


def test_classes_that_make_no_sense_are_refused(server, tmp_path):
    serve_audioset(server, tar(good_members()))
    server.files["/classes.csv"] = File(CLASSES.replace("/m/b", "/m/c").encode())
    with pytest.raises(DataError, match="delete both files"):
        fetch_audioset(server, tmp_path)


@pytest.mark.data
def test_the_real_audioset_comes_through(server, data_dir, tmp_path):
    """The genuine files, cut into members at record boundaries, come back byte for byte."""
    members = {}
    for part in ("bal_train", "eval"):
        content = (data_dir / "audioset" / f"{part}.tfrecord").read_bytes()
        starts = [offset for offset, _ in iterate_records(data_dir / "audioset" / f"{part}.tfrecord")]
        cuts = [0, *starts[5000::5000], len(content)]
        for number, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
            members[f"{PREFIX}/{part}/{number:02d}.tfrecord"] = content[start:end]
    serve_audioset(server, tar(dict(reversed(members.items()))))
    for name, path in (("/classes.csv", "class_labels_indices.csv"), ("/ontology.json", "ontology.json")):
        server.files[name] = File((data_dir / "audioset" / path).read_bytes())
    fetch_audioset(server, tmp_path)
    for part in ("bal_train", "eval"):
        made, real = ((root / "audioset" / f"{part}.tfrecord").read_bytes() for root in (tmp_path, data_dir))
        assert made == real
