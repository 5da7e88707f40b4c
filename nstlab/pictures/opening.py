"""Picture files opened: what they are, what is refused, and every problem in one line."""

from __future__ import annotations

import codecs
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
from typing import BinaryIO

import psutil
from PIL import ExifTags, Image, UnidentifiedImageError

from nstlab.base.errors import InputError
from nstlab.base.files import regular_file
from nstlab.base.settings import MIN_SIDE
from nstlab.pictures import containers
from nstlab.pictures.containers import Refused, Tags
from nstlab.pictures.deep import DeepPng, DeepTiff

# More is taken for a decompression bomb; Pillow itself refuses a little more than this.
MAX_PIXELS = 175_000_000
ALLOWING = "NSTLAB_MAX_PIXELS"  # environment variable with which a user allows more
MAX_ASPECT = 8.0  # long side / short side
METADATA_KEY = "nstlab"  # under which a PNG keeps its settings
HEAD = 1 << 12  # bytes by which a file is told
# The texts of a PNG that count.
TEXTS = (METADATA_KEY.encode(), b"XML:com.adobe.xmp", b"Raw profile type exif")
LIKE = "PNG, JPEG, TIFF, WebP and the like"

RAW = "a camera raw file; develop it first, into a TIFF or a JPEG"
NEVER = {  # what Pillow takes for a picture and is none that it can read, by how the file begins
    rb"\0\0\x01[\xb3\xba]": "a video",
    rb"\x89HDF|GRIB|BUFR": "scientific data (HDF5, GRIB or BUFR)",
    rb"II\*\0.{4}CR": RAW,
}
UNLOADABLE = {  # what it reads with other programs' help only
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS or PostScript file, which only Ghostscript can read",
    rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF": "a Windows metafile (WMF, EMF), which only Windows "
    "can read",
}
UNKNOWN = {  # and what it does not know
    rb"%PDF": "a PDF",
    rb".{4}ftyp(avif|avis)": "an AVIF picture that this Pillow cannot read (or damaged)",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "a HEIC picture, which Pillow reads with a plugin only; save "
    "it as JPEG",
    rb".{4}ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|\0MRM|FOVb|II\x1a\0\0\0HEAPCCDR": RAW,
    rb"\0\0\0\x0cJXL |\xff\x0a": "a JPEG XL picture, which Pillow reads with a plugin only",
    rb".{4}(ftyp|moov|mdat|wide)|RIFF.{4}(AVI "
    rb"|WAVE)|\x1aE\xdf\xa3|FLV\x01|OggS|ID3|0&\xb2u|G.{187}G": "a video, or sound",
    rb"(\xef\xbb\xbf)?\s*(<\?xml.*?|<!--.*?)?<(!DOCTYPE )?svg": "an SVG, a drawing; export "
    "it as PNG",
    rb"\s*<(!doctype )?html": "a page of the web, not a picture",
    rb"8BPS": "a Photoshop file of a kind that Pillow cannot read; save it as TIFF",
    rb"v/1\x01|#\?(RADIANCE|RGBE)": "a picture with high dynamic range (EXR or HDR); save "
    "it as TIFF",
    rb"gimp xcf": "a file of GIMP (XCF); export it as PNG",
    rb"\x00\x05\x16[\x00\x07]": "not a picture but what a Mac keeps beside one",
    rb"\xff\xfe|\xfe\xff": "not a picture but a text file",  # UTF-16
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!": "an archive, not a picture",
}


# --- opening --------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str | os.PathLike, any_shape: bool = False) -> Iterator[Image.Image]:
    """A picture of which only the header has been read. Whatever goes wrong while it is open
    becomes an InputError.

    Sides that are not allowed are refused, unless it may have `any_shape`. In `image.info`, "tags"
    are the containers.Tags of a TIFF or of EXIF data, "frames", "cicp" and "check" see
    `containers.tidied_png`. `decode` or `load_pixels` reads the pixels."""
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
    head = file.read(HEAD)
    if kind := _name(head, NEVER):
        raise Refused(kind)
    if head.startswith(containers.PNG):
        tidied, facts = containers.tidied_png(file, TEXTS)
        image = Image.open(tidied)
        if image.tile and image.tile[0].args in DeepPng.KINDS:
            tidied.seek(0)
            image = DeepPng(tidied)
        elif isinstance(clear := image.info.get("transparency"), int) and image.mode == "L":
            scale = {"L;2": 85, "L;4": 17}.get(image.tile[0].args if image.tile else "", 1)
            image.info["transparency"] = clear * scale  # by which Pillow scales its pixels
    elif head.startswith(containers.TIFF):
        page, count = containers.largest_page(file)
        # The decoder holds a compressed file as a whole.
        held = file.seek(0, io.SEEK_END) if page.first(containers.COMPRESSION, 1) > 1 else 0
        facts = {"frames": count, "tags": page, "held": held, "check": page.check}
        try:
            image = (
                DeepTiff(page)
                if page.is_deep
                else Image.open(page.alone(containers.NEEDED - {containers.SAMPLE_FORMAT}))
            )
        except UnidentifiedImageError:
            image = DeepTiff(page)
    else:
        image = _lenient(file, head)
        facts = {"frames": _frames(image, file)}
    image.info |= facts
    return image


