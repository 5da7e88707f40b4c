"""What a studio shows of a painting: one widget, whose traits are the picture and all about it.

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
from nstlab.base.errors import InputError
from nstlab.figures.base import COLOURS
from nstlab.live.history import Snapshot
from nstlab.live.pages import LINE, Messages, Page, single_line
from nstlab.live.run import Run
from nstlab.live.session import Phase
from nstlab.live.uploads import CHUNK, MAX_BYTES
from nstlab.method.steps import Step
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.runs.stored import COLUMNS, Record

PICTURE_SIDE = 512  # px: long side of the live picture, at most
THUMBNAIL_SIDE = 160  # px: long side of an input or a snapshot
QUALITY = 88  # of JPEGs
POINTS = 240  # of a curve, at most; a screen shows no more
EVENTS = 30  # that are shown
RATE_STEPS = 20  # steps over which the rate is measured
# For a phase, where the page does not use its own name.
WORDS = {Phase.RUNNING: "painting", Phase.RESTING: "finished"}


def jpeg(picture: Tensor, side: int = PICTURE_SIDE) -> bytes:
    """Encode a picture as a JPEG.

    Args:
        picture: (1, 3, H, W) in [0, 1].
        side: px, its long side at most; a larger picture is made smaller.
    """
    shape = picture.shape[-2:]
    if max(shape) > side:
        picture = im.resize(picture, sizes.fit_size(shape, side))
    buffer = io.BytesIO()
    im.to_pil(picture).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def curve_points(record: Record) -> dict[str, Any]:
    """The curves of a run's losses, thinned out to about POINTS steps.

    Returns:
        {"steps", "series": {term: losses}, "marks": steps at which weights were changed,
        "colours"}. A term that was not evaluated at a step is 0 there, which a log axis leaves
        out.
    """
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

    script = "view.js"
    style = "view.css"

    picture = t.Bytes().tag(sync=True)
    before = t.Bytes().tag(sync=True)  # what the picture is compared with
    compared = t.Unicode("photo").tag(sync=True)  # what that is called
    shape = t.List(t.Int(), [0, 0]).tag(sync=True)  # width and height of the picture
    inputs = t.List().tag(sync=True)  # [{"role", "label", "thumbnail": JPEG}]
    status = t.Dict({"state": "ready", "text": "ready", "rate": ""}).tag(sync=True)
    message = t.Dict({"text": "", "kind": "note"}).tag(sync=True)  # kind: note or error
    events = t.List(t.Unicode()).tag(sync=True)  # the newest first
    curves = t.Dict({"steps": [], "series": {}, "marks": [], "colours": []}).tag(sync=True)
    snapshots = t.List().tag(sync=True)  # [{"id", "label", "thumbnail": JPEG}]
    chunk = t.Int(CHUNK).tag(sync=True)  # bytes of a file in one message
    largest = t.Int(MAX_BYTES).tag(sync=True)  # bytes of a file
    code = t.Dict({"python": "", "command": ""}).tag(sync=True)
    _shown: Mapping[str, str] = {}  # the inputs that are shown
    _wanted: Mapping[str, str] = {}  # and those that are to be shown

    def say(self, text: str, kind: str = "note") -> None:
        """Show one line above the picture; none for "".

        Args:
            text: the line.
            kind: "note", or "error", which stays until it is read.
        """
        self.message = {"text": single_line(text), "kind": kind}

    def show_inputs(self, files: Mapping[str, str]) -> None:
        """Show input pictures, if they are others than before and can be read.

        Args:
            files: names of samples, or paths, by role ("photo", "painting"). The first one gives
                the result its shape, and is what it is compared with.
        """
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
                {
                    "role": role,
                    "label": Path(files[role]).stem,
                    "thumbnail": jpeg(picture, THUMBNAIL_SIDE),
                }
                for role, picture in pictures.items()
            ]

    def show_step(self, step: Step, record: Record) -> None:
        """Show the picture after a step, the losses so far and what happened."""
        picture = step.preview()()
        self.picture = jpeg(picture)
        self.shape = [picture.shape[-1], picture.shape[-2]]
        self.curves = curve_points(record)
        self.events = list(reversed(step.events))[:EVENTS]

    def show_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Show the snapshots, if they are others than before."""
        counts = [snapshot.count for snapshot in snapshots]
        if counts == [entry["id"] for entry in self.snapshots]:
            return
        self.snapshots = [
            {
                "id": snapshot.count,
                "label": _label(snapshot),
                "thumbnail": jpeg(snapshot.shown, THUMBNAIL_SIDE),
            }
            for snapshot in snapshots
        ]

    def show_status(self, phase: Phase, step: Step | None, run: Run | None, away: bool) -> None:
        """Say what the session does, how far the run has come, and how fast.

        Args:
            phase: of the session.
            step: the last one; None if there is none yet.
            run: that made it.
            away: whether the session is paused because nobody is watching.
        """
        text = WORDS.get(phase, phase.value)
        if phase is Phase.PAUSED and away:
            text = "paused: nobody is looking"
        if step is not None:
            text += f" · step {step.index} of {run.plan.total}"
        rate = evaluation_rate(run.record) if phase is Phase.RUNNING and run is not None else 0.0
        self.status = {
            "state": phase.value,
            "text": text,
            "rate": f"{rate:.1f} evaluations/s" if rate else "",
        }


def _label(snapshot: Snapshot) -> str:
    if snapshot.run == 1:
        return f"step {snapshot.index}"
    return f"run {snapshot.run}: {snapshot.index}"
