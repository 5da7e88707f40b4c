"""One run that may be steered, and runs that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nstlab.base import files
from nstlab.base.devices import device as named_device
from nstlab.base.settings import DEVICES
from nstlab.live.history import History, Snapshot
from nstlab.method.fast import memory
from nstlab.method.steps import Step
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan, digest
from nstlab.recipes.prepare import prepare
from nstlab.runs.stored import Record


@dataclass(eq=False)
class Run:
    """One of a painting's runs.

    Attributes:
        number: 1 for the first run.
        plan: what the run is.
        from_picture: whether it begins from another picture than its settings name.
        record: what goes to the store.
        over: whether it makes no more steps.
    """

    number: int
    plan: Plan
    from_picture: bool
    record: Record = field(default_factory=Record)
    over: bool = False

    def __post_init__(self) -> None:
        self._steps = self.plan.steps()

    def advance(self, weights: Mapping[str, float] | None = None) -> Step | None:
        """Make the next step.

        Args:
            weights: those of terms that change before the step.

        Returns:
            The step, without the optimizer's state; None if the run is over.
        """
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

    def describe(self, settings: RunSettings, folder: Path) -> RunSettings:
        """Change settings so that they begin where this run began.

        Args:
            settings: those that the painting has now.
            folder: where a first picture that no setting names is written.

        Raises:
            InputError: if that picture cannot be written.
        """
        settings = settings.replace(init=self.plan.settings.init, seed=self.plan.settings.seed)
        if not self.from_picture:
            return settings
        picture = self.plan.inputs["init"]
        path = files.make_folder(folder.absolute()) / f"start-{digest(picture)[:12]}.png"
        if not path.exists():
            im.save(picture, path)
        return settings.replace(init=str(path))


def _plan_after(run: Run | None, settings: RunSettings, device: str | torch.device) -> Plan:
    """The plan for a run after this one, whose memory counts as free; all layers can be steered."""
    free = memory.available(named_device(device))
    previous = None
    if run is not None:
        previous = run.plan
        if not run.over:
            free += run.plan.memory_needed()
    return prepare(settings, device, free, like=previous).with_all_layers()


class RunSeries:
    """Runs, one after another, each from a picture of the one before.

    Args:
        settings: of the first run.
        device: where to compute.

    Attributes:
        run: the current run; None before the first one.
        step: the last step, of whichever run; None before the first one.
        count: the number of that step among those of all runs.
        history: snapshots to go back to.
    """

    def __init__(self, settings: RunSettings, device: str | torch.device = DEVICES[0]):
        self.settings = settings
        self.device = device
        self.run: Run | None = None
        self.step: Step | None = None
        self.count = -1
        self.history = History()

    def begin(
        self, settings: RunSettings, picture: Tensor | None = None, current: bool = False
    ) -> None:
        """Begin a new run.

        Args:
            settings: with which it paints; `self.settings` are still those of the run before.
            picture: (1, 3, H, W), what it begins from, if not from what its settings name.
            current: whether it begins from the current picture, if that has its proportions.

        Raises:
            InputError: if it cannot begin; nothing has changed.
        """
        plan = _plan_after(self.run, settings, self.device)
        if current and sizes.same_proportions(self.step.shape, plan.start.shape[-2:]):
            picture = self.step.unfinished()
        if picture is not None:
            plan = plan.starting_from(picture)
        self.keep()
        number = 1
        if self.run is not None:
            self.run.close()  # before the next run takes memory of its own
            number += self.run.number
        self.run = Run(number, plan, from_picture=picture is not None)

    def advance(self, weights: Mapping[str, float] | None = None) -> Step | None:
        """Make the current run's next step, with weights changed before it; None if it is over."""
        step = self.run.advance(weights)
        if step is not None:
            self.step = step
            self.count += 1
            if History.is_due(step.index):
                self.keep()
        return step

    def keep(self) -> None:
        """Add the current picture to the history, with the settings that it was painted with."""
        if self.step is None:
            return
        self.history.add(
            Snapshot(
                self.count,
                self.run.number,
                self.step.index,
                self.settings,
                picture=im.quantize(self.step.unfinished()),
                shown=im.quantize(self.step.snapshot()),
            )
        )
