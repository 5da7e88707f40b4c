"""Runs on disk: `Store.obtain` finds the finished run of a plan, or computes it.

A run's folder is `results/runs/<recipe>/<run id>/`; `stored` lists its files. Until the run is
finished, the name ends in `.partial`, and there is a checkpoint. The manifest is written last, then
the folder is renamed. So a folder without that ending is whole; one with it is under way, or was
interrupted and can be resumed. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.settings import user_path
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.engine import run_to_end
from nstlab.method.steps import Result, Status, Step
from nstlab.pictures import images as im
from nstlab.recipes.capacity import check_memory
from nstlab.recipes.plan import Plan
from nstlab.runs.stored import Record, StoredRun, read_rows, run_id, write_manifest, write_rows

logger = logging.getLogger("nstlab")

CHECKPOINT_EVERY = 20.0  # seconds between two checkpoints, at least
CHECKPOINT_SHARE = 0.05  # part of the time that writing checkpoints may take, at most


class Obtained(NamedTuple):
    """A finished run, and whether it was found rather than computed."""

    run: StoredRun
    found: bool


@dataclass(frozen=True)
class Store:
    """The runs below one folder."""

    root: str | Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", user_path(self.root))

    def stored(self, recipe: str, name: str) -> StoredRun:
        """The run with this recipe and id, whether it is there or not."""
        return StoredRun(Path(self.root) / "runs" / recipe / name)

    def folder(self, plan: Plan) -> Path:
        """Where the plan's run is when it is finished."""
        return self.stored(plan.recipe, run_id(plan)).folder

    def partial(self, plan: Plan) -> Path:
        """Where the plan's run is while it is under way or interrupted."""
        return self.folder(plan).with_suffix(".partial")

    def checkpoint(self, plan: Plan) -> Checkpoint | None:
        """The checkpoint of the plan's interrupted run, if there is one.

        Raises:
            InputError: if it is damaged.
        """
        path = self.partial(plan) / "checkpoint.safetensors"
        return Checkpoint.load(path) if path.is_file() else None

    def find(self, plan: Plan, frames: int = 0, deep: bool = False) -> StoredRun | None:
        """The plan's finished run, if it is whole and has at least `frames` progress pictures and,
        if `deep`, 16 bits."""
        run = StoredRun(self.folder(plan))
        is_finished = (
            run.is_whole() and run.has_frames(frames) and (not deep or run.deep_picture.is_file())
        )
        return run if is_finished else None

    def obtain(
        self,
        plan: Plan,
        watch: Callable[[Step], None] | None = None,
        frames: int = 0,
        resume: bool = True,
        strict: bool = False,
        deep: bool = False,
    ) -> Obtained:
        """Find the plan's finished run; else resume an interrupted one, or compute it.

        However computing ends, a checkpoint and the best picture so far, `best.png`, are left in
        the partial folder.

        Args:
            watch: called after each step.
            frames: how many progress pictures to keep.
            deep: whether to keep the result in 16 bits, too.
            resume: if False, the run is computed anew.
            strict: if another process is computing the run, or a checkpoint is damaged, raise
                InputError, so that the user can decide what to do. Otherwise the other process is
                waited for, and a damaged checkpoint is given up with a warning.

        Raises:
            InputError: if the run needs more memory than is free, and if files cannot be written.
        """
        if resume and (run := self.find(plan, frames, deep)):
            return Obtained(run, found=True)
        with files.locked_results(self.root, self.folder(plan), wait=not strict):
            # Another process has just finished it.
            if resume and (run := self.find(plan, frames, deep)):
                return Obtained(run, found=True)
            check_memory(plan)
            checkpoint, rows = None, []
            try:
                if resume:
                    checkpoint, rows = self._interrupted(plan, frames)
            except InputError as error:
                if strict:
                    raise InputError(f"{error}; --no-resume begins anew") from None
                logger.warning("%s; it begins anew", error)
            recorder = _Recorder(plan, self.partial(plan), Record(rows), frames, deep)
            return Obtained(recorder.compute(checkpoint, watch), found=False)

    def keep(self, plan: Plan, record: Record) -> StoredRun:
        """Store a run that was computed elsewhere, as far as it went, unless it is stored already.

        A first picture that is one of the plan's inputs is stored as `start.png`, and the stored
        settings name it. The record may hold changes of weights that only `plan.with_all_layers()`
        has.

        Raises:
            InputError: if files cannot be written.
        """
        result = record.last.result()
        left = record.last.index if result.status is Status.LEFT else None
        run = self.stored(plan.recipe, run_id(plan, record.changes, left))
        with files.locked_results(self.root, run.folder):
            if run.is_whole():
                return run
            # An interrupted run's folder stays.
            recorder = _Recorder(plan, run.folder.with_suffix(".kept.partial"), record)
            recorder.open(anew=True)
            try:
                if "init" in plan.inputs:
                    path = im.save(plan.inputs["init"], recorder.folder / "start.png")
                    recorder.plan = replace(plan, settings=plan.settings.replace(init=path.name))
                return recorder.finish(result, run.folder)
            except BaseException:
                shutil.rmtree(recorder.folder, ignore_errors=True)
                raise

    def _interrupted(
        self, plan: Plan, frames: int
    ) -> tuple[Checkpoint | None, list[dict[str, Any]]]:
        """The checkpoint of an interrupted run and its history up to there.

        (None, []) if there is none.

        Raises InputError if they are damaged, or if one of the progress pictures so far is.
        """
        checkpoint = self.checkpoint(plan)
        partial = self.partial(plan)
        if checkpoint is None:
            return None, []
        shapes = [level.shape for level in plan.schedule]
        checkpoint.check(plan.objective, shapes, plan.optimizer, plan.net.dtype)
        if checkpoint.data["weights"] != plan.objective.weights:
            raise InputError(f"{partial}: the checkpoint belongs to another run")
        rows = read_rows(partial / "history.csv", checkpoint.data["index"])
        try:
            for step in frame_steps(plan.total, frames).intersection(row["step"] for row in rows):
                im.verify(frame_path(partial, step))
        except InputError as error:
            raise InputError(f"{error}; --frames 0 goes on without progress pictures") from None
        return checkpoint, rows


