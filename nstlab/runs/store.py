"""Runs on disk: `results/runs/<recipe>/<run id>/` with manifest, history, picture, frames and checkpoint.

A run's id is a hash of all that decides its pixels (`Plan.identity`). While it is under way its folder's name ends
in `.partial`; when it is finished, the manifest is written last and the folder renamed. So a folder without that
ending is whole, and a partial one is either under way or was interrupted and can be resumed. Files are written beside
their places and renamed. Nothing is pickled.

    manifest.json           settings, hashes, result, device, versions, timings
    history.csv             one row a step
    final.png               the best picture
    frames/000041.png       progress pictures, if asked for
    checkpoint.safetensors  in partial folders only
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import logging
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from nstlab import files
from nstlab import images as im
from nstlab.files import NUMBER, TEXT, WHOLE, dict_of, list_of, object_with
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.engine import Result, Status, Step, drained
from nstlab.recipes.plan import Plan
from nstlab.settings import InputError

log = logging.getLogger("nstlab")

CHECKPOINT_EVERY = 20.0  # seconds at least between two checkpoints
CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into writing them
POLL = 0.5  # seconds between two looks at a run that another process is computing
FORMAT = 1
COLUMNS = ("step", "level", "loss", "evaluations", "seconds", "event")  # of a history; all others are terms
START = "start.png"  # in a run's folder: its first picture, if no setting names it
_PLAIN = {"type": ["string", "number", "boolean", "null"]}
MANIFEST = object_with(
    {"frames": WHOLE, "pictures": WHOLE}, format={"enum": [FORMAT]}, id=TEXT, recipe=TEXT,
    weights_source=TEXT, changes={"type": "array"},
    settings={**object_with(size=WHOLE), "additionalProperties": {"anyOf": [_PLAIN, list_of(_PLAIN)]}},
    result=object_with(
        loss=NUMBER, terms=dict_of(NUMBER), status=TEXT, steps=WHOLE, evaluations=WHOLE, seconds=NUMBER, events=list_of(TEXT)
    ),
    environment=object_with(
        created={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT"}, device=TEXT, commit={"type": ["string", "null"]}
    ),
)  # fmt: skip


class Busy(InputError):
    """Another process is computing the run."""


def run_id(plan: Plan, changes: Sequence[tuple[int, Mapping[str, float]]] = (), left: int | None = None) -> str:
    """16 hexadecimal digits from all that decides the result's pixels, and from nothing else; `changes` are those of
    weights on the way, with the step before each; `left` is the step after which a run was left before its end."""
    text = json.dumps([plan.identity(), changes] + [left] * (left is not None), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StoredRun:
    """A finished run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def picture(self) -> Path:
        return self.folder / "final.png"

    @property
    def frames(self) -> list[Path]:
        """Progress pictures, first to last."""
        return sorted((self.folder / "frames").glob("*.png"))

    def some_frames(self, count: int) -> list[Path]:
        """At most so many of the progress pictures, the first and the last among them."""
        there = self.frames
        if len(there) <= count:
            return there
        return there[-1:] if count == 1 else [there[i * (len(there) - 1) // (count - 1)] for i in range(count)]

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known of the run. Raises ValueError or OSError if it cannot be read, or lacks something."""
        found = files.read_json(self.folder / "manifest.json")
        files.check_json(found, MANIFEST)
        return found

    def problem(self) -> str:
        """What is wrong with the folder: a manifest, a history or a picture that cannot be read to its end; "" if nothing."""
        try:
            manifest = self.manifest
            if (manifest["recipe"], manifest["id"]) != (self.folder.parent.name, self.id):
                return f"its manifest is that of {manifest['recipe']}/{manifest['id']}"
            _read_rows(self.folder / "history.csv", manifest["result"]["steps"])
            side = max(im.verify(self.picture))
            if side != manifest["settings"]["size"] and manifest["result"]["status"] != Status.LEFT:
                return f"its picture's long side is {side} px"
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def shows(self, frames: int) -> bool:
        """Whether it has the progress pictures that it has if so many are asked for, all of them whole."""
        manifest, there = self.manifest, self.frames
        asked, kept = (manifest.get(name, len(there)) for name in ("frames", "pictures"))
        return not frames or (asked >= frames and kept == len(there) and all(map(_is_picture, there)))

    def is_whole(self) -> bool:
        """Whether there is no problem; if there is one, the log says so."""
        problem = self.problem()
        if problem:
            log.warning("%s: is damaged and left out (%s)", self.folder, problem)
        return not problem


@dataclass
class Record:
    """What is known of a run as it goes on: a row a step, and the changes of weights, each with the step before it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    changes: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    last: Step | None = None

    def note(self, step: Step) -> None:
        self.last = step
        row = {"step": step.index, "level": step.level, "loss": step.loss, **step.terms}
        self.rows.append(row | {"evaluations": step.evaluations, "seconds": round(step.seconds, 3), "event": step.event})

    def steer(self, changes: Mapping[str, float] | None) -> None:
        """Note a change that takes effect with the next step."""
        if changes:
            self.changes.append((self.last.index, dict(changes)))


class Obtained(NamedTuple):
    """A finished run, and whether it was found rather than computed."""

    run: StoredRun
    found: bool


@dataclass(frozen=True, eq=False)
class Left:
    """What there is to go on from: a checkpoint, and the history as far as that; or nothing."""

    checkpoint: Checkpoint | None = None
    rows: Sequence[dict[str, Any]] = ()


@dataclass
class Store:
    """The runs below one folder."""

    root: Path

    def folder(self, plan: Plan) -> Path:
        """Where the finished run is, or will be."""
        return self.stored(plan.recipe, run_id(plan)).folder

    def partial(self, plan: Plan) -> Path:
        """Where the run is while it is under way or interrupted."""
        return self.folder(plan).with_suffix(".partial")

    def stored(self, recipe: str, name: str) -> StoredRun:
        """The run of that recipe and id, which must be finished."""
        return StoredRun(Path(self.root) / "runs" / recipe / name)

    def find(self, plan: Plan, frames: int = 0) -> StoredRun | None:
        """The finished run of this plan, if there is one, with at least so many progress pictures as asked for."""
        stored = StoredRun(self.folder(plan))
        if not os.path.isdir(stored.folder) or not stored.is_whole():
            return None
        return stored if stored.shows(frames) else None

    def checkpoint(self, plan: Plan) -> Checkpoint | None:
        """The interrupted run's checkpoint, if there is one."""
        path = self.partial(plan) / "checkpoint.safetensors"
        return Checkpoint.load(path) if path.is_file() else None

    def run(self, plan: Plan, resume: bool = True, frames: int = 0) -> Generator[Step, Mapping[str, float] | None, StoredRun]:
        """Carry out a plan step by step, keeping it on disk; yields the engine's steps, returns the finished run.

        An interrupted run is taken up if `resume`, else begun anew. However the generator ends, by an exception or by
        being closed, a checkpoint and the best picture so far (`best.png` in the partial folder) are left behind.
        A run whose weights are changed on the way (`send`) is another run from then on, with an id of its own."""
        with self.claimed(self.folder(plan)):
            try:
                left = self._left(plan, frames) if resume else Left()
            except InputError as error:
                raise InputError(f"{error}; --no-resume begins anew") from None
            return (yield from self._run(plan, left, frames))

    def obtain(self, plan: Plan, watch: Callable[[Step], None] | None = None) -> Obtained:
        """The finished run of a plan: found, or computed (`watch` sees each step), or waited for while another process
        computes it. Should that one be lost, its run is taken up; a checkpoint that is damaged is given up.

        Raises InputError if the run needs more memory than is free."""
        if stored := self.find(plan):
            return Obtained(stored, True)
        plan.check_memory()
        while True:
            try:
                with self.claimed(self.folder(plan)):
                    if stored := self.find(plan):
                        return Obtained(stored, True)
                    try:
                        left = self._left(plan)
                    except InputError as error:
                        log.warning("%s; it begins anew", error)
                        left = Left()
                    return Obtained(drained(self._run(plan, left, 0), watch), False)
            except Busy:
                time.sleep(POLL)

    def insist(self, plan: Plan, watch: Callable[[Step], None] | None = None, resume: bool = True, frames: int = 0) -> Obtained:
        """The same for somebody who waits: with progress pictures if asked for, computed anew if not to `resume`, and refused
        in words if another process computes the run, or its checkpoint is damaged."""
        if resume and (stored := self.find(plan, frames)):
            return Obtained(stored, True)
        plan.check_memory()
        return Obtained(drained(self.run(plan, resume, frames), watch), False)

    def keep(self, plan: Plan, record: Record) -> StoredRun:
        """Write down a run that was carried out elsewhere, as far as it went. If its first picture came from a file, that is
        kept with it, as `start.png`, and is what its settings name. Changes may be of weights that only `plan.widened()`
        has."""
        result = record.last.result()
        name = run_id(plan, record.changes, record.last.index if result.status is Status.LEFT else None)
        partial = self.stored(plan.recipe, f"{uuid.uuid4().hex[:16]}.kept.partial").folder
        recorder = _Recorder(plan, partial, 0, replace(record))
        with self.claimed(self.stored(plan.recipe, name).folder), self.claimed(claim_of(partial)):
            recorder.open(Left(rows=record.rows))
            try:
                with files.writing(recorder.folder):
                    if "init" in plan.inputs:
                        im.save(plan.inputs["init"], recorder.folder / START)
                        recorder.plan = replace(plan, settings=plan.settings.replace(init=START))
                    return recorder.finish(result, name)
            except BaseException:
                shutil.rmtree(recorder.folder, ignore_errors=True)
                raise

    def _left(self, plan: Plan, frames: int = 0) -> Left:
        """What an interrupted run left to go on from, if there was one; InputError if it is damaged, or has not the progress
        pictures that are asked for."""
        checkpoint, partial = self.checkpoint(plan), self.partial(plan)
        if checkpoint is None:
            return Left()
        shapes = [level.shape for level in plan.schedule]
        checkpoint.check(plan.objective, shapes, plan.optimizer, plan.net.conv1_1_weight.dtype)
        if checkpoint.data["weights"] != plan.objective.weights or checkpoint.data["index"] > plan.total:
            raise InputError(f"{partial}: the checkpoint belongs to another run")
        rows = _read_rows(partial / "history.csv", checkpoint.data["index"])
        done = _frame_indices(plan.total, frames) & {int(row["step"]) for row in rows}
        if not all(_is_picture(_frame(partial, step)) for step in done):
            what = "lacks progress pictures of the steps so far, or holds damaged ones"
            raise InputError(f"{partial}: {what}; --frames 0 goes on without them")
        return Left(checkpoint, rows)

    @contextlib.contextmanager
    def claimed(self, folder: Path) -> Iterator[None]:
        """One process at a time works on a finished run's folder; the operating system lets go of the lock however that
        process ends. Raises Busy if another one has it."""
        locks = files.folder(Path(self.root) / "locks")
        lock = FileLock(locks / f"{folder.parent.name}-{folder.name}", thread_local=False)  # a session may end elsewhere
        with files.writing(folder.parent):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise Busy(f"results: {folder} is being computed by another process; wait for it to end") from None
        try:
            yield
        finally:
            lock.release()

    def _run(self, plan: Plan, left: Left, frames: int) -> Generator[Step, Mapping[str, float] | None, StoredRun]:
        with contextlib.ExitStack() as claims:
            recorder = _Recorder(plan, self.partial(plan), frames)
            recorder.open(left)
            steps, changes = plan.steps(left.checkpoint), None
            try:
                step = next(steps)
                while True:
                    recorder.note(step)
                    changes = yield step
                    step = steps.send(changes)
                    self._steer(recorder, changes, claims)
            except StopIteration as end:
                self._steer(recorder, changes, claims)
                result = end.value
            except BaseException:
                try:
                    recorder.interrupted()
                except InputError as error:  # a full disk, say; why the run ended matters more
                    log.warning("%s", error)
                raise
            try:
                with files.writing(recorder.folder):
                    return recorder.finish(result, run_id(plan, recorder.record.changes))
            except BaseException:
                with contextlib.suppress(InputError):
                    recorder.interrupted()
                raise

    def _steer(self, recorder: _Recorder, changes: Mapping[str, float] | None, claims: contextlib.ExitStack) -> None:
        """Note a change of weights. With the first one it is no longer the plan's run: its folder gets a name of its own, and
        is claimed under that."""
        if changes and not recorder.record.changes:
            aside = recorder.folder.with_name(f"{uuid.uuid4().hex[:16]}.steered.partial")
            claims.enter_context(self.claimed(claim_of(aside)))
            recorder.folder = recorder.folder.rename(aside)
        recorder.record.steer(changes)


def claim_of(folder: Path) -> Path:
    """The folder that is claimed by whoever works on this one, which may have a longer name."""
    return folder.with_name(folder.name.partition(".")[0])


def _frame(folder: Path, step: int) -> Path:
    """The progress picture of a step."""
    return folder / "frames" / f"{step:06d}.png"


def _is_picture(path: Path) -> bool:
    """Whether it can be read to its end."""
    try:
        im.verify(path)
    except InputError:
        return False
    return True


def _frame_indices(total: int, frames: int) -> set[int]:
    """Which of the steps 0 … total are kept as pictures: more of the early ones, in which more happens."""
    if frames <= 2:
        return {0, total} if frames == 2 else {total} if frames else set()
    return {0} | {round(total ** (i / (frames - 2))) for i in range(frames - 1)}


@dataclass
class _Recorder:
    """Writes what one run leaves in its partial folder."""

    plan: Plan
    folder: Path
    frames: int
    record: Record = field(default_factory=Record)
    saved: float = 0.0  # when the last checkpoint was written, and how many seconds that took
    cost: float = 0.0

    def open(self, left: Left) -> None:
        """Make the folder anew; or, to go on from a checkpoint, take up the history as far as that."""
        with files.writing(self.folder.parent):
            if left.checkpoint is None:
                files.delete(self.folder)
            (self.folder / "frames").mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(self.folder)
        self.record.rows = list(left.rows)
        self.saved = time.monotonic()
        self._kept = _frame_indices(self.plan.total, self.frames)

    def note(self, step: Step) -> None:
        self.record.note(step)
        if step.index in self._kept:
            im.save(step.snapshot(), _frame(self.folder, step.index))
        if time.monotonic() - self.saved > max(CHECKPOINT_EVERY, self.cost / CHECKPOINT_SHARE):
            try:
                self.save()
            except InputError as error:  # a full disk, say; the run itself can go on
                log.warning("%s", error)
                self.saved = time.monotonic()

    def save(self) -> None:
        """History first, checkpoint last, so that a checkpoint's history is always there."""
        if self.record.last is None:
            return
        began = time.monotonic()
        _write_rows(self.folder / "history.csv", self.record.rows)
        self.record.last.checkpoint().save(self.folder / "checkpoint.safetensors")
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def interrupted(self) -> None:
        if self.record.last is not None:
            im.save(self.record.last.best(), self.folder / "best.png", self.plan.settings.to_dict())
            self.save()

    def finish(self, result: Result, name: str) -> StoredRun:
        """Write what remains, the manifest last, and give the folder its final name, the run's id."""
        folder = self.folder.with_name(name)
        _write_rows(self.folder / "history.csv", self.record.rows)
        if self.frames and self.record.last is not None:  # it may have stopped early
            im.save(self.record.last.snapshot(), _frame(self.folder, self.record.last.index))
        im.save(result.image, self.folder / "final.png", self.plan.settings.to_dict())
        if not self.frames:
            shutil.rmtree(self.folder / "frames", ignore_errors=True)
        manifest = {"id": name, **_manifest(self.plan, result), "changes": self.record.changes}
        manifest |= {"frames": self.frames, "pictures": len(StoredRun(self.folder).frames)}  # asked for, and kept
        with files.replacing(self.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        files.delete(folder)  # an earlier result of the same id, when it was computed anew
        self.folder.rename(folder)
        for leftover in ("checkpoint.safetensors", "best.png"):
            (folder / leftover).unlink(missing_ok=True)
        return StoredRun(folder)


def _read_rows(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """A history, up to a step if one is named, which it must then reach. InputError if it is missing or damaged: its steps
    must begin with 0 and rise."""
    try:
        with files.regular(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        if any(None in row or None in row.values() for row in rows):  # cells too many or too few
            raise ValueError("not a table")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: is missing or damaged ({type(error).__name__})") from None
    rising = all(a < b for a, b in itertools.pairwise(steps))
    if not rising or steps[:1] != [0] or (last is not None and last not in steps):
        raise InputError(f"{path}: is damaged, steps are missing")
    return rows if last is None else rows[: steps.index(last) + 1]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a step; the columns are those of any row, since terms may come and go with their weights."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _manifest(plan: Plan, result: Result) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **plan.identity(),
        "settings": plan.settings.to_dict(),
        "weights_source": plan.net.weights.source,
        "result": {f.name: getattr(result, f.name) for f in fields(result) if f.name != "image"},
        "environment": _environment(plan.start.device),
    }


def _environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made; no part of its id."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("nstlab", "torch")} | {"python": platform.python_version()},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The checkout's commit, if the package runs from one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
