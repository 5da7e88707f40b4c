"""Picture files turned into pixels: every problem is told in one line, and memory stays in proportion to what is used.

Everything that Pillow reads can be decoded. EXIF orientation is applied, embedded ICC profiles are converted to sRGB, and
transparency is laid over white. Only the decoder's own bytes have the picture's full size: they become floating-point numbers
some rows at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import ceil, prod
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from nstlab import large
from nstlab.files import regular
from nstlab.settings import MIN_SIDE, InputError

MAX_PIXELS = 175_000_000  # more is taken for a decompression bomb; Pillow itself refuses a little more than this
ALLOWING = "NSTLAB_MAX_PIXELS"  # environment variable with which a user allows more
MAX_ASPECT = 8.0  # long side / short side
TAIL = 1 << 20  # bytes at the end of a file that are searched for metadata
LARGE = 1 << 24  # pixels; the decoder shrinks JPEGs that have more
BAND = 1 << 20  # pixels that become floating-point numbers at a time
Part = tuple[int, int, int, int]  # top, left, height, width
Use = Callable[[tuple[int, int]], tuple[Part, tuple[int, int]]]  # full (H, W) -> the part that is used, and its (H, W) in use


# --- opening ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str | os.PathLike, any_shape: bool = False) -> Iterator[Image.Image]:
    """A picture of which only the header has been read. Whatever goes wrong while it is open becomes an InputError.

    Sides that are not allowed are refused, unless it may have `any_shape`. A PNG with metadata behind its pixels is decoded."""
    if max_pixels() > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels()
    # Opened as a file: given a path, Pillow maps uncompressed TIFFs into memory, and then transposes them wrongly.
    with _one_line_errors(path), regular(path).open("rb") as file, Image.open(file) as image:
        if not any_shape:
            check_shape(path, *image.size)
            if image.format == "PNG" and _has_late_metadata(Path(path)):
                decode(path, image)
        yield image


@contextlib.contextmanager
def _one_line_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever goes wrong while a picture is read into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and large pictures; we check ourselves
            yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not a picture (or damaged); allowed are PNG, JPEG, TIFF, WebP and the like") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: has {_too_many(max_pixels())}") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        raise InputError(f"{path}: is damaged or cut short ({str(error) or type(error).__name__})") from None


def max_pixels() -> int:
    """The most pixels that a picture may have: MAX_PIXELS, or what the user allows."""
    text = os.environ.get(ALLOWING, "")
    if text and not text.isdecimal():
        raise InputError(f"{ALLOWING}: '{text}' is not a number of pixels")
    return int(text) if text else MAX_PIXELS


def _too_many(most: int) -> str:
    return f"more than {most / 1e6:.0f} million pixels, the most allowed; {ALLOWING} allows more"


def check_shape(path: str | os.PathLike, width: int, height: int) -> None:
    """Raise InputError for sides, in pixels, that pictures may not have."""
    if width * height > max_pixels():
        raise InputError(f"{path}: {width}×{height} is {_too_many(max_pixels())}")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path}: {width}×{height} is too small; both sides must have {MIN_SIDE} px or more")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{path}: {width}×{height} is too long; the ratio of its sides may be at most {MAX_ASPECT:g}")


def _has_late_metadata(path: Path) -> bool:
    """Whether a PNG seems to have metadata behind its pixels, which are known only when it has been decoded."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        end = file.read()
    return b"eXIf" in end or b"XML:com.adobe.xmp" in end


def decode(path: str | os.PathLike, image: Image.Image, more: int = 0) -> None:
    """Decode the pixels. InputError, before that, if they and `more` bytes do not fit into the free memory."""
    check_memory(path, 8 * image.width * image.height + more)
    image.load()


