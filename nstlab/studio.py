"""The studio: the picture is being painted, you move a slider, and the painting bends.

    import nstlab as nst
    nst.Studio()                                                  # in a notebook
    nst.Studio(nst.TextureSettings("mosaic"), fields=["style_layers", "pool"])

It joins what others do: `Controls` say what is wanted, `Live` paints, a `Session` drives that in its thread, and the `View`
shows it. Here each callback only turns what the user did into a wish, and each frame is turned into what is shown.
Nothing is painted while nobody looks.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch

from nstlab import images as im
from nstlab import source
from nstlab.controls import Controls
from nstlab.live import CURRENT, URGENT, Live, Snapshot
from nstlab.session import OVER, Frame, Session, State
from nstlab.settings import DEVICES, GROUPS, LIVE, RESULTS, START, InputError, RunSettings, TransferSettings
from nstlab.store import Store
from nstlab.view import THUMB, View, curves, jpeg

AWAY = 10.0  # seconds without a sign of a viewer after which the run is paused
PATIENCE = 1.0  # seconds to wait for a viewer to have seen a picture before the next one is sent
LARGEST = 200 << 20  # bytes of an upload
ROLES = {"photo": "content", "painting": "style"}  # of pictures: the settings' fields, and the plans' names for them
WORDS = {
    State.READY: "ready",
    State.RUNNING: "painting",
    State.PAUSED: "paused",
    State.RESTING: "finished",
    State.FINISHED: "finished",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}


def first_settings() -> TransferSettings:
    """What a studio opens with: a picture that shows something within seconds."""
    return TransferSettings("coffee", "swirl_strokes", size=256, steps=1000, init="content", beta=300.0)


class Studio(w.VBox):
    """Controls and a live view of one run. Shown in a notebook it begins to paint as soon as somebody sees it.

    settings: of any recipe; what the controls show at first.
    fields: names of the settings that get a control; all, in tabs, by default.
    results: folder of the store, and for uploads. device: where to compute, one of settings.DEVICES.
    start: whether to begin by itself.
    In a script, or a notebook without a browser: `studio.resume()`, then `studio.wait()`."""

    def __init__(
        self,
        settings: RunSettings | None = None,
        fields: Sequence[str] | None = None,
        results: str | Path = RESULTS,
        device: str | torch.device = DEVICES[0],
        start: bool = True,
    ):
        settings = first_settings() if settings is None else settings
        self.results, self.device, self.eager = Path(results), device, start
        self.live = Live(settings, Store(self.results), device)
        self.session = self._new_session()
        self.view = View()
        self.controls = Controls(settings, {role: list(im.samples()) for role in ROLES} | {"init": _starts(settings)})
        self.controls.observe(self._moved)
        self.view.on_msg(lambda _, content, buffers: self._told(content, buffers))
        self._lock = threading.RLock()  # callbacks may come from several threads at once
        self._wanted = settings  # as last wished for
        self._quiet = False  # while controls are set rather than moved
        self._seen: float | None = None  # when a viewer last gave a sign
        self._away = False  # paused, since nobody looks
        self._owed: float | None = None  # when a picture was sent that no viewer has yet seen
        self._shown: dict[str, Any] = {}
        self._uploads: dict[str, list[bytes]] = {}
        layout = w.Box([self._panels(fields), self.view])
        layout.add_class("nst-layout")
        super().__init__([layout])
        self.add_class("nst-studio")

    # --- what one can do with it

    @property
    def settings(self) -> RunSettings:
        """What the controls say. Raises InputError for values that are not allowed together."""
        return self.controls.settings()

    def resume(self) -> None:
        """Begin, go on after a pause, go on beyond the end, or try again after a failure."""
        with self._lock:
            if self.session.state in OVER:
                self.session = self._new_session()
            if self.session.state is State.READY:
                self._wanted = self.live.settings = self.settings
            self.session.resume()

    def pause(self) -> None:
        """Stop after the step that is being made."""
        self.session.pause()

    def single(self) -> None:
        """Make one step and pause."""
        self.session.single()

    def restart(self, current: bool = False) -> None:
        """Begin again, as "init" and "seed" say, or from the current picture."""
        self._wanted = self.settings
        self._wish(settings=self._wanted, restart=CURRENT if current else "")

    def back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of `live.film`: its picture and its settings."""
        self._show_settings(snapshot.settings)
        self._wish(back=snapshot)

    def save(self) -> None:
        """Write the run into the store, as far as it has come, with its changes."""
        self._wish(save=True)

    def code(self) -> tuple[str, str]:
        """(Python, command line) for the settings as they are now."""
        settings = self.live.described(self.results / "starts")
        return source.python(settings, str(self.device)), source.command(settings, str(self.device))

    def upload(self, role: str, name: str, data: bytes) -> None:
        """Take a file for "photo" or "painting", if it passes the checks of all pictures; InputError if it does not."""
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:60] or "picture"
        suffix = re.sub(r"[^\w.]+", "", Path(name).suffix)[:10]
        path = self.results.absolute() / "uploads" / f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with im.replacing(path) as temporary:
                temporary.write_bytes(data)
                im.load(temporary)
        except InputError as error:
            raise InputError(re.sub(r"^.*?: ", f"{name}: ", str(error), count=1)) from None
        except OSError as error:
            raise InputError(f"{name}: cannot be kept in {path.parent} ({error.strerror})") from None
        self.controls.set(role, str(path))

    def wait(self, seconds: float | None = None) -> State:
        """Until the run is over, or so long; how it stands then."""
        return self.session.wait(seconds)

    def close(self) -> None:
        """End the run and remove the widgets."""
        self.session.close()
        super().close()

    # --- from the user

    def _wish(self, **wishes: Any) -> None:
        """Send the run a wish; if there is none, begin one."""
        with self._lock:
            if self.session.state in (State.READY, *OVER):
                self.resume()
            self.session.change(**wishes)

    def _moved(self, name: str) -> None:
        """A control was moved."""
        if self._quiet:
            return
        with self._lock:
            try:
                settings = self.settings
            except InputError as error:
                self.view.say(str(error), "error")
                return
            group = next(opt.group for field, _, opt in settings.options() if field == name)
            if group == START or self.session.state in (State.READY, *OVER):
                return  # it counts when a run begins
            if settings != self._wanted:
                self._wanted = settings
                self.session.change(settings=settings, **({} if group == LIVE else {"rebuild": True}))

    def _told(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """A message of the view."""
        commands: dict[str, Callable[[], None]] = {
            "resume": self.resume,
            "pause": self.pause,
            "single": self.single,
            "save": self.save,
            "code": self._show_code,
            "back": lambda: self._back_to(content["id"]),
            "upload": lambda: self._chunk(content, bytes(buffers[0])),
            "read": lambda: self.view.say(""),
            "seen": self._present,
            "gone": self._absent,
        }
        try:
            commands[content["do"]]()
        except InputError as error:
            self.view.say(str(error), "error")

    def _show_code(self) -> None:
        python, command = self.code()
        self.view.code = {"python": python, "command": command, "asked": time.time()}

    def _back_to(self, count: int) -> None:
        for snapshot in self.live.film.frames:
            if snapshot.count == count:
                self.back(snapshot)

    def _chunk(self, content: Mapping[str, Any], data: bytes) -> None:
        """A part of a file; with the last one it is taken."""
        with self._lock:
            parts = self._uploads.setdefault(content["id"], [])
            parts.append(data)
            if sum(map(len, parts)) > LARGEST:
                self._uploads.pop(content["id"])
                raise InputError(f"{content['name']}: has more than {LARGEST >> 20} MB, the most that is taken")
            if len(parts) < content["parts"]:
                return
            self._uploads.pop(content["id"])
        self.view.say("")
        self.upload(content["role"], content["name"], b"".join(parts))

    def _present(self) -> None:
        """A viewer gives a sign: it is there, and has seen what was sent."""
        with self._lock:
            first, self._seen, self._owed = self._seen is None, time.monotonic(), None
            if self._away or (first and self.eager and self.session.state is State.READY):
                self._away = False
                self.resume()

    def _absent(self) -> None:
        """Nobody looks any more."""
        with self._lock:
            if self.session.state is State.RUNNING:
                self._away = True
                self.session.pause()

    # --- to the user; all of it is called in the session's thread

    def _new_session(self) -> Session:
        session = Session(self.live.steps, urgent=URGENT)
        session.watch(self._show)
        return session

    def _show(self, frame: Frame) -> None:
        """Show a frame. While a picture is on its way to the viewer no other is sent, unless it is the last one for now."""
        now = time.monotonic()
        running = frame.state is State.RUNNING
        if running and self._seen is not None and now - self._seen > AWAY:
            self._absent()
        with self.view.hold_sync():
            if frame.step is not None and not (running and self._owed is not None and now - self._owed < PATIENCE):
                self._show_picture(frame)
                self._owed = now if self._seen is not None else None
            self.view.show_events(frame.events)
            if self._new("film", self.live.film.frames):
                self.view.film = [_shown(snapshot) for snapshot in self.live.film.frames]
            self._show_words(frame)
            self.view.status = self._status(frame)  # last, so that who waits for a state finds what belongs to it

    def _show_picture(self, frame: Frame) -> None:
        plan = self.live.plan
        if self._new("plan", plan):
            roles = {role: name for role, name in ROLES.items() if name in plan.inputs}
            labels = {role: Path(getattr(plan.settings, role)).stem for role in roles}
            pictures = {role: plan.inputs[name] for role, name in roles.items()}
            self.view.show_inputs(pictures, labels, next(iter(roles)))
        picture = frame.step.preview()()
        self.view.shape = [picture.shape[-1], picture.shape[-2]]
        self.view.picture = jpeg(picture)
        self.view.curves = curves(self.live.record)

    def _show_words(self, frame: Frame) -> None:
        """What has to be said: a wish that was refused, a failure, a run that was saved."""
        if self._new("problem", frame.error or self.live.problem):
            self.view.say(frame.error or self.live.problem, "error")
            if self.live.problem:
                self._show_settings(self.live.settings)
        if self._new("saved", self.live.saved) and self.live.saved is not None:
            self.view.say(f"Saved as {self.live.saved.folder}")

    def _new(self, what: str, value: Any) -> bool:
        """Whether it is another one than was shown last."""
        known = self._shown.get(what, "")
        self._shown[what] = value
        return known is not value and known != value

    def _status(self, frame: Frame) -> dict[str, Any]:
        preparing = frame.step is None and frame.state is State.RUNNING
        words = ["preparing" if preparing else WORDS[frame.state]]
        if frame.state is State.PAUSED and self._away:
            words = ["paused: nobody is looking"]
        if frame.step is not None:
            words.append(f"step {frame.step.index} of {sum(level.steps for level in self.live.plan.schedule)}")
        rate = f"{frame.rate:.1f} evaluations/s" if frame.state is State.RUNNING and frame.rate else ""
        return {"state": frame.state.value, "text": " · ".join(words), "rate": rate}

    def _show_settings(self, settings: RunSettings) -> None:
        with self._lock:
            self._quiet, self._wanted = True, settings
            try:
                self.controls.show(settings)
            finally:
                self._quiet = False

    # --- the controls' place

    def _panels(self, fields: Sequence[str] | None) -> w.Widget:
        """Tabs, one a group of fields; or the named fields alone."""
        if fields is not None:
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
            button.on_click(lambda _, what=what: self._told_restart(what))
        return w.HBox([again, current])

    def _told_restart(self, current: bool) -> None:
        try:
            self.restart(current)
        except InputError as error:
            self.view.say(str(error), "error")


def _starts(settings: RunSettings) -> list[str]:
    """The first pictures that can be chosen."""
    return list(next(opt.choices for name, _, opt in settings.options() if name == "init"))


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    label = f"step {snapshot.index}" if snapshot.run == 1 else f"run {snapshot.run}: {snapshot.index}"
    return {"id": snapshot.count, "label": label, "thumb": jpeg(snapshot.picture, THUMB)}
