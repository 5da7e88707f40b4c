"""The film's player: it paints as the command does, shows what there is so far, stops, goes on, and
says what is wrong."""

import io
import threading

import numpy as np
import pytest
from helpers import smooth, until
from making import make_clip, told
from PIL import Image

import nstlab as nst
from nstlab.live.player import FilmPlayer, film_fields
from nstlab.live.session import Phase
from nstlab.live.studio import Studio
from nstlab.pictures import images as im
from nstlab.pictures.encoding import picture_of
from nstlab.video import filming
from nstlab.video.films import paint_film
from nstlab.video.settings import VideoSettings


@pytest.fixture
def settings(tiny_file, painting, tmp_path):
    """Of a film of four frames of a window that moves over a picture."""
    wide = smooth(48, 90, seed=1)
    clip = make_clip(tmp_path / "clip.mp4", [wide[..., 5 * i : 5 * i + 64] for i in range(4)])
    own = ("weights", str(tiny_file), "normalize", "False", "steps", "6", "levels", "1")
    given = {
        "size": 64,
        "steps": 2,
        "parameters": own,
        "device": "cpu",
        "results": tmp_path / "results",
    }
    return VideoSettings(
        str(clip), str(im.save(painting, tmp_path / "p.png")), tmp_path / "film.mp4", **given
    )


@pytest.fixture
def player(settings):
    """A player whose messages to the page are kept in `sent`."""
    made = FilmPlayer(settings)
    made.sent = []
    made.screen.send = lambda content, buffers=None: made.sent.append((content, buffers))
    yield made
    made.close()
    made.wait(60)


def tell(player, do, **content):
    player._receive(None, {"do": do, **content}, [])


@pytest.fixture
def held(monkeypatch):
    """Each frame waits until it is let go; acquiring `begun` waits until the next is being
    painted."""
    begun, go, paint = threading.Semaphore(0), threading.Semaphore(0), filming.FramePainter.paint

    def held(*args):
        begun.release()
        assert go.acquire(timeout=60)
        return paint(*args)

    monkeypatch.setattr(filming.FramePainter, "paint", held)
    return begun, go


def test_it_paints_what_the_command_paints_and_the_page_gets_each_frame(player, settings, tmp_path):
    tell(player, "paint")
    assert player.wait(120) == f"{settings.out}: 0.40 s, frames: 4"
    assert (player.screen.state, player.screen.status["error"]) == ("ready", False)
    again = []
    film = paint_film(settings, again.append)
    assert all(done.was_kept for done in again)
    assert [shown for _, *shown in player.screen.frames] == [
        pytest.approx([i / 10, (i + 1) / 10]) for i in range(4)
    ]
    for (name, *_), picture in zip(player.screen.frames, film.frames, strict=True):
        tell(player, "frame", name=name)
        content, (data,) = player.sent[-1]
        assert content == {"do": "frame", "name": name}
        with Image.open(io.BytesIO(data)) as image:
            assert (picture_of(np.asarray(image)) - picture).abs().mean() < 0.03  # a JPEG of it
    tell(player, "frame", name="../../../etc/passwd")
    assert len(player.sent) == 4  # only what is part of the film is sent


def test_stopped_it_keeps_what_it_has_and_goes_on_to_the_same_film(player, settings, held):
    begun, go = held
    tell(player, "paint")
    for _ in range(2):
        assert begun.acquire(timeout=60)
        go.release()
    assert begun.acquire(timeout=60)  # the third is being painted
    assert player.screen.state == "painting"
    tell(player, "stop")
    assert player.screen.state == "stopping"
    tell(player, "paint")  # too early: nothing begins beside it
    go.release()
    assert player.wait(60) == f"stopped; {settings.out} holds what is painted so far, 0.30 s"
    assert len(player.screen.frames) == 3
    assert told(settings.out)[0] == 3
    for _ in range(4):
        go.release()
    tell(player, "paint")
    assert player.wait(60).endswith("frames: 4")
    assert told(settings.out)[0] == 4
    # only the fourth frame was painted
    assert [begun.acquire(timeout=0) for _ in range(2)] == [True, False]


def test_what_is_wrong_is_said_and_mended_by_a_control(player, settings, tmp_path):
    clip = player.controls.views["clip"].widget
    clip.value = ""
    assert player.screen.status == {"text": "clip: name a file or a folder", "error": True}
    assert clip.value == settings.clip
    player.controls.change(clip="none.mp4")
    tell(player, "paint")
    assert player.wait(60) == "none.mp4: no such file"
    assert (player.screen.state, player.screen.status["error"]) == ("ready", True)
    player.controls.views["from_"].widget.value = 2.0
    player.controls.views["to"].widget.value = "1"
    assert player.screen.status == {
        "text": "to: 1 s is not after the film's beginning, 2 s",
        "error": True,
    }
    assert player.controls.views["to"].widget.value == ""
    assert not (tmp_path / "film.mp4").exists()


def test_a_film_like_a_picture_has_its_painting_and_its_weights_but_its_own_steps(tiny_file):
    picture = nst.TransferSettings(
        "coffee", "mosaic", alpha=3.5, size=96, steps=7, seed=4,
        style_layers=("conv1_1", "conv2_1"), weights=str(tiny_file),
        colour="matched", normalize=False,
    )  # fmt: skip
    film = VideoSettings("clip.mp4", "fauve_hills", size=200).replace(**film_fields(picture))
    frame = film.frame_settings("photo.png")
    assert frame == picture.replace(photo="photo.png", size=200, steps=None, seed=0)


def test_a_studio_has_the_player_in_a_tab_and_pauses_for_it(small_transfer, settings, tmp_path):
    studio = Studio(small_transfer, results=tmp_path / "results", device="cpu", start=False)
    (player,) = (
        part
        for tab in studio.children[0].children[0].children
        for part in tab.children
        if isinstance(part, FilmPlayer)
    )
    assert player.settings.frame_settings("photo").painting == small_transfer.painting
    studio.controls.change(beta=123.0)
    assert player.settings.frame_settings("photo").beta == 123.0
    studio.resume()
    until(lambda: studio.painting.run is not None)
    player.controls.change(clip=settings.clip, out=str(tmp_path / "f.mp4"), size=48, steps=1)
    player.paint()
    until(lambda: studio.session.phase is Phase.PAUSED)
    studio.close()
    assert player.wait(60)
    assert (player.screen.state, player.screen.status["error"]) == ("ready", False)


def test_a_studio_whose_recipe_paints_no_photo_has_no_film(tmp_path):
    studio = Studio(
        nst.TextureSettings("mosaic"), results=tmp_path / "results", device="cpu", start=False
    )
    assert "Film" not in studio.children[0].children[0].titles
    studio.close()
