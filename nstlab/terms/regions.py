"""Style by regions: guided Gram matrices (Gatys et al. 2017, "Controlling Perceptual Factors in
Neural Style Transfer")."""

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


def carried_down(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, 1, H, W) -> (1, 1, h, w), the mask at a layer: averaged as the poolings before it do,
    which drop an odd last row."""
    while all(side // 2 >= wanted for side, wanted in zip(mask.shape[-2:], shape, strict=True)):
        mask = F.avg_pool2d(mask, 2)
    return (
        mask if mask.shape[-2:] == tuple(shape) else F.interpolate(mask, tuple(shape), mode="area")
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionStyle(Style):
    """The style of a region: Style with G = Σ_k m_k F_k F_kᵀ / Σ_k m_k, over the positions k of a
    mask m.

    Attributes:
        mask: (1, 1, H, W) in [0, 1], of the image; where it covers less than LEAST positions of a
            layer, the layer counts nothing.
        own: that of the painting, in the shape of `image`.
    """

    mask: Tensor
    own: Tensor

    def target(self, features: Tensor) -> Tensor:
        return self._gram(features, self._at(features.device, features.shape[-2:], self.own))

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return self._gram(features, self.weights(features))

    def part(self, features: Tensor, target: Tensor | None, crop: Crop) -> Tensor:
        return self._part(features, self._at(features.device, crop.whole, self.mask), crop)

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        return accumulate(
            total, self._part(features, self._at(features.device, crop.whole, self.own), crop)
        )

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        covered = self.weights(features).sum()
        return super().score(statistic, target, features) * (covered >= LEAST)

    def workspace(self, filters: int, positions: int) -> int:
        return filters * positions

    def _gram(self, features: Tensor, weights: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        return self._part(
            features, weights, Crop(slice(0, height), slice(0, width), (height, width))
        )

    def _part(self, features: Tensor, weights: Tensor, crop: Crop) -> Tensor:
        """What a crop adds to the guided Gram matrix; weights are those of all positions."""
        weighted = features * crop.of(weights).sqrt().to(features.dtype)
        return crop.share * gram(weighted) / weights.mean().clamp_min(1e-12)

    def weights(self, features: Tensor) -> Tensor:
        """(1, 1, h, w): how far each position of a layer belongs to the region."""
        return self._at(features.device, features.shape[-2:], self.mask)

    def _at(self, device: torch.device, shape: Sequence[int], mask: Tensor) -> Tensor:
        """A mask at a layer of shape (h, w), on a device."""
        shape = tuple(shape)
        return self.cached(
            (mask is self.own, device, shape), lambda: carried_down(mask.to(device), shape)
        )

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """The vjp of the guided Gram matrix Σ m F Fᵀ / Σ m: m (S + Sᵀ) F / Σ m."""
        weights = positions(self.weights(features))
        out = positions(into)
        rows = positions(features) * weights.to(features.dtype)
        matrix = ((grad_output + grad_output.T) / weights.sum().clamp_min(1e-12)).to(rows.dtype)
        torch.addmm(out, rows, matrix, beta=int(add), out=out)


def region_styles(
    layers: Sequence[str],
    image: Tensor,
    masks: Tensor,
    own: Tensor,
    weights: Sequence[float],
    convention: str,
    layer_weights: Sequence[float] = (),
    fitted: Sequence[int] | None = None,
) -> Objective:
    """Σ_r w_r s_r style_r: the style of each region r of a painting for the same region of the
    picture, of which it covers the part s_r.

    Args:
        image: (1, 3, H, W).
        masks: (1, R, H, W), of the picture.
        own: of the painting.
        weights: of each region, by default 1.
    """
    shares = masks.mean((2, 3))[0].tolist()
    chosen = weights or (1.0,) * len(shares)
    styles = [
        weight
        * share
        * term(
            RegionStyle,
            "style",
            layers,
            layer_weights,
            convention,
            image=image,
            mask=masks[:, i : i + 1],
            own=own[:, i : i + 1],
            fitted=None if fitted is None else tuple(fitted),
        )
        for i, (weight, share) in enumerate(zip(chosen, shares, strict=True))
    ]
    return sum(styles, Objective(()))
