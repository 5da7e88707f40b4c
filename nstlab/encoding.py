"""Pictures written, and read again, some rows at a time: PNG and TIFF of any size, with 8 or 16 bits a channel, in sRGB.

Memory does not grow with the picture. Pillow writes everything else: it knows no 16-bit RGB, and wants all pixels at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nstlab import large

BAND = 1 << 20  # pixels that are written at a time
TILE = 256  # side of a TIFF's tiles, in pixels; a multiple of 16
COMPRESSION = 4  # of zlib, 1 to 9: 6 takes twice the time for 2 % less
BACK = 1 << 16  # bytes of a PNG's IDAT chunk, about


def rows_of(picture: Tensor, deep: bool, each: int | None = None) -> Iterator[np.ndarray]:
    """(h, W, 3) of 8 or, if `deep`, 16 bits for some rows of a picture, (1, 3, H, W) in [0, 1]; others are clipped."""
    height, width = picture.shape[-2:]
    each, white = each or max(1, BAND // width), 65535 if deep else 255
    for top in range(0, height, each):
        band = picture[0, :, top : top + each].detach().float().clamp(0, 1).mul(white).round()
        large.release(picture)
        yield band.permute(1, 2, 0).contiguous().cpu().numpy().astype(np.uint16 if deep else np.uint8)


def picture_of(levels: np.ndarray, folder: str | None = None) -> Tensor:
    """(H, W, 3) of 8 or 16 bits -> (1, 3, H, W) in [0, 1]; in a file in a folder, if one is given and it is large."""
    height, width = levels.shape[:2]
    made, each = large.blank((1, 3, height, width), folder), max(1, BAND // width)
    for top in range(0, height, each):
        band = levels[top : top + each].astype(np.float32) / np.iinfo(levels.dtype).max
        made[0, :, top : top + each] = torch.from_numpy(band).permute(2, 0, 1)
        large.release(made)
    return made


def read_tiff(path: Path) -> np.ndarray:
    """The levels of a picture that `write_tiff` wrote, (H, W, 3), in a temporary file."""
    import tifffile

    return tifffile.imread(path, out="memmap")


def profile() -> bytes:
    """The ICC profile of sRGB."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def write_png(path: Path, picture: Tensor, deep: bool, key: str, text: str) -> None:
    """Write a PNG (ISO/IEC 15948), each row filtered by what is above it; `text` goes into its metadata under a key."""
    height, width = picture.shape[-2:]
    packer = zlib.compressobj(COMPRESSION)
    with path.open("wb") as file:

        def chunk(kind: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16 if deep else 8, 2, 0, 0, 0))  # 2: RGB
        chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile()))
        chunk(b"iTXt", key.encode() + b"\0" * 5 + text.encode())
        above = np.zeros((1, width * 3 * (2 if deep else 1)), np.uint8)
        for rows in rows_of(picture, deep):
            plain = (rows.astype(">u2") if deep else rows).view(np.uint8).reshape(len(rows), -1)
            filtered = np.full((len(rows), 1 + plain.shape[1]), 2, np.uint8)  # 2: minus the byte above
            filtered[:, 1:] = plain - np.concatenate([above, plain[:-1]])
            above = plain[-1:]
            if packed := packer.compress(filtered.tobytes()):
                chunk(b"IDAT", packed)
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def write_tiff(path: Path, picture: Tensor, deep: bool, text: str) -> None:
    """Write a TIFF, tile by tile, each one compressed when it is made; `text` is its description."""
    import tifffile

    height, width = picture.shape[-2:]

    def tiles() -> Iterator[np.ndarray]:
        for rows in rows_of(picture, deep, TILE):
            yield from (rows[:, left : left + TILE] for left in range(0, width, TILE))

    with tifffile.TiffWriter(path, bigtiff=height * width * 6 > 1 << 31) as file:
        file.write(
            tiles(), shape=(height, width, 3), dtype=np.uint16 if deep else np.uint8, photometric="rgb", tile=(TILE, TILE),
            compression="zlib", predictor=False, iccprofile=profile(), description=text, metadata=None,
        )  # fmt: skip
