"""Picture files opened: what is refused, and every problem in one line."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from PIL import ExifTags, Image, UnidentifiedImageError

from nstlab.base.errors import InputError
from nstlab.base.files import regular_file
from nstlab.base.settings import MIN_SIDE
from nstlab.pictures import jpeg, kinds, png, tiff
from nstlab.pictures.deep import DeepPng, DeepTiff
from nstlab.pictures.kinds import READABLE, Refused
from nstlab.pictures.tiff import Tags

# More is taken for a decompression bomb; Pillow itself refuses a little more than this.
MAX_PIXELS = 175_000_000
ALLOWING = "NSTLAB_MAX_PIXELS"  # environment variable with which a user allows more
MAX_ASPECT = 8.0  # long side / short side
METADATA_KEY = "nstlab"  # under which a PNG keeps its settings
# The texts of a PNG that count.
TEXTS = (METADATA_KEY.encode(), b"XML:com.adobe.xmp", b"Raw profile type exif")


@contextlib.contextmanager
def opened(path: str | os.PathLike, any_shape: bool = False) -> Iterator[Image.Image]:
    """A picture of which only the header has been read; `decode` or `load_pixels` reads its pixels.

    In `image.info`, "tags" are the tiff.Tags of a TIFF or of EXIF data; for "frames", "cicp" and
    "check" see `png.tidied`.

    Args:
        any_shape: allow sides that `check_shape` refuses.

    Raises:
        InputError: for whatever goes wrong in the block.
    """
    if max_pixels() > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels()
    _silence_libtiff()
    for name in ("PIL", "tifffile"):  # which log what we tell in our own words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Opened as a file: given a path, Pillow maps uncompressed TIFFs into memory, and then
    # transposes them wrongly.
    with _one_line_errors(path), regular_file(path).open("rb") as file, _image(file) as image:
        _keep_orientation(image)
        if not any_shape:
            check_shape(path, *image.size)
        yield image


@functools.cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to stderr what Pillow raises, too. On Windows it is hidden."""
    with contextlib.suppress(OSError, AttributeError):
        handle = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        handle.argtypes = [ctypes.c_void_p]
        handle.restype = ctypes.c_void_p
        handle(None)


def _image(file: BinaryIO) -> Image.Image:
    """The picture in a file, in the class that reads it."""
    head = file.read(kinds.HEAD)
    if kind := kinds.refused_kind(head):
        raise Refused(kind)
    if head.startswith(png.SIGNATURE):
        return _png(file)
    if head.startswith(tiff.SIGNATURES):
        return _tiff(file)
    image = _other(file, head)
    image.info["frames"] = _frames(image, file)
    return image


def _png(file: BinaryIO) -> Image.Image:
    tidied, facts = png.tidied(file, TEXTS)
    image = Image.open(tidied)
    rawmode = image.tile[0].args if image.tile else ""
    if rawmode in DeepPng.KINDS:
        tidied.seek(0)
        image = DeepPng(tidied)
    elif image.mode == "L" and isinstance(image.info.get("transparency"), int):
        # Pillow scales the pixels of 2 and 4 bits, but not the level that is transparent.
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(rawmode, 1)
    image.info |= facts
    return image


def _tiff(file: BinaryIO) -> Image.Image:
    page, count = tiff.largest_page(file)
    is_compressed = page.first(tiff.COMPRESSION, 1) > 1
    facts: dict[str, Any] = {"frames": count, "tags": page, "check": page.check}
    # The decoder holds a compressed file as a whole.
    facts["held"] = file.seek(0, io.SEEK_END) if is_compressed else 0
    try:
        if page.is_deep:
            image = DeepTiff(page)
        else:
            image = Image.open(page.alone(tiff.NEEDED - {tiff.SAMPLE_FORMAT}))
    except UnidentifiedImageError:
        image = DeepTiff(page)
    image.info |= facts
    return image


def _other(file: BinaryIO, head: bytes) -> Image.Image:
    """A picture of another format, without metadata if they keep Pillow from opening it."""
    try:
        return Image.open(file)
    except (Image.DecompressionBombError, MemoryError):
        raise
    except Exception:
        file.seek(0)
        if head.startswith(jpeg.SIGNATURE):
            return Image.open(jpeg.tidied(file))
        if re.match(rb".{4}ftypavi", head, re.DOTALL) and b"Exif" in head:
            return Image.open(io.BytesIO(file.read().replace(b"Exif", b"none")))
        raise


def _frames(image: Image.Image, file: BinaryIO) -> int:
    """How many pictures a file has that follow each other."""
    if image.format == "PSD":  # which has layers
        return 1
    if image.format != "GIF":
        return getattr(image, "n_frames", 1)
    # To count them, they are sought.
    with contextlib.suppress(Exception), Image.open(file) as other:
        return other.n_frames
    return 1


