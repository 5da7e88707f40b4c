"""What the ranks do that do not run the engine: they evaluate their tiles when they are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.tiles import TiledBound
from nstlab.method.fast.windows import Tiling
from nstlab.method.objectives import Objective
from nstlab.networks.vgg import VGG


@dataclass
class _ServingBound(TiledBound):
    """The `TiledBound` of a rank that serves; its targets are computed when it is told."""

    def __post_init__(self) -> None:
        self.weights = self.objective.weights


def serve(objective: Objective, net: VGG, start: Tensor, tiling: Tiling) -> None:
    """Evaluate tiles for the first rank until it ends.

    Args:
        objective, net, start: those with which the first rank runs the engine.
        tiling: with the team of ranks.

    Raises:
        InputError: if the first rank is lost.
    """
    bound = None
    image = start
    while True:
        order = tiling.team.receive_broadcast()
        if order["do"] == "end":
            return
        if order["do"] == "bind":
            bound = None  # frees its memory before the next one takes its own
            shape = tuple(order["shape"])
            arithmetic = Arithmetic(getattr(torch, order["dtype"]), order["tf32"])
            bound = _ServingBound(objective, net, shape, arithmetic=arithmetic, tiling=tiling)
            image = start.new_zeros(1, 3, *shape)
        elif bound is not None and order["do"] == "targets":
            bound._compute_targets(order["weights"])
        elif bound is not None:
            bound.weights = order["weights"]
            bound.evaluate(image)
