"""TIFF and EXIF data: their directories, and a file of one page with no more tags than count."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from nstlab.pictures.kinds import RAW, Refused
from nstlab.pictures.splicing import LONGEST, PIECE, Spliced, read_pieces, read_span

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with which a TIFF begins
PAGES = 4096  # of a TIFF, which are looked at
# Types of values, as `struct` writes them; two letters are a fraction.
FORMATS = dict(enumerate(("B", "B", "H", "I", "II", "b", "B", "h", "i", "ii", "f", "d", "I"), 1))
FORMATS |= {16: "Q", 17: "q", 18: "Q"}  # of BigTIFF
KIND = 254
OLD_KIND = 255
WIDTH = 256
HEIGHT = 257
BITS = 258
COMPRESSION = 259
PHOTOMETRIC = 262
FILL_ORDER = 266  # whether bits are reversed
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
NEEDED = {*range(WIDTH, 264), FILL_ORDER, DESCRIPTION, 273, *range(SAMPLES, 280), PLANES}
NEEDED |= {*range(290, 294), TRANSFER, *range(317, 326), 332, EXTRA, SAMPLE_FORMAT}
NEEDED |= {*range(340, 348), *range(512, 522), *range(529, 533), PROFILE}
STORED = {273, 324, 513}  # where pixels are: strips, tiles, an old JPEG
PACKED = ((273, 279), (324, 325))  # where strips are, and how long; tiles
DEFLATE = (8, 32946)  # compressions that are zlib's
RAW_PHOTOMETRICS = (32803, 34892)  # colour filter array, linear raw
MASK = 4  # photometric interpretation


class Tags:
    """A directory of a TIFF, or of EXIF data, which have the same form.

    Args:
        file: the whole file.
        offset: where the directory begins; by default where the head of the file says.

    Attributes:
        order: "<" for little endian, ">" for big endian.
        big: whether it is a BigTIFF.
        raw: {tag: the bytes of its entry}.
        next: where the next directory begins; 0 after the last one.
    """

    def __init__(self, file: BinaryIO, offset: int | None = None):
        head = read_span(file, range(16))
        self._file = file
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = b"+" in head[2:4]
        # Tag, type, count, value or its offset.
        self._entry = struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))
        self._word = struct.Struct(self.order + ("Q" if self.big else "I"))
        self._count = struct.Struct(self.order + ("Q" if self.big else "H"))
        if offset is None:
            offset = self._unpack(self._word, head[8:16] if self.big else head[4:8])
        self.offset = offset
        self.raw: dict[int, bytes] = {}
        self.next = self._read_entries()

    def _read_entries(self) -> int:
        """Read the entries, as far as the file reaches; return where the next directory begins."""
        size = self._entry.size
        head = read_span(self._file, range(self.offset, self.offset + self._count.size))
        count = self._unpack(self._count, head)
        content = self._file.read(min(count, LONGEST // 32) * size + self._word.size)
        end = count * size
        for first in range(0, min(end, len(content) - size + 1), size):
            entry = content[first : first + size]
            self.raw.setdefault(self._entry.unpack(entry)[0], entry)
        return self._unpack(self._word, content[end : end + self._word.size])

    @staticmethod
    def _unpack(number: struct.Struct, content: bytes) -> int:
        """A number; 0 if the file ends before it."""
        return number.unpack(content)[0] if len(content) == number.size else 0

    def values(self, tag: int) -> tuple[float, ...]:
        """The numbers of a tag, which are bytes for texts and data; () if it cannot be read."""
        if tag not in self.raw:
            return ()
        _, kind, count, content = self._entry.unpack(self.raw[tag])
        form = FORMATS.get(kind, "")
        size = count * struct.calcsize("=" + form)
        if not form or size > LONGEST:
            return ()
        if size > len(content):
            offset = self._word.unpack(content)[0]
            content = read_span(self._file, range(offset, offset + size))
        if len(content) < size:
            return ()
        numbers = struct.unpack(f"{self.order}{count * len(form)}{form[0]}", content[:size])
        if len(form) == 1:
            return numbers
        fractions = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(above / below if below else 0.0 for above, below in fractions)

    def first(self, tag: int, default: int) -> int:
        """The first number of a tag, as an integer."""
        return int(next(iter(self.values(tag)), default))

    def directory(self, tag: int) -> Tags | None:
        """The directory to which a tag points."""
        offset = self.first(tag, 0)
        return Tags(self._file, offset) if offset else None

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.first(WIDTH, 0) * self.first(HEIGHT, 0)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample."""
        bits = tuple(map(int, self.values(BITS))) or (1,)
        samples = self.first(SAMPLES, 1)
        if len(bits) == 1 and samples < 1000:
            return bits * max(1, samples)
        return bits

    @property
    def is_deep(self) -> bool:
        """Whether Pillow misreads it: more than 8 bits, or samples that are not unsigned."""
        if self.alpha[1] == 1:  # by which colours are multiplied; Pillow divides them in 8 bits
            return True
        return max(self.bits) > 8 or any(form not in (1, 4) for form in self.values(SAMPLE_FORMAT))

    @property
    def alpha(self) -> tuple[int, int]:
        """(index of the sample beside the colours that is alpha, its kind); (0, 0) if none is.

        The kind is 1 if colours are multiplied by it, 2 if they are not.
        """
        for index, kind in enumerate(self.values(EXTRA)):
            if kind in (1, 2):
                return index, int(kind)
        return 0, 0

    def check(self) -> None:
        """Check that pixels packed by zlib are those that were written, which libtiff does not.

        Raises:
            ValueError, zlib.error: if they are not.
        """
        if self.first(COMPRESSION, 1) not in DEFLATE or self.first(FILL_ORDER, 1) != 1:
            return
        for starts, lengths in PACKED:
            strips = zip(self.values(starts), self.values(lengths), strict=False)
            for start, length in dict.fromkeys(strips):
                if length:
                    _check_packed(self._file, range(int(start), int(start + length)))

    def alone(self, tags: set[int]) -> BinaryIO:
        """A file whose only page this is, with those of the tags that it has."""
        length = self._file.seek(0, io.SEEK_END)
        offset = length + -length % 16
        head = read_span(self._file, range(8 if self.big else 4)) + self._word.pack(offset)
        entries = [self.raw[tag] for tag in sorted(self.raw.keys() & tags)]
        directory = self._count.pack(len(entries)) + b"".join(entries) + self._word.pack(0)
        pieces = [head, range(len(head), length), bytes(offset - length), directory]
        return io.BufferedReader(Spliced(self._file, pieces))


