"""A film that is being painted, and a small player for its frames so far.

    nst.FilmPlayer(nst.VideoSettings("clip.mp4", "swirl_strokes"))

In a notebook; or in the studio, in a tab of its own. A thread paints, as `nstlab video` does and
with the same frames kept. The page (player.js) asks for the frames that it shows, and plays them at
their own times. A film that is stopped is written with the frames so far, and goes
on when it is painted again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import ipywidgets as w
import traitlets as t
from tqdm import tqdm

from nstlab.base.options import LIVE
from nstlab.live.controls import Controls
from nstlab.live.pages import LINE, Messages, Page, check_message, single_line
from nstlab.live.session import FRAMES, explain
from nstlab.live.viewer import jpeg
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings
from nstlab.runs.source import needed_fields
from nstlab.video.films import FrameDone, paint_film
from nstlab.video.settings import VideoSettings, words

FILES = ("clip", "out")  # fields that get a control above the picture
FIELDS = ("from_", "to", "every", "size", "steps", "temporal")  # and below it
# Groups of a picture's fields that a film like it has, too; its steps are its own.
SHARED = (LIVE, "pictures", "network")
READY, PAINTING, STOPPING = "ready", "painting", "stopping"
PROGRESS = "frame {n_fmt} of {total_fmt}, {remaining} left"


def film_fields(picture: RunSettings) -> dict[str, Any]:
    """The fields of VideoSettings with which each frame is painted as a picture is.

    Args:
        picture: settings of a recipe with one photo and one painting.
    """
    shared = {
        name: value
        for name, value in needed_fields(picture).items()
        if picture.option_of(name).group in SHARED and name not in {"size", *picture.roles()}
    }
    return {
        "painting": picture.inputs["style"].source,
        "recipe": picture.recipe,
        "parameters": words(shared),
    }


MESSAGES: Messages = {"frame": {"name": LINE}, "paint": {}, "stop": {}}  # that the page sends


class Screen(Page):
    """The player's page. Traits go to the browser; messages come back through `on_msg`."""

    script = "player.js"
    style = "screen.css"

    # [name, when it is shown, until when] of each frame so far, in seconds of the film
    frames = t.List().tag(sync=True)
    state = t.Unicode(READY).tag(sync=True)
    status = t.Dict({"text": "", "error": False}).tag(sync=True)

    def say(self, text: str, error: bool = False) -> None:
        """Show one line above the picture."""
        self.status = {"text": single_line(text), "error": error}


class _FilmSoFar:
    """The frames of a film that is being painted, as the page knows them."""

    def __init__(self) -> None:
        self.paths: dict[str, Path] = {}  # by the frames' names
        self._frames: dict[int, list[Any]] = {}  # a later pass replaces an earlier one's
        self._began = time.monotonic()
        self._count = 0  # frames, those of all passes
        self._kept = 0  # of them, those that were painted before

    @property
    def frames(self) -> list[list[Any]]:
        """[name, when it is shown, until when] of each frame, in seconds of the film."""
        return list(self._frames.values())

    def add(self, done: FrameDone) -> None:
        """Take a frame that is painted."""
        name = "/".join(done.path.parts[-3:])  # the film's id, the pass and the frame
        self.paths[name] = done.path
        times = [float(Fraction(done.facts[key])) for key in ("time", "until")]
        self._frames[done.index] = [name, *times]
        self._count += 1
        self._kept += done.was_kept

    def progress(self, total: int) -> str:
        """How many frames are painted, and how long the rest will take."""
        seconds = time.monotonic() - self._began
        return tqdm.format_meter(
            self._count, total, seconds, initial=self._kept, bar_format=PROGRESS
        )


class FilmPlayer(w.VBox):
    """Controls for a film, a button that paints it, and a player.

    Args:
        settings: of the film.
        like: returns the settings of a picture, made of a photo and a painting, if the film is to
            be painted as that is.
        begun: called when painting begins.
    """

    def __init__(
        self,
        settings: VideoSettings,
        like: Callable[[], RunSettings] | None = None,
        begun: Callable[[], None] = lambda: None,
    ):
        self._changing = threading.RLock()  # of the state, which the page and the thread change
        self.like = like
        self.begun = begun
        self.screen = Screen()
        self.controls = Controls(
            settings, refused=lambda error: self.screen.say(str(error), error=True)
        )
        self.screen.on_msg(self._receive)
        self._film = _FilmSoFar()
        self._thread: threading.Thread | None = None
        super().__init__(
            [*self.controls.widgets(FILES), self.screen, *self.controls.widgets(FIELDS)]
        )

    @property
    def settings(self) -> VideoSettings:
        """The film's settings. Raises InputError where the picture's recipe cannot paint frames."""
        settings = self.controls.settings
        return settings if self.like is None else settings.replace(**film_fields(self.like()))

    def paint(self) -> None:
        """Paint the film in a thread, or its missing frames, unless one is being painted.

        Raises:
            InputError: where the picture's recipe cannot paint frames.
        """
        with self._changing:
            if self.screen.state != READY:
                return
            settings = self.settings
            self.begun()
            self._film = _FilmSoFar()
            self.screen.frames = []
            self.screen.state = PAINTING
            self.screen.say("reading the clip")
            self._thread = threading.Thread(
                target=self._paint, args=[settings], name="nstlab film", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop after the frame that is being painted."""
        with self._changing:
            if self.screen.state == PAINTING:
                self.screen.state = STOPPING

    def wait(self, seconds: float | None = None) -> str:
        """Wait until nothing is painted any more, or for so many seconds; return the status."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.screen.status["text"]

    def close(self) -> None:
        """Stop, and remove all widgets, whether they are shown or not."""
        if not hasattr(self, "controls"):  # it could not be made
            return
        self.stop()
        self.controls.close_in(self)
        super().close()

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what a message of the page asks for."""
        try:
            check_message(content, buffers, MESSAGES)
            match content["do"]:
                case "frame":
                    self._send(content["name"])
                case "paint":
                    self.paint()
                case "stop":
                    self.stop()
        except Exception as error:
            self.screen.say(explain(error), error=True)

    def _send(self, name: str) -> None:
        """Send a frame, as a JPEG, if the film has one of this name."""
        path = self._film.paths.get(name)
        if path is not None:
            self.screen.send({"do": "frame", "name": name}, [jpeg(im.load(path))])

    def _paint(self, settings: VideoSettings) -> None:
        """Paint the film, in its thread, and say what came of it."""
        film = self._film
        shown_at = 0.0

        def watch(done: FrameDone) -> None:
            nonlocal shown_at
            film.add(done)
            if self.screen.state == STOPPING:
                raise KeyboardInterrupt("stopped")
            if time.monotonic() - shown_at >= 1 / FRAMES:
                shown_at = time.monotonic()
                self.screen.frames = film.frames
                self.screen.say(film.progress(done.count))

        error = False
        try:
            painted = paint_film(settings, watch)
            text = f"{settings.out}: {float(painted.end):.2f} s, frames: {len(painted.times)}"
        except KeyboardInterrupt as interrupt:
            text = str(interrupt)
        except Exception as problem:
            text = explain(problem)
            error = True
        with self._changing:
            self.screen.frames = film.frames
            self.screen.state = READY
            self.screen.say(text, error)
