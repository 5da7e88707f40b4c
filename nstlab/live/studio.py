"""The studio: the picture is being painted, you move a slider, and the painting bends.

    import nstlab as nst
    nst.Studio()                                                  # in a notebook
    nst.Studio(nst.TextureSettings("mosaic"), fields=["style_layers", "pool"])

It joins what others do: `Controls` say what is wanted, a `Painting` paints, a `Session` drives that in its thread, and the
`Viewer` shows it. Here each callback only turns what the user did into a command, and each frame into what is shown. Nothing is
painted while nobody looks.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab import images as im
from nstlab.figures import contact_sheet
from nstlab.live.audience import Audience
from nstlab.live.controls import Controls
from nstlab.live.painting import Back, Change, Painting, Restart, Save, Snapshot
from nstlab.live.session import OVER, Frame, Session, State
from nstlab.live.uploads import Uploads
from nstlab.live.viewer import SIDE, THUMB, Viewer, curves, jpeg
from nstlab.method.engine import Step
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import source
from nstlab.runs.store import Store
from nstlab.settings import DEVICES, GROUPS, LIVE, RESULTS, START, InputError, nearest

log = logging.getLogger("nstlab")

STATIC = "NSTLAB_STATIC"  # environment variable: notebooks show pictures where a widget would be
FIRST = 60  # steps that a static page shows
WORDS = {
    State.READY: "ready",
    State.PREPARING: "preparing",
    State.RUNNING: "painting",
    State.PAUSED: "paused",
    State.RESTING: "finished",
    State.FINISHED: "finished",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}


def static() -> bool:
    """Whether the environment says that nobody is there to use widgets."""
    return os.environ.get(STATIC, "0") not in ("", "0")


def first_settings() -> TransferSettings:
    """What a studio opens with: a picture that shows something within seconds, and goes on while it is steered."""
    return TransferSettings("coffee", "swirl_strokes", size=256, steps=1000, levels=1)


class Studio(w.VBox):
    """Controls and a live view of one painting. Shown in a notebook it begins to paint as soon as somebody sees it.

    settings: of any recipe; what the controls show at first.
    fields: names of the settings that get a control; all, in tabs, by default.
    results: folder of the store, and for uploads. device: where to compute, one of settings.DEVICES.
    start: whether to begin by itself.
    In a script, or a notebook without a browser: `studio.resume()`, then `studio.wait()`. Where the environment says that
    notebooks are static (STATIC), it is shown as the picture that its first steps make."""

    def __init__(
        self,
        settings: RunSettings | None = None,
        fields: Sequence[str] | None = None,
        results: str | Path = RESULTS,
        device: str = DEVICES[0],
        start: bool = True,
    ):
        settings = first_settings() if settings is None else settings
        self.results, self.device, self.eager = Path(results), device, start
        self.roles = settings.roles()
        self.painting = Painting(settings, Store(self.results), device)
        self.session = self._new_session()
        self.audience, self.uploads = Audience(), Uploads(self.results / "uploads")
        known = dict.fromkeys(self.roles, tuple(im.samples())) | {"init": settings.option_of("init").choices}
        self.controls = Controls(settings, known)
        self.controls.observe(self._moved, lambda error: self.view.say(str(error), "error"))
        self.view = Viewer()
        self.view.on_msg(self._receive)
        self._shown: dict[str, Any] = {}  # what the page has been told, by kind
        layout = w.Box([self._panels(fields), self.view])
        layout.add_class("nst-layout")
        super().__init__([layout])
        self.add_class("nst-studio")
        self._show_inputs(settings)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if not static():
            return super()._repr_mimebundle_(**options)
        plan = recipes.prepare(self.settings.replace(steps=min(self.settings.steps, FIRST)), self.device)
        result = plan.solve()
        pictures = {name: plan.inputs[role] for name, role in self.roles.items()}
        title = f"The studio is live in JupyterLab; here, what its first {result.steps} steps make"
        row = [[*pictures.values(), result.image]]
        return {"image/png": contact_sheet(row, [""], [*pictures, "result"], title)._repr_png_(), "text/plain": title}

    # --- what one can do with it

    @property
    def settings(self) -> RunSettings:
        """What the controls say."""
        return self.controls.settings

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
        """Begin again, as "init" and "seed" say, or from the current picture."""
        self._command(Restart(self.settings, current))

    def back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of `painting.film`: its picture and its settings."""
        with self.controls.lock:
            self.controls.show(snapshot.settings)
            self._command(Back(snapshot))

    def save(self) -> None:
        """Write the run into the store, as far as it has come, with its changes; InputError if there is none."""
        with self.controls.lock:
            if self._waiting:  # nobody else writes
                self.painting.save()
                self._show_news(self.session.frame)
            else:
                self.session.send(Save())

    def code(self) -> tuple[str, str]:
        """(Python, command line) for the settings as they are now."""
        settings = self.painting.described(self.settings, self.results / "starts")
        return source.python(settings, self.device), source.command(settings, self.device)

    def upload(self, field: str, name: str, data: bytes) -> None:
        """Take a file for "photo" or "painting", if it passes the checks of all pictures; InputError if it does not."""
        self.controls.change(**{field: str(self.uploads.keep(name, data))})

    def wait(self, seconds: float | None = None) -> State:
        """Wait until the run is over, or so long; how it stands then. Meanwhile it does not matter whether somebody looks."""
        self.audience.waits = True
        if self.audience.away:
            self.resume()
        try:
            return self.session.wait(seconds)
        finally:
            self.audience.waits = False

    def close(self) -> None:
        """End the run and remove the widgets, all of them."""
        self.session.close()
        self.view.on_msg(self._receive, remove=True)
        fields = itertools.chain.from_iterable(_parts(view.widget) for view in self.controls.views.values())  # shown or not
        for part in {*_parts(self), *fields} - {self}:
            part.unobserve_all()
            part.close()
        super().close()

    # --- from the user

    @property
    def _waiting(self) -> bool:
        """Whether the session has not begun, or is over."""
        return self.session.state in (State.READY, *OVER)

    def _open(self) -> None:
        """See to it that there is a session that can be told something."""
        self.audience.away = False
        if self.session.state in OVER:
            self.session = self._new_session()
        if self.session.state is State.READY:
            self.painting.settings = self.settings

    def _command(self, command: Restart | Back) -> None:
        """Send the painting a command; where nothing has been painted yet, it begins."""
        with self.controls.lock:
            begun = self.painting.run is not None
            if self._waiting:
                self.resume()
                if not begun:
                    return
            self.session.send(command)

    def _moved(self, names: Sequence[str]) -> None:
        """Fields were changed. Some may change while the run goes on, some count only when one begins."""
        if self.view.message["kind"] == "error":
            self.view.say("")
        groups = {self.settings.option_of(name).group for name in names}
        if self._waiting or groups == {START}:
            self._show_inputs(self.settings)
        elif groups <= {LIVE, START}:
            self.session.send(Change(self.settings))
        else:
            self.session.send(Restart(self.settings, current=True))

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what a message of the page asks for, each of which is a sign that somebody is there."""
        actions: dict[str, Callable[[], None]] = {
            "resume": self.resume,
            "pause": self.pause,
            "single": self.single,
            "save": self.save,
            "code": self._show_code,
            "back": lambda: self._back_to(content["id"]),
            "upload": lambda: self._take_part(content, bytes(buffers[0]) if buffers else b""),
            "read": lambda: self.view.say(""),
            "seen": self._present,
            "gone": self._absent,
        }
        with self.controls.lock:
            self.audience.answered()
        self._tried(actions[content["do"]])

    def _tried(self, action: Callable[[], None]) -> None:
        """Do it; what goes wrong is shown, since nobody else would hear of it."""
        try:
            action()
        except InputError as error:
            self.view.say(str(error), "error")
        except Exception as error:
            log.exception("the studio failed")
            self.view.say(f"{type(error).__name__}: {error}", "error")

    def _show_code(self) -> None:
        python, command = self.code()
        self.view.code = {"python": python, "command": command, "asked": time.time()}

    def _back_to(self, count: int) -> None:
        for snapshot in self.painting.film.frames:
            if snapshot.count == count:
                self.back(snapshot)

    def _take_part(self, content: Mapping[str, Any], data: bytes) -> None:
        with self.controls.lock:
            whole = self.uploads.part(content["id"], content["part"], content["parts"], content["name"], data)
        if whole is not None:
            self.view.say("")
            self.upload(content["role"], content["name"], whole)

    def _present(self) -> None:
        """Somebody looks."""
        with self.controls.lock:
            first = self.eager and self.session.state is State.READY and self.painting.run is None
            if self.audience.away or first:
                self.resume()

    def _absent(self) -> None:
        """Nobody looks any more."""
        with self.controls.lock:
            self.uploads.forget()
            painting = self.session.state in (State.PREPARING, State.RUNNING)
            if painting and not (self.session.pausing or self.audience.waits):
                self.session.pause()
                self.audience.away = True

    # --- to the user; all of it is called in the session's thread

    def _new_session(self) -> Session:
        session = Session(self.painting.steps)
        session.watch(self._show)
        return session

    def _show(self, frame: Frame) -> None:
        """Show a frame. While a picture is on its way to the page no other is sent, unless it is the last one for now."""
        running = frame.state is State.RUNNING
        if running and self.audience.gone:
            self._absent()
        with self.view.hold_sync():
            if frame.step is not None and not (running and self.audience.busy):
                self._show_picture(frame.step)
                self.audience.sent()
            if self._new("film", self.painting.film.frames):
                self.view.film = [_shown(snapshot) for snapshot in self.painting.film.frames]
            self._show_news(frame)
            self.view.status = self._status(frame)  # last, so that who waits for a state finds what belongs to it

    def _show_picture(self, step: Step) -> None:
        self._show_inputs(self.painting.run.plan.settings)
        picture = step.preview()()
        self.view.shape = [picture.shape[-1], picture.shape[-2]]
        self.view.picture = jpeg(picture)
        self.view.curves = curves(self.painting.run.record)
        self.view.show_events(step.events)

    def _show_inputs(self, settings: RunSettings) -> None:
        """Photo and painting, if others than before, as far as they can be read; why not is said when the run begins."""
        names = {name: getattr(settings, name) for name in self.roles}
        if not self._new("inputs", names):
            return
        with contextlib.suppress(InputError):
            pictures = {field: im.load(name, SIDE) for field, name in names.items()}
            labels = {field: Path(name).stem for field, name in names.items()}
            first = next(iter(pictures))
            self.view.shape = [pictures[first].shape[-1], pictures[first].shape[-2]]
            self.view.show_inputs(pictures, labels, first)

    def _show_news(self, frame: Frame) -> None:
        """What has to be said: a failure, a command that was refused, a run that was saved."""
        if frame.error and self._new("error", frame.error):
            self.view.say(frame.error, "error")
        told = self._shown.get("news", 0)
        self._shown["news"] = len(self.painting.news)
        for news in self.painting.news[told:]:
            self.view.say(news.text, "note" if news.saved else "error")
            if news.saved is None:
                self._take_back()

    def _take_back(self) -> None:
        """Let the controls show what holds, after a refusal; but not how a run would start, which was not asked for."""
        with self.controls.lock:
            settings, prepared = self.painting.settings, self.settings
            starts = [name for name, _, opt in settings.options() if opt.group == START]
            self.controls.show(settings.replace(**{name: getattr(prepared, name) for name in starts}))

    def _new(self, kind: str, value: Any) -> bool:
        """Whether the page has been told something else of this kind, or nothing, so far."""
        known, self._shown[kind] = self._shown.get(kind), value
        return known != value

    def _status(self, frame: Frame) -> dict[str, Any]:
        words = [WORDS[frame.state]]
        if frame.state is State.PAUSED and self.audience.away:
            words = ["paused: nobody is looking"]
        if frame.step is not None:
            words.append(f"step {frame.step.index} of {self.painting.run.plan.total}")
        rate = f"{frame.rate:.1f} evaluations/s" if frame.state is State.RUNNING and frame.rate else ""
        return {"state": frame.state.value, "text": " · ".join(words), "rate": rate}

    # --- the controls' place

    def _panels(self, fields: Sequence[str] | None) -> w.Widget:
        """Tabs, one a group of fields; or the named fields alone."""
        views = self.controls.views
        if fields is not None:
            for name in fields:
                if name not in views:
                    raise InputError(f"fields: there is no setting '{name}'{nearest(name, list(views))}")
            panel = w.VBox([*self.controls.widgets(fields), self._starters()])
            panel.add_class("nst-controls")
            return panel
        groups: dict[str, list[str]] = {group: [] for group in GROUPS}
        for name, _, opt in sorted(self.settings.options(), key=lambda field: field[0] not in self.roles):
            groups[opt.group or GROUPS[-1]].append(name)
        start = w.HBox(self.controls.widgets(groups.pop(START)))
        start.add_class("nst-start")
        panels = {group.capitalize(): self.controls.widgets(names) for group, names in groups.items()}
        next(iter(panels.values())).extend([start, self._starters()])
        tabs = w.Tab([w.VBox(panel) for panel in panels.values()], titles=tuple(panels))
        tabs.add_class("nst-controls")
        return tabs

    def _starters(self) -> w.Widget:
        again = w.Button(description="Restart", tooltip="Begin again from the first picture that is chosen here")
        current = w.Button(description="Restart from current", tooltip="Begin again from the picture as it is")
        for button, what in ((again, False), (current, True)):
            button.layout.width = "auto"
            button.on_click(lambda _, what=what: self._tried(lambda: self.restart(what)))
        return w.HBox([again, current])


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    label = f"step {snapshot.index}" if snapshot.run == 1 else f"run {snapshot.run}: {snapshot.index}"
    return {"id": snapshot.count, "label": label, "thumb": jpeg(snapshot.picture, THUMB)}


def _parts(widget: w.Widget) -> list[w.Widget]:
    """A widget, all that it holds, and their looks."""
    held = [*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None)]
    return [widget, *(part for each in held if isinstance(each, w.Widget) for part in _parts(each))]
