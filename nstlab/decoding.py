"""From a picture file to pixels: whatever goes wrong is one line, and memory stays in proportion to what is used.

Anything Pillow reads can be decoded. EXIF orientation is applied, embedded ICC profiles are converted to sRGB, transparency
is laid over white. Only the decoder's own bytes are held at the picture's own size; they become numbers some rows at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from nstlab.files import regular
from nstlab.settings import MIN_SIDE, InputError

MAX_PIXELS = 175_000_000  # more is taken for a decompression bomb; Pillow itself refuses a little more than this
MAX_ASPECT = 8.0  # long side / short side
TAIL = 1 << 20  # bytes at the end of a file in which metadata are looked for
LARGE = 1 << 24  # pixels; JPEGs of more are shrunk by their decoder
BAND = 1 << 20  # pixels that become numbers at once
Part = tuple[int, int, int, int]  # top, left, height, width
Use = Callable[[tuple[int, int]], tuple[Part, tuple[int, int]]]  # own (H, W) -> the part that is used, and (H, W) to give it


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a picture is read into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and large pictures; we check ourselves
            yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not a picture (or damaged); PNG, JPEG, TIFF, WebP and the like are") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: has more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is read") from None
    except InputError:
        raise
    except OSError as error:
        said = f"cannot be read ({error.strerror})" if error.errno else f"is damaged or cut short ({error})"
        raise InputError(f"{path}: {said}") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        raise InputError(f"{path}: is damaged or cut short ({str(error) or type(error).__name__})") from None


def _check_shape(path: Any, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width}×{height} is more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is read")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path}: {width}×{height} is too small; both sides must have {MIN_SIDE} px or more")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{path}: {width}×{height} is too long; the sides' ratio may be at most {MAX_ASPECT:g}")


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB by its own ICC profile; one without, or with one that cannot be read, is returned as is."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return converted if converted is not None else image
    return image


def _over_white(image: Image.Image) -> Image.Image:
    """Transparency laid over white."""
    rgba = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    flat.info["icc_profile"] = profile
    return flat


def _grey(image: Image.Image) -> np.ndarray:
    """(H, W) float32 of a picture with 16 or 32 bits of grey, as they stand."""
    return np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)


def _is_deep(image: Image.Image) -> bool:
    """Whether it has 16 or 32 bits of grey."""
    return image.mode.startswith("I") or image.mode == "F"


def _white(image: Image.Image, brightest: float) -> float:
    """What stands for white in a picture with 16 or 32 bits of grey, given its brightest value."""
    if image.mode == "F" and brightest <= 255:
        return 1.0 if brightest <= 1 else 255.0
    return 65535.0


def _pixels(image: Image.Image, white: float) -> np.ndarray:
    """(H, W, 3) float32 sRGB in [0, 1] of a picture, or a part of one, of any mode; `white` is that of deep grey."""
    if _is_deep(image):
        return np.repeat((_grey(image) / white).clip(0, 1)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _over_white(image)
    if image.mode == "P":
        image = image.convert("RGB")
    image = _to_srgb(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0


@contextlib.contextmanager
def of_any_shape(path: str | os.PathLike) -> Iterator[Image.Image]:
    """A picture whose header is read; its pixels are not decoded yet."""
    path = Path(path)
    # Opened as a file: given a path, Pillow maps uncompressed TIFFs into memory, and then transposes them wrongly.
    with reading(path), regular(path).open("rb") as file, Image.open(file) as image:
        yield image


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The same, if its sides are allowed; only a PNG that may have metadata behind its pixels is decoded."""
    with of_any_shape(path) as image:
        _check_shape(path, *image.size)
        if image.format == "PNG" and _tells_late(path):
            decode(path, image)
        yield image


def decode(path: Path, image: Image.Image, more: int = 0) -> None:
    """Decode the pixels; InputError, before that, if they and `more` bytes do not fit into the memory that is free."""
    needed, free = 8 * image.width * image.height + more, psutil.virtual_memory().available
    if needed > free:
        raise InputError(f"{path}: reading it needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
    image.load()


def _tells_late(path: Path) -> bool:
    """Whether a PNG seems to have metadata behind its pixels, which are known only when it has been decoded."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        end = file.read()
    return b"eXIf" in end or b"XML:com.adobe.xmp" in end


def upright(image: Image.Image) -> tuple[int, int]:
    """(H, W) as it will be when turned as EXIF says."""
    known = image.format == "TIFF" and ExifTags.Base.Orientation in image.tag_v2  # the size is then that of the turned one
    turned = not known and Image.Image.getexif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size if turned else image.size[::-1]


def read(path: Path, use: Use) -> Tensor:
    """The part of a picture that is used, in the shape in which it is, (1, 3, H, W) in [0, 1]. Only what the decoder gives
    is held at the picture's own size."""
    with opened(path) as image:
        (_, _, height, width), shape = use(upright(image))
        drafted = image.width * image.height > LARGE and image.format in ("JPEG", "MPO")  # whose decoders can shrink
        if drafted:  # half of what they leave is for the filter
            factor = min(height / shape[0], width / shape[1]) / 2
            image.draft(None, (ceil(image.width / factor), ceil(image.height / factor)))
        decode(path, image, more=4 * 3 * (image.height + 2 * shape[0]) * shape[1])
        ImageOps.exif_transpose(image, in_place=True)
        part, exact = use(image.size[::-1])
        return _scaled(image, part, shape if drafted else exact)


def _scaled(image: Image.Image, part: Part, shape: tuple[int, int]) -> Tensor:
    """A part of a picture at (H, W), as `resize` would have it: rows first, some at a time, then columns."""
    top, left, height, width = part
    rows = max(1, BAND // width)
    boxes = [(left, top + y, left + width, top + min(y + rows, height)) for y in range(0, height, rows)]
    white = _white(image, max(_grey(image.crop(box)).max() for box in boxes)) if _is_deep(image) else 1.0
    narrow = torch.empty(1, 3, height, shape[1])
    for box in boxes:
        band = torch.from_numpy(_pixels(image.crop(box), white)).permute(2, 0, 1)[None].contiguous()
        band = band if width == shape[1] else interpolated(band, (band.shape[-2], shape[1]))
        narrow[..., box[1] - top : box[3] - top, :] = band
    return narrow.clamp_(0, 1) if height == shape[0] else interpolated(narrow, shape).clamp_(0, 1)


def interpolated(values: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, C, h, w) -> (1, C, H, W), of any range, by antialiased bicubic interpolation, which may overshoot."""
    return F.interpolate(values, tuple(shape), mode="bicubic", antialias=True, align_corners=False)
