"""When a painting begins, pauses and restarts: as people, settings and absence ask."""

from __future__ import annotations

from collections.abc import Sequence

from nstlab.base.options import LIVE, START
from nstlab.live.display import Display
from nstlab.live.history import Snapshot
from nstlab.live.painting import Back, Change, Restart, Save
from nstlab.live.session import OVER, Phase, Session
from nstlab.recipes.base import RunSettings


class Driver:
    """A painting that is shown, and what one can do with it. Nothing is painted while nobody looks.

    Args:
        display: what shows the painting, with its controls and its audience.
        device: where it computes, one of settings.DEVICES.
        start: whether it begins by itself when somebody sees it.
    """

    def __init__(self, display: Display, device: str, start: bool):
        self.display = display
        self.painting = display.painting
        self.controls = display.controls
        self.audience = display.audience
        self.device = device
        self.eager = start
        self.session = Session(self.painting.steps, self._show)  # replaced when it has ended

    @property
    def settings(self) -> RunSettings:
        """The settings that the controls show."""
        return self.controls.settings

    # --- what one can do with it

    def resume(self) -> None:
        """Begin, go on after a pause, go on beyond the end, or try again after a failure."""
        with self.controls.lock:
            self._open_session()
            self.session.start()

    def pause(self) -> None:
        """Stop after the step that is being made."""
        with self.controls.lock:
            self.audience.away = False
            self.session.pause()

    def single(self) -> None:
        """Make one step and pause."""
        with self.controls.lock:
            self._open_session()
            self.session.single()

    def restart(self, current: bool = False) -> None:
        """Begin again, as "init" and "seed" say or from the current picture."""
        with self.controls.lock:
            has_begun = self.painting.run is not None
            if self._has_no_worker:
                self.resume()
            if has_begun:
                self.session.send(Restart(self.settings, current))

    def back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of `painting.history`, its picture and its settings."""
        with self.controls.lock:
            self.controls.show(snapshot.settings)
            if self._has_no_worker:
                self.resume()
            self.session.send(Back(snapshot))

    def save(self) -> None:
        """Write the run so far to the store. Raises InputError if no step has been made."""
        with self.controls.lock:
            if self._has_no_worker:
                self.painting.save()
                self.display.show_news()
            else:
                self.session.send(Save())

    def wait(self, seconds: float | None = None) -> Phase:
        """Wait until the run is over, or for so many seconds, watched or not; return the phase."""
        self.audience.waiting = True
        if self.audience.away:
            self.resume()
        try:
            return self.session.wait(seconds)
        finally:
            self.audience.waiting = False

    # --- what else makes it go on, or pause

    def follow(self, names: Sequence[str]) -> None:
        """React to changed settings: some steer the run, some wait for one, others begin one."""
        groups = {self.settings.option_of(name).group for name in names} - {START}
        if self._has_no_worker:
            self.display.show_inputs(self.settings)
        elif groups == {LIVE}:
            self.session.send(Change(self.settings))
        elif groups:
            self.session.send(Restart(self.settings, current=True))

    def begin_watched(self) -> None:
        """Go on, or begin, now that somebody is watching."""
        is_new = self.session.phase is Phase.READY and self.painting.run is None
        if self.audience.away or (self.eager and is_new):
            self.resume()

    def pause_unwatched(self) -> None:
        """Pause, since nobody is watching; unless it is paused, or somebody waits in the kernel."""
        with self.controls.lock:
            is_painting = self.session.phase in (Phase.PREPARING, Phase.RUNNING)
            if is_painting and not (self.session.pausing or self.audience.waiting):
                self.session.pause()
                self.audience.away = True

    def free_processor(self) -> None:
        """Pause, since the pictures of a film or of the camera need the processor."""
        if not self._has_no_worker:
            self.pause()

    @property
    def _has_no_worker(self) -> bool:
        """Whether the session has not begun, or is over."""
        return self.session.phase in (Phase.READY, *OVER)

    def _open_session(self) -> None:
        """Make a new session if the old one is over; one that has not begun takes the settings."""
        self.audience.away = False
        if self.session.phase in OVER:
            self.session = Session(self.painting.steps, self._show)
        if self.session.phase is Phase.READY:
            self.painting.settings = self.settings

    def _show(self, session: Session) -> None:
        """Show how the painting stands; in the session's thread."""
        if session.phase is Phase.RUNNING and self.audience.gone:
            self.pause_unwatched()
        self.display.show(session)
