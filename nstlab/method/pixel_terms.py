"""Terms of the image itself, which read no layer: total variation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.statistics import total_variation
from nstlab.method.terms import PIXELS, Term


@dataclass(frozen=True, eq=False)
class PixelTerm(Term):
    """A term of the image itself, whose statistic is its value."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (PIXELS,)

    def score(self, statistic: Tensor, target: None, features: Tensor) -> Tensor:
        return statistic


@dataclass(frozen=True, eq=False)
class TotalVariation(PixelTerm):
    """Mean squared difference of neighbouring pixels.

    neural-style takes half the sum over pixel values from 0 to 255; here, half the mean times the
    number of values (its sum leaves out one row and one column).
    """

    margin = 1

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return total_variation(features)

    def score(self, statistic: Tensor, target: None, features: Tensor) -> Tensor:
        if self.convention.tv_per_element:
            return statistic
        return 0.5 * 255.0**2 * features.numel() * statistic

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        height, width = crop.whole
        rows, columns = crop.shape
        # Without the margin above and at the left.
        pixels = features[..., min(1, crop.rows.start) :, min(1, crop.columns.start) :]
        down = pixels.diff(dim=-2)[..., :rows, :columns].square().sum()
        across = pixels.diff(dim=-1)[..., :rows, :columns].square().sum()
        sums = down / ((height - 1) * width) + across / (height * (width - 1))
        return sums / features.shape[:-2].numel()
