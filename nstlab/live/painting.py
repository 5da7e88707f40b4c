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

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nstlab.base import files
from nstlab.base.devices import device
from nstlab.base.settings import DEVICES, InputError
from nstlab.live.snapshots import Snapshot, Snapshots
from nstlab.method.fast import memory
from nstlab.method.steps import Step
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan, digest
from nstlab.recipes.prepare import prepare
from nstlab.runs.store import Store
from nstlab.runs.stored import Record, StoredRun

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
    """Begin a new run with these settings, from their first picture or the `current` one."""

    settings: RunSettings
    current: bool = False


@dataclass(frozen=True, eq=False)
class Back(LiveCommand):
    """Begin a new run from a snapshot, with its settings."""

    snapshot: Snapshot

    @property
    def settings(self) -> RunSettings:
        return self.snapshot.settings


@dataclass(frozen=True, eq=False)
class Save(LiveCommand):
    """Write the run to the store, as far as it has come."""


@dataclass(frozen=True)
class News:
    """What became of a command: the run that was `saved`, or else why the command was refused."""

    text: str
    saved: StoredRun | None = None


# --- one run --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Run:
    """One of a painting's runs: its plan, and its record for the store.

    Attributes:
        number: 1 for the first run.
        given: whether it begins from another picture than its settings name.
    """

    number: int
    plan: Plan
    given: bool
    record: Record = field(default_factory=Record)
    over: bool = False

    def __post_init__(self) -> None:
        self._steps = self.plan.steps()

    def advance(self, weights: Mapping[str, float] | None = None) -> Step | None:
        """Make the next step, with these weights changed before it. None if the run is over."""
        try:
            step = self._steps.send(weights or None).light()
        except StopIteration:
            self.over = True
            return None
        self.record.steer(weights)
        self.record.note(step)
        return step

    def close(self) -> None:
        """End the run, and free the memory that its steps hold."""
        self._steps.close()
        # Python 3.12 keeps the variables of a generator that is closed
        self._steps = (step for step in ())
        self.over = True

    def described(self, settings: RunSettings, folder: Path) -> RunSettings:
        """The settings, changed to begin where this run began.

        A picture that no setting names is written to the folder.

        Raises:
            InputError: if it cannot be written.
        """
        settings = settings.replace(init=self.plan.settings.init, seed=self.plan.settings.seed)
        if not self.given:
            return settings
        picture = self.plan.inputs["init"]
        path = files.folder(folder.absolute()) / f"start-{digest(picture)[:12]}.png"
        if not path.exists():
            im.save(picture, path)
        return settings.replace(init=str(path))


# --- the painting ---------------------------------------------------------------------------------


