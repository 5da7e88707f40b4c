"""Pictures in and out: load, save, resize.

A picture is a contiguous float32 tensor of shape (1, 3, H, W), sRGB with values in [0, 1]. `size`
is always the LONG side in pixels. Whatever cannot be used raises InputError.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError
from nstlab.base.settings import FITS, user_path
from nstlab.pictures import decoding, encoding
from nstlab.pictures.deep import DeepPng, DeepTiff
from nstlab.pictures.opening import METADATA_KEY, decode, load_pixels, opened, upright
from nstlab.pictures.samples import path_of, sample_path
from nstlab.pictures.sizes import fit_geometry, fit_size

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_COMMENT = 64_000  # bytes, of a JPEG; older versions of Pillow want space for its header
LAST_FRAME = 1500  # ms, for which an animation stays on it

logger = logging.getLogger("nstlab")


# --- reading --------------------------------------------------------------------------------------


def sample(name: str, size: int | None = None) -> Tensor:
    """A sample picture by name, as `load` reads it.

    Args:
        name: one of `samples()`.
        size: long side in pixels after resizing; None keeps the picture's own.

    Returns:
        (1, 3, H, W) float32, sRGB in [0, 1].

    Raises:
        InputError: if there is no sample of that name.
    """
    return load(sample_path(name), size)


def load(source: str | os.PathLike, size: int | None = None) -> Tensor:
    """Read a picture.

    Args:
        source: a path, or the name of a sample picture.
        size: long side in pixels after resizing; None keeps the picture's own.

    Returns:
        (1, 3, H, W) float32, sRGB in [0, 1].

    Raises:
        InputError: if there is no such file, if it is not a picture, damaged, too small, too large
            or too long, or if reading it needs more memory than is free.
    """
    path = path_of(source)

    def whole_at_size(shape: tuple[int, int]) -> decoding.Geometry:
        return (0, 0, *shape), shape if size is None else fit_size(shape, size, path)

    return decoding.read(path, whole_at_size)


def load_fit(
    source: str | os.PathLike, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0
) -> Tensor:
    """`fit(load(source), shape, how, scale)`, without holding the picture at its full size."""
    return decoding.read(path_of(source), lambda stored: fit_geometry(stored, shape, how, scale))


def shape_of(source: str | os.PathLike, size: int | None = None) -> tuple[int, int]:
    """(H, W) of what `load` would return, from the file's header alone.

    Raises:
        InputError: as `load` does for what the header tells.
    """
    path = path_of(source)
    with opened(path) as image:
        return upright(image) if size is None else fit_size(upright(image), size, path)


def format_of(path: str | os.PathLike) -> str:
    """The format, such as "PNG", of a picture, which is read to its end.

    Raises:
        InputError: as `load` does.
    """
    with opened(path) as image:
        decode(path, image)
        return image.format


def reopen(path: str | os.PathLike) -> Tensor:
    """Read a picture that `save` wrote, of any size and shape: (1, 3, H, W), sRGB in [0, 1].

    Raises:
        InputError: if it is damaged.
    """
    with opened(path, any_shape=True) as image:
        if isinstance(image, DeepTiff):
            return encoding.picture_of(encoding.read_tiff(Path(path)))
        load_pixels(image)
        if isinstance(image, DeepPng):
            return encoding.picture_of(image.levels.values)
        return encoding.picture_of(np.asarray(image.convert("RGB")))


def verify(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of a picture of any size and shape, which is read to its end.

    Raises:
        InputError: if it is damaged.
    """
    with opened(path, any_shape=True) as image:
        load_pixels(image)
        return image.size[::-1]


def quantize(image: Tensor) -> Tensor:
    """(1, 3, H, W) in any range -> the picture as a PNG keeps it, in 256 levels in [0, 1]."""
    return encoding.picture_of(np.asarray(to_pil(image)))


def check_picture(image: Tensor, name: str) -> Tensor:
    """The picture, if it is (1, C, H, W), floating-point and finite everywhere.

    Args:
        name: what the picture is, for the message.

    Raises:
        InputError: if it is something else.
    """
    if not isinstance(image, Tensor):
        raise InputError(
            f"{name}: a {type(image).__name__} is not a picture; expected is a tensor (1, 3, H, W)"
        )
    if image.ndim != 4 or len(image) != 1 or not image.numel() or not image.is_floating_point():
        shape = tuple(image.shape)
        raise InputError(
            f"{name}: {shape} {image.dtype} is not a picture; expected is (1, 3, H, W), "
            "floating-point"
        )
    if not image.is_meta and not image.isfinite().all():
        raise InputError(f"{name}: has values that are not finite")
    return image


def _check_colours(image: Tensor) -> None:
    """Raise InputError unless this is one picture of three channels, which can be written."""
    if check_picture(image, "picture").shape[1] != 3:
        raise InputError(
            f"picture: {tuple(image.shape)} has no three channels; expected is (1, 3, H, W)"
        )


