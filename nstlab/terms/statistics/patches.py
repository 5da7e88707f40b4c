"""Nearest patches: match each patch of the features to one of the painting's."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.method.crops import Crop, fill_positions
from nstlab.method.statistics import widen
from nstlab.method.terms import Style

WIDTH = 3  # positions, of a patch
MOST_PATCHES = 2048  # of the painting; of more, those on a grid are taken
CHUNK = 2048  # patches of the picture that are compared at a time
MOST_POSITIONS = 20_000  # of a layer


class Statistic(Style):
    """Mean squared difference between patches and those of the painting that are most like them.

    Each patch of 3×3 positions is compared with the painting's patch with which its correlation is
    highest. The mean is over patches and over their numbers, times the convention's factor (Li and
    Wand 2016, equations 2 and 3). It is for deep layers, such as conv3_1 and conv4_1.

    Raises:
        InputError: where a layer has more than MOST_POSITIONS, or less than a patch.
    """

    margin = WIDTH - 1
    least = WIDTH

    def target(self, features: Tensor) -> Tensor:
        """(P, 9 C): the painting's patches."""
        height, width = features.shape[-2:]
        count = height * width
        _check_size(height, width)
        if count > MOST_POSITIONS:
            raise InputError(
                f"statistic: patches is for layers of at most {MOST_POSITIONS} positions, here are "
                f"{count}; choose deeper ones"
            )
        step = 1
        while count > MOST_PATCHES * step**2:
            step += 1
        return _patches(features, step)

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        _check_size(*features.shape[-2:])
        patches = _patches(features)
        nearest = [_nearest(chunk, target) for chunk in patches.detach().split(CHUNK)]
        return (patches - target[torch.cat(nearest)]).square().mean()

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return self.convention.style_factor * statistic

    def part(self, features: Tensor, target: Tensor, crop: Crop) -> Tensor:
        """What the patches whose first position is in the crop add."""
        _check_size(*crop.whole)
        inner = crop.relative_to(crop.wider(self.margin))
        features = features[..., inner.rows.start :, inner.columns.start :]
        if min(features.shape[-2:]) < WIDTH:  # the last rows or columns begin no patch
            return features[..., :0].sum(dtype=target.dtype)  # 0, with a gradient
        count = prod(side - WIDTH + 1 for side in features.shape[-2:])
        count_of_all = prod(side - WIDTH + 1 for side in crop.whole)
        return self.statistic(features, target) * count / count_of_all

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        inner = crop.relative_to(crop.wider(self.margin)).of(features)
        return fill_positions(total, inner, crop, picture)

    def finalize_target(self, total: Tensor) -> Tensor:
        return self.target(total)

    def workspace(self, filters: int, positions: int) -> int:
        return 10 * WIDTH**2 * filters * positions


def _check_size(height: int, width: int) -> None:
    """InputError if a layer is smaller than a patch."""
    if min(height, width) < WIDTH:
        raise InputError(
            f"statistic: patches have {WIDTH}×{WIDTH} positions, a layer has {width}×{height} "
            "here; choose another, or a larger size"
        )


def _patches(features: Tensor, step: int = 1) -> Tensor:
    """(1, C, h, w) -> (P, 9 C)."""
    return F.unfold(widen(features), WIDTH, stride=step)[0].T


def _nearest(patches: Tensor, candidates: Tensor) -> Tensor:
    """(P,): the numbers of the candidates with the highest normalized correlation."""
    return (patches @ F.normalize(candidates, dim=1).T).argmax(1)
