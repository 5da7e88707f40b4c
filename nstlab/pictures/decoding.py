"""Picture files turned into pixels, sRGB in [0, 1], in memory in proportion to what is used.

Everything that Pillow reads can be decoded, and deep TIFFs that it misreads. Orientation is
applied, colour information is converted to sRGB, and transparency is laid over white. Only the
decoder's own bytes have the picture's full size: they become floating-point numbers some rows at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from nstlab.pictures import profiles
from nstlab.pictures.deep import DeepPng, DeepTiff, Levels, white_of
from nstlab.pictures.opening import decode, opened, orientation, upright, warn_once
from nstlab.pictures.profiles import Convert
from nstlab.pictures.sizes import Part

LARGE = 1 << 24  # pixels; the decoder shrinks JPEGs that have more
BAND = 1 << 20  # pixels that become floating-point numbers at a time
Box = tuple[int, int, int, int]  # left, top, right, bottom
Geometry = tuple[Part, tuple[int, int]]  # the part that is used, and the (H, W) that it gets


# --- pixels ---------------------------------------------------------------------------------------


def read(path: Path, geometry: Callable[[tuple[int, int]], Geometry]) -> Tensor:
    """Read the part of a picture that is used, at the size in which it is used.

    Args:
        geometry: from the picture's (H, W) to the part and its (H, W).

    Returns:
        (1, 3, H, W) float32, sRGB in [0, 1].

    Raises:
        InputError: if the file cannot be read as a picture.
    """
    with opened(path) as image:
        (_, _, height, width), shape = geometry(upright(image))
        # The decoder of JPEGs can shrink.
        shrunk = image.width * image.height > LARGE and image.format in ("JPEG", "MPO")
        if shrunk:  # to twice what is needed: the filter does the rest
            factor = min(height / shape[0], width / shape[1]) / 2
            image.draft(None, (ceil(image.width / factor), ceil(image.height / factor)))
        decode(path, image, more=4 * 3 * (image.height + 2 * shape[0]) * shape[1])
        pixels = Pixels(path, image)
        part, exact = geometry(pixels.shape)
        return _scaled(pixels, part, shape if shrunk else exact)


def read_labels(path: Path) -> tuple[Tensor, np.ndarray | None]:
    """Read a label picture at its own size, without a conversion of its colours.

    Returns:
        (1, 3, H, W) in [0, 1], and (H, W) integers if it is made of numbers, else None.

    Raises:
        InputError: if the file cannot be read as a picture.
    """
    with opened(path) as image:
        decode(path, image, more=4 * 3 * 2 * image.width * image.height)
        pixels = Pixels(path, image, convert=False)
        return _scaled(pixels, (0, 0, *pixels.shape), pixels.shape), pixels.numbers()


def _scaled(pixels: Pixels, part: Part, shape: tuple[int, int]) -> Tensor:
    """A part of a picture at (H, W), as `images.resize` makes it: rows in bands, then columns."""
    top, left, height, width = part
    narrow = torch.empty(1, 3, height, shape[1])
    for box in _boxes(left, top, width, height):
        band = torch.from_numpy(pixels.part(box)).permute(2, 0, 1)[None].contiguous()
        if width != shape[1]:
            band = interpolate(band, (band.shape[-2], shape[1]))
        narrow[..., box[1] - top : box[3] - top, :] = band
    return resize(narrow, shape)


def _boxes(left: int, top: int, width: int, height: int) -> list[Box]:
    """A part of a picture, in bands."""
    rows = max(1, BAND // width)
    return [
        (left, top + y, left + width, top + min(y + rows, height)) for y in range(0, height, rows)
    ]


def resize(picture: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, 3, h, w) -> (1, 3, H, W) in [0, 1]; in place if the picture has this shape."""
    if tuple(picture.shape[-2:]) != tuple(shape):
        picture = interpolate(picture, shape)
    return picture.clamp_(0, 1)


