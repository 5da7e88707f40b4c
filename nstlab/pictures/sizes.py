"""Sizes of pictures: what (H, W) a picture gets, and which part of it is used."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from nstlab.base.errors import InputError, one_of
from nstlab.base.settings import FITS, MIN_SIDE

Part = tuple[int, int, int, int]  # top, left, height, width
ROUNDED = 0.02  # part by which proportions may differ through rounding


def fit_size(
    shape: Sequence[int], size: int, what: Any = "picture", name: str = "size"
) -> tuple[int, int]:
    """(H, W) of the same proportions as `shape`, (H, W), with the long side `size` in pixels.

    Args:
        what: what the picture is, for the message.
        name: what `size` is called there.

    Raises:
        InputError: if the size is no integer, or the short side has fewer than MIN_SIDE pixels.
    """
    if not isinstance(size, (int, np.integer)):
        raise InputError(f"size: {size!r} is not a whole number, the long side in px")
    height, width = shape
    scale = size / max(height, width)
    fitted = max(1, round(height * scale)), max(1, round(width * scale))
    if min(fitted) < MIN_SIDE:
        smallest = -(-MIN_SIDE * max(height, width) // min(height, width))
        raise InputError(
            f"{what}: {width}×{height} at {name} {size} has a side of {min(fitted)} px; "
            f"{name} must be {smallest} or more"
        )
    return fitted


def same_proportions(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes (H, W) have the same proportions, but for rounding."""
    return abs(shape[1] * other[0] / (shape[0] * other[1]) - 1) <= ROUNDED


def fit_geometry(
    source: Sequence[int], shape: Sequence[int], how: str, scale: float
) -> tuple[Part, tuple[int, int]]:
    """What `images.fit` does to a picture.

    Args:
        source: (H, W) of the picture.
        shape: (H, W) of the photo.
        how: one of settings.FITS.
        scale: factor of the result's sides, more than 0.

    Returns:
        The part of the picture that is used, and the (H, W) that it gets.

    Raises:
        InputError: for an unknown `how`, and for a scale that is not a positive number.
    """
    one_of("fit", how, FITS)
    if not 0 < scale < inf:
        raise InputError(f"scale: {scale} is not allowed; allowed is a number more than 0")
    source_height, source_width = source
    height, width = shape
    part = (0, 0, source_height, source_width)
    if how == "crop":
        shrink = min(source_height / height, source_width / width)
        part_height = max(1, round(shrink * height))
        part_width = max(1, round(shrink * width))
        top = (source_height - part_height) // 2
        left = (source_width - part_width) // 2
        part = (top, left, part_height, part_width)
    elif how == "own":
        height, width = source
    elif how == "area":
        factor = (height * width / (source_height * source_width)) ** 0.5
        height = source_height * factor
        width = source_width * factor
    return part, (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))
