"""The studio: a picture is being painted; you move a slider, and the painting bends.

    import nstlab as nst
    nst.Studio()                                                  # in a notebook
    nst.Studio(nst.TextureSettings("mosaic"), fields=["style_layers", "pool"])

It joins the parts: `Controls` hold the settings, a `Painting` paints, a `Session` drives it in a
thread, and the `Viewer` shows it. Each callback here only turns what the user did into a command,
and each frame into what is shown. Nothing is painted while nobody is watching.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab.base.errors import one_of
from nstlab.base.options import LIVE, RESULTS, START
from nstlab.base.settings import DEVICES, user_path
from nstlab.feedforward.settings import SHIPPED
from nstlab.live import brush, viewer
from nstlab.live.audience import Audience
from nstlab.live.brush import NONE, RegionsView
from nstlab.live.camera import Camera
from nstlab.live.controls import Controls
from nstlab.live.film import Snapshot
from nstlab.live.pages import check_message
from nstlab.live.painting import Back, Change, Painting, Restart, Save
from nstlab.live.panel import panel, restart_buttons
from nstlab.live.player import FilmPlayer
from nstlab.live.session import OVER, Phase, Session, explained
from nstlab.live.static import static, still
from nstlab.live.uploads import Uploads
from nstlab.live.viewer import Viewer
from nstlab.pictures import labels, samples
from nstlab.recipes.base import RunSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import source
from nstlab.runs.store import Store
from nstlab.video.settings import VideoSettings, repaints


def first_settings() -> TransferSettings:
    """The settings a studio opens with: they show something within seconds, and go on for long
    enough to be steered."""
    return TransferSettings("coffee", "swirl_strokes", size=256, steps=1000, levels=1)


class Studio(w.VBox):
    """Controls and a live view of one painting. In a notebook, it begins to paint as soon as
    somebody sees it.

    settings: of any recipe; what the controls show at first. fields: names of the settings that get
    a control; by default all of them, in tabs. results: folder of the store, and for uploads.
    device: where to compute, one of settings.DEVICES. start: whether to begin by itself. In a
    script, or a notebook without a browser, call `studio.resume()`, then `studio.wait()`. Where the
    environment says that notebooks are static (STATIC), the studio is shown as the picture that its
    first steps make."""

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
        self.device = device
        self.eager = start
        self.view = Viewer()
        self.audience = Audience()
        self.uploads = Uploads(self.results / "uploads")
        self.painting = Painting(settings, Store(self.results), device)
        self.session = Session(self.painting.steps, self._show)
        menus = dict.fromkeys(settings.roles(), tuple(samples.samples())) | {
            "init": settings.option_of("init").choices
        }
        self.controls = Controls(
            settings, menus, self._moved, lambda error: self.view.say(str(error), "error")
        )
        self.editor: RegionsView | None = self.controls.views.get("mask")
        for page in self._pages:
            page.on_msg(self._receive)
        self._show_inputs()
        buttons = restart_buttons(lambda current: self._try(lambda: self.restart(current)))
        layout = w.Box(
            [
                panel(self.controls, fields, buttons, self._more() if fields is None else {}),
                self.view,
            ]
        )
        layout.add_class("nst-layout")
        super().__init__([layout])
        self.add_class("nst-studio")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return (
            still(self.settings, self.device) if static() else super()._repr_mimebundle_(**options)
        )

    @property
    def settings(self) -> RunSettings:
        """The settings that the controls show."""
        return self.controls.settings

    # --- what one can do with it

    def resume(self) -> None:
        """Begin, go on after a pause, go on beyond the end, or try again after a failure."""
        with self.controls.lock:
            self._open()
            self.session.start()

    def pause(self) -> None:
        """Stop after the step that is being made."""
        with self.controls.lock:
            self.audience.away = False
            self.session.pause()

    def single(self) -> None:
        """Make one step and pause."""
        with self.controls.lock:
            self._open()
            self.session.single()

    def restart(self, current: bool = False) -> None:
        """Begin again, as "init" and "seed" say or from the current picture."""
        with self.controls.lock:
            begun = self.painting.run is not None
            if self._waiting:
                self.resume()
            if begun:
                self.session.send(Restart(self.settings, current))

    def back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of `painting.film`, its picture and its settings."""
        with self.controls.lock:
            self.controls.show(snapshot.settings)
            if self._waiting:
                self.resume()
            self.session.send(Back(snapshot))

    def save(self) -> None:
        """Write the run to the store, as far as it has come, with its changes. Raises InputError if
        no step has been made."""
        with self.controls.lock:
            if self._waiting:  # no worker is there to do it
                self.painting.save()
                self._show_news()
            else:
                self.session.send(Save())

    def code(self) -> tuple[str, str]:
        """(Python, command line) for the settings as they are now."""
        run, settings = self.painting.run, self.settings
        if run is not None:
            settings = run.described(settings, self.results / "starts")
        return source.python(settings, self.device), source.command(settings, self.device)

    def upload(self, field: str, name: str, data: bytes) -> None:
        """Take a file for "photo" or "painting". Raises InputError if it does not pass the checks
        of all pictures."""
        one_of("upload", field, list(self.settings.roles()))
        self.controls.change(**{field: str(self.uploads.keep(name, data))})

    def use_regions(self, photo: bytes, painting: bytes) -> None:
        """Take the label pictures of photo and painting, as PNG: they are kept, and the run begins
        again with them.

        Raises InputError for what is no label picture, or lacks a region that the photo has."""
        kept = {
            name: str(self.uploads.keep(f"{name}.png", data))
            for name, data in (("mask", photo), ("painting_mask", painting))
        }
        # Refused before anything changes: the page keeps what was painted.
        labels.masks(*map(labels.load, kept.values()))
        self.controls.change(**NONE | kept)

    def leave_regions(self) -> None:
        """Paint without regions, and show none."""
        self.editor.forget()
        self.controls.change(**NONE)

    def wait(self, seconds: float | None = None) -> Phase:
        """Wait until the run is over, or for so many seconds; return the phase. Meanwhile it paints
        whether watched or not."""
        self.audience.waiting = True
        if self.audience.away:
            self.resume()
        try:
            return self.session.wait(seconds)
        finally:
            self.audience.waiting = False

    def close(self) -> None:
        """End the run and remove all widgets, whether they are shown or not."""
        if not hasattr(self, "controls"):  # it could not be made
            return
        self.session.close()
        for page in self._pages:
            page.on_msg(self._receive, remove=True)
        self.controls.close_in(self)
        super().close()

    # --- from the user

    def _more(self) -> dict[str, w.Widget]:
        """Tabs that are no part of the painting, by their titles. Meanwhile it pauses."""
        tabs: dict[str, w.Widget] = {}
        if repaints(type(self.settings)):
            style = self.settings.inputs["style"].source
            film = VideoSettings("clip.mp4", style, device=self.device, results=self.results)
            tabs["Film"] = FilmPlayer(film, lambda: self.settings, self._yield)
        return tabs | {"Camera": Camera(SHIPPED, self.results / "camera", self.device, self._yield)}

    @property
    def _pages(self) -> list[w.Widget]:
        """The widgets whose pages send messages."""
        return [self.view] if self.editor is None else [self.view, self.editor.widget]

    @property
    def _waiting(self) -> bool:
        """Whether the session has not begun, or is over."""
        return self.session.phase in (Phase.READY, *OVER)

    def _open(self) -> None:
        """Make a new session if the old one is over. One that has not begun takes the settings of
        the controls."""
        self.audience.away = False
        if self.session.phase in OVER:
            self.session = Session(self.painting.steps, self._show)
        if self.session.phase is Phase.READY:
            self.painting.settings = self.settings

    def _moved(self, names: Sequence[str]) -> None:
        """React to changed fields: some may change while the run goes on, some count only when one
        begins."""
        if self.view.message["kind"] == "error":
            self.view.say("")
        groups = {self.settings.option_of(name).group for name in names} - {START}
        if self._waiting:
            self._show_inputs()
        elif groups == {LIVE}:
            self.session.send(Change(self.settings))
        elif groups:
            self.session.send(Restart(self.settings, current=True))

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what a message of the page asks for."""
        actions: dict[str, Callable[[], None]] = {
            "resume": self.resume,
            "pause": self.pause,
            "single": self.single,
            "save": self.save,
            "code": self._show_code,
            "back": lambda: self._back_to(content["id"]),
            "upload": lambda: self._take_part(content, bytes(buffers[0]) if buffers else b""),
            "read": lambda: self.view.say(""),
            "look": lambda: self.editor.look(),
            "regions": lambda: self.use_regions(*map(bytes, buffers)),
            "no regions": self.leave_regions,
            "seen": self._begin_watched,
            "gone": self._pause_unwatched,
        }
        known = viewer.MESSAGES | (brush.MESSAGES if self.editor is not None else {})

        def act() -> None:
            check_message(content, buffers, known)
            actions[content["do"]]()

        with self.controls.lock:
            self.audience.answered()
            self._try(act)

    def _try(self, action: Callable[[], None]) -> None:
        """Do something, and show what goes wrong, since nobody else would hear of it."""
        try:
            action()
        except Exception as error:
            self.view.say(explained(error), "error")

    def _show_code(self) -> None:
        python, command = self.code()
        self.view.code = {"python": python, "command": command, "asked": time.time()}

    def _back_to(self, count: int) -> None:
        for snapshot in self.painting.film.frames:
            if snapshot.count == count:
                self.back(snapshot)

    def _take_part(self, content: Mapping[str, Any], data: bytes) -> None:
        name = "".join(filter(str.isprintable, content["name"]))
        whole = self.uploads.part(content["id"], content["part"], content["parts"], name, data)
        if whole is not None:
            self.view.say("")
            self.upload(content["role"], name, whole)

    def _begin_watched(self) -> None:
        """Go on, or begin, now that somebody is watching."""
        if self.audience.away or (
            self.eager and self.session.phase is Phase.READY and self.painting.run is None
        ):
            self.resume()

    def _yield(self) -> None:
        """Pause, since the pictures of a film or of the camera need the processor."""
        if not self._waiting:
            self.pause()

    def _pause_unwatched(self) -> None:
        """Pause, since nobody is watching any more; unless somebody has paused it or waits in the
        kernel."""
        with self.controls.lock:
            self.uploads.forget()
            painting = self.session.phase in (Phase.PREPARING, Phase.RUNNING)
            if painting and not (self.session.pausing or self.audience.waiting):
                self.session.pause()
                self.audience.away = True

    # --- to the user, in the session's thread

    def _show(self, session: Session) -> None:
        """Show how the painting stands. No picture is sent while another is on its way, unless it
        is the last one for now."""
        running = session.phase is Phase.RUNNING
        if running and self.audience.gone:
            self._pause_unwatched()
        run = self.painting.run
        with self.view.hold_sync():
            if session.step is not None and not (running and self.audience.busy):
                self._show_inputs()
                self.view.show_step(session.step, run.record)
                if self.editor is not None:
                    self.editor.found(run.plan, run.number)
                self.audience.sent()
            self.view.show_film(self.painting.film.frames)
            if session.error:
                self.view.say(session.error, "error")
            self._show_news()
            # The status comes last, so that whoever waits for it finds what belongs to it.
            self.view.show_status(session.phase, session.step, run, self.audience.away)

    def _show_inputs(self) -> None:
        """Show photo and painting: those of the run, or those that it would begin with."""
        settings = self.settings if self._waiting else self.painting.run.plan.settings
        self.view.show_inputs({name: getattr(settings, name) for name in settings.roles()})

    def _show_news(self) -> None:
        """Say what became of commands. After a refusal the controls show the painting's settings
        again, except those for a start, which were not refused."""
        while self.painting.news:
            news = self.painting.news.pop(0)
            self.view.say(news.text, "note" if news.saved else "error")
            if news.saved is None:
                with self.controls.lock:
                    shown = self.settings
                    starts = {
                        name: getattr(shown, name)
                        for name, _, opt in shown.options()
                        if opt.group == START
                    }
                    self.controls.show(self.painting.settings.replace(**starts))
