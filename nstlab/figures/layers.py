"""What layers hold: feature maps, receptive fields, matrices such as Gram's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from nstlab.figures.base import (
    COLOURS,
    INK,
    LABEL,
    NARROW,
    PICTURE,
    Shown,
    legend,
    new_figure,
    picture_cells,
    show,
    show_input,
)


def feature_maps(
    features: Mapping[str, Tensor], photo: Tensor, count: int = 6, title: str = ""
) -> Shown:
    """The photo, and maps of some layers that differ from each other, one row for each layer.

    Black is 0, or the map's lowest value if that is negative; white is what only one position in
    two hundred exceeds.

    Args:
        features: {layer: (1, C, h, w)}.
        count: maps of each layer.
    """
    sides = next(iter(features.values())).shape[-2:]
    height, width = (max(NARROW, 0.9 * PICTURE * side / max(sides)) for side in sides)
    figure = new_figure(
        (width + 0.06) * (count + 1) + 0.4, (height + 0.1) * len(features) + 0.6, title
    )
    cells = picture_cells(figure, len(features), count + 1)
    show_input(cells[0, 0], photo, "photo")
    for row, (layer, maps) in zip(cells[:, 1:], features.items(), strict=True):
        maps = maps.detach()[0].float().cpu()
        for cell, channel in zip(row, _unlike(maps, count), strict=False):
            black = min(0.0, float(maps[channel].min()))
            white = float(maps[channel].quantile(0.995))
            cell.imshow(
                maps[channel].numpy(),
                cmap="gray",
                vmin=black,
                vmax=max(white, black + 1e-6),
                interpolation="nearest",
            )
        row[0].set_ylabel(f"{layer}\n{maps.shape[1]}×{maps.shape[2]}", fontsize=LABEL, color=INK)
    return figure


def _unlike(maps: Tensor, count: int) -> list[int]:
    """Channels of maps (C, h, w) that answer strongly, each as little correlated with those before
    it as can be."""
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
    """The photo, and on it the square that one position in the middle of each layer sees.

    Args:
        widths: {layer: pixels}.
    """
    height, width = photo.shape[-2:]
    figure = new_figure(2.4 * PICTURE + 1.8, 2.4 * PICTURE * height / width + 0.5, title)
    cell = picture_cells(figure, 1, 1)[0, 0]
    squares = []
    show(cell, photo)
    for side, colour in zip(widths.values(), COLOURS, strict=False):
        # Pixels are drawn around whole numbers.
        corner = (width - side - 1) / 2, (height - side - 1) / 2
        squares.append(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2.2))
        cell.add_patch(squares[-1])
    legend(figure, squares, [f"{layer}: {side} px" for layer, side in widths.items()])
    return figure


def matrices(tensors: Mapping[str, Tensor], title: str = "") -> Shown:
    """Matrices (N, N) of values ≥ 0, side by side, on one logarithmic grey scale."""
    figure = new_figure(0.6 + 2.6 * len(tensors), 2.9, title)
    values = {name: matrix.detach().float().cpu().numpy() for name, matrix in tensors.items()}
    top = max(float(matrix.max()) for matrix in values.values())
    for cell, (name, matrix) in zip(
        picture_cells(figure, 1, len(values))[0], values.items(), strict=True
    ):
        cell.imshow(
            np.log10(matrix.clip(top * 1e-4) / top),
            cmap="gray",
            vmin=-4,
            vmax=0,
            interpolation="nearest",
        )
        cell.set_title(name, fontsize=LABEL, color=INK)
    return figure