class Painting:
    """A picture that is painted by one run after another.

    Args:
        settings: what it is painted with.
        run: the current run, None before the first one.
        step: the last step that was made, by whichever run.
        count: the number of that step among those of all runs.
        film: snapshots to go back to.
        news: what became of commands, oldest first.
    """

    def __init__(
        self, settings: RunSettings, store: Store, device: str | torch.device = DEVICES[0]
    ):
        self.settings, self.store, self.device = settings, store, device
        self.run: Run | None = None
        self.step: Step | None = None
        self.count = -1
        self.film = Snapshots()
        self.news: list[News] = []

    def steps(self) -> Generator[Step | None, Sequence[LiveCommand] | None, None]:
        """Yield steps without end; commands may be sent to it.

        None means that the run is over and nothing is left to do.

        It begins from the current picture, if there is one. Resumed after None, it begins a new run
        from that run's picture. A command that cannot be obeyed changes nothing, and `news` says
        why.

        Raises:
            InputError: if the first run cannot begin.
        """
        commands: list[LiveCommand] = [Restart(self.settings, current=self.step is not None)]
        try:
            while True:
                commands = yield from self._save_first(commands)
                step = self._next(commands)
                commands = list((yield step) or ())
                if step is None and not commands:
                    commands = [Restart(self.settings, current=True)]
        finally:
            if self.run is not None:
                self.run.close()

    def save(self) -> None:
        """Write the run to the store.

        Raises:
            InputError: if that cannot be done.
        """
        if self.run is None or self.run.record.last is None:
            raise InputError("there is nothing to save yet: no step has been made")
        saved = self.store.keep(self.run.plan, self.run.record)
        self.news.append(News(f"Saved as {saved.folder}", saved))

    def _save_first(
        self, commands: list[LiveCommand]
    ) -> Generator[Step | None, Sequence[LiveCommand] | None, list[LiveCommand]]:
        """Save the run if that is commanded, and return the other commands.

        Since saving makes no step, it works in a pause: the last step is yielded again, and
        commands that are not urgent wait for the next one.
        """
        while any(isinstance(command, Save) for command in commands):
            commands = [command for command in commands if not isinstance(command, Save)]
            try:
                self.save()
            except InputError as error:
                self.news.append(News(str(error)))
            if not self.run.over and not any(command.urgent for command in commands):
                commands = [*commands, *((yield self.step) or ())]
        return commands

    def _next(self, commands: Sequence[Change | Restart | Back]) -> Step | None:
        """Make the step that follows these commands; None if the run is over."""
        weights: dict[str, float] = {}
        try:
            if commands:
                weights = self._obey(commands)
        except InputError as error:
            if self.step is None:
                raise
            self.news.append(News(str(error)))
        step = self.run.advance(weights)
        if step is None and weights:  # the run ended before its weights could change
            self._begin(self.settings, commands[-1])
            step = self.run.advance()
        if step is not None:
            self.step = step
            self.count += 1
            if Snapshots.wants(step.index):
                self._keep()
        return step

    def _obey(self, commands: Sequence[Change | Restart | Back]) -> dict[str, float]:
        """Take over the last command's settings: begin a new run if that is needed, else return the
        weights to change.

        Raises InputError, and nothing has changed."""
        settings = commands[-1].settings
        begin = next(
            (command for command in reversed(commands) if not isinstance(command, Change)), None
        )
        weights = None
        if begin is None and not self.run.over:
            weights = self.run.plan.steering(settings)
        if weights is None:
            self._begin(settings, begin or commands[-1])
            changed = {}
        else:
            changed = {
                name: value for name, value in weights.items() if value != self.step.weights[name]
            }
            if changed:
                self._keep()
        self.settings = settings
        return changed

    def _begin(self, settings: RunSettings, command: Change | Restart | Back) -> None:
        """Begin a new run with these settings, from the picture that the command asks for."""
        old = self.run
        free = memory.available(device(self.device))
        if old is not None and not old.over:
            free += old.plan.memory_needed()  # which the current run is about to give up
        like = None if old is None else old.plan
        plan = prepare(settings, self.device, free, like=like).with_all_layers()
        picture = self._first_picture(command, plan.start.shape)
        if picture is not None:
            plan = plan.starting_from(picture)
        self._keep()
        if old is not None:
            old.close()  # before the next run takes memory of its own
        self.run = Run(1 if old is None else old.number + 1, plan, given=picture is not None)

    def _first_picture(self, command: Change | Restart | Back, shape: torch.Size) -> Tensor | None:
        """The picture from which a new run of this shape begins.

        None for the one that its settings name.
        """
        match command:
            case Back():
                return command.snapshot.picture
            case Restart(current=False):
                return None
        return self.step.unfinished() if im.alike(self.step.shape, shape[-2:]) else None

    def _keep(self) -> None:
        """Add the current picture to the film, with the settings that it was painted with."""
        if self.step is not None:
            picture, snapshot = (
                im.quantize(image) for image in (self.step.unfinished(), self.step.snapshot())
            )
            self.film.add(
                Snapshot(
                    self.count, self.run.number, self.step.index, self.settings, picture, snapshot
                )
            )
