"""The look that all figures share, and how they are shown and written.

A figure is independent of pyplot and of any global state, so that threads, notebooks and scripts
can make it. Pictures are (1, 3, H, W) sRGB in [0, 1].
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.pictures.colour import DISTINCT

INK, FAINT, PAPER = "#222222", "#8a8a8a", "#ffffff"
COLOURS = (*DISTINCT, "#000000")
STYLES = ("-", "--", "-.", ":")
DPI = 110
TITLE, LABEL, SMALL = 13, 10, 8.5  # points
PICTURE = 2.1  # inches: long side of a picture on a sheet
NARROW = 0.9  # inches: least width and height of a cell, so that its labels have room
QUALITIES = (92, 85, 75, 65, 50, 35)  # of JPEGs, tried in turn


class Shown(Figure):
    """A figure that notebooks show as it is, without pyplot's machinery.

    Attributes:
        about: what is on it, for those who cannot see it.
    """

    about: str = "a figure"

    def _repr_mimebundle_(
        self, **options: Any
    ) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
        return {"image/png": self._repr_png_()}, {"image/png": {"alt": self.about}}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor=PAPER)
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> Shown:
    """An empty figure, sized in inches, with a title at the left."""
    width = max(width, 0.5 + 0.13 * len(title))
    figure = Shown((width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.about = title
        figure.suptitle(
            escape(title), fontsize=TITLE, color=INK, x=0.01, ha="left", fontweight="bold"
        )
    return figure


def styled_axes(axes: Axes, x: str, y: str) -> Axes:
    """The look of axes with curves."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.tick_params(which="both", labelsize=SMALL, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def legend(figure: Shown, curves: Sequence[Any], names: Sequence[str]) -> None:
    figure.legend(
        curves, names, fontsize=SMALL, frameon=False, labelcolor=INK, loc="outside right upper"
    )


def picture_cells(figure: Shown, rows: int, columns: int, **ratios: Any) -> np.ndarray:
    """A grid (rows, columns) of axes for pictures, without ticks and frames."""
    cells = figure.subplots(rows, columns, squeeze=False, **ratios)
    for cell in cells.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        cell.spines[:].set_visible(False)
    return cells


def show(cell: Axes, picture: Tensor) -> None:
    cell.imshow(np.asarray(im.to_pil(picture)), interpolation="antialiased")


def show_input(cell: Axes, picture: Tensor, name: str) -> None:
    show(cell, picture)
    cell.set_title(name, fontsize=SMALL, color=FAINT, style="italic")


def wrap(text: str, inches: float) -> str:
    """The text broken into lines that fit beside a picture."""
    return escape(textwrap.fill(text, max(8, round(12 * inches))))


def escape(text: str) -> str:
    """The text as matplotlib takes it literally.

    Otherwise a single dollar sign would begin a formula.
    """
    return text.replace("$", r"\$")


def save_figure(figure: Shown, path: str | Path, largest: int | None = None) -> Path:
    """Write a figure as PNG or JPEG, as its ending says, whole or not at all.

    A JPEG gets a lower quality if it needs more than `largest` bytes.

    Raises:
        InputError: if it cannot be written, or is still too large.
    """
    path = im.check_writable(Path(path))
    picture = Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")
    kind = im.FORMATS[path.suffix.lower()]
    with files.replacing(path) as temporary:
        if kind != "JPEG":
            picture.save(temporary, kind, optimize=True)
            return path
        for quality in QUALITIES:
            picture.save(temporary, kind, quality=quality, optimize=True)
            if largest is None or temporary.stat().st_size <= largest:
                return path
        raise InputError(f"{path}: a picture of this size does not fit into {largest} bytes")
