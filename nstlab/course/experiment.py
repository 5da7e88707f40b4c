"""The experiments. Each is defined once, in a notebook, by the cells that are tagged with its name.

`nstlab sweep E3` runs these cells with its own options, and nothing else of the notebook. They may
use `nst`, `lesson` and the notebook's parameters. What they leave behind is the experiment's
outcome, see `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nstlab
from nstlab import figures
from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError
from nstlab.course.claims import Claim, Guess
from nstlab.course.lesson import Lesson
from nstlab.course.settings import PARAMETERS, SweepSettings
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Report

FOLDER = files.shipped_folder("notebooks")


def available(folder: Path | None = None) -> dict[str, Path]:
    """The numbered notebooks of a folder, by name, in order.

    Args:
        folder: by default FOLDER.

    Raises:
        InputError: if there are none.
    """
    folder = FOLDER if folder is None else folder
    notebooks = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not notebooks:
        raise InputError(f"notebooks: there are none in {folder}")
    return notebooks


NOTEBOOK = jsonfiles.object_with(
    nbformat={"enum": [4]},
    metadata={"type": "object"},
    cells=jsonfiles.list_of(
        jsonfiles.object_with(cell_type=jsonfiles.TEXT, metadata={"type": "object"}, source={})
    ),
)  # as a JSON Schema


def read(path: Path) -> dict[str, Any]:
    """A notebook, as plain values. Raises InputError if it cannot be read, or is none."""
    try:
        notebook = jsonfiles.read(path)
        jsonfiles.check(notebook, NOTEBOOK)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a notebook, or is damaged ({error})") from None
    return notebook


@dataclass(frozen=True)
class Outcome:
    """The variables that an experiment's cells leave behind.

    Attributes:
        title: of the experiment.
        guess: its question, with choices.
        answer: which of them is right.
        claims: what its runs show.
        sheet: its pictures.
        lesson: that made its runs.
        runs: none if nothing is optimized.
        curves: of the losses.
    """

    title: str
    guess: Guess
    answer: str
    claims: Sequence[Claim]
    sheet: figures.Shown
    lesson: Lesson
    runs: Sequence[FinishedRun] = ()
    curves: figures.Shown | None = None


def cells(name: str) -> list[tuple[str, str]]:
    """The cells that define an experiment, in order.

    Args:
        name: the tag that they have, such as "E3".

    Returns:
        [(notebook and number of the cell, its source)].

    Raises:
        InputError: if no cell has the tag.
    """
    tagged = [
        (f"{path.name}, cell {number}", "".join(cell["source"]))
        for path in available().values()
        for number, cell in enumerate(read(path)["cells"], 1)
        if name in cell["metadata"].get("tags", [])
    ]
    if not tagged:
        raise InputError(f"experiment: no notebook has cells that are tagged {name}")
    return tagged


def carry_out(options: SweepSettings, report: Report) -> Outcome:
    """Run an experiment's cells.

    Args:
        options: which experiment, and its parameters.
        report: called as a sweep's.

    Raises:
        InputError: if the weights end too early for what is compared.
    """
    parameters = {
        name: getattr(options, name)
        for name, _, _ in SweepSettings.options()
        if name not in ("experiment", "gallery")
    }
    variables: dict[str, Any] = {
        name: parameters[name] for name in ("budget", *PARAMETERS, "results")
    }
    variables |= {"nst": nstlab, "lesson": Lesson(report=report, **parameters)}
    try:
        for title, source in cells(options.experiment):
            exec(compile(source, title, "exec"), variables)
    except InputError as error:
        raise InputError(f"{options.experiment}: {error}") from error
    return Outcome(
        **{
            field.name: variables[field.name]
            for field in fields(Outcome)
            if field.name in variables
        }
    )
