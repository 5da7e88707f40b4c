"""Downloads: they arrive whole or not at all, go on where they stopped, and are checked."""

import hashlib
import http.server
import os
import threading
import time

import numpy as np
import pytest
import torch
from faults import refusal

from nstlab.base.names import RAFT
from nstlab.cli import main as cli
from nstlab.networks import downloads, sources, weights
from nstlab.networks.downloads import Download
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.weights import random_weights
from nstlab.video.flow import _raft, raft

CONTENT = np.random.default_rng(0).bytes(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT on this machine, unless its attributes say otherwise; notes the Range of every
    request."""

    daemon_threads = True
    cut = None  # the byte at which every answer ends
    ranges = True  # whether it can send a part of the file
    chunked = False
    silent = endless = False  # whether it falls silent, or never ends, after what is to be sent
    status = 200
    moved = ""  # where it redirects to
    other = b""  # what it answers instead, in no HTTP
    length = ""  # what it says of the length
    sent = 0  # bytes of an endless answer

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.file = Download(f"http://127.0.0.1:{self.server_port}/vgg19-{HASH}.pth", HASH, 3)
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        start = (
            int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        )
        if server.other:
            return self.wfile.write(server.other)
        if server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved)
            return self.end_headers()
        if server.status != 200 or start >= len(CONTENT):
            return self.send_error(416 if server.status == 200 else server.status)
        self.send_response(206 if start else 200)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", server.length or str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        body = CONTENT[start : server.cut]
        if server.silent:
            self.wfile.write(body)
            time.sleep(1)
            return None
        while server.endless:
            server.sent += self.wfile.write(bytes(1 << 20))
        return self.wfile.write(b"%x\r\n" % len(CONTENT) + body if server.chunked else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as made:
        yield made
        made.shutdown()


@pytest.fixture
def download(server):
    """The file that the server has, and the folder in which it will be."""
    server.file.path.parent.mkdir(parents=True)
    return server.file


def fetched(download):
    """Download a file, which must arrive whole. Returns its progress."""
    seen = []
    assert (
        downloads.fetch(download, lambda done, total: seen.append((done, total))) == download.path
    )
    assert download.path.read_bytes() == CONTENT
    assert not download.part.exists()
    return seen


def test_a_download_arrives_whole_with_its_progress_and_is_not_made_again_unless_damaged(
    server, download
):
    download.path.write_bytes(CONTENT[:-1])
    seen = fetched(download)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    with Server() as moved:
        moved.moved = download.url
        fetched(moved.file)
        moved.shutdown()
    assert len(server.asked) == 1


def test_a_cut_connection_keeps_its_part_and_the_next_call_goes_on_from_there(server, download):
    server.cut = 1_234_567
    assert "run the same command again" in refusal(downloads.fetch, download)
    assert download.part.read_bytes() == CONTENT[:1_234_567]
    assert not download.path.exists()
    server.cut = None
    seen = fetched(download)
    assert server.asked == [None, "bytes=1234567-"]
    assert seen[0][0] > 1_234_567
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_a_server_has_sent_before_it_falls_silent_is_kept(server, download, monkeypatch):
    vars(server).update(cut=1234, silent=True)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    assert "timed out" in refusal(downloads.fetch, download)
    assert download.part.read_bytes() == CONTENT[:1234]


@pytest.mark.parametrize("length", ["", str(10**18)])
def test_a_server_that_sends_without_end_does_not_fill_the_disk(server, download, length):
    vars(server).update(endless=True, chunked=False, length=length)
    assert "hash" in refusal(downloads.fetch, download)
    assert server.sent < 100 << 20
    assert not download.part.exists()


def test_of_two_downloads_at_once_the_second_is_refused_and_the_first_arrives(server, download):
    lines = []

    def second(done, total):
        if not lines:
            lines.append(refusal(downloads.fetch, download))

    assert downloads.fetch(download, second).read_bytes() == CONTENT
    assert "is being downloaded by another process" in lines[0]
    fetched(download)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"length": "some"}, ""),
        ({"moved": "http://["}, ""),
        ({"moved": "ftp://127.0.0.1:9/weights.pth"}, "ftp"),
        ({"moved": "https://127.0.0.1:9/weights.pth"}, "https"),
        ({"moved": "file:///weights.pth"}, "file"),
        ({"other": b"220 no HTTP here\r\n"}, "220 no HTTP here"),
        ({"status": 404}, "Not Found"),
        ({"status": 503}, "Service Unavailable"),
        ({"status": 416}, "Requested Range Not Satisfiable"),
        ({"chunked": True, "cut": 1_000_000}, ""),
    ],
    ids=str,
)
def test_a_server_that_answers_nonsense_or_refuses_is_named_in_one_line(
    server, download, answer, says
):
    vars(server).update(answer)
    message = refusal(downloads.fetch, download)
    assert message.startswith(f"{download.url} could not be downloaded (")
    assert says in message
    assert (
        f"run the same command again to go on, or put the file at {download.path} by hand"
        in message
    )
    assert not download.path.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_what_stands_in_a_downloads_place_is_told_before_it_begins(server, download, tmp_path):
    for place in (download.path, download.part):
        os.mkfifo(place)
        assert "is not a regular file" in refusal(downloads.fetch, download)
        place.unlink()
    (tmp_path / "file").write_text("in the way")
    torch.hub.set_dir(str(tmp_path / "file"))
    refusal(downloads.fetch, download)
    assert server.asked == []


@pytest.mark.parametrize(
    ("there", "ranges"), [(CONTENT[:1000], False), (CONTENT, True)], ids=["no ranges", "whole"]
)
def test_a_part_that_the_server_cannot_continue_starts_anew_and_a_whole_one_is_only_checked(
    server, download, there, ranges
):
    download.part.write_bytes(there)
    server.ranges = ranges
    fetched(download)
    assert server.asked == [f"bytes={len(there)}-"]


def test_what_has_a_wrong_hash_is_removed_and_the_next_call_succeeds(server, download):
    download.part.write_bytes(b"\0" * 1000)
    message = refusal(downloads.fetch, download)
    assert "hash" in message
    assert "removed" in message
    assert [path for path in download.path.parent.iterdir() if path.suffix != ".lock"] == []
    fetched(download)


def test_a_networks_weights_are_fetched_and_then_found(server, tmp_path, monkeypatch, capsys):
    """By the command, from a server on this machine that has a small network's file."""
    path, own = tmp_path / "weights.pth", random_weights(5, network="squeezenet1_1")
    torch.save(own.tensors, path)
    monkeypatch.setitem(globals(), "CONTENT", path.read_bytes())
    sha256 = hashlib.sha256(CONTENT).hexdigest()[:8]
    there = Download(f"http://127.0.0.1:{server.server_port}/squeezenet1_1-{sha256}.pth", sha256, 5)
    published = {"squeezenet1_1": (there, TORCHVISION)}
    monkeypatch.setattr(
        sources,
        "_imagenet",
        lambda network: published.get(network) or (Download("", "", 0), TORCHVISION),
    )
    assert "nstlab fetch --network squeezenet1_1" in refusal(weights.load, network="squeezenet1_1")
    assert sources.fetched() == ()
    assert cli.main(["fetch", "--network", "squeezenet1_1"]) == 0
    assert "--network squeezenet1_1" in capsys.readouterr().out
    assert sources.fetched() == ("squeezenet1_1",)
    found = weights.load(network="squeezenet1_1")
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in own.tensors.items())
    assert cli.main(["info", "--network", "squeezenet1_1"]) == 0
    said = capsys.readouterr().out
    assert str(there.path) in said
    assert all(layer in said for layer in ("fire2", "fire9", "style", "content"))


