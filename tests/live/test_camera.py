"""The camera: of its frames the newest is painted, in a thread that ends; nothing is kept but what
is saved."""

import io
import threading
import time

import ipywidgets
import pytest
import torch
from faults import refusal
from helpers import smooth, transform_network, until
from PIL import Image

from nstlab.feedforward.model import StyleModel
from nstlab.live.camera import Camera
from nstlab.live.session import Phase
from nstlab.live.studio import Studio
from nstlab.live.viewer import jpeg
from nstlab.pictures import images as im


@pytest.fixture
def camera(tmp_path):
    """A camera whose messages to the page are kept in `sent`."""
    path = StyleModel(transform_network(), ("ink", "oil", "chalk")).save(tmp_path / "m.safetensors")
    made = Camera(path, tmp_path / "camera", "cpu")
    made.sent = []
    made.send = lambda content, buffers=None: made.sent.append((content, buffers))
    yield made
    made.close()


FRAME = jpeg(smooth(48, 64, seed=1))


def tell(camera, do, data=None, **content):
    camera._receive(None, {"do": do, **content}, [] if data is None else [memoryview(data)])


def frame(camera, id, data=FRAME, shares=(0, 1, 1), alpha=1.0):
    tell(camera, "frame", data, id=id, shares=list(shares), alpha=alpha)


def test_a_frame_comes_back_painted_in_the_mixture_that_the_page_asks_for(camera):
    assert camera.paintings == ["ink", "oil", "chalk"]
    frame(camera, 7, alpha=0.5)
    until(lambda: camera.sent)
    ((content, (data,)),) = camera.sent
    assert content == {"do": "painted", "id": 7}
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (64, 48)
    photo = im.load(io_file(camera))
    expected = camera.model.painter("cpu")(photo, camera.model.mixture(["oil", "chalk"]), 0.5)
    torch.testing.assert_close(camera.worker.picture, expected, rtol=0, atol=1e-4)


def io_file(camera):
    """The frame as a file."""
    path = camera.folder.parent / "frame.jpg"
    path.write_bytes(FRAME)
    return path


def test_of_frames_that_wait_only_the_newest_is_painted(camera, monkeypatch):
    held, painted = threading.Event(), []
    paint = Camera.paint_frame

    def slow(self, painter, data, shares, alpha):
        held.wait(20)
        painted.append(alpha)
        return paint(self, painter, data, shares, alpha)

    monkeypatch.setattr(Camera, "paint_frame", slow)
    frame(camera, 1, alpha=0.1)
    until(lambda: camera.worker.waiting is None)
    for id in (2, 3, 4):
        frame(camera, id, alpha=id / 10)
    held.set()
    until(lambda: len(camera.sent) == 2)
    assert painted == [0.1, 0.4]
    assert [content["id"] for content, _ in camera.sent] == [1, 4]


def test_when_the_page_looks_away_the_thread_ends_and_forgets_its_picture(camera):
    frame(camera, 1)
    until(lambda: camera.sent)
    thread = camera.worker.thread
    tell(camera, "end")
    thread.join(20)
    assert not thread.is_alive()
    assert camera.worker.picture is None
    tell(camera, "save")
    assert camera.sent[-1][0] == {
        "do": "say",
        "text": "there is no picture yet; start the camera first",
        "error": True,
    }
    assert not camera.folder.exists()
    frame(camera, 2)
    until(lambda: camera.sent[-1][0].get("id") == 2)


def test_only_what_is_saved_is_kept(camera):
    frame(camera, 1)
    until(lambda: camera.sent)
    assert not camera.folder.exists()
    tell(camera, "save")
    (path,) = camera.folder.iterdir()
    assert camera.sent[-1][0]["text"] == f"Saved as {path}"
    torch.testing.assert_close(im.load(path), camera.worker.picture, rtol=0, atol=1 / 255)


def test_two_pictures_of_one_second_are_both_kept(camera, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "2030-01-01 12-00-00")
    for id, alpha in ((1, 0.5), (2, 1.0)):
        frame(camera, id, alpha=alpha)
        until(lambda id=id: camera.sent and camera.sent[-1][0].get("id") == id)
        tell(camera, "save")
    assert len(list(camera.folder.iterdir())) == 2


def test_an_end_while_a_frame_is_painted_ends_it_without_a_word(camera, monkeypatch):
    mixture = StyleModel.mixture

    def end(*arguments):
        tell(camera, "end")
        return mixture(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StyleModel, "mixture", end)
        frame(camera, 1)
        until(lambda: camera.worker.thread is None)
        join("nstlab camera")
    assert (camera.sent, camera.worker.picture) == ([], None)
    frame(camera, 2)
    until(lambda: camera.sent)
    assert camera.sent[0][0] == {"do": "painted", "id": 2}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_a_failure_the_next_frame_is_tried_anew(camera, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StyleModel, "painter", lambda *_: 1 / 0)
        frame(camera, 1)
        until(lambda: camera.sent)
    assert camera.sent[0][0] == {
        "do": "say",
        "text": "ZeroDivisionError: division by zero",
        "error": True,
    }
    with monkeypatch.context() as patch:
        patch.setattr(camera, "send", lambda *_: 1 / 0)  # nobody is there any more
        frame(camera, 2)
        until(lambda: camera.worker.thread is None)
    frame(camera, 3)
    until(lambda: len(camera.sent) == 2)
    assert camera.sent[1][0] == {"do": "painted", "id": 3}


def join(name):
    """Wait for the threads of that name."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(20)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", FRAME[:200], jpeg(smooth(8, 8, 1)), b"\xff" * (2 << 20)]
)
def test_what_is_no_frame_is_told_to_the_page_and_the_next_frame_is_painted(camera, data):
    frame(camera, 1, data)
    until(lambda: camera.sent)
    assert camera.sent[0][0]["error"]
    assert "a frame is no JPEG" in camera.sent[0][0]["text"]
    frame(camera, 2)
    until(lambda: len(camera.sent) == 2)
    assert camera.sent[1][0]["id"] == 2


def test_shares_that_do_not_fit_are_refused(camera):
    assert "give a share" in refusal(
        camera.paint_frame, camera.model.painter("cpu"), FRAME, [1, 2], 1.0
    )


def test_a_studio_has_the_camera_in_a_tab_and_pauses_for_it(small_transfer, tmp_path):
    studio = Studio(small_transfer, results=tmp_path / "results", device="cpu", start=False)
    (camera,) = (
        part
        for part in studio.children[0].children[0].children[-1].children
        if isinstance(part, Camera)
    )
    tell(camera, "begin")  # nothing is painted yet
    studio.resume()
    until(lambda: studio.painting.run is not None)
    tell(camera, "begin")
    until(lambda: studio.session.phase is Phase.PAUSED)
    studio.close()
    assert camera.worker.thread is None


def test_a_closed_camera_leaves_no_widget(tmp_path):
    path = StyleModel(transform_network(), ("ink", "oil", "chalk")).save(tmp_path / "m.safetensors")
    before = ipywidgets.Widget.get_manager_state()["state"].keys()
    Camera(path, tmp_path / "camera", "cpu").close()
    assert ipywidgets.Widget.get_manager_state()["state"].keys() == before