# --- resizing -------------------------------------------------------------------------------------


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, 3, h, w) -> (1, 3, H, W) in [0, 1], by antialiased bicubic interpolation of sRGB values.

    Args:
        shape: (H, W); a picture that has it is returned as it is.
    """
    return image if tuple(image.shape[-2:]) == tuple(shape) else decoding.resize(image, shape)


def fit(image: Tensor, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0) -> Tensor:
    """Give a painting the photo's shape.

    Args:
        image: (1, 3, h, w), the painting.
        shape: (H, W) of the photo.
        how: one of settings.FITS.
            stretch: resized to exactly H × W, as the paper does; its proportions change.
            crop: the largest middle part that has the photo's proportions, resized to H × W.
            area: its own proportions, as many pixels as the photo.
            own: its own pixels, so that strokes are as large as in its file, whatever the photo.
        scale: factor of the result's sides, and with them of its strokes.

    Raises:
        InputError: for an unknown `how`, and for a scale that is not a positive number.
    """
    source = tuple(image.shape[-2:])
    (top, left, height, width), shape = fit_geometry(source, shape, how, scale)
    if (height, width) != source:
        image = image[..., top : top + height, left : left + width]
    return resize(image, shape)


# --- writing --------------------------------------------------------------------------------------


def to_pil(image: Tensor) -> Image.Image:
    """(1, 3, H, W) -> an 8-bit RGB Pillow image, rounded to the nearest level.

    Values outside [0, 1] are clipped.

    Raises:
        InputError: for what is no picture, such as several at once.
    """
    _check_colours(image)
    return Image.fromarray(encoding.levels_of(image))


def check_writable(path: str | os.PathLike, deep: bool = False) -> Path:
    """The path, if a picture can be written there, which is tried before any work is done.

    Args:
        deep: with 16 bits a channel.

    Raises:
        InputError: if it cannot, or if the suffix is not that of a format in FORMATS.
    """
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
    """Write a picture, whole or not at all; return its path.

    Args:
        image: (1, 3, H, W), sRGB; values outside [0, 1] are clipped.
        path: its suffix, one of FORMATS, is the format: PNG, JPEG or TIFF.
        settings: JSON values for its metadata, which `read_settings` reads.
        deep: with 16 bits a channel, which a JPEG cannot have.

    Raises:
        InputError: if it is no picture, or cannot be written.
    """
    _check_colours(image)
    path = check_writable(path, deep)
    text = json.dumps(settings or {})
    format = FORMATS[path.suffix.lower()]
    with files.replacing(path) as temporary:
        if deep and format == "PNG":
            encoding.write_png(temporary, image, METADATA_KEY, text)
        elif deep:
            encoding.write_tiff(temporary, image, text)
        else:
            options = _pillow_options(path, format, text)
            to_pil(image).save(temporary, format, **options)
    return path


def _pillow_options(path: Path, format: str, text: str) -> dict[str, Any]:
    """How Pillow writes a picture with a text in its metadata."""
    if format == "PNG":
        metadata = PngImagePlugin.PngInfo()
        metadata.add_itxt(METADATA_KEY, text)
        return {"pnginfo": metadata}
    if format == "TIFF":
        return {"compression": "tiff_lzw", "tiffinfo": {ExifTags.Base.ImageDescription: text}}
    comment = text.encode()
    if len(comment) > LONGEST_COMMENT:
        comment = b""
        logger.warning("%s: the settings are too long for a JPEG and are left out", path)
    return {"quality": 95, "subsampling": 0, "comment": comment}


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """The settings that `save` put into a picture's metadata; empty if there are none.

    Raises:
        InputError: if the file cannot be read as a picture.
    """
    with opened(path, any_shape=True) as image:
        tags = getattr(image, "tag_v2", {})
        text = (
            image.info.get(METADATA_KEY)
            or image.info.get("comment")
            or tags.get(ExifTags.Base.ImageDescription, "")
        )
    with contextlib.suppress(ValueError):
        settings = jsonfiles.parse(text)
        return settings if isinstance(settings, dict) else {}
    return {}


def save_gif(
    frames: Iterable[Tensor],
    shape: Sequence[int],
    path: str | os.PathLike,
    size: int = 384,
    seconds: float = 4.0,
) -> Path:
    """Write an animated GIF, which stays on its last frame for LAST_FRAME; return its path.

    Args:
        frames: (1, 3, H, W) in [0, 1], taken one at a time.
        shape: (H, W) of the animation, before it is scaled down.
        path: of the file.
        size: long side in pixels at most.
        seconds: about how long the other frames last.

    Raises:
        InputError: if the file cannot be written, or a side gets too short.
    """
    path = Path(path)
    shape = fit_size(shape, min(size, max(shape)))
    pictures = [
        to_pil(resize(frame.float(), shape)).quantize(dither=Image.Dither.FLOYDSTEINBERG)
        for frame in frames
    ]
    duration = max(20, round(1000 * seconds / len(pictures)))  # ms
    durations = [duration] * (len(pictures) - 1) + [LAST_FRAME]
    with files.replacing(path) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )
    return path