def _keep_orientation(image: Image.Image) -> None:
    """Leave only the orientation of a picture's EXIF and XMP data, which may be damaged."""
    number = _stored_orientation(image.info)
    with contextlib.suppress(Exception):
        Image.Image.getexif(image)  # the second time, there is what could be read
    Image.Image.getexif(image)[ExifTags.Base.Orientation] = number


def _stored_orientation(info: dict[Any, Any]) -> int:
    """Take EXIF and XMP data out of the metadata; return their orientation, EXIF's first, or 1."""
    hexadecimal = info.pop("Raw profile type exif", "")
    exif = info.pop("exif", b"")
    with contextlib.suppress(ValueError):
        exif = exif or bytes.fromhex("".join(hexadecimal.split("\n")[3:]))
    if exif:
        info.setdefault("tags", Tags(io.BytesIO(re.sub(rb"^(Exif\0\0)+", b"", exif))))
    tags: Tags | None = info.get("tags")
    xmp = info.pop("xmp", b"") or (bytes(tags.values(tiff.XMP)) if tags else b"")
    info.pop("XML:com.adobe.xmp", None)
    number = tags.first(tiff.ORIENTATION, 0) if tags else 0
    if number in range(1, 9):
        return number
    match = re.search(rb'tiff:Orientation(="|>)([1-8])', xmp)
    return int(match[2]) if match else 1


@contextlib.contextmanager
def _one_line_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever goes wrong while a picture is read into one line."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of broken EXIF and large pictures; we check ourselves
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read") from None
    except Refused as error:
        raise InputError(f"{path}: is {error}") from None
    except UnidentifiedImageError:
        kind = describe_unknown(path)
        raise InputError(f"{path}: is {kind}; allowed are {READABLE}") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: has {_too_many(max_pixels())}") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if kind := kinds.unloadable_kind(_head(path)):
            raise InputError(f"{path}: is {kind}; allowed are {READABLE}") from None
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: is damaged or cut short ({reason})") from None


def describe_unknown(path: str | os.PathLike) -> str:
    """What a file is that Pillow does not know, as the end of "is …"."""
    return kinds.unknown_kind(_head(path))


def _head(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read(kinds.HEAD)


def max_pixels() -> int:
    """The most pixels that a picture may have: MAX_PIXELS, or what the user allows.

    Raises:
        InputError: if the environment variable ALLOWING is not a number of pixels.
    """
    text = os.environ.get(ALLOWING, "")
    if text and not re.fullmatch("[1-9][0-9]{0,14}", text):
        raise InputError(
            f"{ALLOWING}: '{text:.40}' is not a number of pixels, such as {2 * MAX_PIXELS}"
        )
    return int(text) if text else MAX_PIXELS


def _too_many(limit: int) -> str:
    return f"more than {limit / 1e6:.6g} million pixels, the most allowed; {ALLOWING} allows more"


def check_shape(path: str | os.PathLike, width: int, height: int) -> None:
    """Raise InputError for sides, in pixels, that pictures may not have.

    They have MIN_SIDE or more, `max_pixels` in all, and a ratio of at most MAX_ASPECT.
    """
    if width * height > max_pixels():
        raise InputError(f"{path}: {width}×{height} is {_too_many(max_pixels())}")
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{path}: {width}×{height} is too small; both sides must have {MIN_SIDE} px or more"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(
            f"{path}: {width}×{height} is too long; the ratio of its sides may be at most "
            f"{MAX_ASPECT:g}"
        )


def decode(path: str | os.PathLike, image: Image.Image, more: int = 0) -> None:
    """Decode the pixels, after `check_memory`.

    Args:
        more: bytes that are needed besides the decoder's.
    """
    pixels = getattr(image, "cost", 8) * image.width * image.height
    check_memory(path, pixels + image.info.get("held", 0) + more)
    load_pixels(image)


def load_pixels(image: Image.Image) -> None:
    """Decode the pixels, after a check of the checksums at which decoders do not look."""
    image.info.pop("check", lambda: None)()
    image.load()


def check_memory(path: str | os.PathLike, needed: int) -> None:
    """Raise InputError if the bytes that reading a file needs do not fit into the free memory."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{path}: reading it needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB "
            "are free"
        )


def upright(image: Image.Image) -> tuple[int, int]:
    """(H, W) of the picture once it is turned as its EXIF data say."""
    return image.size if orientation(image) in (5, 6, 7, 8) else image.size[::-1]


def orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8, in EXIF or XMP data."""
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)


@functools.lru_cache(maxsize=10_000)
def warn_once(path: Path, text: str) -> None:
    """Log something about a picture's file, once."""
    logging.getLogger("nstlab").warning(f"{path}: {text}")