def _check_packed(file: BinaryIO, span: range) -> None:
    """Unpack what zlib has packed, and forget it."""
    unpacker = zlib.decompressobj()
    for piece in read_pieces(file, span):
        unpacked = unpacker.decompress(piece, PIECE)
        while not unpacker.eof and (unpacker.unconsumed_tail or len(unpacked) == PIECE):
            unpacked = unpacker.decompress(unpacker.unconsumed_tail, PIECE)
    if not unpacker.eof:
        raise ValueError("its pixels end too early")


def pages(file: BinaryIO) -> list[Tags]:
    """The pages of a TIFF, at most PAGES, and those that belong to one of them."""
    directories: list[Tags] = []
    offsets: list[float] = [Tags(file).offset]
    visited: set[float] = {0}
    while offsets and len(directories) < PAGES:
        offset = offsets.pop(0)
        if offset not in visited:
            visited.add(offset)
            directory = Tags(file, int(offset))
            directories.append(directory)
            offsets += [*directory.values(MORE_PAGES), directory.next]
    return directories


def largest_page(file: BinaryIO) -> tuple[Tags, int]:
    """The largest page of a TIFF that is no thumbnail and no mask, and how many such pages it has.

    Raises:
        Refused: for a camera raw file, and for a TIFF without a page.
    """
    stored = [page for page in pages(file) if page.pixels and page.raw.keys() & STORED]
    if any(page.first(PHOTOMETRIC, 0) in RAW_PHOTOMETRICS for page in stored):
        raise Refused(RAW)
    full = [page for page in stored if _is_full(page)] or stored
    if not full:
        raise Refused("a TIFF without a page (or damaged)")
    return max(full, key=lambda page: page.pixels), len(full)


def _is_full(page: Tags) -> bool:
    """Whether a page is no thumbnail and no mask."""
    is_reduced_or_mask = page.first(KIND, 0) & 5 or page.first(OLD_KIND, 1) == 2
    return not is_reduced_or_mask and page.first(PHOTOMETRIC, 0) != MASK
