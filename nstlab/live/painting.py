"""A run whose settings may change at any moment, while the picture is kept.

    painting = Painting(TransferSettings("coffee", "mosaic", size=256), store)
    steps = painting.steps()
    step = next(steps)
    step = steps.send([Change(painting.settings.replace(beta=300.0))])   # weights: the same run goes on
    step = steps.send([Change(painting.settings.replace(pool="max"))])   # more than weights: a new run from this picture

All of it is one generator of steps that takes commands, without threads and without widgets; a `Session` drains it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.method.engine import Result, Step
from nstlab.method.fast import memory
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan
from nstlab.runs.store import Store
from nstlab.runs.stored import Record, StoredRun
from nstlab.settings import DEVICES, InputError

FILM = 8  # snapshots that are kept
SECOND = 4  # step of a run's second snapshot
ASPECT = 0.02  # part by which a picture's proportions may change when it is kept


# --- commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Command:
    """What may happen to a painting. An urgent one is obeyed even while the painting is paused."""

    urgent: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Change(Command):
    """Paint by these settings from now on. Weights alone steer the run; more begins a new one from its picture."""

    urgent: ClassVar[bool] = False
    settings: RunSettings


@dataclass(frozen=True, eq=False)
class Restart(Command):
    """Begin a new run by these settings: from the first picture that they name, or from the `current` one."""

    settings: RunSettings
    current: bool = False


@dataclass(frozen=True, eq=False)
class Back(Command):
    """Begin a new run from a snapshot, with its settings."""

    snapshot: Snapshot

    @property
    def settings(self) -> RunSettings:
        return self.snapshot.settings


@dataclass(frozen=True, eq=False)
class Save(Command):
    """Write the run into the store, as far as it has come."""


@dataclass(frozen=True)
class News:
    """What became of a command: a run that was `saved`, or the reason why it was refused."""

    text: str
    saved: StoredRun | None = None


# --- what is kept to go back to ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A picture to go back to, (1, 3, H, W) in [0, 1], with the settings it was painted by.

    count: number of the step among all steps of all runs. index: among those of its own run, the `run`-th one."""

    count: int
    run: int
    index: int
    settings: RunSettings
    picture: Tensor


@dataclass
class Film:
    """At most FILM snapshots: at steps 0, 4, 8, 16 … of each run, and before each change.

    The first and the last are kept; of the others those go first that are nearest to their neighbours."""

    frames: list[Snapshot] = field(default_factory=list)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless its step has one already."""
        if self.frames and self.frames[-1].count == snapshot.count:
            return
        self.frames = [*self.frames, snapshot]
        if len(self.frames) > FILM:
            counts = [frame.count for frame in self.frames]
            near = min(range(1, FILM), key=lambda i: counts[i + 1] - counts[i - 1])
            self.frames = self.frames[:near] + self.frames[near + 1 :]

    @staticmethod
    def wants(index: int) -> bool:
        """Whether a run's step is one to keep: 0, and the powers of 2 from SECOND on."""
        return index & (index - 1) == 0 and not 0 < index < SECOND


@dataclass(eq=False)
class Run:
    """The run of the moment: its plan, its record for the store, and its steps, None when they have come to an end.

    number: 1 for the first run. given: its first picture, if that is not the one its settings name."""

    number: int
    plan: Plan
    given: Tensor | None
    steps: Generator[Step, Mapping[str, float] | None, Result] | None
    record: Record = field(default_factory=Record)

    def close(self) -> None:
        """End it; what its steps hold is free."""
        if self.steps is not None:
            self.steps.close()
        self.steps = None

    def advance(self, weights: Mapping[str, float] | None) -> Step:
        """The next step, with some weights changed before it."""
        begun = self.record.last is not None
        step = (self.steps.send(weights) if begun else next(self.steps)).light()
        if begun:
            self.record.steer(weights)
        self.record.note(step)
        return step


# --- the painting -----------------------------------------------------------------------------------------------


