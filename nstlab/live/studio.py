"""The studio: a picture is being painted; a slider that you move takes effect with the next step.

    import nstlab as nst
    nst.Studio()                                                  # in a notebook
    nst.Studio(nst.TextureSettings("mosaic"), fields=["style_layers", "pool"])

It joins the parts: `Controls` hold the settings, a `Painting` paints, a `Session` drives it in a
thread, the `Driver` says when, the `Display` shows it, and the `Inbox` takes what the page sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab.base.options import RESULTS
from nstlab.base.settings import DEVICES, user_path
from nstlab.feedforward.settings import SHIPPED
from nstlab.live.audience import Audience
from nstlab.live.brush import RegionsView
from nstlab.live.camera import Camera
from nstlab.live.controls import Controls
from nstlab.live.display import Display
from nstlab.live.driver import Driver
from nstlab.live.inbox import Inbox
from nstlab.live.inputs import Inputs
from nstlab.live.painting import Painting
from nstlab.live.panel import panel, restart_buttons
from nstlab.live.player import FilmPlayer
from nstlab.live.static import static, still
from nstlab.live.viewer import Viewer
from nstlab.pictures import samples
from nstlab.recipes.base import RunSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import source
from nstlab.runs.store import Store
from nstlab.video.settings import VideoSettings, repaints


def first_settings() -> TransferSettings:
    """The settings a studio opens with: fast at first, and long enough to be steered."""
    return TransferSettings("coffee", "swirl_strokes", size=256, steps=1000, levels=1)


class Studio(Driver, w.VBox):
    """Controls and a live view of one painting.

    In a notebook, it begins to paint as soon as somebody sees it. In a script, or a notebook
    without a browser, call `studio.resume()`, then `studio.wait()`. Where the environment says that
    notebooks are static (see `static`), it is shown as the picture that its first steps make.

    Args:
        settings: of any recipe; what the controls show at first.
        fields: names of the settings that get a control; by default all of them, in tabs.
        results: folder of the store, and for uploads.
        device: where to compute, one of settings.DEVICES.
        start: whether to begin by itself.
    """

    def __init__(
        self,
        settings: RunSettings | None = None,
        fields: Sequence[str] | None = None,
        results: str | Path = RESULTS,
        device: str = DEVICES[0],
        start: bool = True,
    ):
        settings = first_settings() if settings is None else settings
        self.results = user_path(results)
        painting = Painting(settings, Store(self.results), device)
        controls = Controls(settings, _menus(settings), self._follow, self._complain)
        Driver.__init__(self, Display(painting, controls, Audience()), device, start)
        self.inputs = Inputs(controls, self.results / "uploads")
        self.inbox = Inbox(self, self.inputs)
        for page in self._pages:
            page.on_msg(self.inbox.receive)
        self.display.show_inputs(settings)
        buttons = restart_buttons(lambda current: self.inbox.attempt(lambda: self.restart(current)))
        tabs = self._more_tabs() if fields is None else {}
        layout = w.Box([panel(controls, fields, buttons, tabs), self.view])
        layout.add_class("nst-layout")
        w.VBox.__init__(self, [layout])
        self.add_class("nst-studio")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if static():
            return still(self.settings, self.device)
        return super()._repr_mimebundle_(**options)

    @property
    def view(self) -> Viewer:
        """The widget that shows the picture."""
        return self.display.view

    @property
    def editor(self) -> RegionsView | None:
        """The view of the regions, if the recipe has any."""
        return self.display.editor

    def code(self) -> tuple[str, str]:
        """(Python, command line) for the settings as they are now."""
        run = self.painting.run
        settings = self.settings
        if run is not None:
            settings = run.describe(settings, self.results / "starts")
        return source.python(settings, self.device), source.command(settings, self.device)

    def upload(self, field: str, name: str, data: bytes) -> None:
        """Use a file for a field.

        Args:
            field: "photo" or "painting".
            name: of the file.
            data: what it holds.

        Raises:
            InputError: if it does not pass the checks of all pictures.
        """
        self.inputs.use_picture(field, name, data)

    def use_regions(self, photo: bytes, painting: bytes) -> None:
        """Use the label pictures of photo and painting, as PNG; see `Inputs.use_regions`."""
        self.inputs.use_regions(photo, painting)

    def leave_regions(self) -> None:
        """Paint without regions, and show none."""
        self.inputs.leave_regions()

    def pause_unwatched(self) -> None:
        """Pause, since nobody is watching, and forget files whose rest will never come."""
        self.inputs.uploads.forget()
        super().pause_unwatched()

    def close(self) -> None:
        """End the run and remove all widgets, whether they are shown or not."""
        if not hasattr(self, "session"):  # it could not be made
            return
        self.session.close()
        for page in self._pages:
            page.on_msg(self.inbox.receive, remove=True)
        self.controls.close_in(self)
        super().close()

    def _more_tabs(self) -> dict[str, w.Widget]:
        """Tabs that are no part of the painting, by their titles; it pauses for them."""
        tabs: dict[str, w.Widget] = {}
        if repaints(type(self.settings)):
            style = self.settings.inputs["style"].source
            film = VideoSettings("clip.mp4", style, device=self.device, results=self.results)
            tabs["Film"] = FilmPlayer(film, lambda: self.settings, self.free_processor)
        folder = self.results / "camera"
        tabs["Camera"] = Camera(SHIPPED, folder, self.device, self.free_processor)
        return tabs

    @property
    def _pages(self) -> list[w.Widget]:
        """The widgets whose pages send messages."""
        return [self.view] if self.editor is None else [self.view, self.editor.widget]

    def _follow(self, names: Sequence[str]) -> None:
        """React to changed settings; what was wrong with them before is no longer shown."""
        if self.view.message["kind"] == "error":
            self.view.say("")
        self.follow(names)

    def _complain(self, error: Exception) -> None:
        """Show why a setting was refused."""
        self.view.say(str(error), "error")


def _menus(settings: RunSettings) -> dict[str, Sequence[str]]:
    """Choices to offer: sample pictures, and pictures to begin with."""
    pictures = dict.fromkeys(settings.roles(), tuple(samples.samples()))
    return pictures | {"init": settings.option_of("init").choices}
