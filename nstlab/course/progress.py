"""What a notebook shows while runs are made: a bar, and the picture being made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ipywidgets as w
from IPython.display import display
from torch import Tensor
from tqdm.auto import tqdm

from nstlab.live.static import static
from nstlab.live.viewer import jpeg

PREVIEW = 240  # px: long side of the picture
INTERVAL = 0.5  # seconds from one picture to the next, at least


class Progress:
    """A bar, and below it the picture being made; called as sweeps report.

    Args:
        total: of what the bar counts; 0 if it is not known yet.
        unit: what the bar counts.
        quiet: whether nothing is shown; nothing is shown either where nobody looks (see `static`).
    """

    def __init__(self, total: int, unit: str = "run", quiet: bool = False):
        self.quiet = quiet or bool(static())
        self.bar = tqdm(total=total, unit=unit, disable=self.quiet)
        self.picture = w.Image(format="jpeg", layout={"width": f"{PREVIEW}px"})
        self.shown_at = 0.0  # seconds, when the picture was shown last

    def __enter__(self) -> Progress:
        if not self.quiet:
            display(self.picture)
        return self

    def __call__(self, case: Any, step: Any, run: Any) -> None:
        if run is not None:
            self.bar.update()
            return
        text = f"{case} step {step.index}, loss {step.loss:.3g}".strip()
        self.show(lambda: step.preview()(), text)

    def show(self, make_picture: Callable[[], Tensor], text: str) -> None:
        """Show a picture and a text, unless others have just been shown.

        Args:
            make_picture: called only if it is shown; returns (1, 3, H, W) in [0, 1].
            text: what is written beside the bar.
        """
        if not self.quiet and time.monotonic() - self.shown_at > INTERVAL:
            self.shown_at = time.monotonic()
            self.picture.value = jpeg(make_picture(), PREVIEW)
            self.bar.set_postfix_str(text)

    def __exit__(self, *_: Any) -> None:
        self.picture.close()
        self.bar.set_postfix_str("")
        self.bar.close()
