"""Claims: a remote store gives the same names, index, identity and batches as the same files on a disk; each byte that
an epoch needs is fetched once; what goes wrong is one sentence with the address and what to do."""

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler

import fsspec
import numpy as np
import pytest
from patience import wait_until
from records import TWO, indexed
from test_batches import VIDEOS
from test_workers import content

from replicate.data import prefetch, remote
from replicate.data.batches import RecordSource
from replicate.data.fingerprints import fingerprint
from replicate.data.index import Index, build_index, find_shards, sizes_of
from replicate.data.order import epoch_order, shard_order, share
from replicate.data.prefetch import RemoteRecords, plan
from replicate.data.reading import source_of
from replicate.data.remote import RemotePath
from replicate.data.tfrecord import RecordError, Shard
from replicate.data.verify import verify
from replicate.errors import ConfigurationError, DataError, IncompleteRun
from replicate.record import file_digest
from tests.http_faults import QuietServer

SHARDS = ["s0.tfrecord", "s1.tfrecord", "s2.tfrecord"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The index of the same corpus on a disk."""
    return indexed(tmp_path_factory.mktemp("local"))


class Server:
    """Files by HTTP, with ranges; notes what was asked for, and can misbehave.

    Attributes:
        files: content by path.
        asked: (path, first byte, last byte) of each GET of a part.
        statuses: by path, what the next requests are answered with instead.
        whole: ranges are ignored.
        unsized: answers do not say how long they are.
    """

    def __init__(self):
        self.files, self.asked, self.statuses = {}, [], {}
        self.whole = self.unsized = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(handler, body):  # noqa: N805 - `self` is the server's
                waiting = self.statuses.get(handler.path)
                content = self.files.get(handler.path)
                if waiting or content is None:
                    handler.send_response(waiting.pop(0) if waiting else 404)
                    handler.send_header("Content-Length", "0")
                    handler.end_headers()
                    return
                found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
                if found and not self.whole:
                    first, last = map(int, found.groups())
                    self.asked.append((handler.path, first, last))
                    total, content = len(content), content[first : last + 1]
                    handler.send_response(206)
                    handler.send_header("Content-Range", f"bytes {first}-{last}/{total}")
                else:
                    handler.send_response(200)
                if self.unsized:
                    handler.send_header("Transfer-Encoding", "chunked")
                    content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
                else:
                    handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                if body:
                    handler.wfile.write(content)

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(local):
    made = Server()
    made.files = {f"/data/{name}": (local.root / name).read_bytes() for name in SHARDS}
    made.files["/data/shards.txt"] = "\n".join(["other.txt", *SHARDS]).encode()
    yield made
    made.close()


@pytest.fixture
def memory(local):
    filesystem = fsspec.filesystem("memory")
    for name in SHARDS:
        filesystem.pipe_file(f"/corpus/data/{name}", (local.root / name).read_bytes())
    yield RemotePath.of("memory://corpus/data")
    filesystem.rm("/corpus", recursive=True)


@pytest.fixture(params=["memory", "http"])
def root(request):
    """The same files in each kind of store."""
    if request.param == "memory":
        return request.getfixturevalue("memory")
    return RemotePath.of(request.getfixturevalue("server").url + "/data/")


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))


def test_names_sizes_and_identity_are_those_of_the_disk(root, local):
    assert find_shards(root, ["*.tfrecord"]) == SHARDS == find_shards(local.root, ["*.tfrecord"])
    assert find_shards(root, ["s[02].tfrecord", "s1.tfrecord"]) == SHARDS
    assert fingerprint(root, SHARDS) == fingerprint(local.root, SHARDS)
    assert sizes_of(root, SHARDS) == sizes_of(local.root, SHARDS)
    with pytest.raises(DataError, match=f"no file under {root} matches '\\*.csv'; is --data-dir the folder"):
        find_shards(root, ["*.csv"])


def test_the_index_is_that_of_the_disk(root, local, tmp_path):
    build_index(TWO, root, SHARDS, tmp_path / "index", processes=1)
    made = Index.open(tmp_path / "index", root)
    assert made.shards == local.shards, "SHA-256 of the shards too"
    for name in ("shard", "record", "offset", "frames", "ids", "label_offsets", "label_values"):
        assert np.array_equal(getattr(made, name), getattr(local, name))
    assert verify(TWO, root, SHARDS) == []


@pytest.mark.parametrize("ahead", [1 << 23, 64, 7])
def test_a_shard_is_read_through_in_parts_each_fetched_once(server, local, monkeypatch, ahead):
    monkeypatch.setattr(remote, "AHEAD", ahead)
    shard = Shard(RemotePath.of(server.url) / "data/s1.tfrecord")
    assert list(shard.records()) == list(Shard(local.root / "s1.tfrecord").records())
    assert shard.sha256() == file_digest(local.root / "s1.tfrecord")
    fetched = sorted((first, last) for _, first, last in server.asked)
    assert [first for first, _ in fetched] == [0, *(last + 1 for _, last in fetched[:-1])]
    assert fetched[-1][1] + 1 == shard.size


def at(local, root):
    return Index(root, local.shards, **{name: getattr(local, name) for name in Index.__annotations__ if name not in
                                        ("root", "shards")})  # fmt: skip


@pytest.mark.parametrize("window", [0, 1, 4, 100])
@pytest.mark.parametrize("requests", [1, 3])
def test_batches_are_those_of_the_disk(root, local, window, requests):
    far = RemoteRecords(at(local, root), TWO, 6, requests=requests, window=window)
    near = RecordSource(local, TWO, 6)
    orders = [epoch_order(np.arange(VIDEOS), 0, 1), np.array([3, 3, 0, 3, 11]), np.arange(0)]
    orders.append(shard_order(np.arange(VIDEOS), 0, 1, local.shard, max(1, window)))
    for order in orders:
        for place in ({}, {"rank": 1, "ranks": 2, "done": 1}):
            assert content(far, order, 5, **place) == content(near, order, 5, **place)
    assert not any(file.held for file in far._files.values())
    assert far.record(5).id == near.record(5).id


def test_views_of_remote_records(root, local):
    options = {"modalities": ["audio"], "shuffled": True}
    far, widths = source_of(at(local, root), TWO, 6, window=4, workers=2, **options)
    near, _ = source_of(local, TWO, 6, **options)
    order = epoch_order(np.arange(VIDEOS), 0, 1)
    assert content(far, order, 5) == content(near, order, 5) and widths == (2,)


def test_in_the_order_of_shards_each_byte_is_fetched_once(server, local):
    index = at(local, RemotePath.of(server.url) / "data")
    order = shard_order(np.arange(VIDEOS), 0, 1, local.shard, 3)
    assert len(content(RemoteRecords(index, TWO, 6, window=VIDEOS), order, 2)) == 6
    assert sorted(server.asked) == [(f"/data/{shard['name']}", 0, shard["bytes"] - 1) for shard in local.shards]


def test_in_the_global_order_a_record_is_one_request(server, local):
    index = at(local, RemotePath.of(server.url) / "data")
    content(RemoteRecords(index, TWO, 6), epoch_order(np.arange(VIDEOS), 0, 1), 5)
    begins = {(f"/data/{SHARDS[local.shard[row]]}", int(local.offset[row])) for row in range(VIDEOS)}
    assert len(server.asked) == VIDEOS and {(path, first) for path, first, _ in server.asked} == begins


def wide_index(shards, records, size):
    """An index of shards of so many records of `size` bytes, of nothing."""
    count = shards * records
    empty = np.zeros(count, np.int16)
    offset = np.tile(np.arange(records, dtype=np.int64) * size, shards)
    described = [{"name": str(n), "bytes": records * size, "records": records} for n in range(shards)]
    return Index(None, described, np.repeat(np.arange(shards), records), empty, offset, empty, empty, empty, empty)


def most_held(runs, batches):
    """Bytes at the batch that needs most of them."""
    return max((runs.end - runs.begin)[(runs.first <= k) & (runs.last >= k)].sum() for k in range(batches))


def test_a_window_bounds_what_is_held_and_what_is_fetched():
    """Of 50 shards of 200 records of 250 kB, four of five are training videos; a window of 1,000 videos."""
    index = wide_index(50, 200, 250_000)
    rows = np.flatnonzero(np.arange(index.count) % 5)
    order = shard_order(rows, 0, 1, index.shard, 1000)
    runs = plan(index, share(order, 100), 1000)
    needed = len(rows) * 250_000
    fetched = (runs.end - runs.begin).sum()
    assert needed <= fetched < 1.3 * needed, "the fifth between them is read over"
    assert len(runs.first) < 50 * 10, "8 MiB each"
    assert (np.diff(runs.first) >= 0).all()
    assert most_held(runs, len(rows) // 100) < 2 * 1000 * 250_000
    runs = plan(index, share(epoch_order(rows, 0, 1), 100), 1000)
    assert most_held(runs, len(rows) // 100) < 2 * 1000 * 250_000, "whatever the order"


def test_every_record_lies_in_a_run_while_its_batch_is_read():
    index = wide_index(7, 30, 1_000_000)
    order = shard_order(np.arange(index.count), 3, 2, index.shard, 40)
    for window in (0, 5, 40, 1000):
        parts = share(order, 9)
        runs = plan(index, parts, window)
        for number, part in enumerate(parts):
            there = (runs.first <= number) & (runs.last >= number)
            for row in part:
                begin = index.offset[row]
                inside = there & (runs.shard == index.shard[row]) & (runs.begin <= begin)
                assert (inside & (runs.end >= begin + 1_000_000)).any()


def test_a_shard_that_is_gone_or_changed_is_a_sentence(root, local):
    with pytest.raises(RecordError, match=rf"{root}/s9.tfrecord: cannot be read: there is no .*s9.tfrecord; is --data"):
        Shard(root / "s9.tfrecord")
    with pytest.raises(RecordError, match="s9.tfrecord"):
        fingerprint(root, ["s0.tfrecord", "s9.tfrecord"])
    shards = [dict(shard, bytes=shard["bytes"] + (n == 1)) for n, shard in enumerate(local.shards)]
    index = at(local, root)
    other = RemoteRecords(Index(root, shards, **{k: v for k, v in vars(index).items() if k not in ("root", "shards")}),
                          TWO, 6)  # fmt: skip
    with pytest.raises(RecordError, match=f"{root}/s1.tfrecord: has .* bytes, and had .* when it was indexed"):
        content(other, np.arange(VIDEOS), 5)


def test_damage_on_the_way_is_found(server, local):
    damaged = bytearray(server.files["/data/s2.tfrecord"])
    damaged[int(local.offset[9]) + 40] ^= 1
    server.files["/data/s2.tfrecord"] = bytes(damaged)
    far = RemoteRecords(at(local, RemotePath.of(server.url) / "data"), TWO, 6)
    with pytest.raises(RecordError, match=r"http.*/data/s2.tfrecord, record 1 at byte .*CRC of the data differs"):
        content(far, np.arange(VIDEOS), 4)


def test_a_fault_that_passes_is_not_noticed(server, local):
    server.statuses = {"/data/s1.tfrecord": [503, 503, 500]}
    far = RemoteRecords(at(local, RemotePath.of(server.url) / "data"), TWO, 6, requests=1)
    assert content(far, np.arange(VIDEOS), 5) == content(RecordSource(local, TWO, 6), np.arange(VIDEOS), 5)


def test_a_fault_that_stays_is_a_run_to_resume(server, local):
    server.statuses = {"/data/s1.tfrecord": [503] * 99}
    far = RemoteRecords(at(local, RemotePath.of(server.url) / "data"), TWO, 6)
    sentence = r"http.*/data/s1.tfrecord: cannot be reached after 3 attempts \(.*503.*\); .* the same command again"
    with pytest.raises(IncompleteRun, match=sentence):
        content(far, np.arange(VIDEOS), 5)


def test_nobody_there_is_a_sentence():
    with socket.socket() as held:  # nobody listens there, and nobody else can
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x"
        with pytest.raises(IncompleteRun, match=f"{url}: cannot be reached after 3 attempts"):
            RemotePath.of(url).sizes(["a"])


def test_refused_access_names_the_remedy(server):
    server.statuses = {"/data/s0.tfrecord": [403] * 99}
    with pytest.raises(RecordError, match="s0.tfrecord: cannot be read: access is refused; look after your access"):
        Shard(RemotePath.of(server.url) / "data/s0.tfrecord")


def test_a_server_without_ranges_or_sizes_is_told_apart(server, local):
    server.whole = True
    with pytest.raises(RecordError, match="the server sends whole files where parts are asked for; use one that"):
        content(RemoteRecords(at(local, RemotePath.of(server.url) / "data"), TWO, 6), np.arange(VIDEOS), 5)
    server.whole, server.unsized = False, True
    with pytest.raises(RecordError, match="the server does not say how large it is; copy the shards"):
        Shard(RemotePath.of(server.url) / "data/s0.tfrecord")


def test_http_without_a_list_of_names_says_so(server):
    del server.files["/data/shards.txt"]
    root = RemotePath.of(server.url) / "data"
    with pytest.raises(DataError, match="cannot be listed over HTTP; put a file shards.txt there with one name per"):
        find_shards(root, ["*.tfrecord"])
    assert find_shards(root, SHARDS) == SHARDS, "names need no list"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gs://bucket/yt8m", "gs://bucket/yt8m: a package for gs:// is not installed; pip install gcsfs"),
        ("s3://bucket", "s3://bucket: a package for s3:// is not installed; pip install s3fs"),
        ("gopher://x", "gopher://x: fsspec knows no gopher://; use gs://, s3://, http:// or https://, or a local disk"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named(url, sentence, monkeypatch):
    for name in ("gcsfs", "s3fs"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigurationError) as caught:
        RemotePath.of(url)
    assert str(caught.value) == sentence


def test_records_are_fetched_before_their_batch_is_asked_for(root, local, monkeypatch):
    """While the first batch is in use, the next ones are under way."""
    fetched, real = [], prefetch.RemoteFile.fetch

    def note(self, begin, end):
        fetched.append(begin)
        return real(self, begin, end)

    monkeypatch.setattr(prefetch.RemoteFile, "fetch", note)
    feed = RemoteRecords(at(local, root), TWO, 6, requests=3).stream(share(np.arange(VIDEOS), 2))
    next(feed)
    wait_until(lambda: len(fetched) == 8, "the batch's two, and twice as many as may be asked for at once")
    feed.close()
