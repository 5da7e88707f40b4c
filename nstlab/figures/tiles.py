"""The tiles that cover a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from nstlab.figures.base import (
    COLOURS,
    INK,
    LABEL,
    PAPER,
    Shown,
    new_figure,
    show,
)

if TYPE_CHECKING:
    from nstlab.method.crops import Crop
    from nstlab.method.fast.geometry import Tile


def tile_map(picture: Tensor, tiles: Sequence[Tile], number: int, title: str = "") -> Shown:
    """The picture with its tiles, and one of them with its halo, which is dimmed."""
    height, width = picture.shape[-2:]
    figure = new_figure(8.4, 0.6 + 4.1 * height / width, title)
    whole, one = figure.subplots(1, 2)
    inner = tiles[number].own
    window = tiles[number].window
    dim = torch.full(window.shape, 0.45)
    inner.relative_to(window).of(dim).fill_(1.0)
    for cell, content, name in (
        (whole, picture, "all tiles"),
        (one, 1 - dim * (1 - window.of(picture)), "one, with its halo"),
    ):
        show(cell, content)
        cell.set_title(name, fontsize=LABEL, color=INK)
    for tile in tiles:
        whole.add_patch(_outline(tile.own, PAPER, 0.8))
    whole.add_patch(_outline(window, COLOURS[0], 2.0))
    for cell, inside in ((whole, inner), (one, inner.relative_to(window))):
        cell.add_patch(_outline(inside, COLOURS[1], 2.0))
    return figure


def _outline(crop: Crop, colour: str, width: float) -> Rectangle:
    """The border of a part of a picture."""
    height, across = crop.shape
    corner = crop.columns.start - 0.5, crop.rows.start - 0.5
    return Rectangle(corner, across, height, fill=False, edgecolor=colour, linewidth=width)
