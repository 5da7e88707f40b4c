"""The camera of whoever looks, painted live: the page sends a frame when the one before has come
back painted.

    nst.Camera()                  # in a notebook; or in the studio, in a tab of its own
    nst.Camera("model.safetensors")

The page (camera.js) asks for the camera when its button is pressed, and lets go of it when it is no
longer seen. A frame is painted in a thread; of several that wait, only the newest. Nothing is kept
but what is saved.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets as t
from PIL import Image
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.options import RESULTS
from nstlab.base.settings import DEVICES, MIN_SIDE, InputError, user_path
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import SHIPPED
from nstlab.live.pages import Messages, Page, check_message, sendable, source
from nstlab.live.session import explained
from nstlab.live.viewer import jpeg
from nstlab.pictures import images as im
from nstlab.pictures.encoding import picture_of
from nstlab.recipes.plan import digest

SIDES = (192, 256, 384, 512)  # px: long sides of frames that are offered
SIDE = SIDES[1]  # at first
MOST_BYTES = 1 << 20  # of a frame's JPEG

MESSAGES: Messages = {  # that its page sends
    "frame": {
        "id": jsonfiles.WHOLE,
        "shares": jsonfiles.list_of(jsonfiles.NUMBER),
        "alpha": jsonfiles.NUMBER,
    },
    **{do: {} for do in ("begin", "end", "save")},
}
Frame = tuple[Mapping[str, Any], bytes]  # what the page says about a frame, and its JPEG


class Camera(Page):
    """The camera's picture, painted, with a slider for the share of each of a model's paintings and
    one for the strength.

    model: what `StyleModel.load` takes. folder: where saved pictures go. device: one of
    settings.DEVICES. begun: called when the camera begins."""

    _esm = source("elements.js", "camera.js")
    _css = source("screen.css")

    paintings = t.List().tag(sync=True)
    sides = t.List(list(SIDES)).tag(sync=True)
    side = t.Int(SIDE).tag(sync=True)

    def __init__(
        self,
        model: str | Path = SHIPPED,
        folder: str | Path = Path(RESULTS) / "camera",
        device: str = DEVICES[0],
        begun: Callable[[], None] = lambda: None,
    ):
        self.shown: Tensor | None = None  # the last picture, which can be saved
        self._waiting: Frame | None = None  # the newest frame that is not painted yet
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.model = StyleModel.load(model)
        self.device = device
        self.folder = user_path(folder)
        self.begun = begun
        super().__init__(paintings=list(self.model.paintings))
        self.on_msg(self._receive)

    def close(self) -> None:
        """End the thread, and remove the widget."""
        self._begin(stop=True)
        super().close()

    def painted(
        self, painter: Painter, frame: bytes, shares: Sequence[float], alpha: float
    ) -> Tensor:
        """A frame, a JPEG, painted by one of the model's painters: (1, 3, H, W) sRGB in [0, 1].

        Raises InputError for what is no small picture, and for shares that do not fit."""
        mix = self.model.mixture(self.model.paintings, [float(share) for share in shares])
        return painter(_decoded(frame), mix, min(1.0, max(0.0, float(alpha))))

    # --- from the page, in the kernel's thread

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Take a frame, or do what else the page asks for."""
        try:
            check_message(content, buffers, MESSAGES)
        except InputError as error:
            self.send(_said(error))
            return
        match content["do"]:
            case "frame":
                with self._changed:
                    self._waiting = content, bytes(buffers[0]) if buffers else b""
                    self._changed.notify()
                self._begin()
            case "begin":
                self.begun()
            case "end":
                self._begin(stop=True)
            case "save":
                self._say(self._save)

    def _save(self) -> str:
        """Keep the last picture; returns where it is. Two of one second have other names."""
        picture = self.shown
        if picture is None:
            raise InputError("there is no picture yet; start the camera first")
        name = f"{time.strftime('%Y-%m-%d %H-%M-%S')} {digest(picture)[:8]}.png"
        return str(im.save(picture, files.make_folder(self.folder) / name))

    def _say(self, action: Callable[[], str]) -> None:
        """Do something, and tell the page what came of it, or what went wrong."""
        try:
            self.send({"do": "say", "text": sendable(f"Saved as {action()}")})
        except Exception as error:
            self.send(_said(error))

    # --- the thread

    def _begin(self, stop: bool = False) -> None:
        """Have a thread that paints; or, if `stop`, none. What it held is forgotten then."""
        with self._changed:
            if stop:
                self._thread = self._waiting = self.shown = None
                self._changed.notify()
            elif self._thread is None:
                self._thread = threading.Thread(
                    target=self._paint, name="nstlab camera", daemon=True
                )
                self._thread.start()

    def _paint(self) -> None:
        """Paint the newest frame, until the thread is no longer wanted. If it dies, another can
        begin."""
        own = threading.current_thread()
        painter = None
        try:
            while (newest := self._next(own)) is not None:
                content, frame = newest
                try:
                    painter = painter or self.model.painter(self.device)  # tried again if it fails
                    picture = self.painted(painter, frame, content["shares"], content["alpha"])
                    answer = {"do": "painted", "id": content["id"]}
                    data = [jpeg(picture)]
                except Exception as error:
                    answer = _said(error)
                    data = None
                    picture = None
                with self._changed:
                    if self._thread is not own:
                        return
                    self.shown = self.shown if picture is None else picture
                self.send(answer, data)
        finally:
            with self._changed:
                if self._thread is own:
                    self._thread = None

    def _next(self, own: threading.Thread) -> Frame | None:
        """Wait for a frame and take it; None once the thread is no longer wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._thread is not own)
            if self._thread is not own:
                return None
            frame, self._waiting = self._waiting, None
            return frame


def _said(error: Exception) -> dict[str, Any]:
    """What tells the page of an error that has just been caught."""
    return {"do": "say", "text": sendable(explained(error)), "error": True}


def _decoded(frame: bytes) -> Tensor:
    """A JPEG as (1, 3, H, W) sRGB in [0, 1]. InputError for anything else, and for one that is too
    small or too large."""
    try:
        if len(frame) > MOST_BYTES:
            raise ValueError
        with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
            if not MIN_SIDE <= min(image.size) <= max(image.size) <= max(SIDES):
                raise ValueError
            return picture_of(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(
            f"camera: a frame is no JPEG with sides from {MIN_SIDE} to {max(SIDES)} px"
        ) from None
