"""Time: make a frame of a film look like the one before it where the same things are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.pixel_terms import PixelTerm
from nstlab.pictures import images as im


@dataclass(frozen=True, eq=False, kw_only=True)
class Temporal(PixelTerm):
    """Σ c (X - W)² over the number of values: how far a frame X is from an earlier one.

    W is that one as the optical flow has moved it to the time of X, and c says where it can be
    relied on (Ruder, Dosovitskiy, Brox 2016, equation 7).

    Attributes:
        earlier: W, (1, 3, H, W).
        reliable: c, (1, 1, H, W) in [0, 1]; 0 where something else was seen before.
    """

    earlier: Tensor
    reliable: Tensor

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return self.part(features, None, Crop.all_of(features))

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        key = features.device, features.dtype, crop.whole
        earlier, reliable = self.cached(key, lambda: self._at(features, crop.whole))
        return crop.share * (crop.of(reliable) * (features - crop.of(earlier)).square()).mean()

    def _at(self, features: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Both at a size, of the features' kind."""
        earlier, reliable = (
            im.resize(picture, shape).to(features)
            for picture in (self.earlier, self.reliable.expand_as(self.earlier))
        )
        return earlier, reliable[:, :1]
