"""PNG: its chunks, and a file of no more of them than count for a picture.

Pillow gives a picture up for text, resolutions or thumbnails that it cannot read. A picture needs
its pixels, its orientation, its colour information and its transparency; our own settings are read,
too.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

from PIL import PngImagePlugin

from nstlab.pictures.splicing import LONGEST, Spliced, read_pieces, read_span

SIGNATURE = b"\x89PNG\r\n\x1a\n"  # with which a PNG begins
HEADER = (b"IHDR", b"PLTE")  # chunks in front of the pixels that decide how they are read
COLOUR = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"eXIf")  # metadata that count
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
NO_PROFILE = b"broken\0\0"  # a chunk whose profile Pillow finds unreadable


def tidied(file: BinaryIO, texts: Sequence[bytes]) -> tuple[BinaryIO, dict[str, Any]]:
    """A PNG of its pixels and the metadata that count, all in front of them.

    Args:
        texts: keys of texts that count.

    Returns:
        The file, and what Pillow does not tell: "frames", "cicp" (code points of primaries,
        transfer, matrix, range), and "check", a function that raises ValueError if the pixels are
        not those that were written.

    Raises:
        ValueError: if what else decides the pixels is not what was written.
    """
    parts = _Parts(file, texts)
    for kind, span in chunks(file):
        parts.add(kind, span)
    parts.facts["check"] = partial(_check_chunks, file, parts.pixels)
    if not parts.pixels:
        return file, parts.facts
    return io.BufferedReader(Spliced(file, parts.pieces())), parts.facts


class _Parts:
    """What counts of a PNG, chunk by chunk."""

    def __init__(self, file: BinaryIO, texts: Sequence[bytes]):
        self.facts: dict[str, Any] = {}
        self.pixels: list[range] = []  # the data of the chunks of pixels
        self._file = file
        self._texts = texts
        self._header: list[range] = []  # whole chunks
        self._metadata: dict[bytes, bytes] = {}  # the first chunk of each name
        self._end = b""
        self._stream = PngImagePlugin.PngStream(io.BytesIO())

    def pieces(self) -> list[bytes | range]:
        """The pieces of the tidied file."""
        pixels = range(self.pixels[0].start - 8, self.pixels[-1].stop + 4)
        return [SIGNATURE, *self._header, *self._metadata.values(), pixels, self._end]

    def add(self, kind: bytes, span: range) -> None:
        """Take a chunk, whose data are in the span, if it counts."""
        if kind in (*HEADER, b"tRNS"):
            _check_chunks(self._file, [span])
        if kind == b"IDAT":
            self.pixels.append(span)
        elif kind == b"IEND":
            self._end = chunk(b"IEND", b"")
        elif len(span) > LONGEST:
            return
        elif kind in HEADER:
            self._header.append(range(span.start - 8, span.stop + 4))
            _parse(self._stream, kind, read_span(self._file, span))
        elif kind in (b"acTL", b"cICP", *COLOUR, *TEXTS):
            self._add_metadata(kind, read_span(self._file, span))

    def _add_metadata(self, kind: bytes, data: bytes) -> None:
        name = data.split(b"\0")[0] if kind in TEXTS else kind
        if kind == b"acTL" and len(data) == 8:
            self.facts["frames"] = struct.unpack(">II", data)[0]
        elif kind == b"cICP" and len(data) == 4:
            self.facts["cicp"] = tuple(data)
        elif name in (*COLOUR, *self._texts) and name not in self._metadata:
            if _parse(self._stream, kind, data):
                self._metadata[name] = chunk(kind, data)
            elif kind == b"iCCP":
                self._metadata[name] = chunk(kind, NO_PROFILE)


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, range]]:
    """(kind, the span of its data) of each chunk of a PNG, as far as the file reaches."""
    length = file.seek(0, io.SEEK_END)
    position = len(SIGNATURE)
    while position + 8 <= length:
        size, kind = struct.unpack(">I4s", read_span(file, range(position, position + 8)))
        yield kind, range(position + 8, position + 8 + size)
        if kind == b"IEND":
            return
        position += 12 + size


def _check_chunks(file: BinaryIO, spans: Sequence[range]) -> None:
    """Raise ValueError unless chunks' data are what their checksums say, which may be cut."""
    for span in spans:
        checksum = 0
        length = 0
        for piece in read_pieces(file, range(span.start - 4, span.stop)):  # of the name, too
            checksum = zlib.crc32(piece, checksum)
            length += len(piece)
        stored = read_span(file, range(span.stop, span.stop + 4))
        if length < 4 + len(span) or not struct.pack(">I", checksum).startswith(stored):
            raise ValueError("its content and a checksum differ")


def chunk(kind: bytes, data: bytes) -> bytes:
    """The bytes of a chunk, with its length and its checksum."""
    stream = io.BytesIO()
    PngImagePlugin.putchunk(stream, kind, data)
    return stream.getvalue()


def _parse(stream: PngImagePlugin.PngStream, kind: bytes, data: bytes) -> bool:
    """Whether Pillow reads a chunk of metadata."""
    stream.fp = io.BytesIO(data)
    try:
        stream.call(kind, 0, len(data))
    except Exception:  # the bytes may be anything
        return False
    return True
