"""An experiment: what is varied, what readers are asked beforehand, and the claims that its finished runs confirm or refute."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nstlab import figures, files
from nstlab.course.base import Base, FinishedRun, Runs, reached_layers
from nstlab.course.settings import SweepSettings
from nstlab.runs.sweep import Case, Report, Sweep, dask
from nstlab.settings import InputError

WIDEST = 5  # pictures in a row of a sheet with one axis


@dataclass(frozen=True)
class Claim:
    """A sentence, the numbers that confirm or refute it, and whether it holds."""

    text: str
    number: str
    holds: bool


def claim(text: str, numbers: Sequence[float] | Mapping[str, float], holds: bool, unit: str = "") -> Claim:
    """A claim with its numbers written out: "0.123, 4.56 px", "noise 0.1, grey 0.2"."""
    named = numbers.items() if isinstance(numbers, Mapping) else [("", value) for value in numbers]
    shown = ", ".join(f"{name} {value:.3g}".strip() for name, value in named)
    return Claim(text, f"{shown} {unit}".strip(), bool(holds))


def rises(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before; False for fewer than two values."""
    return len(values) > 1 and all(a < b for a, b in itertools.pairwise(values))


class Experiment:
    """One of the classic experiments, with the pictures, the weights and the budget that its options name.

    A subclass says which runs it needs (`sweep`), what they show (`claims`), and which of the `choices` they prove right
    (`answer`). Runs are given in the order of the sweep's cases. `terms`: those whose loss curves belong to the gallery."""

    id: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    prediction: ClassVar[str]  # what readers are asked before the runs
    choices: ClassVar[tuple[str, ...]]
    terms: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: SweepSettings):
        self.options, self.base = options, Base(options)

    def sweep(self) -> Sweep | None:
        """The runs it needs, None if it needs none."""
        raise NotImplementedError

    def claims(self, runs: Runs) -> Iterator[Claim]:
        """What the finished runs say of each claim."""
        raise NotImplementedError

    def answer(self, runs: Runs) -> str:
        """The choice that the finished runs prove right."""
        raise NotImplementedError

    @property
    def cases(self) -> list[Case]:
        """The cases of its sweep; none if nothing is optimized."""
        sweep = self.sweep()
        return [] if sweep is None else sweep.cases

    def compares(self) -> bool:
        """Whether the weights reach far enough for the runs to differ."""
        sweep = self.sweep()
        different = {case.settings for case in sweep.cases}
        return len(different) == len(sweep.cases) and all(len(labels) > 1 for labels in sweep.axes.values())

    def check(self) -> None:
        """Raise InputError for what would otherwise be found out only after the runs: weights that end too early for what is
        compared, a gallery that is not there."""
        if self.options.gallery is not None:
            files.check_place(self.options.gallery / "README.md")
        if not self.compares():
            last = reached_layers(self.options.weights)[-1]
            raise InputError(f"{self.id}: the weights '{self.options.weights}' end at {last}, too early for what is compared")

    def run(self, report: Report | None = None) -> list[FinishedRun]:
        """Its finished runs; those that are stored are found, the others are computed."""
        sweep, options = self.sweep(), self.options
        if sweep is None:
            return []
        with contextlib.nullcontext() if options.dask is None else dask(options.dask, options.device) as executor:
            return [FinishedRun(done) for done in sweep.run(options.results, executor, options.device, report)]

    # --- figures

    @property
    def heading(self) -> str:
        """The title of its figures."""
        return f"{self.id}  {self.title}"

    def sheet(self, runs: Runs) -> figures.Shown:
        """The experiment at a glance: all its pictures."""
        inputs = {name: getattr(runs[0], name) for name in runs[0].settings.roles()}
        rows = _rows(runs)
        columns = [[_short(*list(run.labels.items())[-1]) for run in row] for _, row in rows]
        pictures = [[run.picture for run in row] for _, row in rows]
        return figures.contact_sheet(pictures, [name for name, _ in rows], columns, self.heading, inputs)

    def curves(self, runs: Runs) -> figures.Shown | None:
        """The losses of all runs by evaluations; None if there are no runs."""
        if not runs:
            return None
        return figures.loss_curves({run.label: run.history for run in runs}, self.terms or ("loss",), title=self.heading)


def _rows(runs: Runs) -> list[tuple[str, list[FinishedRun]]]:
    """(label, runs) of each row of a sheet: the last axis goes across, the others down. A single axis is broken into rows."""
    if len(runs[0].labels) > 1:
        groups = itertools.groupby(runs, lambda run: ", ".join(_short(*pair) for pair in list(run.labels.items())[:-1]))
        return [(name, list(row)) for name, row in groups]
    rows = -(-len(runs) // WIDEST)
    across = -(-len(runs) // rows)
    return [("", list(runs[i : i + across])) for i in range(0, len(runs), across)]


def _short(axis: str, text: str) -> str:
    """A label, with the name of its axis if it is a mere number."""
    with contextlib.suppress(ValueError):
        return f"{axis} {float(text):g}"
    return text
