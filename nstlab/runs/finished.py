"""A finished run as experiments see it: what is special about it, how it ended, and its
pictures."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nstlab import figures
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings
from nstlab.recipes.prepare import prepare
from nstlab.runs.stored import StoredRun

if TYPE_CHECKING:
    import pandas

WIDEST = 5  # pictures in a row of a sheet with one axis


@dataclass(frozen=True)
class Case:
    """One point of a grid: its labels by axis, and its settings."""

    labels: dict[str, str]
    settings: RunSettings

    def __str__(self) -> str:
        return ", ".join(f"{axis} {text}" for axis, text in self.labels.items())


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A case with its run in the store, and whether that was found rather than computed.

    Pictures are (1, 3, H, W) sRGB in [0, 1], all in the result's shape."""

    case: Case
    stored: StoredRun
    found: bool

    @property
    def settings(self) -> RunSettings:
        return self.case.settings

    @property
    def label(self) -> str:
        """What is special about it, in a few words."""
        return ", ".join(self.case.labels.values())

    @property
    def result(self) -> dict[str, Any]:
        """How it ended: loss, terms, steps, evaluations, seconds and events."""
        return self.stored.manifest["result"]

    @property
    def terms(self) -> dict[str, float]:
        """The unweighted value of each term at the end."""
        return self.result["terms"]

    @cached_property
    def history(self) -> pandas.DataFrame:
        """A row for each step."""
        return self.stored.history()

    def remaining(self, term: str) -> float:
        """A term's value at the end, as a part of that of the first picture."""
        return self.terms[term] / float(self.history[term].iloc[0])

    @cached_property
    def picture(self) -> Tensor:
        """The result."""
        return im.reopen(self.stored.picture)

    def input(self, field: str) -> Tensor:
        """The picture that a field of the settings names, such as "photo"."""
        return im.fit(im.load(getattr(self.settings, field)), self.picture.shape[-2:])

    @cached_property
    def photo(self) -> Tensor:
        return self.input("photo")

    @cached_property
    def painting(self) -> Tensor:
        return self.input("painting")

    @cached_property
    def start(self) -> Tensor:
        """The first picture."""
        return prepare(self.settings, "cpu").start


def sheet(runs: Sequence[FinishedRun], title: str = "") -> figures.Shown:
    """All pictures of a sweep, with what is varied and what they were made from."""
    settings = runs[0].settings
    shape = runs[0].picture.shape[-2:]
    fields = {role: name for name, role in settings.roles().items()}
    read = {role: source.source for role, source in settings.inputs.items() if not source.labels}
    inputs = {
        fields.get(role, role.replace("style_", "painting ")): im.load_fit(source, shape)
        for role, source in read.items()
    }
    rows = _rows(runs)
    columns = [[_short(*list(run.case.labels.items())[-1]) for run in row] for _, row in rows]
    pictures = [[run.picture for run in row] for _, row in rows]
    return figures.contact_sheet(pictures, [name for name, _ in rows], columns, title, inputs)


def _rows(runs: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """(label, runs) of each row of a sheet: the last axis goes across, the others down.

    A single axis is broken into rows.
    """
    if len(runs[0].case.labels) > 1:
        groups = itertools.groupby(
            runs,
            lambda run: ", ".join(_short(*pair) for pair in list(run.case.labels.items())[:-1]),
        )
        return [(name, list(row)) for name, row in groups]
    rows = -(-len(runs) // WIDEST)
    across = -(-len(runs) // rows)
    return [("", list(runs[i : i + across])) for i in range(0, len(runs), across)]


def _short(axis: str, text: str) -> str:
    """A label, with the name of its axis if it is a mere number."""
    with contextlib.suppress(ValueError):
        return f"{axis} {float(text):g}"
    return text
