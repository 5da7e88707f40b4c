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

from nstlab.method.crops import Crop, accumulate
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.evaluation import ByHand, FastBound, unit_of, vjp_of_part
from nstlab.method.fast.geometry import Tile
from nstlab.method.fast.windows import Tiling, Windows
from nstlab.method.objectives import ActiveLayer, Bound, Objective
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.base import Network
from nstlab.networks.vgg import VGG, is_fast

CHUNK = 1 << 21  # numbers of a layer's features that are copied at a time

# --- evaluation -----------------------------------------------------------------------------------


def bind(
    objective: Objective,
    net: Network,
    shape: Sequence[int],
    arithmetic: Arithmetic | None = None,
    tiling: Tiling | None = None,
) -> Bound:
    """Bind an objective for one network and images of shape (H, W), on the fast path if there is
    one for it.

    Args:
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
class TiledBound(ByHand):
    """A `Bound` that evaluates tile by tile.

    The picture may be on another device than the network.
    """

    net: VGG
    arithmetic: Arithmetic = field(kw_only=True)
    tiling: Tiling = field(kw_only=True)
    _windows: Windows | None = field(init=False, default=None)
    _margins: dict[str, int] = field(init=False, default_factory=dict)
    # The tiles of the targets that have positions.
    _tiles: list[Tile] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.tiling.team.leads:
            dtype = str(self.arithmetic.dtype).removeprefix("torch.")
            self.tiling.team.broadcast(
                do="bind", shape=self.shape, dtype=dtype, tf32=self.arithmetic.tf32
            )
        super().__post_init__()

    @torch.no_grad()
    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        actives = self.objective.active_layers(weights)
        team = self.tiling.team
        if (tiles := self._windows_of(actives).tiles) != self._tiles:
            if team.size > 1:  # each rank has the targets of the positions that were its own
                self._forget_positional()
            self._tiles = tiles
        missing = self._missing_targets(weights)
        if team.leads and missing:
            team.broadcast(do="targets", weights=weights)
        for term, reads in sorted(missing.items(), key=lambda item: item[0].positional):
            picture = term.target_image(self.shape)
            if picture is not None:
                self.targets |= self._targets_of(term, reads, picture, actives)

    def _forget_positional(self) -> None:
        """Drop the targets that have as many positions as the picture."""
        names = {term.name for _, term in self.objective.terms if term.positional}
        self.targets = {key: target for key, target in self.targets.items() if key[0] not in names}

    def _targets_of(
        self,
        term: Term,
        reads: Mapping[str, list[ActiveLayer]],
        picture: Tensor,
        actives: Sequence[ActiveLayer],
    ) -> dict[tuple[str, str], Tensor]:
        """The targets of these layers of a term, from their picture.

        Those with positions are made of the tiles of the evaluations, so that each rank has what it
        will need; others of tiles of their own.
        """
        if term.positional:
            windows = self._windows_of(actives)
        else:
            self._windows = None  # its memory is free for that of the target's picture
            margins = dict.fromkeys(reads, term.margin)
            windows = Windows(self.net, margins, picture.shape[-2:], self.arithmetic, self.tiling)
        totals: dict[tuple[str, str], Tensor] = {}
        for tile, read, features in windows.forward(picture):
            for active in reads.get(read, ()):
                for crop, f in _pieces(term, tile, read, features):
                    totals[active.key] = term.accumulate_target(
                        totals.get(active.key), f, crop, picture
                    )
        if not term.positional:
            windows.team.sum(totals.values())
        return {key: self._placed(term.finalize_target(total)) for key, total in totals.items()}

    def _placed(self, target: Tensor) -> Tensor:
        """A target where and as evaluations need it; one with positions stays where it is."""
        return target if target.ndim == 4 else target.to(self.net.device, self.net.dtype)

    @torch.no_grad()
    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        actives, at = self.active_by_layer()
        windows = self._windows_of(actives)
        statistics = {}
        if windows.team.leads:
            windows.team.broadcast(do="evaluate", weights=self.weights)
        windows.hand_out(image)
        for tile, read, features in windows.forward(image):
            for active in at.get(read, ()):
                for crop, f in _pieces(active.term, tile, read, features):
                    part = active.term.part(f, self.targets.get(active.key), crop)
                    statistics[active.key] = accumulate(statistics.get(active.key), part)
        windows.team.sum(statistics.values())
        total, values, grad_outputs = self.differentiate_scores(
            actives, statistics, self._blanks(at)
        )
        unit = unit_of(grad_outputs.values(), self.arithmetic, self.shape)

        def inject(tile: Tile, read: str, features: Tensor, into: Tensor) -> None:
            if read == PIXELS:
                into.div_(unit)
            else:
                into.zero_()
            for active in at.get(read, ()):
                for crop, f in _pieces(active.term, tile, read, features):
                    grad_output = grad_outputs[active.key] * (1.0 if read == PIXELS else unit)
                    change = vjp_of_part(
                        active.term, grad_output, f, self.targets.get(active.key), crop
                    )
                    tile.inside(read, crop.wider(active.term.margin)).of(into).add_(change)

        grad = torch.zeros_like(image)
        for tile, change in windows.backward(image, inject):
            grad[..., tile.window.rows, tile.window.columns] += change.to(grad)
        windows.collect(grad)
        return total, grad, values

    def _windows_of(self, actives: Sequence[ActiveLayer]) -> Windows:
        """The windows for these layers of terms; only the last ones are kept."""
        margins: dict[str, int] = {}
        for active in actives:
            margins[active.read] = max(margins.get(active.read, 0), active.term.margin)
        if self._windows is None or self._margins != margins:
            self._windows = None  # its memory is free before the next one takes its own
            self._windows = Windows(self.net, margins, self.shape, self.arithmetic, self.tiling)
            self._margins = margins
        return self._windows

    def _blanks(self, reads: Iterable[str]) -> dict[str, Tensor]:
        """Tensors with the shapes of the features that are read, which take no memory."""
        shapes = self.net.shapes(set(reads) - {PIXELS}, self.shape) | {PIXELS: (3, *self.shape)}
        return {
            read: torch.zeros(1, device=self.net.device).expand(1, *shape)
            for read, shape in shapes.items()
        }


def _pieces(term: Term, tile: Tile, read: str, features: Tensor) -> Iterator[tuple[Crop, Tensor]]:
    """(crop, its features with the term's margin): the tile's own positions at a layer, if possible
    some rows at a time."""
    crop = tile.crop(read)
    rows = crop.shape[0]
    if type(term).part is Term.part:
        rows = max(1, CHUNK // (features.shape[1] * max(1, crop.shape[1])))
    for first in range(crop.rows.start, crop.rows.stop, rows):
        part = Crop(slice(first, min(first + rows, crop.rows.stop)), crop.columns, crop.whole)
        values = tile.inside(read, part.wider(term.margin)).of(features)
        yield part, values.contiguous(memory_format=torch.channels_last)


# --- several ranks --------------------------------------------------------------------------------


@dataclass
class _ServingBound(TiledBound):
    """The `TiledBound` of a rank that serves; its targets are computed when it is told."""

    def __post_init__(self) -> None:
        self.weights = self.objective.weights


def serve(objective: Objective, net: VGG, start: Tensor, tiling: Tiling) -> None:
    """Evaluate tiles for the first rank, which runs the engine on the same objective, network and
    start, until it ends.

    Raises:
        InputError: if that rank is lost.
    """
    bound, image = None, start
    while (order := tiling.team.receive_broadcast())["do"] != "end":
        if order["do"] == "bind":
            bound = None
            arithmetic = Arithmetic(getattr(torch, order["dtype"]), order["tf32"])
            bound = _ServingBound(
                objective, net, tuple(order["shape"]), arithmetic=arithmetic, tiling=tiling
            )
            image = start.new_zeros(1, 3, *order["shape"])
        elif bound is not None and order["do"] == "targets":
            bound._compute_targets(order["weights"])
        elif bound is not None:
            bound.weights = order["weights"]
            bound.evaluate(image)