def test_the_weights_of_optical_flow_are_fetched_to_where_films_look_for_them(
    server, monkeypatch, capsys
):
    """By the command that is named without them, from a server on this machine."""
    _raft.cache_clear()
    monkeypatch.setattr(sources, "published", lambda network: {RAFT: server.file}[network])
    command = refusal(raft, *torch.zeros(2, 1, 3, 16, 16)).rpartition("nstlab ")[2]
    assert cli.main(command.split()) == 0
    assert "use it with --flow raft" in capsys.readouterr().out
    assert server.file.path.read_bytes() == CONTENT
    # since this is no network
    assert str(server.file.path) in refusal(raft, *torch.zeros(2, 1, 3, 16, 16))
    server.file.path.unlink()
    monkeypatch.setitem(globals(), "CONTENT", CONTENT[::-1])
    assert cli.main(command.split()) == 2
    assert "hash" in capsys.readouterr().err
    assert not server.file.path.exists()


def test_what_is_known_of_the_weights_of_optical_flow_is_torchvisions():
    known = sources.download(RAFT)
    assert known.url.endswith(f"raft_large_C_T_SKHT_V2-{known.sha256}.pth")
    assert (len(known.sha256), known.megabytes) == (8, 20)
    assert "for raft_large it is imagenet" in refusal(sources.download, RAFT, "caffe")
