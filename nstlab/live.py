"""A run whose settings may change at any moment, while the picture is kept.

    live = Live(TransferSettings("coffee", "mosaic", size=256), store)
    run = live.steps()
    step = next(run)
    step = run.send({"settings": live.settings.replace(beta=300.0)})   # weights: the same run goes on
    step = run.send({"settings": live.settings.replace(pool="max")})   # more than weights: a new run from this picture

All of it is one generator, without threads and without widgets; a `Session` drains it. Live keeps what belongs to the
run of the moment: its plan, its record for the store, and a film of snapshots to go back to.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstlab import images as im
from nstlab import memory, recipes
from nstlab.engine import Result, Step
from nstlab.recipes import Plan
from nstlab.settings import DEVICES, InputError, RunSettings
from nstlab.store import Record, Store, StoredRun

FILM = 8  # snapshots that are kept
EARLY = 4  # step of a run's second snapshot
CURRENT = "current"  # a start: the picture as it is
ASPECT = 0.02  # part by which a picture's proportions may change when it is kept
URGENT = ("rebuild", "restart", "back", "save")  # wishes that do not wait for a step


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A picture to go back to, (1, 3, H, W) in [0, 1], with the settings it was painted by. `count` numbers all steps of all
    runs, `index` those of its own."""

    count: int
    run: int
    index: int
    settings: RunSettings
    picture: Tensor


@dataclass
class Film:
    """At most FILM snapshots: at steps 0, 4, 8, 16 … of each run, and before each change. The first and the last are kept;
    of the others those go first that are nearest to their neighbours."""

    frames: list[Snapshot] = field(default_factory=list)

    def add(self, snapshot: Snapshot) -> None:
        if self.frames and self.frames[-1].count == snapshot.count:
            return
        self.frames = [*self.frames, snapshot]
        if len(self.frames) > FILM:
            counts = [frame.count for frame in self.frames]
            near = min(range(1, FILM), key=lambda i: counts[i + 1] - counts[i - 1])
            self.frames = self.frames[:near] + self.frames[near + 1 :]

    @staticmethod
    def wants(index: int) -> bool:
        """Whether a run's step is one to keep: 0 and the powers of 2 from EARLY on."""
        return index & (index - 1) == 0 and not 0 < index < EARLY


