"""A film that is being painted, and a small player for what there is of it so far.

    nst.FilmPlayer(nst.VideoSettings("clip.mp4", "swirl_strokes"))     # in a notebook; or in the studio, in a tab of its own

A thread paints, as `nstlab video` does and with the same frames kept. The page (player.js) asks for the frames that it shows,
and plays them at their own times. A film that is stopped is written as far as it has come, and when painted again, it goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import traitlets as t
from tqdm import tqdm

from nstlab import images as im
from nstlab.live.controls import Controls
from nstlab.live.pages import HERE, script
from nstlab.live.session import FRAMES, explained
from nstlab.live.viewer import jpeg
from nstlab.recipes.base import RunSettings
from nstlab.runs.filmed import FrameDone, filmed
from nstlab.runs.source import needed_fields
from nstlab.settings import LIVE
from nstlab.video.settings import VideoSettings, words

FILES = ("clip", "out")  # fields that get a control above the picture
FIELDS = ("from_", "to", "every", "size", "steps", "temporal")  # and below it
SHARED = (LIVE, "pictures", "network")  # groups of a picture's fields that a film like it has, too; its steps are its own
PROGRESS = "frame {n_fmt} of {total_fmt}, {remaining} left"


def painted_like(picture: RunSettings) -> dict[str, Any]:
    """The fields of VideoSettings with which each frame is painted as this picture of a photo is: painting, recipe, weights."""
    shared = {
        name: value
        for name, value in needed_fields(picture).items()
        if picture.option_of(name).group in SHARED and name not in {"size", *picture.roles()}
    }
    return {"painting": picture.inputs["style"].source, "recipe": picture.recipe, "parameters": words(shared)}


class Screen(anywidget.AnyWidget):
    """The player's page. Traits go to the browser; messages come back through `on_msg`."""

    _esm = script("player.js")
    _css = HERE / "screen.css"

    frames = t.List().tag(sync=True)  # [name, seconds in the film] of each frame so far
    status = t.Dict({"text": "", "kind": "note"}).tag(sync=True)  # kind: note, error, painting or stopping

    def say(self, text: str, kind: str = "note") -> None:
        """Show one line below the picture."""
        self.status = {"text": text, "kind": kind}


class FilmPlayer(w.VBox):
    """Controls for a film, a button that paints it, and a player.

    settings: of the film. like: returns the settings of a picture, made of a photo and a painting, if the film is to be painted
    as that is. begun: called when painting begins."""

    def __init__(
        self,
        settings: VideoSettings,
        like: Callable[[], RunSettings] | None = None,
        begun: Callable[[], None] = lambda: None,
    ):
        self.like, self.begun, self.screen = like, begun, Screen()
        self.controls = Controls(settings, refused=lambda error: self.screen.say(str(error), "error"))
        self.screen.on_msg(self._receive)
        self._done: dict[int, FrameDone] = {}  # by the frame's number; a later pass replaces an earlier one's
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        super().__init__([*self.controls.widgets(FILES), self.screen, *self.controls.widgets(FIELDS)])

    @property
    def settings(self) -> VideoSettings:
        """The film's settings. Raises InputError where the picture's recipe cannot paint frames."""
        own = self.controls.settings
        return own if self.like is None else own.replace(**painted_like(self.like()))

    def paint(self) -> None:
        """Paint the film in a thread, or what is missing of it, unless one is being painted. Raises InputError."""
        if self._thread is not None and self._thread.is_alive():
            return
        settings = self.settings
        self.begun()
        self._done, self.screen.frames = {}, []
        self._stopping.clear()
        self.screen.say("reading the clip", "painting")
        self._thread = threading.Thread(target=self._paint, args=[settings], name="nstlab film", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the frame that is being painted."""
        self._stopping.set()
        if self.screen.status["kind"] == "painting":
            self.screen.say("stopping after this frame", "stopping")

    def wait(self, seconds: float | None = None) -> str:
        """Wait until nothing is painted any more, or for so many seconds; return what is said of the film."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.screen.status["text"]

    def close(self) -> None:
        """Stop, and remove the widget."""
        self._stopping.set()
        super().close()

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what a message of the page asks for."""
        try:
            match content["do"]:
                case "frame":
                    self._send(content["name"])
                case "paint":
                    self.paint()
                case "stop":
                    self.stop()
        except Exception as error:
            self.screen.say(explained(error), "error")

    def _send(self, name: str) -> None:
        """Send a frame, as a JPEG, if there is one of this name."""
        for done in tuple(self._done.values()):
            if _name(done.path) == name:
                self.screen.send({"do": "frame", "name": name}, [jpeg(im.load(done.path))])

    # --- the thread

    def _paint(self, settings: VideoSettings) -> None:
        """Paint the film, and say how far it is and what came of it. Frames are shown no more often than anybody could see."""
        begun, shown, count, found = time.monotonic(), 0.0, 0, 0

        def watch(done: FrameDone) -> None:
            nonlocal shown, count, found
            self._done[done.index] = done
            count, found, now = count + 1, found + done.found, time.monotonic()
            if self._stopping.is_set():
                raise KeyboardInterrupt("stopped")
            if now - shown >= 1 / FRAMES:
                shown = now
                self._show(tqdm.format_meter(count, done.count, now - begun, initial=found, bar_format=PROGRESS), "painting")

        kind = "note"
        try:
            film = filmed(settings, watch)
            text = f"{settings.out}: {float(film.end):.2f} s, {len(film.times)} frames"
        except KeyboardInterrupt as interrupt:
            text = str(interrupt)
        except Exception as error:
            text, kind = explained(error), "error"
        self._show(text, kind)

    def _show(self, text: str, kind: str) -> None:
        """Tell the page which frames there are, and say something."""
        self.screen.frames = [[_name(done.path), float(done.time)] for done in self._done.values()]
        self.screen.say(text, kind)


def _name(path: Path) -> str:
    """What the page calls a kept frame: the film's id, the pass and the frame."""
    return "/".join(path.parts[-3:])