class Painting:
    """A picture that is painted, by one run after the other.

    settings: what it is painted by. film: snapshots. news: what became of commands, oldest first.
    run: the run of the moment, None before the first one."""

    def __init__(self, settings: RunSettings, store: Store, device: str | torch.device = DEVICES[0]):
        self.settings, self.store, self.device = settings, store, device
        self.run: Run | None = None
        self.film = Film()
        self.news: list[News] = []
        self.count = -1  # of steps, of all runs
        self._last: Tensor | None = None  # the picture that the run before left
        self._due: Sequence[Command] = []  # commands that wait for a step

    def steps(self) -> Generator[Step | None, Sequence[Command] | None, None]:
        """Steps without end, to which commands may be sent; None when the run is over and nothing has been commanded.

        Begins from the present picture, if there is one; goes on after the end of a run with a new one from its picture.
        Raises InputError if the first run cannot be begun. A command that cannot be obeyed later on changes nothing, and is
        explained in `news`."""
        commands: Sequence[Command] = [Restart(self.settings, current=self.picture is not None)]
        try:
            while True:
                step = self._next(commands)
                commands = (yield step) or ()
                if not commands and step is None:
                    commands = [Restart(self.settings, current=True)]
        finally:
            self._close()

    @property
    def picture(self) -> Tensor | None:
        """The present picture, (1, 3, H, W) in [0, 1]; None before the first step."""
        if self.run is None or self.run.record.last is None:
            return self._last
        return self.run.record.last.snapshot()

    def save(self) -> None:
        """Write the run into the store. Raises InputError if that cannot be done."""
        if self.run is None or self.run.record.last is None:
            raise InputError("there is nothing to save yet: no step has been made")
        saved = self.store.keep(self.run.plan, self.run.record)
        self.news.append(News(f"Saved as {saved.folder}", saved))

    def described(self, settings: RunSettings, folder: Path) -> RunSettings:
        """The settings, but to begin where this run began. A first picture that no setting names is written into the folder.

        Raises InputError if that cannot be done."""
        if self.run is None:
            return settings
        settings = settings.replace(init=self.run.plan.settings.init, seed=self.run.plan.settings.seed)
        if self.run.given is None:
            return settings
        picture = self.run.plan.inputs["init"]
        path = files.folder(folder.absolute()) / f"start-{recipes.digest(picture)[:12]}.png"
        if not path.exists():
            im.save(picture, path)
        return settings.replace(init=str(path))

    # --- what commands do

    @property
    def _running(self) -> bool:
        return self.run is not None and self.run.steps is not None

    def _next(self, commands: Sequence[Command]) -> Step | None:
        """The step after these commands; the last one again if there was only something to save; None if the run is over."""
        commands, self._due = [*self._due, *commands], []
        weights = None
        try:
            if any(isinstance(command, Save) for command in commands):
                commands = [command for command in commands if not isinstance(command, Save)]
                self.save()
                if self._running and not any(command.urgent for command in commands):
                    self._due = commands  # to save makes no step, so that it can be done in a pause
                    return self.run.record.last
            weights = self._obey(commands)
        except InputError as error:
            if self.picture is None:
                raise
            self.news.append(News(str(error)))
        if not self._running:
            return None
        try:
            return self._advance(weights)
        except StopIteration:
            self.run.close()
        if not weights:
            return None
        self._begin(self.settings, self.picture)  # the run was over when it was to change
        return self._advance(None)

    def _obey(self, commands: Sequence[Change | Restart | Back]) -> dict[str, float] | None:
        """Do what is commanded, the last of several holds; the weights to change, if that is all.

        Raises InputError, and nothing has changed."""
        if not commands:
            return None
        settings = commands[-1].settings
        begin = next((command for command in reversed(commands) if command.urgent), None)
        weights = None
        if begin is None and self._running:
            weights = self.run.plan.steering(settings)
        if weights is None:
            self._begin(settings, self._first(begin), whole=isinstance(begin, Back))
        else:
            now = self.run.record.last.weights
            weights = {name: value for name, value in weights.items() if value != now[name]}
            if weights:
                self._keep()
        self.settings = settings
        return weights

    def _first(self, begin: Command | None) -> Tensor | None:
        """The picture that a new run is to begin with; None for the one that its settings name."""
        match begin:
            case Back():
                return begin.snapshot.picture
            case Restart(current=False):
                return None
        return self.picture

    def _begin(self, settings: RunSettings, given: Tensor | None, whole: bool = False) -> None:
        """Begin a new run; from the given picture if its proportions fit, or if that `whole` picture is meant."""
        spare = self.run.plan.memory_needed() if self._running else 0  # is free as soon as the present run has ended
        room = memory.available(recipes.device(self.device)) + spare
        plan = recipes.prepare(settings, self.device, None if self.run is None else self.run.plan, room).widened()
        if given is not None and (whole or _alike(given.shape, plan.start.shape)):
            plan = plan.begun_with(given)
        else:
            given = None
        self._keep()
        self._last = self.picture
        self._close()  # its memory is free before the next one takes its own
        number = 1 if self.run is None else self.run.number + 1
        self.run = Run(number, plan, given, steps=plan.steps())

    def _close(self) -> None:
        if self.run is not None:
            self.run.close()

    def _advance(self, weights: Mapping[str, float] | None) -> Step:
        step = self.run.advance(weights)
        self.count += 1
        if Film.wants(step.index):
            self._keep()
        return step

    def _keep(self) -> None:
        """Add the present picture to the film, with the settings that it was painted by."""
        if self.run is not None and self.run.record.last is not None:
            last = self.run.record.last
            self.film.add(Snapshot(self.count, self.run.number, last.index, self.settings, im.quantized(last.snapshot())))


def _alike(shape: torch.Size, other: torch.Size) -> bool:
    """Whether two pictures have the same proportions, nearly."""
    return abs(shape[-1] * other[-2] / (shape[-2] * other[-1]) - 1) <= ASPECT
