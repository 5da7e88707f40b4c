"""Parts of a picture, or of a layer's features, by rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """Some positions of a layer, or pixels of a picture.

    Attributes:
        rows, columns: which, with start and stop.
        whole: (h, w) of all positions.
    """

    rows: slice
    columns: slice
    whole: tuple[int, int]

    @classmethod
    def all_of(cls, features: Tensor) -> Self:
        """All positions of (…, h, w)."""
        height, width = features.shape[-2:]
        return cls(slice(0, height), slice(0, width), (height, width))

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the crop."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def share(self) -> float:
        """The crop's part of all positions."""
        return prod(self.shape) / prod(self.whole)

    def of(self, features: Tensor) -> Tensor:
        """These positions of (…, h, w), a view."""
        return features[..., self.rows, self.columns]

    def wider(self, margin: int) -> Crop:
        """The crop with so many positions more on each side, as far as there are any."""
        height, width = self.whole
        return Crop(
            slice(max(0, self.rows.start - margin), min(self.rows.stop + margin, height)),
            slice(max(0, self.columns.start - margin), min(self.columns.stop + margin, width)),
            self.whole,
        )

    def relative_to(self, other: Crop) -> Crop:
        """The same positions, counted from the first ones of a crop that holds them."""
        top = other.rows.start
        left = other.columns.start
        return Crop(
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
            other.shape,
        )

    def scatter(self, values: Tensor) -> Tensor:
        """(…, m), numbers of each position here -> (…, M), with zeros for all others.

        They are in an order in which crops of a grid do not overlap.
        """
        height, _ = self.shape
        first = self.rows.start * self.whole[1] + height * self.columns.start
        full = values.new_zeros(*values.shape[:-1], prod(self.whole))
        full.narrow(-1, first, values.shape[-1]).copy_(values)
        return full


def accumulate(total: Tensor | None, part: Tensor) -> Tensor:
    """Add a part to a sum, which is None at first; the first part becomes the sum itself."""
    return part if total is None else total.add_(part)


def fill_positions(total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor) -> Tensor:
    """Write the features of a crop into those of the whole layer: for `Term.accumulate_target`.

    Args:
        total: (1, C, h, w), features of the layer; None at first.
        features: those of the crop.
        crop: the positions.
        picture: on whose device the total is.
    """
    if total is None:
        total = picture.new_zeros(*features.shape[:2], *crop.whole, dtype=features.dtype)
    crop.of(total).copy_(features)
    return total
