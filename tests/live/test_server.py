"""`make studio`'s server: this machine's alone, for whoever has its token, by its own name only,
and without kernels that nobody uses any more."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
from pathlib import Path

import psutil
import pytest
from helpers import until
from serving import TOKEN, serving
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STUDIO = "/voila/render/00_studio.ipynb"
# seconds after which a kernel that nobody uses is ended here; a slow machine needs some of them to
# start one
SOON = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server by the project's configuration, on a free port: (its address, its process id)."""
    culling = [
        f"--MappingKernelManager.cull_{name}={SOON}" for name in ("idle_timeout", "interval")
    ]
    options = [f"--config={NOTEBOOKS / 'studio_config.py'}", *culling, str(NOTEBOOKS)]
    with serving(tmp_path_factory.mktemp("server"), "jupyter_server", *options) as (url, number):
        yield url.rstrip("/"), number


@pytest.fixture
def answer(server):
    """Gives (status, text) of a request, redirections not followed."""

    def answer(path, token=TOKEN, method="GET", **headers):
        headers |= {"Authorization": f"token {token}"} if token else {}
        with contextlib.closing(
            http.client.HTTPConnection(server[0].removeprefix("http://"), timeout=60)
        ) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    return answer


def test_it_listens_on_this_machine_alone(server):
    port = int(server[0].rpartition(":")[2])
    connections = psutil.Process(server[1]).net_connections()
    listening = {
        each.laddr.ip
        for each in connections
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }
    assert listening
    assert listening <= {"127.0.0.1", "::1"}


def test_without_the_token_or_by_another_name_nothing_is_shown_and_no_kernel_begins(answer):
    studio = [STUDIO] if importlib.util.find_spec("voila") else []  # else there is no such page
    for path in ("/api/kernels", *studio, "/files/00_studio.ipynb"):
        for token in ("", "wrong"):
            status, text = answer(path, token=token)
            assert status in (302, 403)
            assert "nstlab" not in text
        assert answer(path, Host="evil.example:8888")[0] == 403
    assert answer("/api/kernels") == (200, "[]")


def test_a_websocket_of_another_name_is_refused_even_with_the_token(server, answer):
    status, text = answer("/api/kernels", method="POST")
    assert status == 201
    kernel = f"/api/kernels/{json.loads(text)['id']}"
    url = f"{server[0].replace('http', 'ws')}{kernel}/channels?token={TOKEN}"

    async def connect(**headers):
        socket = await websocket_connect(
            HTTPRequest(url, headers=headers, connect_timeout=60, request_timeout=60)
        )
        socket.close()
        while await socket.read_message() is not None:  # None once it is closed
            pass

    asyncio.run(connect())
    with pytest.raises(HTTPClientError, match="403"):
        asyncio.run(connect(Host="evil.example", Origin="http://evil.example"))
    assert answer(kernel, method="DELETE")[0] in (204, 404)  # 404: it has ended by itself


def test_the_studio_is_shown_and_its_kernel_ends_when_nobody_uses_it(answer):
    pytest.importorskip("voila", reason="Voila is not installed")
    status, text = answer(STUDIO)
    assert status == 200
    assert "application/vnd.jupyter.widget-view+json" in text
    until(lambda: answer("/api/kernels")[1] == "[]", seconds=120)


@pytest.mark.parametrize(
    "base",
    [
        "/files/",
        "/api/contents/",
        "/voila/templates/",
        "/voila/render/",
        "/voila/files/",
        "/kernelspecs/",
    ],
)
def test_odd_addresses_are_not_found(answer, base):
    odd = [
        "..",
        "../../etc/passwd",
        "%2e%2e/x",
        "lab/static/..%2f..%2fx",
        "a%00b",
        "a%0Ab",
        "C:%5Cx%5C..%5Cy",
        "x" * 256,
        "x/" * 3000,
    ]
    assert {part: answer(base + part)[0] for part in odd} == dict.fromkeys(odd, 404)


def test_addresses_of_what_is_there_are_found(answer):
    pytest.importorskip("voila", reason="Voila is not installed")
    for part in ("", "lab", "lab/", "lab/static", "lab/x/voila.js", "%c3%a9/static"):
        assert answer(f"/voila/templates/{part}")[0] == 404
    for there in (
        "/voila/templates/lab/static/voila.js",
        "/files/README.md",
        "/api/contents/README.md",
    ):
        assert answer(there)[0] == 200
