"""How a picture is cut into tiles, and the features of each tile's window."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from nstlab.base.settings import InputError
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.geometry import Tile, best_sides, grid_of, halo_of, tiled
from nstlab.method.fast.propagation import Layout, Propagation
from nstlab.method.fast.ranks import Team, spanned
from nstlab.method.terms import PIXELS
from nstlab.networks.vgg import VGG

# Bytes a pixel, beside features: the window as it is and preprocessed, and its gradient on the way
# back.
WINDOW = 96
# Pixels: a picture with less than a square of this side for each rank is evaluated by the first one
# alone.
ALONE = 256


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut. budget: bytes that the features may take. side: of the tiles, in
    pixels; by default as the budget allows. team: the processes that share the tiles."""

    budget: int
    side: int | None = None
    team: Team = Team(0, 1)

    def fits_untiled(
        self, net: VGG, reads: Collection[str], shape: Sequence[int], arithmetic: Arithmetic
    ) -> bool:
        """Whether a picture of (H, W) needs no tiles."""
        if self.side is not None or (
            self.team.size > 1 and prod(shape) >= self.team.size * ALONE**2
        ):
            return False
        features = prod(shape) * bytes_a_pixel(net, reads, arithmetic)
        return weights_of(net, reads, arithmetic) + features <= self.budget

    def tiles(
        self, net: VGG, margins: Mapping[str, int], shape: Sequence[int], arithmetic: Arithmetic
    ) -> tuple[list[Tile], int]:
        """(the tiles of a picture of (H, W), how many of them have their features kept between the
        passes).

        margins: see `halo_of`. Raises InputError if there is not room for even the smallest
        tile."""
        reads = margins.keys() - {PIXELS}
        grid = grid_of(net, reads)
        halo = halo_of(net, margins)
        pixels = (self.budget - weights_of(net, reads, arithmetic)) / bytes_a_pixel(
            net, reads, arithmetic
        )
        if self.side is not None:
            sides = (-(-self.side // grid) * grid,) * 2
        elif (sides := best_sides(shape, grid, halo, pixels, self.team.size)) is None:
            raise InputError(
                f"memory: {self.budget / 1e9:.2f} GB are too little for the features of even the "
                "smallest tile"
            )
        found = tiled(shape, sides, grid, halo)
        return found, max(1, int(pixels / max(prod(tile.window.shape) for tile in found)))


def weights_of(net: VGG, reads: Collection[str], arithmetic: Arithmetic) -> int:
    """Bytes of the packed weights, forward and back."""
    convolutions = net.architecture.convolutions_until(reads)
    numbers = sum(net.convolution(name)[0].numel() for name in convolutions)
    return 2 * arithmetic.dtype.itemsize * numbers


def bytes_a_pixel(net: VGG, reads: Collection[str], arithmetic: Arithmetic) -> float:
    """Bytes that are held for each pixel of a window."""
    side = 1 << 10
    features = Layout.of(net, reads, (side, side), arithmetic.dtype).total if reads else 0
    return WINDOW + features * arithmetic.dtype.itemsize / side**2


class Windows:
    """Features of some layers, and the gradient at the picture, tile by tile.

    margins: see `halo_of`."""

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
        self._propagations: dict[tuple[int, int], Propagation] = {}
        self._memories: dict[int, Tensor] = {}

    def _propagation(self, i: int) -> Propagation:
        """The propagation for a tile, in the memory that it has: its own one for the first tiles,
        the same for the others."""
        # The one with the most memory comes first, so that its memory is enough for all; it is not
        # always the largest.
        if not self._propagations:
            shapes = {self.tiles[i].window.shape for i in self.mine}
            most = max(
                shapes,
                key=lambda shape: (
                    Layout.of(self.net, self.reads, shape, self.arithmetic.dtype).total
                ),
            )
            self._propagations[most] = Propagation(self.net, self.reads, most, self.arithmetic)
            self._memories[-1] = self._propagations[most].all
        shape = self.tiles[i].window.shape
        if shape not in self._propagations:
            like = next(iter(self._propagations.values()))
            self._propagations[shape] = Propagation(
                self.net, self.reads, shape, self.arithmetic, like
            )
        found = self._propagations[shape]
        own = i if i - self.mine.start < self.kept - 1 else -1
        if own not in self._memories:
            self._memories[own] = found.blank()
        found.use(self._memories[own])
        return found

    def _window(self, picture: Tensor, i: int) -> Tensor:
        """The pixels of a tile's window, on the network's device."""
        window = self.tiles[i].window
        return (
            picture[..., window.rows, window.columns]
            .contiguous()
            .to(self.net.device, self.net.dtype)
        )

    def rows(self, rank: int) -> slice:
        """The rows of the picture that a rank's tiles read."""
        return spanned([self.tiles[i].window.rows for i in self.team.share(len(self.tiles), rank)])

    def hand_out(self, image: Tensor) -> None:
        """Give each rank the rows of the picture that it reads."""
        if self.team.leads:
            for rank in range(1, self.team.size):
                self.team.send(image, self.rows(rank), rank)
        else:
            self.team.receive(image, self.rows(self.team.rank), 0)

    def collect(self, grad: Tensor) -> None:
        """Add up the gradients of all ranks on the first one."""
        if self.team.leads:
            for rank in range(1, self.team.size):
                self.team.receive(grad, self.rows(rank), rank, add=True)
        else:
            self.team.send(grad, self.rows(self.team.rank), 0)

    def forward(self, picture: Tensor) -> Iterator[tuple[Tile, str, Tensor]]:
        """Yield (tile, layer, features of the tile's window), for each tile the pixels first."""
        for i in self.mine:
            tile = self.tiles[i]
            window = self._window(picture, i)
            yield tile, PIXELS, window
            if self.reads:
                yield from (
                    (tile, read, features)
                    for read, features in self._propagation(i).forward(window)
                )

    def backward(
        self, picture: Tensor, inject: Callable[[Tile, str, Tensor, Tensor], None]
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield (tile, gradient at its window), after `forward`; inject is that of
        `Propagation.backward`."""
        for i in reversed(self.mine):
            tile = self.tiles[i]
            window = self._window(picture, i)
            if not self.reads:
                grad = torch.zeros_like(window)
            else:
                propagation = self._propagation(i)
                propagation.image = window
                # The features of the next tile have taken the place of this one's.
                overwritten = self.kept - 1 <= i - self.mine.start < len(self.mine) - 1
                if overwritten:
                    for _ in propagation.forward(window):
                        pass
                grad = propagation.backward(
                    lambda read, f, into, tile=tile: inject(tile, read, f, into)
                )
            inject(tile, PIXELS, window, grad)
            yield tile, grad
