"""Picture files as other programs write them."""

import struct
import zlib

import numpy as np
from PIL import Image

from nstlab.pictures import images as im

TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # a PNG's colour types by the number of channels


def levels(path, *size) -> np.ndarray:
    """The picture in a file, loaded: (H, W, 3) in 0 to 255."""
    return (im.load(path, *size)[0].permute(1, 2, 0) * 255).numpy()


def written(array, path, **options):
    """A file of an array, or of a Pillow image."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(array: np.ndarray, *chunks: bytes, late: bytes = b"") -> bytes:
    """A PNG of (H, W, C) uint8 or uint16, with chunks in front of its pixels and behind them."""
    height, width, channels = array.shape
    rows = (
        np.ascontiguousarray(array.astype(array.dtype.newbyteorder(">")))
        .view(np.uint8)
        .reshape(height, -1)
    )
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * array.dtype.itemsize, TYPES[channels], 0, 0, 0
    )
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), late, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
