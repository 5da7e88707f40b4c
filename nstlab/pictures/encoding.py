"""Pictures as levels of 8 or 16 bits, and written with 16, since Pillow knows no 16-bit RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nstlab.pictures import png

COMPRESSION = 4  # of zlib, 1 to 9: 6 takes twice the time for 2 % less


def levels_of(picture: Tensor, deep: bool = False) -> np.ndarray:
    """(1, 3, H, W) -> (H, W, 3) of 8 or, if `deep`, 16 bits, rounded to the nearest level.

    Values outside [0, 1] are clipped.
    """
    dtype = np.uint16 if deep else np.uint8
    white = int(np.iinfo(dtype).max)
    planes = picture[0].detach().float().clamp(0, 1).mul_(white).round_()
    return planes.permute(1, 2, 0).cpu().numpy().astype(dtype, order="C")


def picture_of(levels: np.ndarray) -> Tensor:
    """(H, W, 3) of 8 or 16 bits -> (1, 3, H, W) in [0, 1]."""
    planes = np.ascontiguousarray(levels.transpose(2, 0, 1))
    values = planes.astype(np.float32)
    values /= np.iinfo(levels.dtype).max
    return torch.from_numpy(values)[None]


def read_tiff(path: Path) -> np.ndarray:
    """The levels of a picture that `write_tiff` wrote, (H, W, 3)."""
    import tifffile

    return tifffile.imread(path)


def profile() -> bytes:
    """The ICC profile of sRGB."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def write_png(path: Path, picture: Tensor, key: str, text: str) -> None:
    """Write a PNG of 16 bits (ISO/IEC 15948), each row filtered by the one above.

    Args:
        path: of the file.
        picture: (1, 3, H, W), sRGB in [0, 1].
        key: under which the text is in the metadata.
        text: for the metadata.
    """
    levels = levels_of(picture, deep=True)
    height, width = levels.shape[:2]
    rows = levels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # 2: minus the byte above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    with path.open("wb") as file:
        file.write(png.SIGNATURE)
        header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)  # 2: RGB
        file.write(png.chunk(b"IHDR", header))
        file.write(png.chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile())))
        file.write(png.chunk(b"iTXt", key.encode() + b"\0" * 5 + text.encode()))
        file.write(png.chunk(b"IDAT", zlib.compress(filtered.data, COMPRESSION)))
        file.write(png.chunk(b"IEND", b""))


def write_tiff(path: Path, picture: Tensor, text: str) -> None:
    """Write a TIFF of 16 bits.

    Args:
        path: of the file.
        picture: (1, 3, H, W), sRGB in [0, 1].
        text: its description.
    """
    import tifffile

    tifffile.imwrite(
        path,
        levels_of(picture, deep=True),
        photometric="rgb",
        compression="zlib",
        predictor=False,
        rowsperstrip=64,
        iccprofile=profile(),
        description=text,
        metadata=None,
    )
