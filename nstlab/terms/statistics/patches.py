"""Nearest patches: match each patch of the features to one of the painting's."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base.settings import InputError
from nstlab.method.crops import Crop, fill_positions
from nstlab.method.statistics import widen
from nstlab.method.terms import Style

WIDTH = 3  # positions, of a patch
KNOWN = 2048  # patches of the painting, at most; of more, those on a grid are taken
CHUNK = 2048  # patches of the picture that are compared at a time
MOST = 20_000  # positions of a layer


class Statistic(Style):
    """Mean over patches of 3×3 positions, and over their numbers, of the squared difference from
    the painting's patch with which their correlation is highest (Li and Wand 2016, equations 2
    and 3), times the convention's factor.

    It is for deep layers, such as conv3_1 and conv4_1.

    Raises:
        InputError: where a layer has more than MOST positions, or less than a patch.
    """

    def target(self, features: Tensor) -> Tensor:
        """(P, 9 C): the painting's patches."""
        height, width = features.shape[-2:]
        count = height * width
        _check_size(height, width)
        if count > MOST:
            raise InputError(
                f"statistic: patches is for layers of at most {MOST} positions, here are {count}; "
                "choose deeper ones"
            )
        step = 1
        while count > KNOWN * step**2:
            step += 1
        return _patches(features, step)

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        _check_size(*features.shape[-2:])
        own = _patches(features)
        nearest = [self._nearest(part, target) for part in own.detach().split(CHUNK)]
        return (own - target[torch.cat(nearest)]).square().mean()

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return self.convention.style_factor * statistic

    margin = WIDTH - 1
    least = WIDTH

    def part(self, features: Tensor, target: Tensor, crop: Crop) -> Tensor:
        """What the patches whose first position is in the crop add."""
        _check_size(*crop.whole)
        own = crop.relative_to(crop.wider(self.margin))
        features = features[..., own.rows.start :, own.columns.start :]
        if min(features.shape[-2:]) < WIDTH:  # the last rows or columns begin no patch
            return features[..., :0].sum(dtype=target.dtype)  # 0, with a gradient
        count = [side - WIDTH + 1 for side in features.shape[-2:]]
        return (
            self.statistic(features, target)
            * prod(count)
            / prod(side - WIDTH + 1 for side in crop.whole)
        )

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        return fill_positions(
            total, crop.relative_to(crop.wider(self.margin)).of(features), crop, picture
        )

    def finalize_target(self, total: Tensor) -> Tensor:
        return self.target(total)

    def _nearest(self, own: Tensor, known: Tensor) -> Tensor:
        """The numbers of the known patches with the highest normalized correlation."""
        return (own @ F.normalize(known, dim=1).T).argmax(1)

    def workspace(self, filters: int, positions: int) -> int:
        return 10 * WIDTH**2 * filters * positions


def _check_size(height: int, width: int) -> None:
    """InputError if a layer is smaller than a patch."""
    if min(height, width) < WIDTH:
        raise InputError(
            f"statistic: patches have {WIDTH}×{WIDTH} positions, a layer has {width}×{height} "
            "here; choose another, or a "
            "larger size"
        )


def _patches(features: Tensor, step: int = 1) -> Tensor:
    """(1, C, h, w) -> (P, 9 C)."""
    return F.unfold(widen(features), WIDTH, stride=step)[0].T
