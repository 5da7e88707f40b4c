"""Figures from results: contact sheets, loss curves, before and after, feature maps.

Each function returns a matplotlib Figure that is independent of pyplot and of any global state, so that threads, notebooks and
scripts can make them. They share one look, set in `new_figure` and `styled_axes`. Pictures are (1, 3, H, W) in [0, 1].
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
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.colour import DISTINCT
from nstlab.settings import InputError

if TYPE_CHECKING:
    import pandas

    from nstlab.crops import Crop
    from nstlab.method.fast.geometry import Tile

INK, FAINT, PAPER = "#222222", "#8a8a8a", "#ffffff"
COLOURS = (*DISTINCT, "#000000")
STYLES = ("-", "--", "-.", ":")
DPI = 110
TITLE, LABEL, SMALL = 13, 10, 8.5  # points
PICTURE = 2.1  # inches: long side of a picture on a sheet
NARROW = 0.9  # inches: least width and height of a cell, so that its labels have room
QUALITIES = (92, 85, 75, 65, 50, 35)  # of JPEGs, tried in turn


class Shown(Figure):
    """A figure that notebooks show as it is, without pyplot's machinery. about: what is on it, for those who cannot see it."""

    about: str = "a figure"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
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
        figure.suptitle(_escaped(title), fontsize=TITLE, color=INK, x=0.01, ha="left", fontweight="bold")
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


def _legend(figure: Shown, curves: Sequence[Any], names: Sequence[str]) -> None:
    figure.legend(curves, names, fontsize=SMALL, frameon=False, labelcolor=INK, loc="outside right upper")


def _cells(figure: Shown, rows: int, columns: int, **ratios: Any) -> np.ndarray:
    """A grid (rows, columns) of axes for pictures, without ticks and frames."""
    cells = figure.subplots(rows, columns, squeeze=False, **ratios)
    for cell in cells.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        cell.spines[:].set_visible(False)
    return cells


def _show(cell: Axes, picture: Tensor) -> None:
    cell.imshow(np.asarray(im.to_pil(picture)), interpolation="antialiased")


def _show_input(cell: Axes, picture: Tensor, name: str) -> None:
    _show(cell, picture)
    cell.set_title(name, fontsize=SMALL, color=FAINT, style="italic")


def _wrapped(text: str, inches: float) -> str:
    """The text broken into lines that fit beside a picture."""
    return _escaped(textwrap.fill(text, max(8, round(12 * inches))))