class Live:
    """The run of the moment, and the wishes it understands.

    Sent to `steps()`, each wish may stand alone or with others:
        settings: what is wanted from now on. Weights alone steer the run; the rest begins a new one from its picture.
        rebuild:  True begins a new run in any case.
        restart:  "" begins again from the first picture that the settings name, CURRENT from the present one.
        back:     a Snapshot; begins from its picture, with its settings unless others are wanted.
        save:     True writes the run into the store, as far as it has come.
    A wish that cannot be granted leaves all as it was, with the reason in `problem`; `refusals` counts them."""

    def __init__(self, settings: RunSettings, store: Store, device: str | torch.device = DEVICES[0]):
        self.settings, self.store, self.device = settings, store, device
        self.plan: Plan | None = None
        self.record, self.film = Record(), Film()
        self.problem, self.refusals = "", 0
        self.saved: StoredRun | None = None
        self.run, self.count = 0, -1
        self._given: Tensor | None = None  # the first picture, if no setting names it
        self._before: Tensor | None = None  # the last picture of the run before
        self._due: dict[str, Any] = {}  # wishes that wait for a step
        self._weights: Mapping[str, float] | None = None  # that the step being made is to have
        self._steps: Generator[Step, Any, Result] | None = None

    def steps(self) -> Generator[Step | None, Mapping[str, Any] | None, None]:
        """Steps without end; None when the run is over and waits for a wish. Begins with the picture of the run before, if
        there was one. The first plan raises InputError if it cannot be made, later ones do not."""
        wishes: Mapping[str, Any] = {"restart": "" if self._present() is None else CURRENT}
        try:
            while True:
                try:
                    wishes = (yield self._next(wishes)) or {}
                except StopIteration:
                    self._steps = None
                    anew = {"restart": CURRENT}  # also when the last step's end met a change
                    wishes = anew if self._weights else (yield None) or anew
        finally:
            self._end()

    def save(self) -> None:
        """Write the run into the store. Raises InputError if that cannot be done."""
        if self.record.last is None:
            raise InputError("there is nothing to save yet: no step has been made")
        self.saved = self.store.keep(self.plan, self.record)

    def _next(self, wishes: Mapping[str, Any]) -> Step | None:
        """The step after these wishes; or, if it is only to be saved, the last one again."""
        if wishes:
            self.problem = ""
        wishes, self._due = self._due | wishes, {}
        try:
            if wishes.pop("save", False):
                self.save()
                if not wishes.keys() & set(URGENT) and self._steps is not None:
                    self._due = wishes
                    return self.record.last
                if not wishes:
                    return None
            weights = self._granted(wishes)
        except InputError as error:
            if self._steps is None and self._present() is None:
                raise
            self.problem, weights = str(error), None
            self.refusals += 1
        return None if self._steps is None else self._made(weights)

    def _granted(self, wishes: Mapping[str, Any]) -> dict[str, float] | None:
        """Do what is wished; the weights to change, if that is all. Raises InputError with nothing changed."""
        back = wishes.get("back")
        settings = wishes.get("settings", back.settings if back else self.settings)
        restart = wishes.get("restart")
        weights = None if self.plan is None else self.plan.steering(settings)
        if weights is None or self._steps is None or back or restart is not None or wishes.get("rebuild"):
            given = back.picture if back else None if restart == "" else self._present()
            self._begin(settings, given, strict=back is not None)
            weights = None
        elif changes := {name: value for name, value in weights.items() if value != self.record.last.weights[name]}:
            self._keep()
            weights = changes
        else:
            weights = None
        self.settings = settings
        return weights

    def _present(self) -> Tensor | None:
        return self._before if self.record.last is None else self.record.last.snapshot()

    def _begin(self, settings: RunSettings, given: Tensor | None, strict: bool) -> None:
        """Make a new run of it, from a given picture where its proportions fit (strict: in any case), else from the one that
        the settings name."""
        spare = 0 if self._steps is None else self.plan.memory_needed()  # is free as soon as the present run has ended
        room = memory.available(recipes.device(self.device)) + spare
        plan = recipes.prepare(settings, self.device, self.plan, room).widened()
        if given is not None and (strict or _alike(given.shape, plan.start.shape)):
            plan = plan.begun_with(given)
        else:
            given = None
        self._keep()
        self._before = self._present()
        self._end()  # its memory is free before the next one takes its own
        self.plan, self._given = plan, given
        self.record, self._steps = Record(), plan.steps()
        self.run += 1

    def _end(self) -> None:
        if self._steps is not None:
            self._steps.close()
        self._steps = None

    def _made(self, weights: Mapping[str, float] | None) -> Step:
        """The next step, with some weights changed before it."""
        self._weights = weights
        step = (next(self._steps) if self.record.last is None else self._steps.send(weights)).light()
        self._weights = None
        if self.record.last is not None:
            self.record.steer(weights)
        self.record.note(step)
        self.count += 1
        if Film.wants(step.index):
            self._keep()
        return step

    def _keep(self) -> None:
        """Add the present picture to the film, with the settings that it was painted by."""
        last = self.record.last
        if last is not None:
            self.film.add(Snapshot(self.count, self.run, last.index, self.settings, im.shaded(last.snapshot())))

    def described(self, settings: RunSettings, folder: Path) -> RunSettings:
        """The settings, but to begin where this run began. A first picture that no setting names is written into the
        folder; InputError if that cannot be done."""
        if self.plan is None:
            return settings
        settings = settings.replace(init=self.plan.settings.init, seed=self.plan.settings.seed)
        if self._given is None:
            return settings
        picture = self.plan.inputs["init"]
        path = folder.absolute() / f"start-{recipes.digest(picture)[:12]}.png"
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
            im.save(picture, path)
        return settings.replace(init=str(path))


def _alike(shape: torch.Size, other: torch.Size) -> bool:
    """Whether two pictures have the same proportions, nearly."""
    return abs(shape[-1] * other[-2] / (shape[-2] * other[-1]) - 1) <= ASPECT
