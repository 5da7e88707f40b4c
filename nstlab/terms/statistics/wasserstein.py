"""The sliced Wasserstein distance: how far features have to be moved, seen from many directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.statistics import positions, widen
from nstlab.method.terms import Style

DIRECTIONS = 64  # on which features are projected


class Statistic(Style):
    """Mean squared difference of sorted projections on directions, times the convention's factor.

    Heitz, Vanhoey, Chambon, Belcour 2021, "A Sliced Wasserstein Loss for Neural Texture Synthesis".
    They draw directions anew at each step; here they are the same in every run, so that the loss is
    a function of the picture. The statistic is no mean over positions: it has as many numbers as
    there are positions.
    """

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(D, M): the projections of all positions on each direction."""
        rows = widen(positions(features))
        return (rows @ self._directions(rows)).T

    def target(self, features: Tensor) -> Tensor:
        """(D, M'): the projections of the painting's positions, in ascending order."""
        return self.finalize_target(self.statistic(features, None))

    def finalize_target(self, total: Tensor) -> Tensor:
        return total.sort(1).values

    def part(self, features: Tensor, target: Tensor | None, crop: Crop) -> Tensor:
        return crop.scatter(self.statistic(features, None))

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        statistic = statistic.sort(1).values
        if target.shape != statistic.shape:  # a painting of another size
            target = F.interpolate(
                target[None], statistic.shape[1], mode="linear", align_corners=True
            )[0]
        return self.convention.style_factor * (statistic - target).square().mean()

    def _directions(self, rows: Tensor) -> Tensor:
        """(C, D): random directions of length 1."""
        filters = rows.shape[1]

        def draw() -> Tensor:
            generator = torch.Generator().manual_seed(filters)
            return F.normalize(torch.randn(filters, DIRECTIONS, generator=generator), dim=0).to(
                rows
            )

        return self.cached((rows.device, rows.dtype, filters), draw)

    def workspace(self, filters: int, positions: int) -> int:
        return 24 * DIRECTIONS * positions  # a GPU needs as much to sort; processors half of it
