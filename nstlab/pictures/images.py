"""Pictures in and out: load, save, resize.

Contract: a picture is a contiguous float32 tensor of shape (1, 3, H, W), sRGB with values in [0,
1]. `size` is always the LONG side in pixels. Whatever cannot be used raises InputError.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError, one_of
from nstlab.base.settings import FITS, MIN_SIDE, user_path
from nstlab.pictures import encoding
from nstlab.pictures.decoding import Part, read, resized
from nstlab.pictures.deep import DeepPng, DeepTiff
from nstlab.pictures.opening import METADATA_KEY, decode, load_pixels, opened, upright
from nstlab.pictures.samples import path_of, sample_path

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_COMMENT = 64_000  # bytes, of a JPEG; older versions of Pillow want room for its header
ROUNDED = 0.02  # part by which proportions may differ through rounding

logger = logging.getLogger("nstlab")


# --- sample pictures ------------------------------------------------------------------------------


def sample(name: str, size: int | None = None) -> Tensor:
    """A sample picture by name, (1, 3, H, W) in [0, 1]; `size` is its long side in pixels."""
    return load(sample_path(name), size)


# --- reading --------------------------------------------------------------------------------------


def load(source: str | os.PathLike, size: int | None = None) -> Tensor:
    """Read a picture.

    Args:
        source: a path, or the name of a sample picture.
        size: long side in pixels after resizing; None keeps the picture's own.
    Returns: (1, 3, H, W) float32, sRGB in [0, 1]. Raises: InputError if there is no such file, if
    it is not a picture, damaged, too small, too large or too long, or if reading it needs more
    memory than is free.
    """
    path = path_of(source)
    return read(
        path, lambda shape: ((0, 0, *shape), shape if size is None else fit_size(shape, size, path))
    )


def load_fit(
    source: str | os.PathLike, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0
) -> Tensor:
    """`fit(load(source), shape, how, scale)`, without holding the picture at its full size."""
    return read(path_of(source), lambda own: fitting(own, shape, how, scale))


def shape_of(source: str | os.PathLike, size: int | None = None) -> tuple[int, int]:
    """(H, W) of what `load` would return, from the file's header alone. Raises InputError as `load`
    does."""
    path = path_of(source)
    with opened(path) as image:
        return upright(image) if size is None else fit_size(upright(image), size, path)


def format_of(path: str | os.PathLike) -> str:
    """The format, such as "PNG", of a picture, which is read to its end. Raises InputError as
    `load` does."""
    with opened(path) as image:
        decode(path, image)
        return image.format


def reopen(path: str | os.PathLike) -> Tensor:
    """Read a picture that `save` wrote, (1, 3, H, W) in [0, 1], of any size and shape. InputError
    if it is damaged."""
    with opened(path, any_shape=True) as image:
        if isinstance(image, DeepTiff):
            return encoding.picture_of(encoding.read_tiff(Path(path)))
        load_pixels(image)
        levels = (
            image.levels.values if isinstance(image, DeepPng) else np.asarray(image.convert("RGB"))
        )
        return encoding.picture_of(levels)


def verify(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of a picture of any size and shape, which is read to its end. InputError if it is
    damaged."""
    with opened(path, any_shape=True) as image:
        load_pixels(image)
        return image.size[::-1]


def quantized(image: Tensor) -> Tensor:
    """The picture as a PNG keeps it, in 256 levels a channel; (1, 3, H, W) in [0, 1]."""
    return encoding.picture_of(np.asarray(to_pil(image)))


def check_picture(image: Tensor, what: str) -> Tensor:
    """The picture, if it is (1, 3, H, W), floating-point and finite everywhere; else InputError,
    which calls it `what`."""
    if not isinstance(image, Tensor):
        raise InputError(
            f"{what}: a {type(image).__name__} is not a picture; expected is a tensor (1, 3, H, W)"
        )
    if image.ndim != 4 or len(image) != 1 or not image.numel() or not image.is_floating_point():
        shape = tuple(image.shape)
        raise InputError(
            f"{what}: {shape} {image.dtype} is not a picture; expected is (1, 3, H, W), "
            "floating-point"
        )
    if not (image.is_meta or bool(image.isfinite().all())):
        raise InputError(f"{what}: has values that are not finite")
    return image


def _check_colours(image: Tensor) -> None:
    """Raise InputError unless this is one picture of three channels, which can be written."""
    if check_picture(image, "picture").shape[1] != 3:
        raise InputError(
            f"picture: {tuple(image.shape)} has no three channels; expected is (1, 3, H, W)"
        )


# --- sizes ----------------------------------------------------------------------------------------


def fit_size(
    shape: Sequence[int], size: int, what: Any = "picture", name: str = "size"
) -> tuple[int, int]:
    """(H, W) of the same proportions with the long side `size`.

    Raises: InputError, about `what`, if the short side gets too short. name: of the size there."""
    if not isinstance(size, (int, np.integer)):
        raise InputError(f"size: {size!r} is not a whole number, the long side in px")
    height, width = shape
    scale = size / max(height, width)
    fitted = max(1, round(height * scale)), max(1, round(width * scale))
    if min(fitted) < MIN_SIDE:
        raise InputError(
            f"{what}: {width}×{height} at {name} {size} has a side of {min(fitted)} px; "
            f"{name} must be {-(-MIN_SIDE * max(height, width) // min(height, width))} or more"
        )
    return fitted


