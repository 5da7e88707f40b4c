"""What a studio shows of a run: one widget, whose traits are the picture, its inputs, curves, events and snapshots.

The widget's page (view.js) draws them, and sends what the user does as messages {"do": ...}. Pictures go there as
JPEGs of at most SIDE pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t
from torch import Tensor

from nstlab import images as im
from nstlab.figures import COLOURS
from nstlab.live.uploads import CHUNK, LARGEST
from nstlab.runs.stored import COLUMNS, Record

HERE = Path(__file__).parent
SIDE = 512  # px: long side of the live picture, at most
THUMB = 160  # px: long side of an input or a snapshot
QUALITY = 88  # of JPEGs
POINTS = 240  # of a curve at most; a screen shows no more
EVENTS = 30  # that are shown, the newest first


def jpeg(picture: Tensor, side: int = SIDE) -> bytes:
    """(1, 3, H, W) in [0, 1] -> a JPEG whose long side is at most so many pixels."""
    shape = picture.shape[-2:]
    if max(shape) > side:
        picture = im.resize(picture, im.fit_size(shape, side))
    buffer = io.BytesIO()
    im.to_pil(picture).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def curves(record: Record) -> dict[str, Any]:
    """Losses by term against steps, thinned out to POINTS, and the steps at which weights were changed. A term that was not
    evaluated at a step is 0 there, which a log axis leaves out."""
    rows = record.rows[:: max(1, -(-len(record.rows) // POINTS))]
    if record.rows and rows[-1] is not record.rows[-1]:
        rows = [*rows, record.rows[-1]]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    series = {name: [float(f"{row.get(name, 0.0):.4g}") for row in rows] for name in names}
    marks = [step for step, _ in record.changes][-POINTS:]
    return {"steps": [row["step"] for row in rows], "series": series, "marks": marks, "colours": list(COLOURS[: len(names)])}


class Viewer(anywidget.AnyWidget):
    """The page. Traits go one way, to the browser; messages come back through `on_msg`."""

    _esm = HERE / "view.js"
    _css = HERE / "view.css"

    picture = t.Bytes().tag(sync=True)
    before = t.Bytes().tag(sync=True)
    compared = t.Unicode("photo").tag(sync=True)  # what `before` is
    shape = t.List(t.Int(), [0, 0]).tag(sync=True)  # width and height of the picture
    inputs = t.List().tag(sync=True)  # [{"role", "label", "thumb"}]
    status = t.Dict({"state": "ready", "text": "ready", "rate": ""}).tag(sync=True)
    message = t.Dict({"text": "", "kind": "note"}).tag(sync=True)  # kind: note or error
    events = t.List(t.Unicode()).tag(sync=True)
    curves = t.Dict({"steps": [], "series": {}, "marks": [], "colours": []}).tag(sync=True)
    film = t.List().tag(sync=True)  # [{"id", "label", "thumb"}]
    chunk = t.Int(CHUNK).tag(sync=True)
    largest = t.Int(LARGEST).tag(sync=True)
    code = t.Dict({"python": "", "command": ""}).tag(sync=True)

    def say(self, text: str, kind: str = "note") -> None:
        """Show one line above the picture, or none."""
        self.message = {"text": text, "kind": kind}

    def show_inputs(self, pictures: Mapping[str, Tensor], labels: Mapping[str, str], compared: str) -> None:
        """pictures, labels: by role, "photo" or "painting"; one of them is what the result is compared with."""
        self.compared, self.before = compared, jpeg(pictures[compared])
        self.inputs = [{"role": role, "label": labels[role], "thumb": jpeg(p, THUMB)} for role, p in pictures.items()]

    def show_events(self, events: Sequence[str]) -> None:
        self.events = list(reversed(events))[:EVENTS]