def _escaped(text: str) -> str:
    """The text as matplotlib takes it literally; otherwise a single dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def contact_sheet(
    pictures: Sequence[Sequence[Tensor | None]],
    rows: Sequence[str],
    columns: Sequence[str] | Sequence[Sequence[str]],
    title: str = "",
    inputs: Mapping[str, Tensor] | None = None,
) -> Shown:
    """Pictures in rows and columns, with labels.

    pictures: one sequence for each row; None leaves a cell empty. columns: labels above the first row; or, if the rows differ,
    one sequence for each row. inputs: {name: picture} shown at the left of the first rows."""
    if columns and isinstance(columns[0], str):
        columns = [columns] * len(pictures)
    inputs = inputs or {}
    lead = -(-len(inputs) // max(1, len(pictures)))  # columns that the inputs need
    shapes = [[picture.shape[-2:] for picture in row if picture is not None] or [(1, 1)] for row in pictures]
    heights = [max(NARROW, max(h / max(h, w) for h, w in row) * PICTURE) for row in shapes]
    width = max(NARROW, max((w / max(h, w) for row in shapes for h, w in row), default=1) * PICTURE)
    across = lead + max(map(len, columns), default=0)
    figure = new_figure((width + 0.12) * across + 0.5, sum(heights) + 0.3 * len(pictures) + 0.75, title)
    figure.about = title or ", ".join(label for row in columns for label in row)
    cells = _cells(figure, len(pictures), across, height_ratios=heights or None)
    for cell, (name, picture) in zip(cells[:, :lead].flat, inputs.items(), strict=False):
        _show_input(cell, picture, name)
    for i, (row, name) in enumerate(zip(pictures, rows, strict=True)):
        for j, (cell, picture, label) in enumerate(zip(cells[i, lead:], row, columns[i], strict=False)):
            if picture is not None:
                _show(cell, picture)
            if i == 0 or columns[i] != columns[i - 1]:
                cell.set_title(_wrapped(label, width), fontsize=LABEL, color=INK)
            if j == 0 and name:
                cell.set_ylabel(_wrapped(name, heights[i]), fontsize=LABEL, color=INK)
    return figure


def loss_curves(
    histories: Mapping[str, pandas.DataFrame], terms: Sequence[str] = ("loss",), against: str = "evaluations", title: str = ""
) -> Shown:
    """Losses on log axes, a panel for each term, a curve for each history.

    Only steps at the full size are drawn, since losses at different sizes cannot be compared. against: "evaluations", "seconds"
    or "step"."""
    figure, curves = new_figure(1.2 + 4.2 * len(terms), 3.6, title), {}
    for panel, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        styled_axes(
            panel, "seconds (s)" if against == "seconds" else against, "total loss" if term == "loss" else f"{term} loss"
        )
        for i, (name, history) in enumerate(histories.items()):
            full = history[history["level"] == history["level"].max()]
            if term not in full or full.empty:
                continue
            colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
            marker = "o" if len(full) == 1 else ""
            (curve,) = panel.plot(full[against], full[term], marker=marker, color=colour, linestyle=style, linewidth=1.6)
            curves.setdefault(_escaped(name), curve)
        panel.set_yscale("log")
        if against == "evaluations":
            panel.set_xscale("log")
    if curves:
        _legend(figure, list(curves.values()), list(curves))
    return figure


def before_after(photo: Tensor, painting: Tensor, result: Tensor, title: str = "") -> Shown:
    """Photo, painting and result side by side, at the same height."""
    pictures = {"photo": photo, "painting": painting, "result": result}
    ratios = [picture.shape[-1] / picture.shape[-2] for picture in pictures.values()]
    figure = new_figure(0.3 + 3 * sum(ratios), 3.5, title)
    for cell, (name, picture) in zip(_cells(figure, 1, 3, width_ratios=ratios)[0], pictures.items(), strict=True):
        _show(cell, picture)
        cell.set_title(name, fontsize=LABEL, color=INK)
    return figure


def feature_maps(features: Mapping[str, Tensor], photo: Tensor, count: int = 6, title: str = "") -> Shown:
    """The photo, and maps of some layers that differ from each other, one row for each layer.

    features: {layer: (1, C, h, w)}. count: maps of each layer. Black is 0, or the map's lowest value if that is negative; white
    is what only one position in two hundred exceeds."""
    sides = next(iter(features.values())).shape[-2:]
    height, width = (max(NARROW, 0.9 * PICTURE * side / max(sides)) for side in sides)
    figure = new_figure((width + 0.06) * (count + 1) + 0.4, (height + 0.1) * len(features) + 0.6, title)
    cells = _cells(figure, len(features), count + 1)
    _show_input(cells[0, 0], photo, "photo")
    for row, (layer, maps) in zip(cells[:, 1:], features.items(), strict=True):
        maps = maps.detach()[0].float().cpu()
        for cell, channel in zip(row, _unlike(maps, count), strict=False):
            black, white = min(0.0, float(maps[channel].min())), float(maps[channel].quantile(0.995))
            cell.imshow(maps[channel].numpy(), cmap="gray", vmin=black, vmax=max(white, black + 1e-6), interpolation="nearest")
        row[0].set_ylabel(f"{layer}\n{maps.shape[1]}×{maps.shape[2]}", fontsize=LABEL, color=INK)
    return figure


def _unlike(maps: Tensor, count: int) -> list[int]:
    """Channels of maps (C, h, w) that answer strongly, each as little correlated with those before it as can be."""
    flat = maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True)
    strength, order = flat.norm(dim=1).sort(descending=True)
    strong = order[: max(1, min(4 * count, int((strength > 0).sum())))]
    rows = flat[strong] / flat[strong].norm(dim=1, keepdim=True).clamp_min(1e-12)
    chosen = [0]
    while len(chosen) < min(count, len(rows)):
        likeness = (rows @ rows[chosen].T).abs().amax(1)
        likeness[chosen] = 2.0
        chosen.append(int(likeness.argmin()))
    return strong[chosen].tolist()


def receptive_fields(photo: Tensor, widths: Mapping[str, int], title: str = "") -> Shown:
    """The photo, and on it the square that one position in the middle of each layer sees. widths: {layer: pixels}."""
    height, width = photo.shape[-2:]
    figure = new_figure(2.4 * PICTURE + 1.8, 2.4 * PICTURE * height / width + 0.5, title)
    cell, squares = _cells(figure, 1, 1)[0, 0], []
    _show(cell, photo)
    for side, colour in zip(widths.values(), COLOURS, strict=False):
        corner = (width - side - 1) / 2, (height - side - 1) / 2  # pixels are drawn around whole numbers
        squares.append(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2.2))
        cell.add_patch(squares[-1])
    _legend(figure, squares, [f"{layer}: {side} px" for layer, side in widths.items()])
    return figure


def tile_map(picture: Tensor, tiles: Sequence[Tile], number: int, title: str = "") -> Shown:
    """The picture with the tiles that cover it, and one of them: its own pixels, and dimmed around them its halo."""
    height, width = picture.shape[-2:]
    figure = new_figure(8.4, 0.6 + 4.1 * height / width, title)
    whole, one = figure.subplots(1, 2)
    own, window = tiles[number].own, tiles[number].window
    dim = torch.full(window.shape, 0.45)
    own.within(window).of(dim).fill_(1.0)
    for cell, shown, name in ((whole, picture, "all tiles"), (one, 1 - dim * (1 - window.of(picture)), "one, with its halo")):
        _show(cell, shown)
        cell.set_title(name, fontsize=LABEL, color=INK)
    for tile in tiles:
        whole.add_patch(_outline(tile.own, PAPER, 0.8))
    whole.add_patch(_outline(window, COLOURS[0], 2.0))
    for cell, inside in ((whole, own), (one, own.within(window))):
        cell.add_patch(_outline(inside, COLOURS[1], 2.0))
    return figure


def _outline(crop: Crop, colour: str, width: float) -> Rectangle:
    """The border of a part of a picture."""
    height, across = crop.shape
    corner = crop.columns.start - 0.5, crop.rows.start - 0.5
    return Rectangle(corner, across, height, fill=False, edgecolor=colour, linewidth=width)


def matrices(shown: Mapping[str, Tensor], title: str = "") -> Shown:
    """Matrices (N, N) of values that are not negative, side by side, on one logarithmic scale of grey."""
    figure = new_figure(0.6 + 2.6 * len(shown), 2.9, title)
    values = {name: matrix.detach().float().cpu().numpy() for name, matrix in shown.items()}
    top = max(float(matrix.max()) for matrix in values.values())
    for cell, (name, matrix) in zip(_cells(figure, 1, len(values))[0], values.items(), strict=True):
        cell.imshow(np.log10(matrix.clip(top * 1e-4) / top), cmap="gray", vmin=-4, vmax=0, interpolation="nearest")
        cell.set_title(name, fontsize=LABEL, color=INK)
    return figure


def valley(
    height: Callable[[Tensor], Tensor], paths: Mapping[str, np.ndarray], x: Sequence[float], y: Sequence[float], title: str = ""
) -> Shown:
    """Paths (steps, 2) over the contours of a function of two numbers, and the function along each path, on a log axis.

    height: (..., 2) -> (...), positive. x, y: the ranges that are shown."""
    figure = new_figure(9.5, 3.8, title)
    plane, curve = figure.subplots(1, 2)
    across, up = torch.linspace(*x, 200), torch.linspace(*y, 200)
    ground = height(torch.stack(torch.meshgrid(across, up, indexing="xy"), -1))
    levels = np.geomspace(max(float(ground.min()), 1e-3), float(ground.max()), 16)
    styled_axes(plane, "x", "y").contour(across, up, ground, levels=levels, colors="#bbbbbb", linewidths=0.7)
    styled_axes(curve, "step", "value").set_yscale("log")
    for (name, path), colour in zip(paths.items(), COLOURS, strict=False):
        plane.plot(*path.T, color=colour, marker=".", markersize=3, linewidth=1.2, label=name)
        curve.plot(height(torch.from_numpy(path)).clamp_min(1e-12), color=colour, linewidth=1.6)
    plane.set(xlim=x, ylim=y)
    plane.grid(False)
    _legend(figure, *plane.get_legend_handles_labels())
    return figure


def save_figure(figure: Shown, path: str | Path, largest: int | None = None) -> Path:
    """Write a figure as PNG or JPEG, as its ending says, whole or not at all. A JPEG gets a lower quality if it needs more than
    `largest` bytes. Raises InputError if it cannot be written, or is still too large."""
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