def alike(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes (H, W) have the same proportions, but for rounding."""
    return abs(shape[1] * other[0] / (shape[0] * other[1]) - 1) <= ROUNDED


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The picture at (H, W), by antialiased bicubic interpolation of its sRGB values; (1, 3, H, W)
    in [0, 1]."""
    return image if tuple(image.shape[-2:]) == tuple(shape) else resized(image, shape)


def fit(image: Tensor, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0) -> Tensor:
    """Give a painting the photo's shape (H, W), in one of settings.FITS; `scale` enlarges it, and
    with it its strokes.

    stretch: resized to exactly H × W, as the paper does; its proportions change.
    crop:    the largest middle part that has the photo's proportions, resized to H × W.
    area:    its own proportions, as many pixels as the photo.
    own:     its own pixels, so that strokes are as large as in its file, however large the photo.
    """
    own = tuple(image.shape[-2:])
    (top, left, height, width), shape = fitting(own, shape, how, scale)
    if (height, width) != own:
        image = image[..., top : top + height, left : left + width]
    return resize(image, shape)


def fitting(
    own: Sequence[int], shape: Sequence[int], how: str, scale: float
) -> tuple[Part, tuple[int, int]]:
    """What `fit` does to a picture of shape `own`: (the part that it uses, the (H, W) that it gives
    to it).

    Raises: InputError for an unknown `how`, and for a scale that is not a positive number."""
    one_of("fit", how, FITS)
    if not 0 < scale < inf:
        raise InputError(f"scale: {scale} is not allowed; allowed is a number more than 0")
    (h, w), (height, width), part = own, shape, (0, 0, *own)
    if how == "crop":
        shrink = min(h / height, w / width)
        new_h = max(1, round(shrink * height))
        new_w = max(1, round(shrink * width))
        part = ((h - new_h) // 2, (w - new_w) // 2, new_h, new_w)
    elif how == "own":
        height, width = own
    elif how == "area":
        factor = (height * width / (h * w)) ** 0.5
        height = h * factor
        width = w * factor
    return part, (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))


# --- writing --------------------------------------------------------------------------------------


def to_pil(image: Tensor) -> Image.Image:
    """An 8-bit RGB Pillow image; values outside [0, 1] are clipped, the others rounded to the
    nearest level.

    Raises InputError for what is no picture, such as several at once."""
    _check_colours(image)
    return Image.fromarray(encoding.levels_of(image))


def check_writable(path: str | os.PathLike, deep: bool = False) -> Path:
    """The path, if a picture, with 16 bits if `deep`, can be written there; else InputError, before
    any work is done."""
    path = user_path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{path}: pictures are written as {', '.join(FORMATS)}, not as '{path.suffix}'"
        )
    if deep and FORMATS[path.suffix.lower()] == "JPEG":
        raise InputError(f"{path}: a JPEG has 8 bits a channel; 16 are for .png and .tif")
    return files.check_writable(path)


def save(
    image: Tensor,
    path: str | os.PathLike,
    settings: dict[str, Any] | None = None,
    deep: bool = False,
) -> Path:
    """Write a picture as PNG, JPEG or TIFF, as its suffix says, with `settings` in its metadata
    (see `read_settings`).

    deep: with 16 bits a channel, which a JPEG cannot have. The file is written beside its place
    first and then renamed. Raises InputError if it is no picture, or cannot be written."""
    _check_colours(image)
    path = check_writable(path, deep)
    text = json.dumps(settings or {})
    form = FORMATS[path.suffix.lower()]
    if deep:
        with files.replacing(path) as temporary:
            if form == "PNG":
                encoding.write_png(temporary, image, METADATA_KEY, text)
            else:
                encoding.write_tiff(temporary, image, text)
        return path
    if form == "PNG":
        extra: dict[str, Any] = {"pnginfo": PngImagePlugin.PngInfo()}
        extra["pnginfo"].add_itxt(METADATA_KEY, text)
    elif form == "TIFF":
        extra = {"compression": "tiff_lzw", "tiffinfo": {ExifTags.Base.ImageDescription: text}}
    else:
        comment = text.encode()
        if len(comment) > LONGEST_COMMENT:
            comment = b""
            logger.warning("%s: the settings are too long for a JPEG and are left out", path)
        extra = {"quality": 95, "subsampling": 0, "comment": comment}
    with files.replacing(path) as temporary:
        to_pil(image).save(temporary, form, **extra)
    return path


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """The settings that `save` put into a picture; empty if there are none."""
    with opened(path, any_shape=True) as image:
        tags = getattr(image, "tag_v2", {})
        text = (
            image.info.get(METADATA_KEY)
            or image.info.get("comment")
            or tags.get(ExifTags.Base.ImageDescription, "")
        )
    with contextlib.suppress(ValueError):
        found = jsonfiles.parse(text)
        return found if isinstance(found, dict) else {}
    return {}


def save_gif(
    frames: Iterable[Tensor],
    shape: Sequence[int],
    path: str | os.PathLike,
    size: int = 384,
    seconds: float = 4.0,
) -> Path:
    """Write an animated GIF that lasts about `seconds` and then stays on the last frame for a
    while.

    frames: (1, 3, H, W), taken one at a time. shape: (H, W) of the animation, scaled down to a long
    side of at most `size` px."""
    path = Path(path)
    shape = fit_size(shape, min(size, max(shape)))
    pictures = [
        to_pil(resize(frame.float(), shape)).quantize(dither=Image.Dither.FLOYDSTEINBERG)
        for frame in frames
    ]
    each = max(20, round(1000 * seconds / len(pictures)))  # ms
    durations = [each] * (len(pictures) - 1) + [1500]
    with files.replacing(path) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )
    return path
