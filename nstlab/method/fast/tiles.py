"""Pictures whose features are larger than memory: the same loss and gradient, tile by tile.

A statistic is a sum over positions, and the gradient at a position needs the statistic of the whole
picture. So there are two passes over the tiles. The first one computes features and sums up what
each tile adds to the statistics. Between them, scores and their gradients are computed. The second
one computes the features again, unless memory suffices to keep them, and carries each tile's share
of the gradient back to the pixels.

A tile is read with a halo: the pixels that its deepest features see. Tiles begin at multiples of
the pooling grid, so that positions are those of the whole picture, and the result is exact, not
merely close.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nstlab.method.active_layers import ActiveLayer
from nstlab.method.crops import Crop, accumulate
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.evaluation import FastBound, VjpBound, range_factor, vjp_of_part
from nstlab.method.fast.geometry import Tile
from nstlab.method.fast.windows import Tiling, Windows
from nstlab.method.objectives import Bound, Objective
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.base import Network
from nstlab.networks.vgg import VGG, is_fast

CHUNK = 1 << 21  # numbers of a layer's features that are copied at a time


def bind(
    objective: Objective,
    net: Network,
    shape: Sequence[int],
    arithmetic: Arithmetic | None = None,
    tiling: Tiling | None = None,
) -> Bound:
    """Bind an objective for one network and one size, on the fast path if there is one for it.

    Args:
        objective: with at least one weight that is not 0.
        shape: (H, W) of the images.
        arithmetic: the network's by default.
        tiling: how to cut pictures whose features take more than its budget.
    """
    if not is_fast(net):
        return objective.bind(net, shape)
    arithmetic = arithmetic or arithmetic_of(net)
    shape = (int(shape[0]), int(shape[1]))
    if tiling is None or tiling.fits_untiled(net, objective.reads, shape, arithmetic):
        return FastBound(objective, net, shape, arithmetic=arithmetic)
    return TiledBound(objective, net, shape, arithmetic=arithmetic, tiling=tiling)


@dataclass
class _TiledTargets(VjpBound):
    """A `Bound` whose targets are computed tile by tile."""

    net: VGG
    arithmetic: Arithmetic = field(kw_only=True)
    tiling: Tiling = field(kw_only=True)
    _windows: Windows | None = field(init=False, default=None)
    _margins: dict[str, int] = field(init=False, default_factory=dict)
    # The tiles of the targets that have positions.
    _tiles: list[Tile] = field(init=False, default_factory=list)

    @torch.no_grad()
    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        layers = self.objective.active_layers(weights)
        team = self.tiling.team
        tiles = self._windows_for(layers).tiles
        if tiles != self._tiles:
            if team.size > 1:  # each rank has the targets of the positions that were its own
                self._forget_positional_targets()
            self._tiles = tiles
        missing = self._missing_targets(weights)
        if team.leads and missing:
            team.broadcast(do="targets", weights=weights)
        for term, by_read in sorted(missing.items(), key=lambda item: item[0].positional):
            picture = term.target_image(self.shape)
            if picture is not None:
                self.targets |= self._targets_of(term, by_read, picture, layers)

    def _forget_positional_targets(self) -> None:
        """Drop the targets that have as many positions as the picture."""
        names = {term.name for _, term in self.objective.terms if term.positional}
        self.targets = {key: target for key, target in self.targets.items() if key[0] not in names}

    def _targets_of(
        self,
        term: Term,
        by_read: Mapping[str, list[ActiveLayer]],
        picture: Tensor,
        layers: Sequence[ActiveLayer],
    ) -> dict[tuple[str, str], Tensor]:
        """The targets of these layers of a term, from their picture.

        Those with positions are made of the tiles of the evaluations, so that each rank has what it
        will need; others of tiles of their own.
        """
        if term.positional:
            windows = self._windows_for(layers)
        else:
            self._windows = None  # its memory is free for that of the target's picture
            margins = dict.fromkeys(by_read, term.margin)
            windows = Windows(self.net, margins, picture.shape[-2:], self.arithmetic, self.tiling)
        totals: dict[tuple[str, str], Tensor] = {}
        for tile, read, features in windows.forward(picture):
            for layer in by_read.get(read, ()):
                for crop, f in _crops(term, tile, read, features):
                    totals[layer.key] = term.accumulate_target(
                        totals.get(layer.key), f, crop, picture
                    )
        if not term.positional:
            windows.team.sum(totals.values())
        targets = {key: term.finalize_target(total) for key, total in totals.items()}
        # Those with positions stay where they are.
        return {
            key: target if target.ndim == 4 else target.to(self.net.device, self.net.dtype)
            for key, target in targets.items()
        }

    def _windows_for(self, layers: Sequence[ActiveLayer]) -> Windows:
        """The windows for these layers of terms; only the last ones are kept."""
        margins: dict[str, int] = {}
        for layer in layers:
            margins[layer.read] = max(margins.get(layer.read, 0), layer.term.margin)
        if self._windows is None or self._margins != margins:
            self._windows = None  # frees its memory before the next one takes its own
            self._windows = Windows(self.net, margins, self.shape, self.arithmetic, self.tiling)
            self._margins = margins
        return self._windows


@dataclass
class TiledBound(_TiledTargets):
    """A `Bound` that evaluates tile by tile.

    The picture may be on another device than the network.

    Attributes:
        arithmetic: the type of numbers in which it evaluates.
        tiling: how pictures are cut.
    """

    def __post_init__(self) -> None:
        if self.tiling.team.leads:
            dtype = str(self.arithmetic.dtype).removeprefix("torch.")
            self.tiling.team.broadcast(
                do="bind", shape=self.shape, dtype=dtype, tf32=self.arithmetic.tf32
            )
        super().__post_init__()

    @torch.no_grad()
    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layers, by_read = self.layers_by_read()
        windows = self._windows_for(layers)
        if windows.team.leads:
            windows.team.broadcast(do="evaluate", weights=self.weights)
        windows.hand_out(image)
        statistics = self._sum_statistics(image, windows, by_read)
        total, values, grad_outputs = self.differentiate_scores(
            layers, statistics, self._empty_features(by_read)
        )
        grad = self._gradient(image, windows, by_read, grad_outputs)
        return total, grad, values

    def _sum_statistics(
        self, image: Tensor, windows: Windows, by_read: Mapping[str, list[ActiveLayer]]
    ) -> dict[tuple[str, str], Tensor]:
        """The first pass: the statistics of all tiles of all ranks."""
        statistics: dict[tuple[str, str], Tensor] = {}
        for tile, read, features in windows.forward(image):
            for layer in by_read.get(read, ()):
                for crop, f in _crops(layer.term, tile, read, features):
                    part = layer.term.part(f, self.targets.get(layer.key), crop)
                    statistics[layer.key] = accumulate(statistics.get(layer.key), part)
        windows.team.sum(statistics.values())
        return statistics

    def _gradient(
        self,
        image: Tensor,
        windows: Windows,
        by_read: Mapping[str, list[ActiveLayer]],
        grad_outputs: Mapping[tuple[str, str], Tensor],
    ) -> Tensor:
        """The second pass: the gradient at the image, of this rank's tiles, on the first of all."""
        factor = range_factor(grad_outputs.values(), self.arithmetic, self.shape)

        def inject(tile: Tile, read: str, features: Tensor, into: Tensor) -> None:
            if read == PIXELS:
                into.div_(factor)
            else:
                into.zero_()
            for layer in by_read.get(read, ()):
                grad_output = grad_outputs[layer.key] * (1.0 if read == PIXELS else factor)
                target = self.targets.get(layer.key)
                for crop, f in _crops(layer.term, tile, read, features):
                    change = vjp_of_part(layer.term, grad_output, f, target, crop)
                    tile.inside(read, crop.wider(layer.term.margin)).of(into).add_(change)

        grad = torch.zeros_like(image)
        for tile, change in windows.backward(image, inject):
            tile.window.of(grad).add_(change.to(grad))
        windows.collect(grad)
        return grad

    def _empty_features(self, reads: Iterable[str]) -> dict[str, Tensor]:
        """Tensors with the shapes of the features that are read, which take no memory."""
        shapes = self.net.shapes(set(reads) - {PIXELS}, self.shape) | {PIXELS: (3, *self.shape)}
        zero = torch.zeros(1, device=self.net.device)
        return {read: zero.expand(1, *shape) for read, shape in shapes.items()}


def _crops(term: Term, tile: Tile, read: str, features: Tensor) -> Iterator[tuple[Crop, Tensor]]:
    """Yield (crop, its features with the term's margin) of the tile's own positions at a layer.

    If the term allows it, there are some rows in each.
    """
    own = tile.crop(read)
    rows = own.shape[0]
    if type(term).part is Term.part:
        rows = max(1, CHUNK // (features.shape[1] * max(1, own.shape[1])))
    for first in range(own.rows.start, own.rows.stop, rows):
        crop = Crop(slice(first, min(first + rows, own.rows.stop)), own.columns, own.whole)
        values = tile.inside(read, crop.wider(term.margin)).of(features)
        yield crop, values.contiguous(memory_format=torch.channels_last)
