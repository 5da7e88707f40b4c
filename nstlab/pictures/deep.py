"""Deep pictures: pages of a TIFF and PNGs with more than 8 bits, as the numbers that they store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO, ClassVar

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from nstlab.pictures import tiff
from nstlab.pictures.kinds import Refused
from nstlab.pictures.tiff import Tags

MAX_CHANNELS = 32
MODES = {0: "L", 1: "L", 2: "RGB", 5: "CMYK", 8: "LAB"}  # by a TIFF's photometric interpretation
NATIVE, OTHER = ("L", "B") if np.little_endian else ("B", "L")


@dataclass(frozen=True)
class Levels:
    """The numbers of a deep picture.

    Attributes:
        values: (H, W, C), as they are stored: colours, then alpha.
        mode: what the colours are, L, RGB, CMYK or LAB.
        black, white: the numbers that are black and white.
        alpha: "straight" or "premultiplied", or "" if the picture has none.
        clear: the colour of pixels that are transparent; () if there is none.
    """

    values: np.ndarray
    mode: str
    black: float
    white: float
    alpha: str = ""
    clear: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many channels are colours."""
        return len(self.mode)

    def colours(
        self, box: tuple[int, int, int, int], opaque: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The colours and the alpha of a part, float32 in [0, 1].

        Args:
            box: left, top, right, bottom.
            opaque: ignore alpha.

        Returns:
            (h, w, C) colours, not multiplied by alpha, and (h, w, 1) alpha or None.
        """
        values = self.values[box[1] : box[3], box[0] : box[2]]
        with np.errstate(all="ignore"):  # numbers beyond all bounds
            unit = (values.astype(np.float32) - self.black) / (self.white - self.black)
        unit = _finite(unit).clip(0, 1)
        colours = unit[..., : self.count]
        if opaque:
            return colours, None
        if self.clear:
            differs = values[..., : self.count] != np.array(self.clear)
            return colours, differs.any(-1, keepdims=True).astype(np.float32)
        if not self.alpha:
            return colours, None
        alpha = unit[..., self.count : self.count + 1]
        if self.white < self.black:
            alpha = 1 - alpha
        if self.alpha == "premultiplied":
            colours = np.where(alpha > 0, colours / np.maximum(alpha, 1e-6), 1).clip(0, 1)
        return colours, alpha

    def upright(self, orientation: int) -> Levels:
        """The picture turned as an orientation of EXIF, 1 to 8, says."""
        turn = TURNS.get(orientation)
        return self if turn is None else replace(self, values=turn(self.values))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def white_of(values: np.ndarray, bits: int) -> float:
    """The number that is white.

    For integers it is the greatest of their type; but 65535 if those of more than 16 bits do not
    exceed it. For floating-point numbers it is 1 or 255 if they do not exceed that, else 65535.

    Args:
        values: (H, W, C).
        bits: of each value.
    """
    is_signed = values.dtype.kind == "i"
    greatest = float((1 << bits - is_signed) - 1)
    if values.dtype.kind != "f" and bits <= 16:
        return greatest
    brightest = max(float(_finite(row.astype(np.float32)).max()) for row in values)
    if values.dtype.kind != "f":
        return 65535.0 if brightest <= 65535 else greatest
    if brightest <= 1:
        return 1.0
    return 255.0 if brightest <= 255 else 65535.0


# --- TIFF -----------------------------------------------------------------------------------------


class DeepTiff(ImageFile.ImageFile):
    """A page of a TIFF that Pillow misreads, or reads in 8 bits. `load` reads its levels.

    Args:
        page: its directory.

    Raises:
        Refused: for colours, or a number of channels, that are not read.
    """

    format = "TIFF"

    levels: Levels | None = None

    def __init__(self, page: Tags):
        self.page = page
        self.cost = sum(page.bits) // 4 + 8  # bytes a pixel, while it is read
        super().__init__(page.alone(tiff.NEEDED))

    def _open(self) -> None:
        page = self.page
        self._mode = "F"
        self._size = (page.first(tiff.WIDTH, 0), page.first(tiff.HEIGHT, 0))
        text = bytes(page.values(tiff.DESCRIPTION)).rstrip(b"\0").decode(errors="replace")
        self.tag_v2 = {tiff.DESCRIPTION: text}  # of which our settings are read
        if tiff.PROFILE in page.raw:
            self.info["icc_profile"] = bytes(page.values(tiff.PROFILE))
        if page.first(tiff.PHOTOMETRIC, 0) not in MODES or len(page.bits) > MAX_CHANNELS:
            raise Refused(_unreadable_kind(page))

    def load(self) -> None:
        if self.levels is not None:
            return
        page = self.page
        values, alpha = self._values()
        bits = values.dtype.itemsize * 8 if values.dtype.kind in "fi" else max(page.bits)
        mode = MODES[page.first(tiff.PHOTOMETRIC, 0)]
        if values.shape[:2] != self.size[::-1] or values.shape[2] < len(mode):
            raise ValueError("its pixels are not as many as its header says")
        channel = len(mode) + page.alpha[0]  # alpha's, if there is any
        if channel >= values.shape[2]:
            alpha = ""
        elif channel > len(mode):  # behind a sample that says nothing
            values = values[..., [*range(len(mode)), channel]]
        if mode == "LAB":
            if values.dtype != np.uint16:
                raise Refused(_unreadable_kind(page))
            # Signed, in steps of 1/256, which become numbers from 0 on.
            offset = values[..., 1:3] ^ 0x8000
            values[..., 1:3] = np.minimum(np.round(offset / 256), 255) * 257
        white = white_of(values[..., : len(mode)], bits)
        if page.first(tiff.PHOTOMETRIC, 0) == 0:  # 0 is white
            self.levels = Levels(values, mode, black=white, white=0.0, alpha=alpha)
        else:
            self.levels = Levels(values, mode, black=0.0, white=white, alpha=alpha)

    def _values(self) -> tuple[np.ndarray, str]:
        """(H, W, C) values and the kind of alpha, by tifffile, or by Pillow where that fails."""
        import tifffile

        page = self.page
        alpha = {1: "premultiplied", 2: "straight"}.get(page.alpha[1], "")
        try:
            self.fp.seek(0)
            with tifffile.TiffFile(self.fp) as file:
                values = file.pages[0].asarray()
        except Exception as error:  # for compressions that tifffile lacks
            try:
                return _read_with_pillow(self.fp, page, alpha)
            except Exception:
                if "imagecodecs" in str(error) or isinstance(error, NotImplementedError):
                    raise Refused(_unreadable_kind(page)) from None
                raise error from None
        if values.dtype.kind not in "uif":
            raise Refused(_unreadable_kind(page))
        if values.ndim == 3 and page.first(tiff.PLANES, 1) == 2 and len(page.bits) > 1:
            values = np.moveaxis(values, 0, -1)
        return values if values.ndim == 3 else values[..., None], alpha


def _unreadable_kind(page: Tags) -> str:
    """What a page is that cannot be read."""
    bits = page.bits
    photometric = page.first(tiff.PHOTOMETRIC, 0)
    compression = page.first(tiff.COMPRESSION, 1)
    forms = {1: "", 2: "signed ", 3: "floating-point "}
    form = forms.get(page.first(tiff.SAMPLE_FORMAT, 1), "complex ")
    return (
        f"a TIFF of a kind that is not read ({len(bits)}×{max(bits)} {form}bits, photometric "
        f"{photometric}, compression {compression}); save it as TIFF with 8 or 16 bits, "
        "uncompressed or with ZIP"
    )


def _read_with_pillow(file: BinaryIO, page: Tags, alpha: str) -> tuple[np.ndarray, str]:
    """(H, W, C) values and the kind of alpha of a compressed page, as Pillow reads it."""

    def header() -> Image.Image:
        file.seek(0)
        return Image.open(file)

    mode = header().mode
    if len(mode) == 1 or mode.startswith("I;"):
        values = np.asarray(header())
        if values.dtype == np.int32 and page.first(tiff.SAMPLE_FORMAT, 1) == 1:
            values = values.view(np.uint32)
        return values[..., None], ""
    has_16_bits = max(page.bits) == 16
    if has_16_bits and page.first(tiff.PLANES, 1) != 2 and alpha != "premultiplied":
        return _read_16_bits(header, NATIVE, OTHER), alpha
    values = np.asarray(header())
    if has_16_bits:  # of which Pillow keeps 8
        values = values.astype(np.uint16) * 257
    return values, "straight" if mode == "RGBA" else ""


def _read_16_bits(header: Callable[[], Image.Image], high: str, low: str) -> np.ndarray:
    """(H, W, C) of 16 bits of a picture of which Pillow keeps 8, read once for each of the bytes.

    header: opens the picture. high, low: the byte orders in which Pillow keeps that byte."""
    planes = []
    for order in (high, low):
        image = header()
        tile = image.tile[0]
        if isinstance(tile.args, tuple):
            args = (tile.args[0][:-1] + order, *tile.args[1:])
        else:
            args = tile.args[:-1] + order
        image.tile = [tile._replace(args=args)]
        planes.append(np.asarray(image).astype(np.uint16))
    return planes[0] << 8 | planes[1]


# --- PNG ------------------------------------------------------------------------------------------


class DeepPng(PngImagePlugin.PngImageFile):
    """A PNG with 16 bits. `load` reads its levels."""

    # By Pillow's raw mode: (mode, kind of alpha).
    KINDS: ClassVar = {
        "I;16B": ("L", ""),
        "RGB;16B": ("RGB", ""),
        "LA;16B": ("L", "straight"),
        "RGBA;16B": ("RGB", "straight"),
    }
    levels: Levels | None = None
    cost = 32  # bytes a pixel, while it is read

    def load(self) -> None:
        if self.levels is not None:
            return
        file = self.fp
        mode, alpha = self.KINDS[self.tile[0].args]

        def header() -> Image.Image:
            file.seek(0)
            return PngImagePlugin.PngImageFile(file)

        image = header()
        if mode == "L" and alpha:  # four bytes, which Pillow can read as if they were four channels
            image.tile = [image.tile[0]._replace(args="RGBA")]
            values = np.asarray(image).view(">u2").astype(np.uint16)
        elif mode == "L":
            values = np.asarray(image)[..., None]
        else:
            values = _read_16_bits(header, "B", "L")
        clear = self.info.get("transparency", ())
        if not isinstance(clear, tuple):
            clear = (clear,)
        self.levels = Levels(values, mode, 0.0, 65535.0, alpha, clear)
