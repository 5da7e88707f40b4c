"""PNG, TIFF and EXIF data: which of their parts count for a picture, and a file of nothing else.

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

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LONGEST = 1 << 24  # bytes of metadata that are read at most
PAGES = 4096  # of a TIFF, which are looked at
PIECE = 1 << 20  # bytes that are checked at a time


class Refused(ValueError):
    """The file cannot be read for what it is, which the message says: "a camera raw file; …"."""


class Spliced(io.RawIOBase):
    """A file made of pieces: bytes, and ranges of positions in another file."""

    def __init__(self, file: BinaryIO, pieces: Sequence[bytes | range]):
        self._file, self._pieces, self._position = file, pieces, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: sum(map(len, self._pieces)),
        }[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        return self.read(max(0, sum(map(len, self._pieces)) - self._position)) or b""

    def readinto(self, buffer: Any) -> int:
        done, start = 0, 0  # bytes that have been read; where the piece starts
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


# --- PNG ------------------------------------------------------------------------------------------

COLOUR = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"eXIf")  # chunks that count
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
NO_PROFILE = b"broken\0\0"  # a chunk whose profile Pillow finds unreadable


def tidied_png(file: BinaryIO, texts: Sequence[bytes]) -> tuple[BinaryIO, dict[str, Any]]:
    """A PNG with no more than its pixels and the metadata that count, in front of them, also those
    that were behind.

    Args:
        texts: keys of texts that count.

    Returns:
        The file, and what Pillow does not tell: "frames", "cicp" (code points of primaries,
        transfer, matrix, range), and "check", which raises ValueError if the pixels are not those
        that were written.

    Raises:
        ValueError: if what else decides the pixels is not what was written.
    """
    kept: dict[bytes, bytes] = {}
    parts: list[range] = []
    facts: dict[str, Any] = {"check": partial(_check_all, file, parts)}
    stream = PngImagePlugin.PngStream(io.BytesIO())
    critical = []
    pixels = range(0)
    end = b""
    for kind, chunk in png_chunks(file):
        if kind in (b"IHDR", b"PLTE", b"tRNS"):
            _check_all(file, [chunk])
        if kind == b"IDAT":
            parts.append(chunk)
            pixels = range(pixels.start or chunk.start - 8, chunk.stop + 4)
        elif kind == b"IEND":
            end = _chunk(b"IEND", b"")
        elif len(chunk) <= LONGEST and (
            kind in (b"IHDR", b"PLTE", b"acTL", b"cICP", *COLOUR, *TEXTS)
        ):
            data = _at(file, chunk)
            name = data.split(b"\0")[0] if kind in TEXTS else kind
            if kind in (b"IHDR", b"PLTE"):
                critical.append(range(chunk.start - 8, chunk.stop + 4))
                _parse(stream, kind, data)
            elif kind == b"acTL" and len(data) == 8:
                facts["frames"] = struct.unpack(">II", data)[0]
            elif kind == b"cICP" and len(data) == 4:
                facts["cicp"] = tuple(data)
            elif name in (*COLOUR, *texts) and name not in kept:
                if _parse(stream, kind, data):
                    kept[name] = _chunk(kind, data)
                elif kind == b"iCCP":
                    kept[name] = _chunk(kind, NO_PROFILE)
    if not pixels:
        return file, facts
    return io.BufferedReader(Spliced(file, [PNG, *critical, *kept.values(), pixels, end])), facts


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, range]]:
    """(kind, where its data are) of each chunk of a PNG, as far as the file reaches."""
    length = file.seek(0, io.SEEK_END)
    position = len(PNG)
    while position + 8 <= length:
        size, kind = struct.unpack(">I4s", _at(file, range(position, position + 8)))
        yield kind, range(position + 8, position + 8 + size)
        if kind == b"IEND":
            return
        position += 12 + size


def _check_all(file: BinaryIO, places: Sequence[range]) -> None:
    """Raise ValueError unless the chunks' data are what their checksums say, which may be cut."""
    for chunk in places:
        checksum, length = 0, 0
        for piece in _pieces(file, range(chunk.start - 4, chunk.stop)):  # of the name, too
            checksum = zlib.crc32(piece, checksum)
            length = length + len(piece)
        stored = _at(file, range(chunk.stop, chunk.stop + 4))
        if length < 4 + len(chunk) or not struct.pack(">I", checksum).startswith(stored):
            raise ValueError("its content and a checksum differ")


def _chunk(kind: bytes, data: bytes) -> bytes:
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


def _at(file: BinaryIO, span: range) -> bytes:
    if span.start >> 62:  # further than any file reaches
        return b""
    file.seek(span.start)
    return file.read(len(span))


def _pieces(file: BinaryIO, span: range) -> Iterator[bytes]:
    """What is there, as far as the file reaches, some of it at a time."""
    for first in range(span.start, span.stop, PIECE):
        if not (piece := _at(file, span[first - span.start :][:PIECE])):
            return
        yield piece


