"""The row of the studio: how soon a moved control is seen."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

from benchmarks.scene import BenchSettings, Row


def live(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Seconds from moving a control of the studio until a picture made with it is sent to the page.

    The studio paints meanwhile; the wait for the next of five frames a second is included.
    """
    from nstlab.live.studio import Studio, first_settings

    with tempfile.TemporaryDirectory() as folder:
        settings = first_settings().replace(weights="embedded", steps=1_000_000)
        studio = Studio(settings, results=folder, device=device.type)
        try:
            studio.resume()
            for name, moves in MOVES.items():
                seconds = [_until_shown(studio, name, value) for value in moves]
                values = {"median, s": median(seconds), "longest, s": max(seconds)}
                yield Row(f"live at 256 px: {name}", values, "1 s or less", max(seconds) <= 1)
        finally:
            studio.close()


MOVES = {  # fields of the settings, and what they are moved to
    "beta": [100.0 * (1 + i % 7) for i in range(20)],
    "style_weights": [(0.1 * (i % 5), 0.2, 0.2, 0.2, 0.2) for i in range(10)],
    "content_layers": [("conv3_2",), ("conv4_2",)] * 3,
    "tv": [0.1, 0.0] * 3,
    "pool": ["max", "avg"] * 3,
    "painting": ["mosaic", "swirl_strokes"] * 3,
    "size": [192, 256] * 3,
}


def _until_shown(studio: Any, name: str, value: Any) -> float:
    """Seconds from moving a control to the first picture that was made with it."""
    last = studio.session.step
    is_shown = threading.Event()
    enough = 30 if last is None else last.index + 3
    while studio.session.step is None or studio.session.step.index < enough:
        time.sleep(0.01)

    def seen(_: Any) -> None:
        if getattr(studio.painting.settings, name) == value:
            is_shown.set()

    studio.view.observe(seen, names="picture")
    began = time.perf_counter()
    studio.controls.change(**{name: value})
    if not is_shown.wait(60):
        raise RuntimeError(f"the studio does not show {name}: {studio.view.message}")
    studio.view.unobserve(seen, names="picture")
    return time.perf_counter() - began
