"""Where tiles lie: halos, positions at each layer, and the sizes with which they cost least."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from nstlab.base.names import POOL, rectified
from nstlab.method.crops import Crop
from nstlab.method.terms import PIXELS
from nstlab.networks.vgg import VGG, halvings

RECOMPUTE = 0.45  # what computing features a second time costs, of what an evaluation costs


def tiles(
    net: VGG, layers: Iterable[str], shape: Sequence[int], side: int, halo: int | None = None
) -> list[Tile]:
    """The tiles of a picture for these layers.

    Args:
        net: the network.
        layers: those that are read, by name.
        shape: (H, W) of the picture.
        side: of the tiles in pixels, rounded up to the pooling grid.
        halo: in pixels, rounded up as well; by default what the layers see, with which nothing is
            lost.
    """
    reads = {rectified(layer) for layer in layers}
    grid = grid_of(net, reads)
    if halo is None:
        halo = halo_of(net, dict.fromkeys(reads, 0))
    return tile_grid(shape, (round_up(side, grid),) * 2, grid, round_up(halo, grid))


def round_up(pixels: int, grid: int) -> int:
    """The least multiple of the grid that is not below a number of pixels."""
    return -(-pixels // grid) * grid


def grid_of(net: VGG, reads: Collection[str]) -> int:
    """The distance in pixels between two positions of the deepest layer."""
    return 2 ** max(map(halvings, reads), default=0)


def halo_of(net: VGG, margins: Mapping[str, int]) -> int:
    """How many pixels beyond its own a tile's features see, rounded up to the grid.

    Args:
        margins: {layer that is read: how many positions more than its own are needed there}.
    """
    reach = 0
    step = 1
    most = margins.get(PIXELS, 0)
    for name in net.architecture.layers_until(margins.keys() - {PIXELS}):
        if name.startswith(POOL):
            step *= 2  # what a pooling sees of the next position is that position's own
        elif name.startswith("conv"):
            reach += step
        if name in margins:
            most = max(most, reach + step * margins[name])
    return round_up(most, step)


@dataclass(frozen=True)
class Tile:
    """A part of a picture.

    Attributes:
        own: the pixels that it stands for, among all (H, W).
        window: those that are read for it, with the halo.
    """

    own: Crop
    window: Crop

    def crop(self, read: str) -> Crop:
        """The tile's own positions at a layer, among all there."""
        return _at_layer(self.own, read)

    def inside(self, read: str, crop: Crop) -> Crop:
        """Positions of a layer, counted in the features of the window."""
        return crop.relative_to(_at_layer(self.window, read))


def _at_layer(crop: Crop, read: str) -> Crop:
    """The positions of a layer for which pixels stand."""
    if read == PIXELS:
        return crop
    step = 2 ** halvings(read)
    height, width = crop.whole
    return Crop(
        _span_at_layer(crop.rows, height, step),
        _span_at_layer(crop.columns, width, step),
        (height // step, width // step),
    )


def _span_at_layer(span: slice, length: int, step: int) -> slice:
    """The positions, so many pixels apart, of a span of a length in pixels.

    At the end they are whatever the poolings have left.
    """
    stop = length if span.stop >= length else span.stop
    return slice(span.start // step, stop // step)


def tile_grid(shape: Sequence[int], sides: Sequence[int], grid: int, halo: int) -> list[Tile]:
    """Tiles that cover a picture, row by row.

    Args:
        shape: (H, W) of the picture.
        sides: (h, w) of the tiles, multiples of the grid; those at the far ends may be smaller.
        grid: see `grid_of`.
        halo: pixels of a window around the tile's own.
    """
    whole = int(shape[0]), int(shape[1])
    row_spans, column_spans = (
        _spans(length, side, grid) for length, side in zip(whole, sides, strict=True)
    )
    crops = [Crop(rows, columns, whole) for rows in row_spans for columns in column_spans]
    return [Tile(crop, crop.wider(halo)) for crop in crops]


def _spans(length: int, side: int, grid: int) -> list[slice]:
    """Spans of so many pixels that cover a length; the last one has what is left of it."""
    end = length - length % grid or length  # no tile begins in less than a position
    spans = [slice(first, min(first + side, length)) for first in range(0, end, side)]
    last = spans[-1]
    if length - last.stop < grid:
        spans[-1] = slice(last.start, length)
    return spans


def best_sides(
    shape: Sequence[int], grid: int, halo: int, pixels: float, ranks: int = 1
) -> tuple[int, int] | None:
    """The sizes of tiles with which an evaluation costs least.

    Args:
        shape: (H, W) of the picture.
        grid: see `grid_of`.
        halo: see `halo_of`.
        pixels: of which each rank can hold the features at once.
        ranks: how many there are.

    Returns:
        (h, w), multiples of the grid; None if not even the smallest tiles fit, or if these are
        fewer than the ranks.
    """
    whole = [max(1, length // grid) for length in shape]
    sides = [sorted({grid * -(-size // n) for n in range(1, size + 1)}) for size in whole]
    costs: dict[tuple[int, int], float] = {}
    for h, w in itertools.product(*sides):
        area = prod(
            min(length, side + 2 * halo + grid - 1)
            for length, side in zip(shape, (h, w), strict=True)
        )
        count = prod(-(-size * grid // side) for size, side in zip(whole, (h, w), strict=True))
        tiles_a_rank = -(-count // ranks)
        kept = min(tiles_a_rank, pixels // area)
        if kept >= 1 and count >= ranks:
            costs[h, w] = tiles_a_rank * area * (1 + RECOMPUTE * (1 - kept / tiles_a_rank))
    return min(costs, key=costs.__getitem__, default=None)
