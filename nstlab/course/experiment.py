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
from nstlab.base.settings import InputError
from nstlab.course.claims import Claim, Guess
from nstlab.course.lesson import Lesson
from nstlab.course.settings import PARAMETERS, SweepSettings
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Report

FOLDER = files.shipped_folder("notebooks")


def available(folder: Path | None = None) -> dict[str, Path]:
    """The numbered notebooks of a folder (default: FOLDER) by name, in order. Raises InputError
    where there are none."""
    folder = FOLDER if folder is None else folder
    found = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise InputError(f"notebooks: there are none in {folder}")
    return found


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
    """The variables that an experiment's cells leave behind. runs: none if nothing is optimized.
    curves: of the losses."""

    title: str
    guess: Guess
    answer: str
    claims: Sequence[Claim]
    sheet: figures.Shown
    lesson: Lesson
    runs: Sequence[FinishedRun] = ()
    curves: figures.Shown | None = None


def cells(name: str) -> list[tuple[str, str]]:
    """[(where it is, its source)] of each cell that defines an experiment, in order. Raises
    InputError if there are none."""
    found = []
    for path in available().values():
        for i, cell in enumerate(read(path)["cells"], 1):
            if name in cell["metadata"].get("tags", []):
                found.append((f"{path.name}, cell {i}", "".join(cell["source"])))
    if not found:
        raise InputError(f"experiment: no notebook has cells that are tagged {name}")
    return found


def carry_out(options: SweepSettings, report: Report) -> Outcome:
    """Run an experiment's cells. Raises InputError if the weights end too early for what is
    compared."""
    given = {
        name: getattr(options, name)
        for name, _, _ in SweepSettings.options()
        if name not in ("experiment", "gallery")
    }
    names: dict[str, Any] = {name: given[name] for name in ("budget", *PARAMETERS, "results")}
    names |= {"nst": nstlab, "lesson": Lesson(report=report, **given)}
    try:
        for where, source in cells(options.experiment):
            exec(compile(source, where, "exec"), names)
    except InputError as error:
        raise InputError(f"{options.experiment}: {error}") from error
    return Outcome(
        **{field.name: names[field.name] for field in fields(Outcome) if field.name in names}
    )
