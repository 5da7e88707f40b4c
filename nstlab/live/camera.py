"""The browser's camera, painted live: a frame is sent when the one before has come back painted.

    nst.Camera()                  # in a notebook; or in the studio, in a tab of its own
    nst.Camera("model.safetensors")

The page (camera.js) asks for the camera when its button is pressed, and releases it when it is no
longer seen. A frame is painted in a thread; of several that wait, only the newest. No picture is
kept unless it is saved.
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
from nstlab.base.errors import InputError
from nstlab.base.options import RESULTS
from nstlab.base.settings import DEVICES, MIN_SIDE, user_path
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import SHIPPED
from nstlab.live.pages import Messages, Page, check_message, single_line
from nstlab.live.session import explain
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
    """The camera's picture, painted, with a slider for each painting's share and the strength.

    Args:
        model: what `StyleModel.load` takes.
        folder: where saved pictures go.
        device: where to compute, one of settings.DEVICES.
        begun: called when the camera begins.
    """

    script = "camera.js"
    style = "screen.css"

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
        self.worker = _Worker(self)
        self.model = StyleModel.load(model)
        self.device = device
        self.folder = user_path(folder)
        self.begun = begun
        super().__init__(paintings=list(self.model.paintings))
        self.on_msg(self._receive)

    def close(self) -> None:
        """End the thread, and remove the widget."""
        self.worker.stop()
        super().close()

    def paint_frame(
        self, painter: Painter, jpeg: bytes, shares: Sequence[float], strength: float
    ) -> Tensor:
        """Paint a frame.

        Args:
            painter: one of the model's.
            jpeg: the frame, with sides from MIN_SIDE to the largest of SIDES.
            shares: of the model's paintings, not all 0.
            strength: 0 for the frame as it is, 1 for the painting alone; clipped to that.

        Returns:
            (1, 3, H, W) sRGB in [0, 1].

        Raises:
            InputError: for what is no such JPEG, and for shares that do not fit.
        """
        mix = self.model.mixture(self.model.paintings, [float(share) for share in shares])
        return painter(_decode(jpeg), mix, min(1.0, max(0.0, float(strength))))

    # --- from the page, in the kernel's thread

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Take a frame, or do what else the page asks for."""
        try:
            check_message(content, buffers, MESSAGES)
        except InputError as error:
            self.send(_failure(error))
            return
        match content["do"]:
            case "frame":
                self.worker.put((content, bytes(buffers[0]) if buffers else b""))
            case "begin":
                self.begun()
            case "end":
                self.worker.stop()
            case "save":
                self._save()

    def _save(self) -> None:
        """Save the last picture, and tell the page where it is, or what went wrong."""
        try:
            picture = self.worker.picture
            if picture is None:
                raise InputError("there is no picture yet; start the camera first")
            # The digest tells two pictures of one second apart.
            name = f"{time.strftime('%Y-%m-%d %H-%M-%S')} {digest(picture)[:8]}.png"
            path = im.save(picture, files.make_folder(self.folder) / name)
            self.send({"do": "say", "text": single_line(f"Saved as {path}")})
        except Exception as error:
            self.send(_failure(error))


class _Worker:
    """A thread that paints the newest of a camera's frames; picture: the last that it has painted.

    It begins with the first frame. Once stopped, it forgets its picture.
    """

    def __init__(self, camera: Camera):
        self.camera = camera
        self.picture: Tensor | None = None
        self.thread: threading.Thread | None = None
        self.waiting: Frame | None = None  # the newest frame that is not painted yet
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Paint this frame next, in place of one that still waits."""
        with self._changed:
            self.waiting = frame
            self._changed.notify()
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="nstlab camera", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """Let the thread end after its frame, without an answer."""
        with self._changed:
            self.thread = None
            self.waiting = None
            self.picture = None
            self._changed.notify()

    def _run(self) -> None:
        """Paint frames until the thread is stopped. If it dies, another can begin."""
        thread = threading.current_thread()
        painter = None
        try:
            while (frame := self._next(thread)) is not None:
                content, jpeg_bytes = frame
                picture = None
                try:
                    # Made again after a failure.
                    painter = painter or self.camera.model.painter(self.camera.device)
                    picture = self.camera.paint_frame(
                        painter, jpeg_bytes, content["shares"], content["alpha"]
                    )
                    answer = {"do": "painted", "id": content["id"]}, [jpeg(picture)]
                except Exception as error:
                    answer = _failure(error), None
                with self._changed:
                    if self.thread is not thread:
                        return
                    if picture is not None:
                        self.picture = picture
                self.camera.send(*answer)
        finally:
            with self._changed:
                if self.thread is thread:
                    self.thread = None

    def _next(self, thread: threading.Thread) -> Frame | None:
        """Wait for a frame and take it; None once this thread is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting is not None or self.thread is not thread)
            if self.thread is not thread:
                return None
            frame = self.waiting
            self.waiting = None
            return frame


def _failure(error: Exception) -> dict[str, Any]:
    """The message that tells the page of an error that has just been caught."""
    return {"do": "say", "text": single_line(explain(error)), "error": True}


def _decode(frame: bytes) -> Tensor:
    """A JPEG as (1, 3, H, W) sRGB in [0, 1]; InputError if it is none, too small or too large."""
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
