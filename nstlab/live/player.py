"""A film that is being painted, and a small player for what there is of it so far.

    nst.FilmPlayer(nst.VideoSettings("clip.mp4", "swirl_strokes"))     # in a notebook; or in the
    studio, in a tab of its own

A thread paints, as `nstlab video` does and with the same frames kept. The page (player.js) asks for
the frames that it shows, and plays them at their own times. A film that is stopped is written as
far as it has come, and when painted again, it goes on.
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
from nstlab.live.pages import LINE, Messages, Page, check_message, sendable, source
from nstlab.live.session import FRAMES, explained
from nstlab.live.viewer import jpeg
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings
from nstlab.runs.source import needed_fields
from nstlab.video.filmed import FrameDone, paint_film
from nstlab.video.settings import VideoSettings, words

FILES = ("clip", "out")  # fields that get a control above the picture
FIELDS = ("from_", "to", "every", "size", "steps", "temporal")  # and below it
# Groups of a picture's fields that a film like it has, too; its steps are its own.
SHARED = (LIVE, "pictures", "network")
READY, PAINTING, STOPPING = "ready", "painting", "stopping"
PROGRESS = "frame {n_fmt} of {total_fmt}, {remaining} left"


def painted_like(picture: RunSettings) -> dict[str, Any]:
    """The fields of VideoSettings with which each frame is painted as this picture of a photo is:
    painting, recipe, weights."""
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

    _esm = source("elements.js", "player.js")
    _css = source("screen.css")

    # [name, when it is shown, until when] of each frame so far, in seconds of the film
    frames = t.List().tag(sync=True)
    state = t.Unicode(READY).tag(sync=True)
    status = t.Dict({"text": "", "error": False}).tag(sync=True)

    def say(self, text: str, error: bool = False) -> None:
        """Show one line above the picture."""
        self.status = {"text": sendable(text), "error": error}


class FilmPlayer(w.VBox):
    """Controls for a film, a button that paints it, and a player.

    settings: of the film. like: returns the settings of a picture, made of a photo and a painting,
    if the film is to be painted as that is. begun: called when painting begins."""

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
        # The files of the frames so far, by the names that the page has for them.
        self._places: dict[str, Path] = {}
        self._thread: threading.Thread | None = None
        super().__init__(
            [*self.controls.widgets(FILES), self.screen, *self.controls.widgets(FIELDS)]
        )

    @property
    def settings(self) -> VideoSettings:
        """The film's settings. Raises InputError where the picture's recipe cannot paint frames."""
        own = self.controls.settings
        return own if self.like is None else own.replace(**painted_like(self.like()))

    def paint(self) -> None:
        """Paint the film in a thread, or what is missing of it, unless one is being painted. Raises
        InputError."""
        with self._changing:
            if self.screen.state != READY:
                return
            settings = self.settings
            self.begun()
            self._places, self.screen.frames, self.screen.state = {}, [], PAINTING
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
        """Wait until nothing is painted any more, or for so many seconds; return what is said of
        the film."""
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
            self.screen.say(explained(error), error=True)

    def _send(self, name: str) -> None:
        """Send a frame, as a JPEG, if there is one of this name."""
        path = self._places.get(name)
        if path is not None:
            self.screen.send({"do": "frame", "name": name}, [jpeg(im.load(path))])

    # --- the thread

    def _paint(self, settings: VideoSettings) -> None:
        """Paint the film, and say how far it is and what came of it. Frames are shown no more often
        than anybody could see."""
        begun = time.monotonic()
        shown = 0.0
        count = 0
        found = 0
        # By their numbers; a later pass replaces an earlier one's.
        frames: dict[int, list[Any]] = {}

        def watch(done: FrameDone) -> None:
            nonlocal shown, count, found
            name = "/".join(done.path.parts[-3:])  # the film's id, the pass and the frame
            self._places[name] = done.path
            frames[done.index] = [
                name,
                *(float(Fraction(done.about[key])) for key in ("time", "until")),
            ]
            count = count + 1
            found = found + done.found
            now = time.monotonic()
            if self.screen.state == STOPPING:
                raise KeyboardInterrupt("stopped")
            if now - shown >= 1 / FRAMES:
                shown, self.screen.frames = now, list(frames.values())
                self.screen.say(
                    tqdm.format_meter(
                        count, done.count, now - begun, initial=found, bar_format=PROGRESS
                    )
                )

        error = False
        try:
            film = paint_film(settings, watch)
            text = f"{settings.out}: {float(film.end):.2f} s, frames: {len(film.times)}"
        except KeyboardInterrupt as interrupt:
            text = str(interrupt)
        except Exception as problem:
            text = explained(problem)
            error = True
        with self._changing:
            self.screen.frames, self.screen.state = list(frames.values()), READY
            self.screen.say(text, error)
