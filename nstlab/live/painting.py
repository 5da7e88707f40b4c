"""A picture whose settings may change at any moment while it is painted.

    painting = Painting(TransferSettings("coffee", "mosaic", size=256), store)
    steps = painting.steps()
    step = next(steps)
    settings = painting.settings
    step = steps.send([Change(settings.replace(beta=300.0))])  # only weights: the run goes on
    step = steps.send([Change(settings.replace(pool="max"))])  # more: a new run from this picture

All of it is one generator of steps that takes commands, without threads and without widgets. A
`Session` drains it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from nstlab.base.errors import InputError
from nstlab.base.settings import DEVICES
from nstlab.live.history import Snapshot
from nstlab.live.run import RunSeries
from nstlab.method.steps import Step
from nstlab.recipes.base import RunSettings
from nstlab.runs.store import Store
from nstlab.runs.stored import StoredRun

# --- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LiveCommand:
    """What can be sent to a painting.

    An urgent command is obeyed even while the painting is paused.
    """

    urgent: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Change(LiveCommand):
    """Paint with these settings from now on.

    The run goes on if only weights differ; else a new one begins.
    """

    urgent: ClassVar[bool] = False
    settings: RunSettings


@dataclass(frozen=True, eq=False)
class Restart(LiveCommand):
    """Begin a new run with these settings.

    It starts from the first picture that they name, or from the `current` one.
    """

    settings: RunSettings
    current: bool = False


@dataclass(frozen=True, eq=False)
class Back(LiveCommand):
    """Begin a new run from a snapshot, with its settings."""

    snapshot: Snapshot

    @property
    def settings(self) -> RunSettings:
        """Those of the snapshot."""
        return self.snapshot.settings


@dataclass(frozen=True, eq=False)
class Save(LiveCommand):
    """Write the run so far to the store."""


@dataclass(frozen=True)
class News:
    """What became of a command: the run that was `saved`, or else why the command was refused."""

    text: str
    saved: StoredRun | None = None


class Painting(RunSeries):
    """A picture that is painted by one run after another, as commands ask.

    Args:
        settings: what to paint with at first.
        store: where runs are saved.
        device: where to compute.

    Attributes:
        news: what became of commands, oldest first.
    """

    def __init__(
        self, settings: RunSettings, store: Store, device: str | torch.device = DEVICES[0]
    ):
        super().__init__(settings, device)
        self.store = store
        self.news: list[News] = []

    def steps(self) -> Generator[Step | None, Sequence[LiveCommand] | None, None]:
        """Yield steps without end; commands may be sent to it.

        It begins from the current picture, if there is one. Resumed after None, it begins a new run
        from that run's picture. A command that cannot be obeyed changes nothing, and `news` says
        why.

        Yields:
            A step; or None, if the run is over and nothing is left to do.

        Raises:
            InputError: if the first run cannot begin.
        """
        commands: list[LiveCommand] = [Restart(self.settings, current=self.step is not None)]
        try:
            while True:
                commands = yield from self._save_first(commands)
                step = self._follow(commands)
                commands = list((yield step) or ())
                if step is None and not commands:
                    commands = [Restart(self.settings, current=True)]
        finally:
            if self.run is not None:
                self.run.close()

    def save(self) -> None:
        """Write the run to the store, and tell where in `news`.

        Raises:
            InputError: if no step has been made, or the store cannot be written.
        """
        if self.run is None or self.run.record.last is None:
            raise InputError("there is nothing to save yet: no step has been made")
        saved = self.store.keep(self.run.plan, self.run.record)
        self.news.append(News(f"Saved as {saved.folder}", saved))

    def _save_first(
        self, commands: list[LiveCommand]
    ) -> Generator[Step | None, Sequence[LiveCommand] | None, list[LiveCommand]]:
        """Save the run if that is commanded, and return the other commands."""
        while any(isinstance(command, Save) for command in commands):
            commands = [command for command in commands if not isinstance(command, Save)]
            try:
                self.save()
            except InputError as error:
                self.news.append(News(str(error)))
            # Saving makes no step, so that it works in a pause: the last step is yielded again, and
            # commands that are not urgent wait for the next one.
            if not self.run.over and not any(command.urgent for command in commands):
                commands = [*commands, *((yield self.step) or ())]
        return commands

    def _follow(self, commands: Sequence[Change | Restart | Back]) -> Step | None:
        """Make the step that follows these commands; None if the run is over."""
        weights: dict[str, float] = {}
        try:
            if commands:
                weights = self._obey(commands)
        except InputError as error:
            if self.step is None:
                raise
            self.news.append(News(str(error)))
        step = self.advance(weights)
        if step is None and weights:  # the run ended before its weights could change
            self._begin_as(commands[-1], self.settings)
            step = self.advance()
        return step

    def _obey(self, commands: Sequence[Change | Restart | Back]) -> dict[str, float]:
        """Take over the last settings; return the weights that change, unless a new run begins."""
        settings = commands[-1].settings
        restarts = [command for command in commands if not isinstance(command, Change)]
        weights = None
        if not restarts and not self.run.over:
            weights = self.run.plan.steering(settings)
        changed = {}
        if weights is None:
            self._begin_as(restarts[-1] if restarts else commands[-1], settings)
        else:
            current = self.step.weights
            changed = {name: value for name, value in weights.items() if value != current[name]}
            if changed:
                self.keep()
        self.settings = settings
        return changed

    def _begin_as(self, command: Change | Restart | Back, settings: RunSettings) -> None:
        """Begin a new run with these settings, from the picture that the command asks for."""
        match command:
            case Back():
                self.begin(settings, command.snapshot.picture)
            case Restart(current=False):
                self.begin(settings)
            case _:
                self.begin(settings, current=True)
