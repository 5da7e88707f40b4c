"""What is kept of learning: a folder with the checkpoint, the curves, and the held-out photo
painted by the network so far.

`results/learned/<id>/`: the id is a hash of settings, paintings, photos and the loss model's
weights. An interrupted learning goes on from its checkpoint; a finished one is not done again.
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
from nstlab.base.settings import InputError
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.learning import Learner, LearningStep
from nstlab.feedforward.settings import LearnSettings
from nstlab.method import Checkpoint
from nstlab.pictures import images as im
from nstlab.pictures import outputs

logger = logging.getLogger("nstlab")

EVERY = 60.0  # seconds between checkpoints
AVERAGED = 20  # batches in a row of the history
SHOWN = 320  # px: long side of pictures in progress.png


class _Folder:
    """The folder of a learning, and its history so far."""

    def __init__(self, learner: Learner, path: Path):
        self.learner = learner
        self.path = path
        self.saved = time.monotonic()
        self.batches = []
        self.rows: list[dict[str, float]] = []

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. InputError if it cannot be used."""
        path = self.path / "checkpoint.safetensors"
        if path.is_file():
            try:
                checkpoint = Checkpoint.load(path)
                self.learner.resume(checkpoint)
            except InputError as error:
                raise InputError(f"{error}; to begin anew, delete {path}") from None
            self.rows = checkpoint.data.get("history", [])

    def add(self, step: LearningStep) -> None:
        """Add a batch to the history, and keep all if it is time to."""
        self.batches.append({"loss": step.loss, **step.terms})
        if len(self.batches) == AVERAGED or step.index == self.learner.settings.steps:
            mean = {
                name: sum(row[name] for row in self.batches) / len(self.batches)
                for name in self.batches[0]
            }
            self.rows.append({"step": step.index, "level": 0, **mean})
            self.batches.clear()
            if time.monotonic() - self.saved > EVERY:
                self.save()

    def save(self) -> None:
        """Write the checkpoint, then the curves and the picture; warn of what cannot be written.

        What is not yet in the history is left out of it."""
        for write in (self._save_checkpoint, self._save_curves, self._save_picture):
            try:
                write()
            except Exception as error:  # whatever a picture lacks, learning matters more
                reason = " ".join(str(error).split())
                logger.warning("%s: progress is not kept (%s)", self.path, reason)
        self.saved = time.monotonic()

    def _save_checkpoint(self) -> None:
        checkpoint = self.learner.checkpoint()
        checkpoint.data["history"] = self.rows
        checkpoint.save(files.make_folder(self.path) / "checkpoint.safetensors")

    def _save_curves(self) -> None:
        if self.rows:
            table = pandas.DataFrame(self.rows)
            with files.replacing(self.path / "history.csv") as temporary:
                table.to_csv(temporary, index=False)
            curves = figures.loss_curves({"": table}, ["loss", *self.learner.loss.names], "step")
            figures.save_figure(curves, self.path / "curves.png")

    def _save_picture(self) -> None:
        figures.save_figure(sheet(self.learner), self.path / "progress.png")


def sheet(learner: Learner) -> figures.Shown:
    """The held-out photo, the paintings, and the photo painted like each of them by the network so
    far."""
    photo = im.sample(HELD_OUT, SHOWN)
    model = learner.model()
    painter = model.painter(learner.device)
    painted = [painter(photo, model.mixture([name])) for name in model.paintings]
    paintings = [im.load(source, SHOWN) for source in learner.settings.paintings]
    return figures.contact_sheet(
        [paintings, painted], ["painting", "painted"], model.paintings, inputs={"photo": photo}
    )


def train(
    settings: LearnSettings,
    watch: Callable[[LearningStep], Any] | None = None,
    wait: bool = False,
) -> Path:
    """Learn, or go on with it, and write the model to `settings.out`; returns the folder.

    However it ends, a checkpoint is left in the folder. A file that is at `out` is only replaced by
    a finished model.

    Args:
        watch: called after each batch.
        wait: for another process that learns the same, rather than raise InputError.

    Raises:
        InputError: for what cannot be used or written.
        KeyboardInterrupt: says what is left.
    """
    outputs.check_outputs(settings)
    files.check_writable(settings.out)
    learner = Learner(settings, device(settings.device))
    folder = _Folder(learner, Path(settings.results) / "learned" / learner.identity)
    with files.locked_results(settings.results, folder.path, wait):
        folder.resume()
        before = learner.done
        try:
            for step in learner.batches():
                folder.add(step)
                if watch is not None:
                    watch(step)
            learner.model().save(settings.out)  # first: the folder's disk may be full
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*_interrupted(learner)) from None
        finally:
            if learner.done > before:
                folder.save()
    return folder.path


def _interrupted(learner: Learner) -> list[str]:
    """What is left of an interrupted learning, in words: the model so far, if no file is there."""
    out = learner.settings.out
    if not learner.done:
        return []
    if out.exists():
        said = f"{out}, which was there before, is left as it was"
    else:
        try:
            said = f"the model as far as it has come is {learner.model().save(out)}"
        except InputError as error:
            said = str(error)
    return [said, "to go on, run the same command again"]
