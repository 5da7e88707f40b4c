"""What a studio shows of its painting: the picture, its inputs, snapshots, status and news."""

from __future__ import annotations

from nstlab.base.options import START
from nstlab.live.audience import Audience
from nstlab.live.brush import RegionsView
from nstlab.live.controls import Controls
from nstlab.live.painting import Painting
from nstlab.live.session import OVER, Phase, Session
from nstlab.live.viewer import Viewer
from nstlab.recipes.base import RunSettings


class Display:
    """Shows a painting in a viewer, and over its inputs the regions that its runs find.

    Args:
        painting: what is shown.
        controls: of its settings.
        audience: whoever watches.
    """

    def __init__(self, painting: Painting, controls: Controls, audience: Audience):
        self.painting = painting
        self.controls = controls
        self.audience = audience
        self.view = Viewer()

    @property
    def editor(self) -> RegionsView | None:
        """The view of the regions, if the recipe has any."""
        return self.controls.views.get("mask")

    def show(self, session: Session) -> None:
        """Show the painting as it is; called in the session's thread.

        No picture is sent while another is on its way, unless it is the last one for now.
        """
        run = self.painting.run
        is_busy = session.phase is Phase.RUNNING and self.audience.busy
        with self.view.hold_sync():
            if session.step is not None and not is_busy:
                over = session.phase in OVER
                self.show_inputs(self.controls.settings if over else run.plan.settings)
                self.view.show_step(session.step, run.record)
                if self.editor is not None:
                    self.editor.show_found(run.plan, run.number)
                self.audience.note_picture()
            self.view.show_snapshots(self.painting.history.snapshots)
            if session.error:
                self.view.say(session.error, "error")
            self.show_news()
            # The status comes last, so that whoever waits for it finds the rest shown.
            self.view.show_status(session.phase, session.step, run, self.audience.away)

    def show_inputs(self, settings: RunSettings) -> None:
        """Show photo and painting of these settings."""
        self.view.show_inputs({name: getattr(settings, name) for name in settings.roles()})

    def show_news(self) -> None:
        """Say what became of commands; after a refusal, show the painting's settings again."""
        while self.painting.news:
            news = self.painting.news.pop(0)
            self.view.say(news.text, "note" if news.saved else "error")
            if news.saved is None:
                self._show_settings()

    def _show_settings(self) -> None:
        """Show the painting's settings, except those for a start, which were not refused."""
        with self.controls.lock:
            current = self.controls.settings
            starts = {
                name: getattr(current, name)
                for name, _, opt in current.options()
                if opt.group == START
            }
            self.controls.show(self.painting.settings.replace(**starts))
