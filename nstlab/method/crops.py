"""Parts of a picture, or of a layer's features, by rows and columns: what a tile stands for, and
what is read for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """Some of a layer's positions: rows and columns of all its (h, w)."""

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
        rows, columns = (
            slice(max(0, span.start - margin), min(span.stop + margin, size))
            for span, size in zip((self.rows, self.columns), self.whole, strict=True)
        )
        return Crop(rows, columns, self.whole)

    def relative_to(self, other: Crop) -> Crop:
        """The same positions, counted from the first ones of a crop that holds them."""
        top, left = other.rows.start, other.columns.start
        rows = slice(self.rows.start - top, self.rows.stop - top)
        return Crop(rows, slice(self.columns.start - left, self.columns.stop - left), other.shape)

    def scatter(self, values: Tensor) -> Tensor:
        """(…, m), numbers of each position here -> (…, M), with zeros for all others.

        In an order in which crops of a grid do not overlap.
        """
        (height, _), first = self.shape, self.rows.start * self.whole[1]
        full = values.new_zeros(*values.shape[:-1], prod(self.whole))
        full.narrow(-1, first + height * self.columns.start, values.shape[-1]).copy_(values)
        return full


def accumulate(total: Tensor | None, part: Tensor) -> Tensor:
    """A sum, None at first, with one more part, which may become the sum itself."""
    return part if total is None else total.add_(part)


def fill_positions(total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor) -> Tensor:
    """All features of a layer, with those of a crop filled in: for `Term.accumulate_target`.

    They are where the picture is.
    """
    if total is None:
        total = picture.new_zeros(*features.shape[:2], *crop.whole, dtype=features.dtype)
    crop.of(total).copy_(features)
    return total