# --- JPEG -----------------------------------------------------------------------------------------

JPEG = b"\xff\xd8\xff"
SEGMENTS = {
    b"JFIF\0": 14,
    b"Exif\0\0": 14,
    b"http://ns.adobe.com/xap/1.0/\0": 29,
    b"ICC_PROFILE\0": 14,
    b"Adobe": 12,
}


def tidied_jpeg(file: BinaryIO) -> BinaryIO:
    """A JPEG with no more metadata than those that count and are as long as they must be."""
    length = file.seek(0, io.SEEK_END)
    position = 2
    pieces = [b"\xff\xd8"]
    while position + 4 <= length:
        mark, kind, size = struct.unpack(">BBH", _at(file, range(position, position + 4)))
        if mark != 0xFF or kind == 0xDA:  # the pixels
            break
        segment = range(position, position + 2 + size)
        start = _at(file, segment)[4:33]
        is_metadata = 0xE0 <= kind <= 0xEF or kind == 0xFE
        if not is_metadata or any(
            start.startswith(name) and size - 2 >= most for name, most in SEGMENTS.items()
        ):
            pieces.append(segment)
        position = segment.stop
    return io.BufferedReader(Spliced(file, [*pieces, range(position, length)]))


# --- TIFF and EXIF --------------------------------------------------------------------------------

FORMATS = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
}
FORMATS |= {16: "Q", 17: "q", 18: "Q"}  # of BigTIFF
KIND = 254
OLD_KIND = 255
WIDTH = 256
HEIGHT = 257
BITS = 258
COMPRESSION = 259
PHOTOMETRIC = 262
DESCRIPTION = 270
ORIENTATION = 274
SAMPLES = 277
PLANES = 284
TRANSFER = 301
WHITE = 318
PRIMARIES = 319
MORE_PAGES = 330
EXTRA = 338
SAMPLE_FORMAT = 339
XMP = 700
EXIF = 34665
COLOUR_SPACE = 40961
INTEROPERABILITY = 40965
PROFILE = 34675
# What a page needs to be read: how its pixels are stored, with which tables, its description and
# its profile.
NEEDED = {
    *range(WIDTH, 264),
    266,
    270,
    273,
    *range(277, 280),
    284,
    *range(290, 294),
    301,
    *range(317, 326),
    332,
}
NEEDED |= {EXTRA, SAMPLE_FORMAT, *range(340, 348), *range(512, 522), *range(529, 533), PROFILE}
STORED = {273, 324, 513}  # where pixels are: strips, tiles, an old JPEG
PACKED = ((273, 279), (324, 325))  # where strips are, and how long; tiles
DEFLATE, FILL_ORDER = (8, 32946), 266  # compressions that are zlib's; whether bits are reversed
RAW = (32803, 34892)  # photometrics: colour filter array, linear raw


