"""Figures from results: contact sheets, loss curves, before and after, feature maps.

Each function returns a matplotlib Figure that belongs to nobody: no pyplot, no global state, so that threads, notebooks and
scripts can make them. They share one look, set in `_figure` and `_axes`. Pictures are (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.settings import InputError

if TYPE_CHECKING:
    import pandas

INK, FAINT, PAPER = "#222222", "#8a8a8a", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito: for all eyes
STYLES = ("-", "--", "-.", ":")
DPI = 110
TITLE, LABEL, SMALL = 13, 10, 8.5  # points
SIDE = 2.1  # inches: long side of a picture on a sheet
NARROW = 0.9  # inches: a place is at least so wide and high, for its labels' sake
LARGEST = 300_000  # bytes of a sheet in the gallery

Grid = Sequence[Sequence[Tensor | None]]


class Shown(Figure):
    """A figure that notebooks show as it is, without pyplot's machinery."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor=PAPER)
        return buffer.getvalue()


def _figure(width: float, height: float, title: str = "") -> Shown:
    """An empty figure of so many inches, with a title at the left."""
    width = max(width, 0.5 + 0.13 * len(title))
    figure = Shown((width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(_escaped(title), fontsize=TITLE, color=INK, x=0.01, ha="left", fontweight="bold")
    return figure


def _axes(axes: Axes, x: str, y: str) -> Axes:
    """The look of axes with curves."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.tick_params(which="both", labelsize=SMALL, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _show(axes: Axes, picture: Tensor | None) -> None:
    """A picture without ticks; nothing where there is none."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if picture is not None:
        axes.imshow(np.asarray(im.to_pil(picture)), interpolation="antialiased")


def _wrapped(text: str, inches: float) -> str:
    """Broken into lines that fit beside a picture."""
    return _escaped(textwrap.fill(text, max(8, round(12 * inches))))


def _escaped(text: str) -> str:
    """Without matplotlib's mathematics, which an unbalanced dollar sign would break."""
    return text.replace("$", r"\$")


def contact_sheet(
    pictures: Grid,
    rows: Sequence[str],
    columns: Sequence[str] | Sequence[Sequence[str]],
    title: str = "",
    inputs: Mapping[str, Tensor] | None = None,
) -> Shown:
    """Pictures in rows and columns with their labels.

    pictures: one sequence a row; None leaves a place empty. columns: labels above the first row; or, one sequence a row,
    above each picture, where rows differ. inputs: {name: picture} shown at the left of the first rows."""
    each = [list(c) for c in columns] if columns and not isinstance(columns[0], str) else [list(columns)] * len(pictures)
    across = max(map(len, each), default=0)
    inputs = dict(inputs or {})
    height = len(pictures)
    lead = -(-len(inputs) // max(1, height))  # columns of inputs
    shapes = [[p.shape[-2:] for p in row if p is not None] or [(1, 1)] for row in pictures]
    talls = [max(NARROW, max(h / max(h, w) for h, w in row) * SIDE) for row in shapes]
    wide = max(NARROW, max((w / max(h, w) for row in shapes for h, w in row), default=1) * SIDE)
    figure = _figure((wide + 0.12) * (across + lead) + 0.5, sum(talls) + 0.3 * height + 0.75, title)
    places = figure.subplots(height, across + lead, squeeze=False, height_ratios=talls or None)
    for place in places.flat:
        _show(place, None)
    for place, (name, picture) in zip(places[:, :lead].flat, inputs.items(), strict=False):
        _show(place, picture)
        place.set_title(name, fontsize=SMALL, color=FAINT, style="italic")
    for i, (row, name) in enumerate(zip(pictures, rows, strict=True)):
        for j, (picture, column) in enumerate(zip(row, each[i], strict=True)):
            place = places[i, j + lead]
            _show(place, picture)
            if i == 0 or each[i] != each[i - 1]:
                place.set_title(_wrapped(column, wide), fontsize=LABEL, color=INK)
            if j == 0 and name:
                place.set_ylabel(_wrapped(name, talls[i]), fontsize=LABEL, color=INK)
    return figure


def loss_curves(
    histories: Mapping[str, pandas.DataFrame], terms: Sequence[str] = ("loss",), against: str = "evaluations", title: str = ""
) -> Shown:
    """Losses on log axes, a panel for each term, a curve for each history. Steps at the full size only: at another size a
    loss is another number. against: "evaluations", "seconds" or "step"."""
    figure = _figure(1.2 + 4.2 * len(terms), 3.6, title)
    panels, curves = figure.subplots(1, len(terms), squeeze=False)[0], {}
    for panel, term in zip(panels, terms, strict=True):
        _axes(panel, against + (" (s)" if against == "seconds" else ""), "total loss" if term == "loss" else f"{term} loss")
        for i, (name, history) in enumerate(histories.items()):
            if term not in history:
                continue
            full = history[history["level"] == history["level"].max()]
            if full.empty:
                continue
            colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
            marker = "o" if len(full) == 1 else ""
            (curve,) = panel.plot(full[against], full[term], marker=marker, color=colour, linestyle=style, linewidth=1.6)
            curves.setdefault(_escaped(name), curve)
        panel.set_yscale("log")
        if against == "evaluations":
            panel.set_xscale("log")
    if curves:
        figure.legend(curves.values(), curves, fontsize=SMALL, frameon=False, labelcolor=INK, loc="outside right upper")
    return figure


def before_after(photo: Tensor, painting: Tensor, result: Tensor, title: str = "") -> Shown:
    """Photo, painting and result side by side, of one height."""
    pictures = {"photo": photo, "painting": painting, "result": result}
    ratios = [picture.shape[-1] / picture.shape[-2] for picture in pictures.values()]
    figure = _figure(0.3 + 3 * sum(ratios), 3.5, title)
    for place, (name, picture) in zip(figure.subplots(1, 3, width_ratios=ratios), pictures.items(), strict=True):
        _show(place, picture)
        place.set_title(name, fontsize=LABEL, color=INK)
    return figure


def feature_maps(features: Mapping[str, Tensor], count: int = 8, photo: Tensor | None = None, title: str = "") -> Shown:
    """The strongest maps of some layers, a row a layer, each from 0, or its lowest value (black), to its largest (white).

    features: {layer: (1, C, h, w)}. count: maps a layer, those with the largest variance over positions."""
    lead = photo is not None
    shapes = [f.shape[-2:] for f in features.values()]
    tall, wide = (max(NARROW, SIDE * 0.75 * side / max(shapes[0])) for side in shapes[0])
    figure = _figure((wide + 0.1) * (count + lead) + 0.5, (tall + 0.22) * len(features) + 0.6, title)
    places = figure.subplots(len(features), count + lead, squeeze=False)
    for place in places.flat:
        _show(place, None)
    if lead:
        _show(places[0, 0], photo)
        places[0, 0].set_title("photo", fontsize=SMALL, color=FAINT, style="italic")
    for row, (layer, maps) in zip(places, features.items(), strict=True):
        maps = maps.detach()[0].float().cpu()
        chosen = maps.flatten(1).var(1).argsort(descending=True)[:count].tolist()
        for place, channel in zip(row[lead:], chosen, strict=False):
            shown, low = maps[channel].numpy(), min(0.0, float(maps[channel].min()))
            place.imshow(shown, cmap="gray", vmin=low, interpolation="nearest")
            place.set_title(f"#{channel}", fontsize=SMALL - 1, color=FAINT, pad=2)
        row[int(lead)].set_ylabel(f"{layer}\n{maps.shape[2]}×{maps.shape[1]}", fontsize=LABEL, color=INK)
    return figure


def matrices(shown: Mapping[str, Tensor], title: str = "") -> Shown:
    """Matrices (N, N) of values of 0 or more side by side, on one logarithmic scale of grey."""
    figure = _figure(0.6 + 2.6 * len(shown), 2.9, title)
    values = {name: matrix.detach().float().cpu().numpy() for name, matrix in shown.items()}
    top = max(float(v.max()) for v in values.values())
    for place, (name, v) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        _show(place, None)
        place.imshow(np.log10(v.clip(top * 1e-4) / top), cmap="gray", vmin=-4, vmax=0, interpolation="nearest")
        place.set_title(name, fontsize=LABEL, color=INK)
    return figure


def valley(
    height: Callable[[Tensor], Tensor], ways: Mapping[str, np.ndarray], x: tuple[float, float], y: tuple[float, float],
    title: str = "",
) -> Shown:  # fmt: skip
    """Paths (steps, 2) over the contours of a function of two numbers, and its value along each, on a log axis.

    height: (..., 2) -> (...), more than 0. x, y: what is shown."""
    figure = _figure(9.5, 3.8, title)
    plane, curve = figure.subplots(1, 2)
    across, up = torch.linspace(*x, 200), torch.linspace(*y, 200)
    ground = height(torch.stack(torch.meshgrid(across, up, indexing="xy"), -1))
    levels = np.geomspace(max(float(ground.min()), 1e-3), float(ground.max()), 16)
    _axes(plane, "x", "y").contour(across, up, ground, levels=levels, colors="#bbbbbb", linewidths=0.7)
    _axes(curve, "step", "value").set_yscale("log")
    for (name, way), colour in zip(ways.items(), COLOURS, strict=False):
        plane.plot(*way.T, color=colour, marker=".", markersize=3, linewidth=1.2, label=name)
        curve.plot(height(torch.from_numpy(way)).clamp_min(1e-12), color=colour, linewidth=1.6)
    plane.set_xlim(*x)
    plane.set_ylim(*y)
    plane.grid(False)
    figure.legend(*plane.get_legend_handles_labels(), fontsize=SMALL, frameon=False, labelcolor=INK, loc="outside right upper")
    return figure


# --- files ------------------------------------------------------------------------------------------------------


def save(figure: Shown, path: str | Path, largest: int | None = None) -> Path:
    """Write a figure as PNG or JPEG, by its ending, whole or not at all; a JPEG in at most so many bytes, if that can be
    had by a lower quality. Raises InputError if it cannot be written."""
    path = im.check_writable(Path(path))
    picture = Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")
    kind = im.FORMATS[path.suffix.lower()]
    with files.replacing(path) as temporary:
        for quality in (92, 85, 75, 65, 50, 35):
            options: dict[str, Any] = {"quality": quality, "optimize": True} if kind == "JPEG" else {"optimize": True}
            picture.save(temporary, kind, **options)
            if largest is None or kind != "JPEG" or temporary.stat().st_size <= largest:
                return path
        raise InputError(f"{path}: a picture of this size does not fit into {largest} bytes")
