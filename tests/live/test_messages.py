"""Attacks on the pages' handlers: whatever a browser sends, the kernel says one line at most, and
all goes on."""

import gc
import logging
import struct
import sys

import pytest
from helpers import smooth, transform_network, until
from hypothesis import given
from hypothesis import strategies as st
from test_attacks import ODD_JSON, attack

from nstlab.feedforward.model import StyleModel
from nstlab.live import brush, camera, player, viewer
from nstlab.live.brush import Brush
from nstlab.live.camera import Camera
from nstlab.live.player import FilmPlayer, Screen
from nstlab.live.session import Phase
from nstlab.live.studio import Studio
from nstlab.live.viewer import Viewer, jpeg
from nstlab.video.settings import VideoSettings

PICTURE = jpeg(smooth(32, 36, 1))
NAMES = ["a.png", "../../etc/passwd", "a\0b", "a\nb", "\ud800", "C:\\x", "", "x" * 300, "x" * 2000]
USUAL = {
    "id": st.integers(0, 9),
    "shares": st.lists(st.floats() | st.integers(), min_size=2, max_size=4), "alpha": st.floats(),
    "role": st.sampled_from(["photo", "painting", "weights", "mask", "seed"]),
    "name": st.sampled_from(NAMES),
    "part": st.integers(-1, 2), "parts": st.integers(-1, 3) | st.just(10**9),
}  # fmt: skip
DATA = st.sampled_from([b"", b"x", PICTURE, PICTURE[:99], b"\x89PNG\r\n\x1a\n" + bytes(40)])


@st.composite
def messages(draw, known):
    """(content, buffers): a message that is known, one whose fields are odd, or something else."""
    do = draw(st.sampled_from([*known, "nothing"]))
    content = {"do": do} | {name: draw(USUAL.get(name, ODD_JSON)) for name in known.get(do, {})}
    if draw(st.integers(0, 2)) == 0:
        content |= {draw(st.sampled_from([*content, "x"])): draw(ODD_JSON)}
    if draw(st.integers(0, 9)) == 0:
        content = draw(ODD_JSON)
    return content, draw(st.lists(DATA, max_size=3))


@pytest.fixture
def log():
    """What is logged as an error, by any thread."""
    records = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append
    logging.getLogger("nstlab").addHandler(handler)
    yield records
    logging.getLogger("nstlab").removeHandler(handler)


def send(page, message):
    """A message as Jupyter hands it to a widget."""
    content, buffers = message
    page._handle_msg(
        {"content": {"data": {"method": "custom", "content": content}}, "buffers": buffers}
    )


@pytest.fixture
def studio(small_transfer, tmp_path, log):
    made = Studio(
        small_transfer.replace(steps=2), results=tmp_path / "results", device="cpu", start=False
    )
    yield made
    made.close()


def test_the_studio(studio, log):
    @attack
    @given(st.data())
    def attacked(data):
        for page, known in ((studio.view, viewer.MESSAGES), (studio.editor.widget, brush.MESSAGES)):
            send(page, data.draw(messages(known)))
            said = studio.view.message["text"]
            assert "\n" not in said
            said.encode()
        assert not log
        assert studio.session.phase is not Phase.FAILED

    attacked()
    studio.controls.change(mask=None, painting_mask=None)
    studio.resume()
    assert studio.wait(60) is Phase.RESTING
    assert not log


@attack
@given(data=st.data())
def test_the_camera_and_the_player(screens, log, data):
    cam, film = screens
    send(cam, data.draw(messages(camera.MESSAGES)))
    send(film.screen, data.draw(messages(player.MESSAGES)))
    film.wait(60)
    cam.sent.clear()
    send(cam, ({"do": "frame", "id": 99, "shares": [1, 1, 0], "alpha": 1}, [PICTURE]))
    until(lambda: {"do": "painted", "id": 99} in cam.sent)
    assert not log
    assert (film.screen.state, "\n" in film.screen.status["text"]) == ("ready", False)


@pytest.fixture
def screens(tmp_path, log):
    """A camera, whose answers are kept in `sent`, and a player."""
    path = StyleModel(transform_network(), ("ink", "oil", "chalk")).save(tmp_path / "m.safetensors")
    cam, film = (
        Camera(path, tmp_path / "camera", "cpu"),
        FilmPlayer(VideoSettings("clip.mp4", "mosaic", device="cpu", results=tmp_path)),
    )
    cam.sent = []
    cam.send = lambda content, buffers=None: cam.sent.append(content)
    yield cam, film
    cam.close()
    film.close()


@pytest.mark.parametrize("make", [Viewer, Brush, Screen])
def test_what_a_page_shows_cannot_be_changed_by_a_browser(make):
    page = make()
    before = page.get_state()
    for odd in ("painting", 7, [[]], {"text": 1}):
        state = dict.fromkeys(before, odd)
        page._handle_msg(
            {
                "content": {"data": {"method": "update", "state": state, "buffer_paths": []}},
                "buffers": [],
            }
        )
    assert page.get_state() == before
    page.close()


def test_a_frame_that_would_be_huge_and_a_clip_that_no_file_can_be_are_told_in_a_line(screens, log):
    cam, film = screens
    size = PICTURE.index(b"\xff\xc0") + 5
    huge = PICTURE[:size] + struct.pack(">HH", 65500, 65500) + PICTURE[size + 4 :]
    send(cam, ({"do": "frame", "id": 1, "shares": [1, 1, 1], "alpha": 1}, [huge]))
    until(lambda: cam.sent)
    assert "no JPEG with sides from" in cam.sent[0]["text"]
    film.controls.change(clip="x" * 5000)
    send(film.screen, ({"do": "paint"}, []))
    film.wait(60)
    assert film.screen.status["text"].endswith("x: no such file")
    assert not log


@pytest.mark.parametrize("make", [Camera, FilmPlayer, Studio])
def test_what_cannot_be_made_says_only_that(make, monkeypatch):
    failed = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    with pytest.raises((ValueError, AttributeError)):
        make("no.safetensors")
    gc.collect()
    assert not failed