def check_memory(path: str | os.PathLike, needed: int) -> None:
    """Raise InputError if so many bytes, which reading the file takes, do not fit into the free memory."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(f"{path}: reading it needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")


def upright(image: Image.Image) -> tuple[int, int]:
    """(H, W) of the picture once it is turned as its EXIF data say."""
    already = image.format == "TIFF" and ExifTags.Base.Orientation in image.tag_v2  # then Pillow tells the turned size
    sideways = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size if sideways and not already else image.size[::-1]


# --- pixels -----------------------------------------------------------------------------------------------------


def read(path: Path, use: Use, folder: str | None = None) -> Tensor:
    """The part of a picture that is used, at the (H, W) in which it is used: (1, 3, H, W) in [0, 1]; in a file in a folder,
    if one is given and it is large."""
    with opened(path) as image:
        (_, _, height, width), shape = use(upright(image))
        shrunk = image.width * image.height > LARGE and image.format in ("JPEG", "MPO")  # whose decoders can shrink
        if shrunk:  # to twice what is needed: the filter does the rest
            factor = min(height / shape[0], width / shape[1]) / 2
            image.draft(None, (ceil(image.width / factor), ceil(image.height / factor)))
        decode(path, image, more=0 if folder else 4 * 3 * (image.height + 2 * shape[0]) * shape[1])
        ImageOps.exif_transpose(image, in_place=True)
        part, exact = use(image.size[::-1])
        return _scaled(image, part, shape if shrunk else exact, folder)


def _scaled(image: Image.Image, part: Part, shape: tuple[int, int], folder: str | None) -> Tensor:
    """A part of a picture at (H, W), as `images.resize` makes it: first its rows, some at a time, then its columns."""
    top, left, height, width = part
    rows = max(1, BAND // width)
    boxes = [(left, top + y, left + width, top + min(y + rows, height)) for y in range(0, height, rows)]
    white = _white(image, max(_grey(image.crop(box)).max() for box in boxes)) if _is_deep(image) else 1.0
    narrow = large.blank((1, 3, height, shape[1]), folder)
    for box in boxes:
        band = torch.from_numpy(_pixels(image.crop(box), white)).permute(2, 0, 1)[None].contiguous()
        band = band if width == shape[1] else interpolated(band, (band.shape[-2], shape[1]))
        narrow[..., box[1] - top : box[3] - top, :] = band
        large.release(narrow)
    return resized(narrow, shape, folder)


def resized(picture: Tensor, shape: Sequence[int], folder: str | None = None) -> Tensor:
    """(1, 3, h, w) -> (1, 3, H, W), as `interpolated`, in [0, 1]."""
    if tuple(picture.shape[-2:]) != tuple(shape):
        picture = interpolated(picture, shape, folder)
    return large.over(lambda picture: picture.clamp_(0, 1), picture)


def interpolated(values: Tensor, shape: Sequence[int], folder: str | None = None) -> Tensor:
    """(1, C, h, w) -> (1, C, H, W), in any range, by antialiased bicubic interpolation, which may overshoot.

    If either is large, its rows are interpolated first, some at a time, and then its columns. The result is in a file in the
    folder, if one is given, or in that in which the values are."""
    folder, (height, width) = folder or large.folder_of(values), shape
    lead = values.shape[:-2]
    if large.is_small(values) and prod(lead) * height * width <= (large.LARGE if folder is None else large.SMALL):
        return F.interpolate(values, tuple(shape), mode="bicubic", antialias=True, align_corners=False)
    narrow = _along(values, (values.shape[-2], width), -2, folder)
    return _along(narrow, shape, -1, folder)


def _along(values: Tensor, shape: Sequence[int], across: int, folder: str | None) -> Tensor:
    """The values interpolated in one dimension, parts of the other one at a time."""
    made = (
        large.blank((*values.shape[:-2], *shape), folder, values.dtype)
        if folder
        else values.new_empty(*values.shape[:-2], *shape)
    )
    most, length = max(values.numel(), made.numel()), shape[across]
    each = max(1, length * large.BAND // most)
    for first in range(0, length, each):
        part = values.narrow(across, first, min(each, length - first))
        wanted = [part.shape[i] if i == across else shape[i] for i in (-2, -1)]
        new = F.interpolate(part, wanted, mode="bicubic", antialias=True, align_corners=False)
        made.narrow(across, first, part.shape[across]).copy_(new)
        large.release(values, made)
    return made


def _pixels(image: Image.Image, white: float) -> np.ndarray:
    """(H, W, 3) float32, sRGB in [0, 1], of a picture in any mode; `white` is the value of white in deep grey."""
    if _is_deep(image):
        return np.repeat((_grey(image) / white).clip(0, 1)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _over_white(image)
    if image.mode == "P":
        image = image.convert("RGB")
    return np.asarray(_to_srgb(image).convert("RGB"), dtype=np.float32) / 255.0


def _is_deep(image: Image.Image) -> bool:
    """Whether a picture is grey with 16 or 32 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _grey(image: Image.Image) -> np.ndarray:
    """(H, W) float32, the values of a deep grey picture as they are stored; those that are not finite become 0."""
    return np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)


def _white(image: Image.Image, brightest: float) -> float:
    """The value that stands for white in a deep grey picture, judged by its brightest value."""
    if image.mode == "F" and brightest <= 255:
        return 1.0 if brightest <= 1 else 255.0
    return 65535.0


def _over_white(image: Image.Image) -> Image.Image:
    """The picture without transparency, laid over white; its profile stays with it."""
    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    flat.info["icc_profile"] = image.info.get("icc_profile")
    return flat


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture converted to sRGB by its ICC profile; unchanged if it has none, or one that cannot be read."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image
