"""Where tiles lie: their halos, their positions at each layer, and the sizes with which an
evaluation costs least."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from nstlab.base.names import POOL, rectified
from nstlab.method.crops import Crop
from nstlab.method.terms import PIXELS
from nstlab.networks.vgg import VGG, halvings

AGAIN = 0.45  # what computing features a second time costs, of what an evaluation costs


def tiles(
    net: VGG, layers: Iterable[str], shape: Sequence[int], side: int, halo: int | None = None
) -> list[Tile]:
    """The tiles of a picture of (H, W) for these layers, with sides of so many pixels, rounded up
    to the pooling grid.

    halo: in pixels, rounded up as well; by default what the layers see, with which nothing is
    lost."""
    reads = {rectified(layer) for layer in layers}
    grid = grid_of(net, reads)
    wide = halo_of(net, dict.fromkeys(reads, 0)) if halo is None else -(-halo // grid) * grid
    return tiled(shape, (-(-side // grid) * grid,) * 2, grid, wide)


def grid_of(net: VGG, reads: Collection[str]) -> int:
    """The distance in pixels between two positions of the deepest layer: tiles begin at its
    multiples."""
    return 2 ** max(map(halvings, reads), default=0)


def halo_of(net: VGG, margins: Mapping[str, int]) -> int:
    """How many pixels beyond its own a tile's features see, rounded up to the grid.

    margins: {layer that is read: how many positions more than its own are needed there}."""
    reach, step = 0, 1
    most = margins.get(PIXELS, 0)
    for name in net.architecture.layers_until(margins.keys() - {PIXELS}):
        if name.startswith(POOL):
            step *= 2  # what a pooling sees of the next position is that position's own
        elif name.startswith("conv"):
            reach += step
        most = max(most, reach + step * margins[name]) if name in margins else most
    return -(-most // step) * step


@dataclass(frozen=True)
class Tile:
    """A part of a picture: the pixels that it stands for, and the window that is read for it, both
    among all (H, W)."""

    own: Crop
    window: Crop

    def crop(self, read: str) -> Crop:
        """The tile's own positions at a layer, among all there."""
        return _at_layer(self.own, read)

    def inside(self, read: str, crop: Crop) -> Crop:
        """Positions of a layer, counted in the features of the window."""
        return crop.within(_at_layer(self.window, read))


def _at_layer(crop: Crop, read: str) -> Crop:
    """The positions of a layer for which pixels stand; the last ones are whatever the poolings have
    left."""
    if read == PIXELS:
        return crop
    step = 2 ** halvings(read)
    whole = crop.whole[0] // step, crop.whole[1] // step
    rows, columns = (
        slice(own.start // step, size if own.stop >= length else own.stop // step)
        for own, size, length in zip((crop.rows, crop.columns), whole, crop.whole, strict=True)
    )
    return Crop(rows, columns, whole)


def tiled(shape: Sequence[int], side: Sequence[int], grid: int, halo: int) -> list[Tile]:
    """Tiles of (h, w) pixels, or less at the far ends, that cover a picture of (H, W)."""
    whole = int(shape[0]), int(shape[1])
    own = [
        [
            slice(first, min(first + each, length))
            for first in range(0, length - length % grid or length, each)
        ]
        for length, each in zip(whole, side, strict=True)
    ]
    crops = [
        Crop(_to_end(rows, whole[0], grid), _to_end(columns, whole[1], grid), whole)
        for rows in own[0]
        for columns in own[1]
    ]
    return [Tile(crop, crop.wider(halo)) for crop in crops]


def _to_end(part: slice, length: int, grid: int) -> slice:
    """The part, with what is left of the length behind it if that is less than a position."""
    return slice(part.start, length) if length - part.stop < grid else part


def best_sides(
    shape: Sequence[int], grid: int, halo: int, pixels: float, ranks: int = 1
) -> tuple[int, int] | None:
    """(h, w) of tiles with which an evaluation of (H, W) costs least, if each rank can hold
    features of so many pixels at once; None if not even the smallest ones can be, or if these are
    fewer than the ranks."""
    whole = [max(1, size // grid) for size in shape]
    sides = [sorted({grid * -(-size // n) for n in range(1, size + 1)}) for size in whole]
    costs: dict[tuple[int, int], float] = {}
    for h, w in itertools.product(*sides):
        area = prod(
            min(size, each + 2 * halo + grid - 1) for size, each in zip(shape, (h, w), strict=True)
        )
        count = prod(-(-size * grid // each) for size, each in zip(whole, (h, w), strict=True))
        own = -(-count // ranks)
        kept = min(own, pixels // area)
        if kept >= 1 and count >= ranks:
            costs[h, w] = own * area * (1 + AGAIN * (1 - kept / own))
    return min(costs, key=costs.__getitem__, default=None)
