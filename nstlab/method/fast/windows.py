"""How a picture is cut into tiles, and the features of each tile's window."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod

import torch
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.geometry import (
    Tile,
    best_sides,
    grid_of,
    halo_of,
    round_up,
    tile_grid,
)
from nstlab.method.fast.layout import Layout
from nstlab.method.fast.propagation import Inject, Propagation
from nstlab.method.fast.ranks import Team, span_of
from nstlab.method.terms import PIXELS
from nstlab.networks.vgg import VGG

# Bytes a pixel, beside features: the window as it is and preprocessed, and its gradient on the way
# back.
WINDOW = 96
# Pixels: a picture with less than a square of this side for each rank is evaluated by the first one
# alone.
ALONE = 256
SHARED = -1  # the slot of memory that tiles share


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        budget: bytes that the features may take.
        side: of the tiles, in pixels; by default as the budget allows.
        team: the processes that share the tiles.
    """

    budget: int
    side: int | None = None
    team: Team = Team(0, 1)

    def fits_untiled(
        self, net: VGG, reads: Collection[str], shape: Sequence[int], arithmetic: Arithmetic
    ) -> bool:
        """Whether a picture of shape (H, W) needs no tiles.

        Args:
            reads: the network's layers that are read.
            arithmetic: of its features.
        """
        if self.side is not None:
            return False
        if self.team.size > 1 and prod(shape) >= self.team.size * ALONE**2:
            return False
        features = prod(shape) * bytes_a_pixel(net, reads, arithmetic)
        return weight_bytes(net, reads, arithmetic) + features <= self.budget

    def tiles(
        self, net: VGG, margins: Mapping[str, int], shape: Sequence[int], arithmetic: Arithmetic
    ) -> tuple[list[Tile], int]:
        """Cut a picture of shape (H, W).

        Args:
            margins: see `halo_of`.
            arithmetic: of the features.

        Returns:
            (the tiles, how many of them have their features kept between the passes).

        Raises:
            InputError: if there is not room for even the smallest tile.
        """
        reads = margins.keys() - {PIXELS}
        grid = grid_of(net, reads)
        halo = halo_of(net, margins)
        feature_budget = self.budget - weight_bytes(net, reads, arithmetic)
        pixels = feature_budget / bytes_a_pixel(net, reads, arithmetic)
        if self.side is None:
            sides = best_sides(shape, grid, halo, pixels, self.team.size)
        else:
            sides = (round_up(self.side, grid),) * 2
        if sides is None:
            raise InputError(
                f"memory: {self.budget / 1e9:.2f} GB are too little for the features of even the "
                "smallest tile"
            )
        tiles = tile_grid(shape, sides, grid, halo)
        largest = max(prod(tile.window.shape) for tile in tiles)
        return tiles, max(1, int(pixels / largest))


def weight_bytes(net: VGG, reads: Collection[str], arithmetic: Arithmetic) -> int:
    """Bytes of the packed weights, forward and back."""
    numbers = sum(
        net.convolution(name)[0].numel() for name in net.architecture.convolutions_until(reads)
    )
    return 2 * arithmetic.dtype.itemsize * numbers


def bytes_a_pixel(net: VGG, reads: Collection[str], arithmetic: Arithmetic) -> float:
    """Bytes that are held for each pixel of a window."""
    side = 1 << 10
    features = Layout.of(net, reads, (side, side), arithmetic.dtype).total if reads else 0
    return WINDOW + features * arithmetic.dtype.itemsize / side**2


class PropagationPool:
    """Propagations for windows of several shapes, with one piece of memory for each slot.

    Args:
        net: the network.
        reads: its layers that are read.
        shapes: (H, W) of the windows.
        arithmetic: of the features.
    """

    def __init__(
        self,
        net: VGG,
        reads: Collection[str],
        shapes: Collection[tuple[int, int]],
        arithmetic: Arithmetic,
    ):
        self.net = net
        self.reads = reads
        self.arithmetic = arithmetic
        # The shape that needs most memory, which is then enough for all. It is not always the
        # largest.
        shape = max(shapes, key=lambda s: Layout.of(net, reads, s, arithmetic.dtype).total)
        self.first = Propagation(net, reads, shape, arithmetic)
        self.by_shape = {shape: self.first}
        self.buffers = {SHARED: self.first.buffer}

    def propagation(self, shape: tuple[int, int], slot: int) -> Propagation:
        """The propagation for windows of a shape (H, W), in the memory of a slot."""
        if shape not in self.by_shape:
            self.by_shape[shape] = Propagation(
                self.net, self.reads, shape, self.arithmetic, like=self.first
            )
        propagation = self.by_shape[shape]
        if slot not in self.buffers:
            self.buffers[slot] = propagation.allocate()
        propagation.use(self.buffers[slot])
        return propagation


