"""Downloads: they arrive whole or not at all, go on where they stopped, and are checked."""

import hashlib
import http.server
import os
import socket
import threading

import numpy as np
import pytest
import torch
from faults import refusal

from nstlab import downloads
from nstlab.downloads import Download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT on this machine, unless its attributes say otherwise; notes the Range of every request."""

    daemon_threads = True
    cut = None  # the byte at which every answer ends
    ranges = True  # whether it can send a part of the file
    chunked = False
    status = 200
    moved = ""  # where it redirects to
    length = ""  # what it says of the length

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.file = Download(f"http://127.0.0.1:{self.server_port}/vgg19-{HASH}.pth", HASH, 3)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
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


def test_a_download_arrives_whole_and_reports_its_progress(server, download):
    seen = []
    assert downloads.fetch(download, lambda done, total: seen.append((done, total))) == download.path
    assert download.path.read_bytes() == CONTENT
    assert not download.part.exists()
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_file_that_is_there_is_not_downloaded_again_unless_it_is_damaged(server, download):
    download.path.write_bytes(CONTENT[:-1])
    for _ in range(2):
        assert downloads.fetch(download).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_cut_connection_keeps_its_part_and_the_next_call_goes_on_from_there(server, download):
    server.cut = 1_234_567
    assert "run the same command again" in refusal(downloads.fetch, download)
    assert download.part.read_bytes() == CONTENT[:1_234_567]
    assert not download.path.exists()
    server.cut, seen = None, []
    downloads.fetch(download, lambda done, total: seen.append((done, total)))
    assert server.asked == [None, "bytes=1234567-"]
    assert download.path.read_bytes() == CONTENT
    assert seen[0][0] > 1_234_567
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("scheme", ["ftp", "https", "file"])
def test_a_server_that_redirects_to_another_scheme_is_not_followed(server, download, scheme):
    server.moved = f"{scheme}://127.0.0.1:9/weights.pth"
    assert scheme in refusal(downloads.fetch, download)
    assert not download.path.exists()


def test_a_server_that_redirects_within_its_scheme_is_followed(server, download):
    with Server() as first:
        first.moved = download.url
        assert downloads.fetch(first.file).read_bytes() == CONTENT
        first.shutdown()


def test_of_two_downloads_at_once_the_second_is_refused_and_the_first_arrives(server, download):
    lines = []

    def second(done, total):
        if not lines:
            lines.append(refusal(downloads.fetch, download))

    assert downloads.fetch(download, second).read_bytes() == CONTENT
    assert "is being downloaded by another process" in lines[0]
    assert downloads.fetch(download) == download.path


@pytest.mark.parametrize(
    "answer",
    [{"length": "some"}, {"moved": "http://["}, {"status": 404}, {"status": 503}, {"chunked": True, "cut": 1_000_000}],
    ids=str,
)
def test_a_server_that_answers_nonsense_or_refuses_is_named_in_one_line(server, download, answer):
    vars(server).update(answer)
    message = refusal(downloads.fetch, download)
    assert message.startswith(f"{download.url} could not be downloaded (")
    assert f"run the same command again to go on, or put the file at {download.path} by hand" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
@pytest.mark.parametrize("name", ["path", "part"])
def test_what_stands_in_a_downloads_place_is_told_before_it_begins(server, download, name):
    place = download.path if name == "path" else download.part
    os.mkfifo(place)
    assert "is not a regular file" in refusal(downloads.fetch, download)
    assert server.asked == []


@pytest.mark.parametrize(("there", "ranges"), [(CONTENT[:1000], False), (CONTENT, True)], ids=["no ranges", "whole"])
def test_a_part_that_the_server_cannot_continue_starts_anew_and_a_whole_one_is_only_checked(server, download, there, ranges):
    download.part.write_bytes(there)
    server.ranges = ranges
    assert downloads.fetch(download).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(there)}-"]


def test_a_wrong_hash_removes_the_file_and_says_so(server, download):
    wrong = Download(download.url, "00000000", 3)
    message = refusal(downloads.fetch, wrong)
    assert "hash" in message
    assert "removed" in message
    assert [path for path in download.path.parent.iterdir() if path.suffix != ".lock"] == []


def test_a_wrong_part_is_found_by_its_hash_and_the_next_call_succeeds(server, download):
    download.part.write_bytes(b"\0" * 1000)
    assert "hash" in refusal(downloads.fetch, download)
    assert downloads.fetch(download).read_bytes() == CONTENT


def test_a_server_that_does_not_answer_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = Download(f"http://127.0.0.1:{free.getsockname()[1]}/vgg19-{HASH}.pth", HASH, 3)
    assert nowhere.url in refusal(downloads.fetch, nowhere)


def test_a_server_that_does_not_speak_http_is_refused():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"220 no HTTP here\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/vgg19-{HASH}.pth"
        assert url in refusal(downloads.fetch, Download(url, HASH, 3))
        thread.join()


def test_a_folder_that_cannot_be_made_is_refused(server, download, tmp_path):
    (tmp_path / "file").write_text("in the way")
    torch.hub.set_dir(str(tmp_path / "file"))
    refusal(downloads.fetch, download)
    assert server.asked == []
