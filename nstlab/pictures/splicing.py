"""Spans of a file: read without going beyond its end, and spliced to a file of some of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

LONGEST = 1 << 24  # bytes of metadata that are read at most
PIECE = 1 << 20  # bytes that are checked at a time


class Spliced(io.RawIOBase):
    """A file to read, made of pieces that follow each other.

    Args:
        file: the file that the spans are of.
        pieces: bytes, and spans (ranges of positions) of the file.
    """

    def __init__(self, file: BinaryIO, pieces: Sequence[bytes | range]):
        self._file = file
        self._pieces = pieces
        self._length = sum(map(len, pieces))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        return self.read(max(0, self._length - self._position)) or b""

    def readinto(self, buffer: Any) -> int:
        done = 0  # bytes that have been read
        start = 0  # where the piece begins
        for piece in self._pieces:
            first = self._position + done - start
            if 0 <= first < len(piece) and done < len(buffer):
                part = piece[first : first + len(buffer) - done]
                if isinstance(part, range):
                    self._file.seek(part.start)
                    part = self._file.read(len(part))
                buffer[done : done + len(part)] = part
                done += len(part)
            start += len(piece)
        self._position += done
        return done


def read_span(file: BinaryIO, span: range) -> bytes:
    """The bytes of a span, as far as the file reaches."""
    if span.start >> 62:  # further than any file reaches
        return b""
    file.seek(span.start)
    return file.read(len(span))


def read_pieces(file: BinaryIO, span: range) -> Iterator[bytes]:
    """The bytes of a span, as far as the file reaches, at most PIECE at a time."""
    for first in range(span.start, span.stop, PIECE):
        piece = read_span(file, range(first, min(first + PIECE, span.stop)))
        if not piece:
            return
        yield piece
