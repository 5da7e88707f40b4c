"""Deep pictures: pages of a TIFF and PNGs with more than 8 bits, as the numbers that they store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from nstlab.pictures import tiff
from nstlab.pictures.kinds import Refused
from nstlab.pictures.tiff import Tags

MOST = 32  # channels
MODES = {0: "L", 1: "L", 2: "RGB", 5: "CMYK", 8: "LAB"}  # by a TIFF's photometric interpretation
NATIVE, OTHER = ("L", "B") if np.little_endian else ("B", "L")


@dataclass(frozen=True)
class Levels:
    """The numbers of a deep picture.

    values: (H, W, C), as they are stored. mode: what the first ones are, L, RGB, CMYK or LAB.
    black, white: between which they are. alpha: whether the next one is "straight" or
    "premultiplied" alpha, or there is "" none. clear: the values of pixels that are transparent, by
    their value."""

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
        """(colours (h, w, C), alpha (h, w, 1) or None), float32 in [0, 1], of a part: left, top,
        right, bottom.

        opaque: whether alpha is ignored."""
        values = self.values[box[1] : box[3], box[0] : box[2]]
        alpha = None
        with np.errstate(all="ignore"):  # numbers beyond all bounds
            unit = _finite(
                (values.astype(np.float32) - self.black) / (self.white - self.black)
            ).clip(0, 1)
        if opaque:
            return unit[..., : self.count], None
        if self.clear:
            alpha = (
                (values[..., : self.count] != np.array(self.clear))
                .any(-1, keepdims=True)
                .astype(np.float32)
            )
        elif self.alpha:
            alpha = unit[..., self.count : self.count + 1]
            alpha = 1 - alpha if self.white < self.black else alpha
        colours = unit[..., : self.count]
        if alpha is not None and self.alpha == "premultiplied":
            colours = np.where(alpha > 0, colours / np.maximum(alpha, 1e-6), 1).clip(0, 1)
        return colours, alpha

    def turned(self, orientation: int) -> Levels:
        """Upright, as an orientation of EXIF says."""
        turn = TURNS.get(orientation)
        values = self.values if turn is None else turn(self.values)
        return Levels(values, self.mode, self.black, self.white, self.alpha, self.clear)


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
    """The number that is white. It is the greatest of its kind, unless all of more than 16 bits, or
    of floating-point ones, are within a smaller range that is usual: to 1 (floating-point), to
    255 (the same), to 65535."""
    if values.dtype.kind != "f" and bits <= 16:
        return float((1 << bits - (values.dtype.kind == "i")) - 1)
    brightest = max(float(_finite(row.astype(np.float32)).max()) for row in values)
    if values.dtype.kind == "f":
        return next((white for white in (1.0, 255.0) if brightest <= white), 65535.0)
    return 65535.0 if brightest <= 65535 else float((1 << bits - (values.dtype.kind == "i")) - 1)


# --- TIFF -----------------------------------------------------------------------------------------


class DeepTiff(ImageFile.ImageFile):
    """A page of a TIFF that Pillow reads as if it were another one, or in 8 bits. `load` reads its
    levels."""

    format = "TIFF"

    levels: Levels | None = None

    def __init__(self, page: Tags):
        self.page = page
        self.cost = sum(page.bits) // 4 + 8
        super().__init__(page.alone(tiff.NEEDED))

    def _open(self) -> None:
        page = self.page
        self._mode = "F"
        self._size = (page.first(tiff.WIDTH, 0), page.first(tiff.HEIGHT, 0))
        text = bytes(page.values(tiff.DESCRIPTION)).rstrip(b"\0").decode(errors="replace")
        self.tag_v2 = {tiff.DESCRIPTION: text}  # of which our settings are read
        if tiff.PROFILE in page.raw:
            self.info["icc_profile"] = bytes(page.values(tiff.PROFILE))
        if page.first(tiff.PHOTOMETRIC, 0) not in MODES or len(page.bits) > MOST:
            raise Refused(kind_of(page))

    def load(self) -> None:
        if self.levels is not None:
            return
        page = self.page
        values, alpha = self._values()
        bits = values.dtype.itemsize * 8 if values.dtype.kind in "fi" else max(page.bits)
        mode = MODES[page.first(tiff.PHOTOMETRIC, 0)]
        if values.shape[:2] != self.size[::-1] or values.shape[2] < len(mode):
            raise ValueError("its pixels are not as many as its header says")
        place = len(mode) + page.alpha[0]
        if place >= values.shape[2]:
            alpha = ""
        elif place > len(mode):  # behind a sample that says nothing
            values = values[..., [*range(len(mode)), place]]
        if mode == "LAB":
            if values.dtype != np.uint16:
                raise Refused(kind_of(page))
            # Signed, in steps of 1/256, which become numbers from 0 on.
            offset = values[..., 1:3] ^ 0x8000
            values[..., 1:3] = np.minimum(np.round(offset / 256), 255) * 257
        white = white_of(values[..., : len(mode)], bits)
        black = 0.0
        if page.first(tiff.PHOTOMETRIC, 0) == 0:
            white, black = black, white
        self.levels = Levels(values, mode, black, white, alpha)

    def _values(self) -> tuple[np.ndarray, str]:
        """((H, W, C), the kind of alpha), by tifffile, or by Pillow for compressions that tifffile
        lacks."""
        import tifffile

        page = self.page
        kinds = {1: "premultiplied", 2: "straight"}
        alpha = kinds.get(page.alpha[1], "")
        try:
            self.fp.seek(0)
            with tifffile.TiffFile(self.fp) as file:
                values = file.pages[0].asarray()
        except Exception as error:
            try:
                return _pillows(self.fp, page, alpha)
            except Exception:
                if "imagecodecs" in str(error) or isinstance(error, NotImplementedError):
                    raise Refused(kind_of(page)) from None
                raise error from None
        if values.dtype.kind not in "uif":
            raise Refused(kind_of(page))
        if values.ndim == 3 and page.first(tiff.PLANES, 1) == 2 and len(page.bits) > 1:
            values = np.moveaxis(values, 0, -1)
        return values if values.ndim == 3 else values[..., None], alpha


def kind_of(page: Tags) -> str:
    """What a page is that cannot be read."""
    bits = page.bits
    photometric = page.first(tiff.PHOTOMETRIC, 0)
    form = {1: "", 2: "signed ", 3: "floating-point "}.get(
        page.first(tiff.SAMPLE_FORMAT, 1), "complex "
    )
    return (
        f"a TIFF of a kind that is not read ({len(bits)}×{max(bits)} {form}bits, photometric "
        f"{photometric}, compression "
        f"{page.first(tiff.COMPRESSION, 1)}); save it as TIFF with 8 or 16 bits, "
        "uncompressed or with ZIP"
    )


def _pillows(file: BinaryIO, page: Tags, alpha: str) -> tuple[np.ndarray, str]:
    """What Pillow reads of a compressed page."""

    def header() -> Image.Image:
        file.seek(0)
        return Image.open(file)

    mode = header().mode
    if len(mode) == 1 or mode.startswith("I;"):
        values = np.asarray(header())
        unsigned = values.dtype == np.int32 and page.first(tiff.SAMPLE_FORMAT, 1) == 1
        return (values.view(np.uint32) if unsigned else values)[..., None], ""
    if max(page.bits) != 16 or page.first(tiff.PLANES, 1) == 2 or alpha == "premultiplied":
        levels = np.asarray(header())
        return levels.astype(np.uint16) * 257 if max(
            page.bits
        ) == 16 else levels, "straight" if mode == "RGBA" else ""
    return _two_bytes(header, NATIVE, OTHER), alpha


def _two_bytes(header: Callable[[], Image.Image], high: str, low: str) -> np.ndarray:
    """(H, W, C) of 16 bits of a picture of which Pillow keeps 8: first one byte of each number is
    read, then the other."""
    planes = []
    for order in (high, low):
        image = header()
        tile = image.tile[0]
        raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        new = raw[:-1] + order
        image.tile = [tile._replace(args=(new, *rest) if rest else new)]
        planes.append(np.asarray(image).astype(np.uint16))
    return planes[0] << 8 | planes[1]


# --- PNG ------------------------------------------------------------------------------------------


class DeepPng(PngImagePlugin.PngImageFile):
    """A PNG with 16 bits. `load` reads its levels."""

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
        file, (mode, alpha) = self.fp, self.KINDS[self.tile[0].args]

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
            values = _two_bytes(header, "B", "L")
        clear = self.info.get("transparency", ())
        self.levels = Levels(
            values, mode, 0.0, 65535.0, alpha, clear if isinstance(clear, tuple) else (clear,)
        )
