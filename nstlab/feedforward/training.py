"""Training that is kept: a folder with the checkpoint, the curves, and the held-out photo painted.

`results/learned/<id>/`: the id is a hash of settings, paintings, photos and the loss model's
weights. An interrupted training goes on from its checkpoint; a finished one is not done again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from nstlab import figures
from nstlab.base import files
from nstlab.base.devices import device
from nstlab.base.errors import InputError
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.learning import Learner, LearningStep
from nstlab.feedforward.settings import LearnSettings
from nstlab.method import Checkpoint
from nstlab.pictures import images as im
from nstlab.pictures import outputs

logger = logging.getLogger("nstlab")

SAVE_INTERVAL = 60.0  # seconds between checkpoints
ROW_BATCHES = 20  # batches that a row of the history averages
SHEET_SIZE = 320  # px: long side of pictures in progress.png


class _Folder:
    """The folder of a training, and its history so far."""

    def __init__(self, learner: Learner, path: Path):
        self.learner = learner
        self.path = path
        self.saved_at = time.monotonic()
        self.batches: list[dict[str, float]] = []  # since the last row
        self.rows: list[dict[str, float]] = []

    @property
    def checkpoint_path(self) -> Path:
        """The file of the checkpoint."""
        return self.path / "checkpoint.safetensors"

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            InputError: if it cannot be used.
        """
        if not self.checkpoint_path.is_file():
            return
        try:
            checkpoint = Checkpoint.load(self.checkpoint_path)
            self.learner.resume(checkpoint)
        except InputError as error:
            raise InputError(f"{error}; to begin anew, delete {self.checkpoint_path}") from None
        self.rows = checkpoint.data.get("history", [])

    def add(self, step: LearningStep) -> None:
        """Add a batch to the history; save all after a row, every SAVE_INTERVAL."""
        self.batches.append({"loss": step.loss, **step.terms})
        is_last = step.index == self.learner.settings.steps
        if len(self.batches) < ROW_BATCHES and not is_last:
            return
        count = len(self.batches)
        mean = {name: sum(row[name] for row in self.batches) / count for name in self.batches[0]}
        self.rows.append({"step": step.index, "level": 0, **mean})
        self.batches.clear()
        if time.monotonic() - self.saved_at > SAVE_INTERVAL:
            self.save()

    def save(self) -> None:
        """Write the checkpoint, then the curves and the picture; warn of what cannot be written."""
        for write in (self._save_checkpoint, self._save_curves, self._save_picture):
            try:
                write()
            except Exception as error:  # whatever a picture lacks, learning matters more
                reason = " ".join(str(error).split())
                logger.warning("%s: progress is not kept (%s)", self.path, reason)
        self.saved_at = time.monotonic()

    def _save_checkpoint(self) -> None:
        checkpoint = self.learner.checkpoint()
        checkpoint.data["history"] = self.rows
        files.make_folder(self.path)
        checkpoint.save(self.checkpoint_path)

    def _save_curves(self) -> None:
        if not self.rows:
            return
        table = pandas.DataFrame(self.rows)
        with files.replacing(self.path / "history.csv") as temporary:
            table.to_csv(temporary, index=False)
        curves = figures.loss_curves({"": table}, ["loss", *self.learner.loss.names], "step")
        figures.save_figure(curves, self.path / "curves.png")

    def _save_picture(self) -> None:
        figures.save_figure(sheet(self.learner), self.path / "progress.png")


def sheet(learner: Learner) -> figures.Shown:
    """A figure of the held-out photo, the paintings, and the photo painted like each of them."""
    photo = im.sample(HELD_OUT, SHEET_SIZE)
    model = learner.model()
    painter = model.painter(learner.device)
    painted = [painter(photo, model.mixture([name])) for name in model.paintings]
    paintings = [im.load(source, SHEET_SIZE) for source in learner.settings.paintings]
    return figures.contact_sheet(
        [paintings, painted], ["painting", "painted"], model.paintings, inputs={"photo": photo}
    )


def train(
    settings: LearnSettings,
    watch: Callable[[LearningStep], Any] | None = None,
    wait: bool = False,
) -> Path:
    """Learn, or go on with it, and write the model to `settings.out`.

    However it ends, a checkpoint is left in the folder. An existing file at `out` is only replaced
    by a finished model.

    Args:
        settings: what is learned.
        watch: called after each batch.
        wait: for another process that learns the same, rather than raise InputError.

    Returns:
        The folder, with checkpoint, history and pictures.

    Raises:
        InputError: for what cannot be used or written.
        KeyboardInterrupt: if it is interrupted; its message says what is left.
    """
    outputs.check_outputs(settings)
    files.check_writable(settings.out)
    learner = Learner(settings, device(settings.device))
    folder = _Folder(learner, Path(settings.results) / "learned" / learner.identity)
    with files.locked_results(settings.results, folder.path, wait):
        folder.resume()
        done_before = learner.done
        try:
            for step in learner.batches():
                folder.add(step)
                if watch is not None:
                    watch(step)
            learner.model().save(settings.out)  # first: the folder's disk may be full
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*_remains(learner)) from None
        finally:
            if learner.done > done_before:
                folder.save()
    return folder.path


def _remains(learner: Learner) -> list[str]:
    """What is left of an interrupted training, in words: the model so far, if no file is there."""
    out = learner.settings.out
    if not learner.done:
        return []
    if out.exists():
        sentence = f"{out}, which was there before, is left as it was"
    else:
        try:
            sentence = f"the model as far as it has come is {learner.model().save(out)}"
        except InputError as error:
            sentence = str(error)
    return [sentence, "to go on, run the same command again"]