def frame_steps(total: int, frames: int) -> set[int]:
    """The steps of a run that are kept as progress pictures: at most `frames` of 0 … total, more of
    the early ones, in which more happens."""
    ends = (total, 0)[:frames]
    return {*ends, *(round(total ** (i / (frames - 2))) for i in range(frames - 2))}


def frame_path(folder: Path, step: int) -> Path:
    """The progress picture of a step."""
    return folder / "frames" / f"{step:06d}.png"


@dataclass
class _Recorder:
    """Writes a run into its partial folder.

    saved, cost: when the last checkpoint was written, and the seconds that took."""

    plan: Plan
    folder: Path
    record: Record
    frames: int = 0
    deep: bool = False
    saved: float = field(default_factory=time.monotonic)
    cost: float = 0.0

    def compute(
        self, checkpoint: Checkpoint | None, watch: Callable[[Step], None] | None
    ) -> StoredRun:
        """Carry out the plan from its beginning or from a checkpoint."""
        self.open(anew=checkpoint is None)
        kept = frame_steps(self.plan.total, self.frames)

        def note(step: Step) -> None:
            self.record.note(step)
            if step.index in kept:
                im.save(step.snapshot(), frame_path(self.folder, step.index))
            if time.monotonic() - self.saved > max(CHECKPOINT_EVERY, self.cost / CHECKPOINT_SHARE):
                self.save()
            if watch is not None:
                watch(step)

        try:
            result = run_to_end(self.plan.steps(checkpoint), note)
            return self.finish(result, self.folder.with_suffix(""))
        except BaseException:
            self.interrupt()
            raise

    def open(self, anew: bool) -> None:
        """Make the folder; begin with an empty one if the run begins `anew`."""
        with files.writing(self.folder.parent):
            if anew:
                files.delete(self.folder)
        files.make_folder(self.folder / "frames")
        files.remove_leftovers(self.folder)

    def save(self) -> None:
        """Write a checkpoint.

        If that fails, as with a full disk, the log says so and the run goes on.
        """
        began = time.monotonic()
        try:
            # First, so that a checkpoint has its history.
            write_rows(self.folder / "history.csv", self.record.rows)
            self.record.last.checkpoint().save(self.folder / "checkpoint.safetensors")
        except InputError as error:
            logger.warning("%s", error)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def interrupt(self) -> None:
        """Leave the best picture so far and a checkpoint, unless the disk fails.

        Why the run has ended matters more.
        """
        if self.record.last is not None:
            with contextlib.suppress(InputError):
                im.save(
                    self.record.last.best(), self.folder / "best.png", self.plan.settings.to_dict()
                )
            self.save()

    def finish(self, result: Result, folder: Path) -> StoredRun:
        """Write what is missing, the manifest last, and rename the folder to the finished run."""
        last = self.record.last
        with files.writing(self.folder):
            write_rows(self.folder / "history.csv", self.record.rows)
            if not self.frames:
                shutil.rmtree(self.folder / "frames", ignore_errors=True)
            elif last is not None:  # the run may have stopped early
                im.save(last.snapshot(), frame_path(self.folder, last.index))
            im.save(result.image, self.folder / "final.png", self.plan.settings.to_dict())
            if self.deep:
                im.save(
                    result.image,
                    StoredRun(self.folder).deep_picture,
                    self.plan.settings.to_dict(),
                    deep=True,
                )
            write_manifest(self.folder, folder.name, self.plan, result, self.record, self.frames)
            # The run was computed anew.
            earlier = os.path.lexists(folder) and files.set_aside(folder)
            self.folder.rename(folder)
            if earlier:
                files.delete(earlier)
            for leftover in ("checkpoint.safetensors", "best.png"):
                (folder / leftover).unlink(missing_ok=True)
        return StoredRun(folder)