class Windows:
    """Features of some layers, and the gradient at the picture, tile by tile.

    Args:
        net: the network.
        margins: {layer that is read: positions that are needed around a tile's}; see `halo_of`.
        shape: (H, W) of the pictures.
        arithmetic: of the features.
        tiling: how pictures are cut.
    """

    def __init__(
        self,
        net: VGG,
        margins: Mapping[str, int],
        shape: Sequence[int],
        arithmetic: Arithmetic,
        tiling: Tiling,
    ):
        self.net = net
        self.arithmetic = arithmetic
        self.reads = margins.keys() - {PIXELS}
        self.tiles, kept = tiling.tiles(net, margins, shape, arithmetic)
        # With fewer tiles than ranks, each rank computes all.
        self.team = tiling.team if len(self.tiles) >= tiling.team.size else Team(0, 1)
        self.mine = self.team.share(len(self.tiles))
        self.kept = min(kept, len(self.mine))

    # --- the two passes

    def forward(self, picture: Tensor) -> Iterator[tuple[Tile, str, Tensor]]:
        """Yield (tile, layer, features of the tile's window), for each tile the pixels first."""
        for i in self.mine:
            tile = self.tiles[i]
            window = self._pixels_of(tile, picture)
            yield tile, PIXELS, window
            if self.reads:
                for read, features in self._propagation(i).forward(window):
                    yield tile, read, features

    def backward(
        self, picture: Tensor, inject: Callable[[Tile, str, Tensor, Tensor], None]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield (tile, gradient at its window), after `forward`.

        Args:
            picture: that of `forward`.
            inject: inject(tile, layer, features, into) writes the gradient of the loss there; see
                `Propagation.backward`.
        """
        for i in reversed(self.mine):
            tile = self.tiles[i]
            window = self._pixels_of(tile, picture)
            if self.reads:
                grad = self._propagate_back(i, window, partial(inject, tile))
            else:
                grad = torch.zeros_like(window)
            inject(tile, PIXELS, window, grad)
            yield tile, grad

    def _propagate_back(self, i: int, window: Tensor, inject: Inject) -> Tensor:
        """The gradient at the window of a tile, whose features are computed again if need be."""
        propagation = self._propagation(i)
        propagation.image = window
        number = i - self.mine.start
        is_overwritten = self.kept - 1 <= number < len(self.mine) - 1  # by the next tile's features
        if is_overwritten:
            for _ in propagation.forward(window):
                pass
        return propagation.backward(inject)

    def _pixels_of(self, tile: Tile, picture: Tensor) -> Tensor:
        """The pixels of a tile's window, on the network's device."""
        return tile.window.of(picture).contiguous().to(self.net.device, self.net.dtype)

    def _propagation(self, i: int) -> Propagation:
        """The propagation for a tile, in memory of its own for the first tiles, else shared."""
        is_kept = i - self.mine.start < self.kept - 1
        return self._pool.propagation(self.tiles[i].window.shape, i if is_kept else SHARED)

    @cached_property
    def _pool(self) -> PropagationPool:
        """Made when features are first computed, since it takes the memory for them."""
        shapes = {self.tiles[i].window.shape for i in self.mine}
        return PropagationPool(self.net, self.reads, shapes, self.arithmetic)

    # --- several ranks

    def hand_out(self, image: Tensor) -> None:
        """Give each rank the rows of the picture that it reads."""
        if self.team.leads:
            for rank in range(1, self.team.size):
                self.team.send(image, self._rows_of(rank), rank)
        else:
            self.team.receive(image, self._rows_of(self.team.rank), 0)

    def collect(self, grad: Tensor) -> None:
        """Add up the gradients of all ranks on the first one."""
        if self.team.leads:
            for rank in range(1, self.team.size):
                self.team.receive(grad, self._rows_of(rank), rank, add=True)
        else:
            self.team.send(grad, self._rows_of(self.team.rank), 0)

    def _rows_of(self, rank: int) -> slice:
        """The rows of the picture that a rank's tiles read."""
        return span_of([self.tiles[i].window.rows for i in self.team.share(len(self.tiles), rank)])
