"""The studio: the picture is being painted, you move a slider, and the painting bends.

    import nstlab as nst
    nst.Studio()                                                  # in a notebook
    nst.Studio(nst.TextureSettings("mosaic"), fields=["style_layers", "pool"])

It joins what others do: `Controls` say what is wanted, `Live` paints, a `Session` drives that in its thread, and the `View`
shows it. Here each callback only turns what the user did into a wish, and each frame is turned into what is shown.
Nothing is painted while nobody looks.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab import files, recipes, source
from nstlab import images as im
from nstlab.controls import Controls
from nstlab.figures import contact_sheet
from nstlab.live import CURRENT, URGENT, Live, Snapshot
from nstlab.session import OVER, Frame, Session, State
from nstlab.settings import DEVICES, GROUPS, LIVE, RESULTS, START, STATIC, InputError, RunSettings, TransferSettings, nearest
from nstlab.store import Store
from nstlab.view import CHUNK, LARGEST, SIDE, THUMB, View, curves, jpeg

log = logging.getLogger("nstlab")

FIRST = 60  # steps that a static page shows
AWAY = 10.0  # seconds after which a run is paused whose pictures no viewer answers
PATIENCE = 1.0  # seconds to wait for a viewer's answer to a picture before the next one is sent
ROLES = {"photo": "content", "painting": "style"}  # of pictures: the settings' fields, and the plans' names for them
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
    """Controls and a live view of one run. Shown in a notebook it begins to paint as soon as somebody sees it.

    settings: of any recipe; what the controls show at first.
    fields: names of the settings that get a control; all, in tabs, by default.
    results: folder of the store, and for uploads. device: where to compute, one of settings.DEVICES.
    start: whether to begin by itself.
    In a script, or a notebook without a browser: `studio.resume()`, then `studio.wait()`. Where the environment says that
    notebooks are static (settings.STATIC), it is shown as the picture that its first steps make."""

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
        self.live = Live(settings, Store(self.results), device)
        self.session = self._new_session()
        self.view = View()
        known = dict.fromkeys(ROLES, tuple(im.samples())) | {"init": settings.option_of("init").choices}
        self.controls = Controls(settings, known)
        self.controls.observe(self._moved)
        self.view.on_msg(self._receive)
        self._lock = self.controls.lock  # callbacks may come from several threads at once
        self._wanted = settings  # as last wished for
        self._quiet = False  # while controls are set rather than moved
        self._viewed, self._away = False, False  # somebody has looked; the run is paused since nobody does
        self._attended = False  # somebody waits for the run in the kernel itself
        self._sent: float | None = None  # when the last picture was sent, if no viewer has answered it
        self._owed: float | None = None  # when the first one was that is not answered
        self._shown: dict[str, Any] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}
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
        pictures = {role: plan.inputs[name] for role, name in ROLES.items() if name in plan.inputs}
        title = f"The studio is live in JupyterLab; here, what its first {result.steps} steps make"
        row = [[*pictures.values(), result.image]]
        return {"image/png": contact_sheet(row, [""], [*pictures, "result"], title)._repr_png_(), "text/plain": title}

    # --- what one can do with it

    @property
    def settings(self) -> RunSettings:
        """What the controls say. Raises InputError for values that are not allowed together."""
        return self.controls.settings()

    def resume(self) -> None:
        """Begin, go on after a pause, go on beyond the end, or try again after a failure."""
        with self._lock:
            self._open()
            self._away = False
            self.session.resume()

    def pause(self) -> None:
        """Stop after the step that is being made."""
        with self._lock:
            self._away = False
            self.session.pause()

    def single(self) -> None:
        """Make one step and pause."""
        with self._lock:
            self._open()
            self._away = False
            self.session.single()

    def restart(self, current: bool = False) -> None:
        """Begin again, as "init" and "seed" say, or from the current picture."""
        self._wish(settings=self.settings, restart=CURRENT if current else "")

    def back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of `live.film`: its picture and its settings."""
        self._show_settings(snapshot.settings)
        self._wish(settings=snapshot.settings, back=snapshot)

    def save(self) -> None:
        """Write the run into the store, as far as it has come, with its changes; InputError if there is none."""
        with self._lock:
            if self.session.state in (State.READY, *OVER):  # nobody else writes
                self.live.save()
                self._show_words(self.session.frame)
            else:
                self.session.change(save=True)

    def code(self) -> tuple[str, str]:
        """(Python, command line) for the settings as they are now."""
        settings = self.live.described(self.settings, self.results / "starts")
        return source.python(settings, self.device), source.command(settings, self.device)

    def upload(self, role: str, name: str, data: bytes) -> None:
        """Take a file for "photo" or "painting", if it passes the checks of all pictures; InputError if it does not."""
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:50] or "picture"
        folder = self.results.absolute() / "uploads"
        bare = folder / f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with files.replacing(bare) as temporary:
                temporary.write_bytes(data)
                kind = im.kind(temporary).lower()
            path = bare.rename(bare.with_suffix(f".{kind}"))  # what it is, whatever it was called
        except InputError as error:
            raise InputError(re.sub(r"^.*?: ", lambda _: f"{name}: ", str(error), count=1)) from None
        except OSError as error:
            raise InputError(f"{name}: cannot be kept in {folder} ({error.strerror})") from None
        self.controls.set(role, str(path))

    def wait(self, seconds: float | None = None) -> State:
        """Until the run is over, or so long; how it stands then. Meanwhile it does not matter whether somebody looks."""
        self._attended = True
        if self._away:
            self.resume()
        try:
            return self.session.wait(seconds)
        finally:
            self._attended = False

    def close(self) -> None:
        """End the run and remove the widgets, all of them."""
        self.session.close()
        self.view.on_msg(self._receive, remove=True)
        fields = itertools.chain.from_iterable(map(_parts, self.controls.widgets.values()))  # also those that are hidden
        for part in {*_parts(self), *fields} - {self}:
            part.unobserve_all()
            part.close()
        super().close()

    # --- from the user

    def _open(self) -> None:
        """See to it that there is a session that can be told something."""
        if self.session.state in OVER:
            self.session = self._new_session()
        if self.session.state is State.READY:
            self._wanted = self.live.settings = self.settings

    def _wish(self, settings: RunSettings, **wishes: Any) -> None:
        """Send the run a wish; where there is none yet, one begins."""
        with self._lock:
            self._wanted = settings
            if self.session.state in (State.READY, *OVER):
                begun = self.live.plan is not None
                self.resume()
                if not begun:
                    return
            self.session.change(settings=settings, **wishes)

    def _moved(self, name: str) -> None:
        """A control was moved."""
        with self._lock:
            if self._quiet:
                return
            try:
                settings = self.settings
            except InputError as error:
                self.view.say(str(error), "error")
                return
            if self.view.message["kind"] == "error":
                self.view.say("")
            if name == "convention":  # which brings other weights and layers
                self._show_settings(settings, wanted=self._wanted)
            group = settings.option_of(name).group
            if group == START or self.session.state in (State.READY, *OVER):  # it counts when a run begins
                if name in ROLES:
                    self._show_inputs(settings)
                return
            if settings != self._wanted:
                self._wanted = settings
                self.session.change(settings=settings, **({} if group == LIVE else {"rebuild": True}))

    def _receive(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """A message of the view, each of which is a sign that somebody is there."""
        commands: dict[str, Callable[[], None]] = {
            "resume": self.resume,
            "pause": self.pause,
            "single": self.single,
            "save": self.save,
            "code": self._show_code,
            "back": lambda: self._back_to(content["id"]),
            "upload": lambda: self._chunk(content, bytes(buffers[0]) if buffers else b""),
            "read": lambda: self.view.say(""),
            "seen": self._present,
            "gone": self._absent,
        }
        with self._lock:
            self._viewed, self._sent, self._owed = True, None, None
        self._say_why_not(commands[content["do"]])

    def _say_why_not(self, command: Callable[[], None]) -> None:
        """Do it; what goes wrong is shown, since nobody else would hear of it."""
        try:
            command()
        except InputError as error:
            self.view.say(str(error), "error")
        except Exception as error:
            log.exception("the studio failed")
            self.view.say(f"{type(error).__name__}: {error}", "error")

    def _show_code(self) -> None:
        python, command = self.code()
        self.view.code = {"python": python, "command": command, "asked": time.time()}

    def _back_to(self, count: int) -> None:
        for snapshot in self.live.film.frames:
            if snapshot.count == count:
                self.back(snapshot)

    def _chunk(self, content: Mapping[str, Any], data: bytes) -> None:
        """A part of a file; when all have come it is taken. One that is too large comes without any."""
        if content["parts"] * CHUNK > LARGEST:
            raise InputError(f"{content['name']}: has more than {LARGEST >> 20} MB, the most that is taken")
        with self._lock:
            parts = self._uploads.setdefault(content["id"], {})
            parts[content["part"]] = data
            if len(parts) < content["parts"]:
                return
            self._uploads.pop(content["id"])
        self.view.say("")
        self.upload(content["role"], content["name"], b"".join(parts[i] for i in range(len(parts))))

    def _present(self) -> None:
        """A viewer is there."""
        with self._lock:
            if self._away or (self.eager and self.session.state is State.READY and self.live.plan is None):
                self.resume()

    def _absent(self) -> None:
        """Nobody looks any more."""
        with self._lock:
            self._uploads.clear()
            if not (self.session.pausing or self._attended) and self.session.state in (State.PREPARING, State.RUNNING):
                self.session.pause()
                self._away = True

    # --- to the user; all of it is called in the session's thread

    def _new_session(self) -> Session:
        session = Session(self.live.steps, urgent=URGENT)
        session.watch(self._show)
        return session

    def _show(self, frame: Frame) -> None:
        """Show a frame. While a picture is on its way to the viewer no other is sent, unless it is the last one for now."""
        now, running = time.monotonic(), frame.state is State.RUNNING
        if running and self._owed is not None and now - self._owed > AWAY:
            self._absent()
        with self.view.hold_sync():
            if frame.step is not None and not (running and self._sent is not None and now - self._sent < PATIENCE):
                self._show_picture(frame)
                if self._viewed:
                    self._sent, self._owed = now, self._owed or now
            self.view.show_events(frame.events)
            if self._new("film", self.live.film.frames):
                self.view.film = [_shown(snapshot) for snapshot in self.live.film.frames]
            self._show_words(frame)
            self.view.status = self._status(frame)  # last, so that who waits for a state finds what belongs to it

    def _show_picture(self, frame: Frame) -> None:
        self._show_inputs(self.live.plan.settings)
        picture = frame.step.preview()()
        self.view.shape = [picture.shape[-1], picture.shape[-2]]
        self.view.picture = jpeg(picture)
        self.view.curves = curves(self.live.record)

    def _show_inputs(self, settings: RunSettings) -> None:
        """Photo and painting, if others than before, as far as they can be read; why not is said when the run begins."""
        names = {role: getattr(settings, role) for role in ROLES if hasattr(settings, role)}
        if names == self._shown.get("inputs"):
            return
        with contextlib.suppress(InputError):
            pictures = {role: im.load(name, SIDE) for role, name in names.items()}
            labels = {role: Path(name).stem for role, name in names.items()}
            first = next(iter(pictures))
            self.view.shape = [pictures[first].shape[-1], pictures[first].shape[-2]]
            self.view.show_inputs(pictures, labels, first)
            self._shown["inputs"] = names

    def _show_words(self, frame: Frame) -> None:
        """What has to be said: a wish that was refused, a failure, a run that was saved."""
        if self._new("error", frame.error) and frame.error:
            self.view.say(frame.error, "error")
        if self._new("refusals", self.live.refusals) and self.live.problem:
            self.view.say(self.live.problem, "error")
            self._take_back()
        if self._new("saved", self.live.saved) and self.live.saved is not None:
            self.view.say(f"Saved as {self.live.saved.folder}")

    def _take_back(self) -> None:
        """Let the controls show what holds, after a refusal; but not how a run would start, which was not asked for."""
        with self._lock:
            settings = self.live.settings
            starts = [name for name, _, opt in settings.options() if opt.group == START]
            self._show_settings(settings.replace(**{name: self.controls.widgets[name].value for name in starts}), settings)

    def _new(self, what: str, value: Any) -> bool:
        """Whether it is another one than was shown last."""
        known, self._shown[what] = self._shown.get(what, ""), value
        return known is not value and not (isinstance(value, (str, int)) and known == value)

    def _status(self, frame: Frame) -> dict[str, Any]:
        words = [WORDS[frame.state]]
        if frame.state is State.PAUSED and self._away:
            words = ["paused: nobody is looking"]
        if frame.step is not None:
            words.append(f"step {frame.step.index} of {self.live.plan.total}")
        rate = f"{frame.rate:.1f} evaluations/s" if frame.state is State.RUNNING and frame.rate else ""
        return {"state": frame.state.value, "text": " · ".join(words), "rate": rate}

    def _show_settings(self, settings: RunSettings, wanted: RunSettings | None = None) -> None:
        """Set the controls, which is not to move them. wanted: what the run is known to be told, if not these settings."""
        with self._lock:
            self._quiet, self._wanted = True, wanted or settings
            try:
                self.controls.show(settings)
            finally:
                self._quiet = False

    # --- the controls' place

    def _panels(self, fields: Sequence[str] | None) -> w.Widget:
        """Tabs, one a group of fields; or the named fields alone."""
        if fields is not None:
            for name in fields:
                if name not in self.controls.widgets:
                    raise InputError(f"fields: there is no setting '{name}'{nearest(name, list(self.controls.widgets))}")
            panel = w.VBox([*self.controls.panel(fields), self._starters()])
            panel.add_class("nst-controls")
            return panel
        groups = {group: [] for group in GROUPS}
        for name, _, opt in sorted(self.live.settings.options(), key=lambda field: field[0] not in ROLES):
            groups[opt.group if opt.group in groups else GROUPS[-1]].append(name)
        panels = {group.capitalize(): self.controls.panel(names) for group, names in groups.items() if group != START}
        first = next(iter(panels))
        start = w.HBox(self.controls.panel(groups[START]))
        start.add_class("nst-start")
        panels[first] += [start, self._starters()]
        tabs = w.Tab([w.VBox(panel) for panel in panels.values()], titles=tuple(panels))
        tabs.add_class("nst-controls")
        return tabs

    def _starters(self) -> w.Widget:
        again = w.Button(description="Restart", tooltip="Begin again from the first picture that is chosen here")
        current = w.Button(description="Restart from current", tooltip="Begin again from the picture as it is")
        for button, what in ((again, False), (current, True)):
            button.layout.width = "auto"
            button.on_click(lambda _, what=what: self._say_why_not(lambda: self.restart(what)))
        return w.HBox([again, current])


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    label = f"step {snapshot.index}" if snapshot.run == 1 else f"run {snapshot.run}: {snapshot.index}"
    return {"id": snapshot.count, "label": label, "thumb": jpeg(snapshot.picture, THUMB)}


def _parts(widget: w.Widget) -> list[w.Widget]:
    """A widget, all that it holds, and their looks."""
    held = [*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None)]
    return [widget, *(part for each in held if isinstance(each, w.Widget) for part in _parts(each))]
