"""JPEG: a file of no more metadata than count, for those that Pillow cannot read otherwise."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from nstlab.pictures.splicing import Spliced, read_span

SIGNATURE = b"\xff\xd8\xff"  # with which a JPEG begins
# Metadata that count, by how they begin, and the bytes that they have at least.
SEGMENTS = {
    b"JFIF\0": 14,
    b"Exif\0\0": 14,
    b"http://ns.adobe.com/xap/1.0/\0": 29,
    b"ICC_PROFILE\0": 14,
    b"Adobe": 12,
}


def tidied(file: BinaryIO) -> BinaryIO:
    """A JPEG without the metadata that do not count, or are shorter than they must be."""
    length = file.seek(0, io.SEEK_END)
    position = 2
    pieces: list[bytes | range] = [b"\xff\xd8"]
    while position + 4 <= length:
        mark, kind, size = struct.unpack(">BBH", read_span(file, range(position, position + 4)))
        if mark != 0xFF or kind == 0xDA:  # the pixels
            break
        span = range(position, position + 2 + size)
        is_metadata = 0xE0 <= kind <= 0xEF or kind == 0xFE
        if not is_metadata or _counts(read_span(file, span)[4:33], size - 2):
            pieces.append(span)
        position = span.stop
    return io.BufferedReader(Spliced(file, [*pieces, range(position, length)]))


def _counts(head: bytes, length: int) -> bool:
    """Whether metadata of that length, in bytes, which begin so, count."""
    return any(head.startswith(name) and length >= least for name, least in SEGMENTS.items())
