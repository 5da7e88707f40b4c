"""What a studio's pages ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nstlab.live import brush, viewer
from nstlab.live.driver import Driver
from nstlab.live.inputs import Inputs
from nstlab.live.pages import check_message
from nstlab.live.session import explain


class Inbox:
    """Does what messages of the pages ask for, and shows what goes wrong.

    Args:
        driver: of the painting.
        inputs: for pictures from the page.
    """

    def __init__(self, driver: Driver, inputs: Inputs):
        self.driver = driver
        self.inputs = inputs
        self.display = driver.display
        self.messages = viewer.MESSAGES
        if self.display.editor is not None:
            self.messages = self.messages | brush.MESSAGES

    def receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what a message asks for; ipywidgets calls this with its widget first."""
        with self.driver.controls.lock:
            self.driver.audience.note_answer()
            self.attempt(lambda: self._obey(content, buffers))

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something, and show what goes wrong, since nobody else would hear of it."""
        try:
            action()
        except Exception as error:
            self.display.view.say(explain(error), "error")

    def _obey(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        check_message(content, buffers, self.messages)
        match content["do"]:
            case "resume":
                self.driver.resume()
            case "pause":
                self.driver.pause()
            case "single":
                self.driver.single()
            case "save":
                self.driver.save()
            case "back":
                self._go_back(content["id"])
            case "code":
                self._show_code()
            case "read":
                self.display.view.say("")
            case "seen":
                self.driver.begin_watched()
            case "gone":
                self.driver.pause_unwatched()
            case "upload":
                self._take_part(content, bytes(buffers[0]) if buffers else b"")
            case "look":
                self.display.editor.look()
            case "regions":
                self.inputs.use_regions(*map(bytes, buffers))
            case "no regions":
                self.inputs.leave_regions()

    def _show_code(self) -> None:
        python, command = self.driver.code()
        self.display.view.code = {"python": python, "command": command, "asked": time.time()}

    def _go_back(self, count: int) -> None:
        for snapshot in self.driver.painting.history.snapshots:
            if snapshot.count == count:
                self.driver.back(snapshot)

    def _take_part(self, content: Mapping[str, Any], data: bytes) -> None:
        """Take a part of a file, and use the file once it is complete."""
        name = "".join(filter(str.isprintable, content["name"]))
        file = self.inputs.uploads.add_part(
            content["id"], content["part"], content["parts"], name, data
        )
        if file is not None:
            self.display.view.say("")
            self.inputs.use_picture(content["role"], name, file)
