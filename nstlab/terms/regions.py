"""Style by regions: guided Gram matrices.

Gatys et al. 2017, "Controlling Perceptual Factors in Neural Style Transfer".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.method.crops import Crop, accumulate
from nstlab.method.factories import term
from nstlab.method.objectives import Objective
from nstlab.method.statistics import gram, positions
from nstlab.method.terms import Style

LEAST = 1.0  # positions of a layer that a region must cover for its Gram matrix to mean anything


def mask_at_layer(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, 1, H, W) -> (1, 1, h, w): the mask, averaged as the poolings before a layer do.

    These drop an odd last row or column.
    """
    height, width = shape
    while mask.shape[-2] // 2 >= height and mask.shape[-1] // 2 >= width:
        mask = F.avg_pool2d(mask, 2)
    if mask.shape[-2:] == (height, width):
        return mask
    return F.interpolate(mask, (height, width), mode="area")


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionStyle(Style):
    """The style of a region: Style with G = Σ_k m_k F_k F_kᵀ / Σ_k m_k, over positions k.

    Attributes:
        mask: m, (1, 1, H, W) in [0, 1], of the image; where it covers less than LEAST positions of
            a layer, the layer counts nothing.
        painting_mask: that of the painting, in the shape of `image`.
    """

    mask: Tensor
    painting_mask: Tensor

    def target(self, features: Tensor) -> Tensor:
        return self._accumulated(features, Crop.all_of(features), self.painting_mask)

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return self._accumulated(features, Crop.all_of(features), self.mask)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        covered = self.weights(features).sum()
        return super().score(statistic, target, features) * (covered >= LEAST)

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """The vjp of the guided Gram matrix Σ m F Fᵀ / Σ m: m (S + Sᵀ) F / Σ m."""
        weights = positions(self.weights(features))
        rows = positions(features) * weights.to(features.dtype)
        out = positions(into)
        matrix = ((grad_output + grad_output.T) / weights.sum().clamp_min(1e-12)).to(rows.dtype)
        torch.addmm(out, rows, matrix, beta=int(add), out=out)

    def part(self, features: Tensor, target: Tensor | None, crop: Crop) -> Tensor:
        return self._accumulated(features, crop, self.mask)

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        return accumulate(total, self._accumulated(features, crop, self.painting_mask))

    def workspace(self, filters: int, positions: int) -> int:
        return filters * positions

    def weights(self, features: Tensor) -> Tensor:
        """(1, 1, h, w): how far each position of a layer belongs to the region."""
        return self._at_layer(self.mask, features.device, features.shape[-2:])

    def _accumulated(self, features: Tensor, crop: Crop, mask: Tensor) -> Tensor:
        """What a crop adds to the guided Gram matrix with one of the masks."""
        weights = self._at_layer(mask, features.device, crop.whole)
        weighted = features * crop.of(weights).sqrt().to(features.dtype)
        return crop.share * gram(weighted) / weights.mean().clamp_min(1e-12)

    def _at_layer(self, mask: Tensor, device: torch.device, shape: Sequence[int]) -> Tensor:
        """One of the masks at a layer of shape (h, w), on a device."""
        key = mask is self.painting_mask, device, tuple(shape)
        return self.cached(key, lambda: mask_at_layer(mask.to(device), shape))


def region_styles(
    layers: Sequence[str],
    image: Tensor,
    masks: Tensor,
    painting_masks: Tensor,
    weights: Sequence[float],
    convention: str,
    layer_weights: Sequence[float] = (),
    fitted: Sequence[int] | None = None,
) -> Objective:
    """Σ_r w_r s_r style_r: the style of each region of a painting for the same of the picture.

    Args:
        layers, convention, layer_weights: see `term`.
        image: the painting, (1, 3, H, W).
        masks: (1, R, H, W) in [0, 1], of the picture; the region r covers the part s_r of it.
        painting_masks: those of the painting.
        weights: w_r of each region, by default 1.
        fitted: see `Style`.
    """
    shares = masks.mean((2, 3))[0].tolist()
    weights = weights or (1.0,) * len(shares)
    objective = Objective(())
    for i, (weight, share) in enumerate(zip(weights, shares, strict=True)):
        fields = {
            "image": image,
            "mask": masks[:, i : i + 1],
            "painting_mask": painting_masks[:, i : i + 1],
            "fitted": None if fitted is None else tuple(fitted),
        }
        style = term(RegionStyle, "style", layers, layer_weights, convention, **fields)
        objective += weight * share * style
    return objective