def interpolate(values: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, C, h, w) -> (1, C, H, W), by antialiased bicubic interpolation, which may overshoot."""
    return F.interpolate(values, tuple(shape), mode="bicubic", antialias=True, align_corners=False)


# --- colours --------------------------------------------------------------------------------------

ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
GREY = ("1", "L", "LA", "La")


class Pixels:
    """A decoded picture, upright: any part of it in sRGB.

    What is special about its colours is logged.

    Args:
        path: the picture's file.
        image: the picture, decoded.
        convert: use its colour information. Label pictures are numbers, so that theirs is not used.

    Attributes:
        shape: (H, W).
    """

    def __init__(self, path: Path, image: Image.Image, convert: bool = True):
        self._levels = _levels(image)
        if self._levels is None:
            ImageOps.exif_transpose(image, in_place=True)
            self.shape = image.size[::-1]
            self._mode = "L" if image.mode in GREY else image.mode
        else:
            self.shape = self._levels.values.shape[:2]
            self._mode = self._levels.mode
        if self._mode not in ("L", "CMYK", "LAB"):
            self._mode = "RGB"
        self._image = image
        self._convert: Convert | None = None
        if convert or self._mode == "LAB":
            self._convert = profiles.conversion(path, image, self._mode, exact=self._levels is None)
        self._ignores_alpha = self._hides_everything()
        if self._ignores_alpha:
            warn_once(path, "is transparent everywhere; its colours are used as if it were not")
        frames = image.info.get("frames", 1)
        if frames > 1:
            which = "largest" if image.format == "TIFF" else "first"
            warn_once(path, f"has {frames} pictures; the {which} one is used")

    def part(self, box: Box) -> np.ndarray:
        """(h, w, 3) float32, sRGB in [0, 1]."""
        return self._shallow(box) if self._levels is None else self._deep(self._levels, box)

    def _shallow(self, box: Box) -> np.ndarray:
        """Of a picture of 8 bits."""
        image = self._image.crop(box)
        if image.mode in ALPHA or "transparency" in image.info:
            image = image.convert("RGBA")
            image = image.convert("RGB") if self._ignores_alpha else _over_white(image)
        if image.mode == "P":
            image = image.convert("RGB")
        elif self._mode == "L":
            image = image.convert("L")
        return self._converted(image)

    def _converted(self, image: Image.Image) -> np.ndarray:
        """(h, w, 3) float32, sRGB in [0, 1], of an image of 8 bits."""
        image = self._convert(image) if self._convert else image
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0

    def _deep(self, levels: Levels, box: Box) -> np.ndarray:
        """Of a deep picture; in full depth unless its colours are converted, in 8 bits."""
        colours, alpha = levels.colours(box, self._ignores_alpha)
        if alpha is not None and self._mode in ("L", "RGB"):
            colours = colours * alpha + 1 - alpha
            alpha = None
        if self._convert or self._mode == "CMYK":
            height, width = colours.shape[:2]
            stored = np.round(colours * 255).astype(np.uint8)
            colours = self._converted(
                Image.frombytes(self._mode, (width, height), stored.tobytes())
            )
        if alpha is not None:
            colours = colours * alpha + 1 - alpha
        return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours

    def _hides_everything(self) -> bool:
        """Whether it is transparent everywhere, although it has colours."""
        image = self._image
        levels = self._levels
        if levels is not None:
            if not levels.alpha or levels.values[..., levels.count].any():
                return False
            colours = levels.values[..., : levels.count]
            return bool((colours != colours[:1, :1]).any())
        if image.mode in ("RGBA", "LA", "PA"):
            *colours, alpha = image.getextrema()
            return alpha == (0, 0) and any(low != high for low, high in colours)
        clear = image.info.get("transparency")
        used = _used(image)
        return (
            isinstance(clear, bytes)
            and len(used) > 1
            and not any((clear[i : i + 1] or b"\xff")[0] for i in used)
        )

    def numbers(self) -> np.ndarray | None:
        """(H, W) integers, if the picture is rather numbers than colours, else None.

        Numbers are grey of more than 8 bits, if they are whole, and those of a palette in which
        several have the same colour.
        """
        if self._levels is not None:
            values = self._levels.values[..., 0]
            is_bare = self._levels.values.shape[2] == 1 and not self._levels.clear
            is_whole = is_bare and bool((values == np.round(values)).all())
            return values.astype(np.int64) if is_whole else None
        palette = self._image.getpalette("RGB") or []
        used = _used(self._image)
        distinct = {tuple(palette[3 * i : 3 * i + 3]) for i in used}
        return np.asarray(self._image).astype(np.int64) if len(distinct) < len(used) else None


def _used(image: Image.Image) -> list[int]:
    """The numbers that a picture with a palette uses."""
    if image.mode != "P":
        return []
    return [number for number, count in enumerate(image.histogram()) if count]


def _levels(image: Image.Image) -> Levels | None:
    """The numbers of a deep picture, upright; None for one of 8 bits."""
    if isinstance(image, (DeepPng, DeepTiff)):
        return image.levels.upright(orientation(image))
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    values = np.asarray(image)[..., None]
    bits = 16 if image.mode.startswith("I;16") else 32
    return Levels(values, "L", 0.0, white_of(values, bits)).upright(orientation(image))


def _over_white(image: Image.Image) -> Image.Image:
    """The picture without transparency, laid over white."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