class Tags:
    """A directory of a TIFF, or of EXIF data, which have the same form: values by number, () for
    what is not readable."""

    def __init__(self, file: BinaryIO, offset: int | None = None):
        head = _at(file, range(16))
        self._file = file
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = b"+" in head[2:4]
        # Tag, type, count, value or its place.
        self._entry = struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))
        self._word = struct.Struct(self.order + ("Q" if self.big else "I"))
        size = struct.Struct(self.order + ("Q" if self.big else "H"))
        self.offset = offset = self._first(head) if offset is None else offset
        content = _at(file, range(offset, offset + size.size))
        count = size.unpack(content)[0] if len(content) == size.size else 0
        content = file.read(min(count, LONGEST // 32) * self._entry.size + self._word.size)
        self.raw: dict[int, bytes] = {}
        for first in range(
            0, min(count * self._entry.size, len(content) - self._entry.size + 1), self._entry.size
        ):
            entry = content[first : first + self._entry.size]
            self.raw.setdefault(self._entry.unpack(entry)[0], entry)
        tail = content[count * self._entry.size :][: self._word.size]
        self.next = self._word.unpack(tail)[0] if len(tail) == self._word.size else 0

    def _first(self, head: bytes) -> int:
        offset = head[8:16] if self.big else head[4:8]
        return self._word.unpack(offset)[0] if len(offset) == self._word.size else 0

    def values(self, tag: int) -> tuple[float, ...]:
        """The numbers of a tag, which are bytes for texts and data."""
        if tag not in self.raw:
            return ()
        _, kind, count, packed = self._entry.unpack(self.raw[tag])
        form = FORMATS.get(kind, "")
        size = count * struct.calcsize("=" + form)
        if not form or size > LONGEST:
            return ()
        if size > len(packed):
            packed = _at(self._file, range(offset := self._word.unpack(packed)[0], offset + size))
        if len(packed) < size:
            return ()
        numbers = struct.unpack(f"{self.order}{count * len(form)}{form[0]}", packed[:size])
        return (
            numbers
            if len(form) == 1
            else tuple(
                a / b if b else 0.0 for a, b in zip(numbers[::2], numbers[1::2], strict=True)
            )
        )

    def first(self, tag: int, default: int) -> int:
        """The first number of a tag, as a whole one."""
        return int(next(iter(self.values(tag)), default))

    def directory(self, tag: int) -> Tags | None:
        """The directory to which a tag points."""
        offset = self.first(tag, 0)
        return Tags(self._file, offset) if offset else None

    @property
    def pixels(self) -> int:
        return self.first(WIDTH, 0) * self.first(HEIGHT, 0)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample."""
        depths = tuple(map(int, self.values(BITS))) or (1,)
        return (
            depths * max(1, self.first(SAMPLES, 1))
            if len(depths) == 1 and self.first(SAMPLES, 1) < 1000
            else depths
        )

    @property
    def is_deep(self) -> bool:
        """Whether it is one that Pillow misreads: more than 8 bits, other samples than whole
        numbers from 0 on."""
        if self.alpha[1] == 1:  # by which colours are multiplied; Pillow divides them in 8 bits
            return True
        return max(self.bits) > 8 or any(form not in (1, 4) for form in self.values(SAMPLE_FORMAT))

    @property
    def alpha(self) -> tuple[int, int]:
        """(which of the samples beside the colours is alpha, 1 if colours are multiplied by it, or
        2); (0, 0) if none is."""
        kinds = enumerate(self.values(EXTRA))
        return next(((index, int(kind)) for index, kind in kinds if kind in (1, 2)), (0, 0))

    def check(self) -> None:
        """Raise ValueError or zlib.error if pixels that zlib has packed are not those that were
        written. libtiff does not look at their checksums."""
        if self.first(COMPRESSION, 1) not in DEFLATE or self.first(FILL_ORDER, 1) != 1:
            return
        for starts, lengths in PACKED:
            places = zip(self.values(starts), self.values(lengths), strict=False)
            for start, length in dict.fromkeys(places):
                if length:
                    _check_packed(self._file, range(int(start), int(start + length)))

    def alone(self, kept: set[int]) -> BinaryIO:
        """A file whose only page this is, with the tags that are kept."""
        length = self._file.seek(0, io.SEEK_END)
        offset = length + -length % 16
        head = _at(self._file, range(8 if self.big else 4)) + self._word.pack(offset)
        entries = [self.raw[tag] for tag in sorted(self.raw.keys() & kept)]
        directory = (
            struct.pack(self.order + ("Q" if self.big else "H"), len(entries))
            + b"".join(entries)
            + self._word.pack(0)
        )
        return io.BufferedReader(
            Spliced(self._file, [head, range(len(head), length), bytes(offset - length), directory])
        )


def _check_packed(file: BinaryIO, span: range) -> None:
    """Unpack what zlib has packed, and forget it."""
    unpacker = zlib.decompressobj()
    for piece in _pieces(file, span):
        unpacked = unpacker.decompress(piece, PIECE)
        while not unpacker.eof and (unpacker.unconsumed_tail or len(unpacked) == PIECE):
            unpacked = unpacker.decompress(unpacker.unconsumed_tail, PIECE)
    if not unpacker.eof:
        raise ValueError("its pixels end too early")


def pages(file: BinaryIO) -> list[Tags]:
    """The pages of a TIFF, and those that belong to one of them."""
    directories: list[Tags] = []
    offsets: list[float] = [Tags(file).offset]
    seen: set[float] = {0}
    while offsets and len(directories) < PAGES:
        if (offset := offsets.pop(0)) not in seen:
            seen.add(offset)
            tags = Tags(file, int(offset))
            directories.append(tags)
            offsets += [*tags.values(MORE_PAGES), tags.next]
    return directories


def largest_page(file: BinaryIO) -> tuple[Tags, int]:
    """(the largest page of a TIFF that is no thumbnail or mask, how many such there are)."""
    usable = [tags for tags in pages(file) if tags.pixels and tags.raw.keys() & STORED]
    if any(tags.first(PHOTOMETRIC, 0) in RAW for tags in usable):
        raise Refused("a camera raw file; develop it first, into a TIFF or a JPEG")
    full = [tags for tags in usable if _is_full(tags)] or usable
    if not full:
        raise Refused("a TIFF without a page (or damaged)")
    return max(full, key=lambda tags: tags.pixels), len(full)


def _is_full(tags: Tags) -> bool:
    reduced_or_mask = tags.first(KIND, 0) & 5 or tags.first(OLD_KIND, 1) == 2
    return not reduced_or_mask and tags.first(PHOTOMETRIC, 0) != 4
