"""One run on disk: its id, and the files in its folder.

manifest.json       settings, hashes, result, device, versions, timings
history.csv         one row for each step
final.png           the best picture
final.tif           the same with 16 bits a channel, if asked for
frames/000041.png   progress pictures, if asked for
start.png           the first picture, of a run kept by the studio that the recipe did not draw
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import logging
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError
from nstlab.base.jsonfiles import NUMBER, TEXT, WHOLE, dict_of, list_of, object_with
from nstlab.method.steps import Result, Step
from nstlab.recipes.plan import Plan

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("nstlab")

# The columns of a history; others are terms.
COLUMNS = {
    "step": int,
    "level": int,
    "loss": float,
    "evaluations": int,
    "seconds": float,
    "event": str,
}
MANIFEST_FORMAT = 1
_PLAIN = {"type": ["string", "number", "boolean", "null"]}
MANIFEST = object_with(
    {"frames": WHOLE, "pictures": WHOLE},
    format={"enum": [MANIFEST_FORMAT]},
    id=TEXT,
    recipe=TEXT,
    weights_source=TEXT,
    changes={"type": "array"},
    settings={
        **object_with(size=WHOLE),
        "additionalProperties": {"anyOf": [_PLAIN, list_of(_PLAIN)]},
    },
    result=object_with(
        loss=NUMBER,
        terms=dict_of(NUMBER),
        status=TEXT,
        steps=WHOLE,
        evaluations=WHOLE,
        seconds=NUMBER,
        events=list_of(TEXT),
    ),
    environment=object_with(
        created={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT"},
        device=TEXT,
        commit={"type": ["string", "null"]},
    ),
)


def run_id(
    plan: Plan, changes: Sequence[tuple[int, Mapping[str, float]]] = (), left: int | None = None
) -> str:
    """Hash all that decides a result's pixels, and nothing else, to 16 hexadecimal digits.

    Args:
        changes: (step, {term: weight}) for each change of weights, which took effect after that
            step.
        left: the step after which the run was left, if that was before its end.
    """
    parts = [plan.identity(), changes]
    if left is not None:
        parts.append(left)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Record:
    """The course of a run so far: a row for each step, and (step, {term: weight}) for each change
    of weights after a step."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    changes: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    last: Step | None = None

    def note(self, step: Step) -> None:
        """Add a step."""
        self.last = step
        row = {"step": step.index, "level": step.level, "loss": step.loss, **step.terms}
        self.rows.append(
            row
            | {
                "evaluations": step.evaluations,
                "seconds": round(step.seconds, 3),
                "event": step.event,
            }
        )

    def steer(self, changes: Mapping[str, float] | None) -> None:
        """Add a change of weights, if there is one, that takes effect with the next step."""
        if changes:
            self.changes.append((self.last.index, dict(changes)))


@dataclass(frozen=True)
class StoredRun:
    """The folder of a finished run."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def picture(self) -> Path:
        return self.folder / "final.png"

    @property
    def deep_picture(self) -> Path:
        return self.folder / "final.tif"

    @property
    def frames(self) -> list[Path]:
        """All progress pictures, from first to last."""
        return sorted((self.folder / "frames").glob("*.png"))

    def some_frames(self, count: int) -> list[Path]:
        """Up to `count` progress pictures, evenly chosen, with the last and the first one."""
        kept = self.frames
        if len(kept) <= count:
            return kept
        if count == 1:
            return kept[-1:]
        return [kept[i * (len(kept) - 1) // (count - 1)] for i in range(count)]

    @property
    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is incomplete.
        """
        content = jsonfiles.read(self.folder / "manifest.json")
        jsonfiles.check(content, MANIFEST)
        return content

    def history(self) -> pandas.DataFrame:
        """One row for each step: step, level, loss, each term, evaluations, seconds, event.

        Raises:
            InputError: if damaged.
        """
        import pandas

        return pandas.DataFrame(read_rows(self.folder / "history.csv"))

    def problem(self) -> str:
        """What is wrong with the folder, or "": a file is missing, or the manifest is unreadable or
        another run's. What is in its place is whole, since it was renamed when it was, and is not
        read again to make sure."""
        try:
            manifest = self.manifest
            if (manifest["recipe"], manifest["id"]) != (self.folder.parent.name, self.id):
                return f"its manifest belongs to {manifest['recipe']}/{manifest['id']}"
            for path in (self.picture, self.folder / "history.csv"):
                if not path.exists():
                    return f"{path.name} is missing"
                files.regular_file(path)
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def is_whole(self) -> bool:
        """Whether the folder is there without a problem. If it has one, the log reports it."""
        if not os.path.isdir(self.folder):
            return False
        problem = self.problem()
        if problem:
            logger.warning("%s: is damaged and left out (%s)", self.folder, problem)
        return not problem

    def has_frames(self, count: int) -> bool:
        """Whether at least `count` progress pictures were asked for, and all kept are here."""
        if count == 0:
            return True
        manifest = self.manifest
        wanted = manifest.get("frames", 0)
        return wanted >= count and manifest.get("pictures", 0) == len(self.frames)


# --- history.csv ----------------------------------------------------------------------------------


def read_rows(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """Read a history, up to the step `last` if given.

    Raises:
        InputError: if the file is missing or damaged: steps must begin with 0, rise, and reach
            `last`.
    """
    try:
        with files.regular_file(path).open(newline="", encoding="utf-8") as file:
            rows = [_parse(row) for row in csv.DictReader(file)]
        steps = [row["step"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: is missing or damaged ({type(error).__name__})") from None
    rising = all(a < b for a, b in itertools.pairwise(steps))
    if not rising or steps[:1] != [0] or (last is not None and last not in steps):
        raise InputError(f"{path}: is damaged, steps are missing")
    return rows if last is None else rows[: steps.index(last) + 1]


def _parse(row: dict[str, str]) -> dict[str, Any]:
    """A row of text as values, without terms that have none at this step. Raises ValueError or
    TypeError if it is damaged."""
    if None in row.values() or not COLUMNS.keys() <= row.keys():
        raise ValueError("cells are missing")
    return {
        name: COLUMNS.get(name, float)(text)
        for name, text in row.items()
        if text or name == "event"
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a history.

    Its columns are those of all rows, since terms may come and go with their weights.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (
        files.replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


# --- manifest.json --------------------------------------------------------------------------------


def write_manifest(
    folder: Path, name: str, plan: Plan, result: Result, record: Record, frames: int
) -> None:
    """Write a run's manifest under its id.

    Args:
        frames: how many progress pictures were asked for.
    """
    manifest = {
        "id": name,
        "format": MANIFEST_FORMAT,
        **plan.identity(),
        "settings": plan.settings.to_dict(),
        "weights_source": plan.net.weights.source,
        "result": {f.name: getattr(result, f.name) for f in fields(result) if f.name != "image"},
        "environment": _environment(plan.start.device),
        "changes": record.changes,
        "frames": frames,
        "pictures": len(StoredRun(folder).frames),
    }
    with files.replacing(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was computed. None of it is part of the id."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("nstlab", "torch")}
        | {"python": platform.python_version()},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the checkout, if the package runs from one.

    That of another project around it does not say what runs.
    """
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an error unless it is tracked
        return git("rev-parse", "--short", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
