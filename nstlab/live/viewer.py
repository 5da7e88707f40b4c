"""What a studio shows of a painting: one widget, whose traits are the picture, its inputs, curves,
events and snapshots.

Its page (view.js) draws them, and sends what the user does as messages {"do": ...}. Pictures go to
the page as JPEGs.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets as t
from torch import Tensor

from nstlab.base import jsonfiles
from nstlab.base.settings import InputError
from nstlab.figures.base import COLOURS
from nstlab.live.film import Snapshot
from nstlab.live.pages import LINE, Messages, Page, sendable, source
from nstlab.live.painting import Run
from nstlab.live.session import Phase
from nstlab.live.uploads import CHUNK, MAX_BYTES
from nstlab.method.steps import Step
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.runs.stored import COLUMNS, Record

PICTURE_SIDE = 512  # px: long side of the live picture, at most
THUMB_SIDE = 160  # px: long side of an input or a snapshot
QUALITY = 88  # of JPEGs
POINTS = 240  # of a curve, at most; a screen shows no more
EVENTS = 30  # that are shown
RATE_STEPS = 20  # steps over which the rate is measured
# For a phase, where the page does not use its own name.
WORDS = {Phase.RUNNING: "painting", Phase.RESTING: "finished"}


def jpeg(picture: Tensor, side: int = PICTURE_SIDE) -> bytes:
    """(1, 3, H, W) in [0, 1] -> a JPEG whose long side has at most so many pixels."""
    shape = picture.shape[-2:]
    if max(shape) > side:
        picture = im.resize(picture, sizes.fit_size(shape, side))
    buffer = io.BytesIO()
    im.to_pil(picture).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def curve_points(record: Record) -> dict[str, Any]:
    """Each term's loss at every step, thinned out to about POINTS, and the steps at which weights
    were changed.

    A term that was not evaluated at a step is 0 there, which a log axis leaves out."""
    rows = record.rows[:: max(1, -(-len(record.rows) // POINTS))]
    if record.rows and rows[-1] is not record.rows[-1]:
        rows = [*rows, record.rows[-1]]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    series = {name: [float(f"{row.get(name, 0.0):.4g}") for row in rows] for name in names}
    marks = [step for step, _ in record.changes][-POINTS:]
    return {
        "steps": [row["step"] for row in rows],
        "series": series,
        "marks": marks,
        "colours": list(COLOURS[: len(names)]),
    }


def evaluation_rate(record: Record) -> float:
    """Evaluations a second over the last steps; 0 before there are two."""
    rows = record.rows[-RATE_STEPS:]
    seconds = rows[-1]["seconds"] - rows[0]["seconds"] if rows else 0.0
    return (rows[-1]["evaluations"] - rows[0]["evaluations"]) / seconds if seconds else 0.0


MESSAGES: Messages = {  # that its page sends
    **{do: {} for do in ("resume", "pause", "single", "save", "code", "read", "seen", "gone")},
    "back": {"id": jsonfiles.WHOLE},
    "upload": {
        "id": LINE,
        "role": LINE,
        "name": LINE,
        "part": jsonfiles.WHOLE,
        "parts": jsonfiles.WHOLE,
    },
}


class Viewer(Page):
    """The page. Traits go one way, to the browser; messages come back through `on_msg`."""

    _esm = source("elements.js", "view.js")
    _css = source("view.css")

    picture = t.Bytes().tag(sync=True)
    before = t.Bytes().tag(sync=True)  # what the picture is compared with
    compared = t.Unicode("photo").tag(sync=True)  # what that is called
    shape = t.List(t.Int(), [0, 0]).tag(sync=True)  # width and height of the picture
    inputs = t.List().tag(sync=True)  # [{"role", "label", "thumb"}]
    status = t.Dict({"state": "ready", "text": "ready", "rate": ""}).tag(sync=True)
    message = t.Dict({"text": "", "kind": "note"}).tag(sync=True)  # kind: note or error
    events = t.List(t.Unicode()).tag(sync=True)  # the newest first
    curves = t.Dict({"steps": [], "series": {}, "marks": [], "colours": []}).tag(sync=True)
    film = t.List().tag(sync=True)  # [{"id", "label", "thumb"}]
    chunk = t.Int(CHUNK).tag(sync=True)
    largest = t.Int(MAX_BYTES).tag(sync=True)
    code = t.Dict({"python": "", "command": ""}).tag(sync=True)
    _shown: Mapping[str, str] = {}  # the inputs that are shown
    _wanted: Mapping[str, str] = {}  # and those that are to be shown

    def say(self, text: str, kind: str = "note") -> None:
        """Show one line above the picture, or none."""
        self.message = {"text": sendable(text), "kind": kind}

    def show_inputs(self, files: Mapping[str, str]) -> None:
        """Show the pictures in these files, by role ("photo", "painting"), if they are others than
        before and can be read.

        The first one gives the result its shape, and is what it is compared with."""
        self._wanted = files
        if files == self._shown:
            return
        with contextlib.suppress(InputError):  # why not is said when a run begins
            pictures = {role: im.load(name, PICTURE_SIDE) for role, name in files.items()}
            if self._wanted is not files:  # another thread shows newer ones
                return
            self._shown = files
            self.compared, first = next(iter(pictures.items()))
            self.before = jpeg(first)
            self.shape = [first.shape[-1], first.shape[-2]]
            self.inputs = [
                {"role": role, "label": Path(files[role]).stem, "thumb": jpeg(picture, THUMB_SIDE)}
                for role, picture in pictures.items()
            ]

    def show_step(self, step: Step, record: Record) -> None:
        """Show the picture after a step, the losses so far and what happened."""
        picture = step.preview()()
        self.picture = jpeg(picture)
        self.shape = [picture.shape[-1], picture.shape[-2]]
        self.curves = curve_points(record)
        self.events = list(reversed(step.events))[:EVENTS]

    def show_film(self, film: Sequence[Snapshot]) -> None:
        """Show the snapshots, if they are others than before."""
        if [snapshot.count for snapshot in film] == [shown["id"] for shown in self.film]:
            return
        self.film = [
            {
                "id": snapshot.count,
                "label": f"step {snapshot.index}"
                if snapshot.run == 1
                else f"run {snapshot.run}: {snapshot.index}",
                "thumb": jpeg(snapshot.shown, THUMB_SIDE),
            }
            for snapshot in film
        ]

    def show_status(self, phase: Phase, step: Step | None, run: Run | None, away: bool) -> None:
        """Say what the session does, how far the run has come, and how fast."""
        text = (
            "paused: nobody is looking"
            if phase is Phase.PAUSED and away
            else WORDS.get(phase, phase.value)
        )
        if step is not None:
            text += f" · step {step.index} of {run.plan.total}"
        rate = evaluation_rate(run.record) if phase is Phase.RUNNING and run is not None else 0.0
        self.status = {
            "state": phase.value,
            "text": text,
            "rate": f"{rate:.1f} evaluations/s" if rate else "",
        }