def _lenient(file: BinaryIO, head: bytes) -> Image.Image:
    """Open a picture, without metadata if they keep Pillow from opening it."""
    try:
        return Image.open(file)
    except (Image.DecompressionBombError, MemoryError):
        raise
    except Exception:
        file.seek(0)
        if head.startswith(containers.JPEG):
            return Image.open(containers.tidied_jpeg(file))
        if re.match(rb".{4}ftypavi", head, re.DOTALL) and b"Exif" in head:
            return Image.open(io.BytesIO(file.read().replace(b"Exif", b"none")))
        raise


def _frames(image: Image.Image, file: BinaryIO) -> int:
    """How many pictures a file has that follow each other."""
    if image.format != "GIF":
        return 1 if image.format == "PSD" else getattr(image, "n_frames", 1)  # which has layers
    # To count them, they are sought.
    with contextlib.suppress(Exception), Image.open(file) as other:
        return other.n_frames
    return 1


def _keep_orientation(image: Image.Image) -> None:
    """Leave only the orientation of a picture's EXIF and XMP data, which may be damaged; EXIF data
    tell it first."""
    info = image.info
    text = info.pop("Raw profile type exif", "")
    data = info.pop("exif", b"")
    with contextlib.suppress(ValueError):
        data = data or bytes.fromhex("".join(text.split("\n")[3:]))
    if data:
        info.setdefault("tags", Tags(io.BytesIO(re.sub(rb"^(Exif\0\0)+", b"", data))))
    tags: Tags | None = info.get("tags")
    number = tags.first(containers.ORIENTATION, 0) if tags else 0
    xmp = info.pop("xmp", b"") or (bytes(tags.values(containers.XMP)) if tags else b"")
    if number not in range(1, 9) and (told := re.search(rb'tiff:Orientation(="|>)([1-8])', xmp)):
        number = int(told[2])
    info.pop("XML:com.adobe.xmp", None)
    with contextlib.suppress(Exception):
        Image.Image.getexif(image)  # the second time, there is what could be read
    Image.Image.getexif(image)[ExifTags.Base.Orientation] = number if number in range(1, 9) else 1


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
        raise InputError(f"{path}: is {_told(path)}; allowed are {LIKE}") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: has {_too_many(max_pixels())}") from None
    except Exception as error:  # a damaged file can make its decoder raise anything
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if kind := _name(_head(path), UNLOADABLE):
            raise InputError(f"{path}: is {kind}; allowed are {LIKE}") from None
        raise InputError(
            f"{path}: is damaged or cut short ({str(error) or type(error).__name__})"
        ) from None


def _told(path: str | os.PathLike) -> str:
    """What a file is that Pillow does not know."""
    head = _head(path)
    if not head:
        return "not a picture but an empty file"
    if kind := _name(head, UNLOADABLE | UNKNOWN):
        return kind
    with contextlib.suppress(UnicodeDecodeError):
        if re.fullmatch(
            r"[^\0-\x08\x0e-\x1a\x1c-\x1f]*", codecs.utf_8_decode(head, "strict", False)[0]
        ):
            return "not a picture but a text file"
    return "not a picture (or damaged)"


def _head(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _name(head: bytes, kinds: dict[bytes, str]) -> str:
    return next(
        (
            name
            for begins, name in kinds.items()
            if re.match(begins, head, re.DOTALL | re.IGNORECASE)
        ),
        "",
    )


def max_pixels() -> int:
    """The most pixels that a picture may have: MAX_PIXELS, or what the user allows."""
    text = os.environ.get(ALLOWING, "")
    if text and not re.fullmatch("[1-9][0-9]{0,14}", text):
        raise InputError(
            f"{ALLOWING}: '{text:.40}' is not a number of pixels, such as {2 * MAX_PIXELS}"
        )
    return int(text) if text else MAX_PIXELS


def _too_many(most: int) -> str:
    return f"more than {most / 1e6:.6g} million pixels, the most allowed; {ALLOWING} allows more"


def check_shape(path: str | os.PathLike, width: int, height: int) -> None:
    """Raise InputError for sides, in pixels, that pictures may not have."""
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
    """Decode the pixels. InputError, before that, if they and `more` bytes do not fit into the free
    memory."""
    check_memory(
        path,
        getattr(image, "cost", 8) * image.width * image.height + image.info.get("held", 0) + more,
    )
    load_pixels(image)


def load_pixels(image: Image.Image) -> None:
    """Decode the pixels, if they are those that were written: decoders do not look at all
    checksums."""
    image.info.pop("check", lambda: None)()
    image.load()


def check_memory(path: str | os.PathLike, needed: int) -> None:
    """Raise InputError if so many bytes, which reading the file takes, do not fit into the free
    memory."""
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
def say(path: Path, text: str) -> None:
    """Log something about a picture's file, once."""
    logging.getLogger("nstlab").warning(f"{path}: {text}")
