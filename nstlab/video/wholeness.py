"""Whether the file of a clip is whole, as far as its container and packets tell.

Containers say how long their parts are, so that the end of the last part, or a part that begins
with nothing sensible, gives a cut or a hole away. What no length speaks of is not known here: wrong
bytes inside a part, or a file that ends where a part does. Formats that are not listed (MPEG
program streams, most bare streams) are not looked at.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from nstlab.pictures import png

SLACK = 16  # bytes that an AVI may lack: some writers count wrongly
FILM_BOXES = {b"moov", b"moof", b"mdat"}  # of ISO media
# Segment and Cluster of Matroska, whose parts are looked at
EBML_MASTERS = {0x18538067, 0x1F43B675}
# Bytes of a packet of a transport stream: where its sync byte is.
TS_PACKETS = {188: 0, 192: 4, 204: 0}
# Header and Data of ASF; its index, which may follow, is not needed
ASF_OBJECTS = {
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),
}
# How a frame of DV begins: its bytes, at 25 Mbit/s.
DV_FRAMES = {b"\x1f\x07\x00\x3f": 120_000, b"\x1f\x07\x00\xbf": 144_000}
NOTHING = -1  # length of a part that begins with nothing sensible
TOLERANCE = 1  # s that may be missing: some whole files have a few frames less than they say


def flaw(path: Path, name: str) -> str | None:
    """What is wrong with a file, in words.

    Args:
        path: of the file.
        name: FFmpeg's name of its container, or several with commas.

    Returns:
        "is cut short: …", or "has a hole at …"; None if nothing is known to be wrong.
    """
    walk = next((walk for names, walk in WALKS.items() if names & set(name.split(","))), None)
    if walk is None:
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        for begin, length in walk(file, size):
            if length == NOTHING:
                return f"has a hole at byte {begin:,}"
            if begin + length > size:
                return f"is cut short: at least {begin + length - size:,} bytes lack"
    return None


class Gaps:
    """Whether packets of a file are missing, by the times and flags of those that come.

    Args:
        container: PyAV's.
        rate: frames a second, on average.
    """

    def __init__(self, container: Any, rate: Fraction):
        self.is_joinable = container.format.name == "mpegts"
        self.rate = rate
        self.newest: dict[int, Fraction] = {}  # when each stream's newest packet is decoded, in s
        self.corrupt: dict[int, Fraction] = {}  # and its newest one that is not whole
        self.is_missing = False  # a part of the file

    def note(self, packet: Any) -> None:
        """Compare a packet with those before it."""
        if packet.dts is None:
            return
        index = packet.stream.index
        time: Fraction = packet.dts * packet.time_base
        before = self.newest.get(index, time)
        self.newest[index] = time
        if packet.is_corrupt:
            self.corrupt[index] = time
        if index not in self.corrupt or before - self.corrupt[index] >= TOLERANCE:
            return
        # Where recordings were joined, transport streams look damaged, too, but lack no time.
        if not self.is_joinable or (time - before) * self.rate > 1.5:
            self.is_missing = True


# --- walks: (begin, bytes) of the parts of a file -------------------------------------------------

Walk = Iterator[tuple[int, int]]


def _boxes(file: BinaryIO, size: int) -> Walk:
    """ISO base media (MP4, MOV): boxes with their length and kind."""
    begin = 0
    while begin < size:
        length = struct.unpack(">I", _at(file, begin, 4))[0]
        header = 8
        if length == 1:  # it has 64 bits
            length = struct.unpack(">Q", _at(file, begin + 8, 8))[0]
            header = 16
        if length < header:  # to the end, or what follows a film
            return
        if _at(file, begin + 4, 4) in FILM_BOXES:  # not what others append to a film
            yield begin, length
        begin += length


def _riff(file: BinaryIO, size: int) -> Walk:
    """AVI: one RIFF chunk, or several of at most 2 GB."""
    begin = 0
    while begin < size and _at(file, begin, 4) == b"RIFF":
        length = 8 + struct.unpack("<I", _at(file, begin + 4, 4))[0]
        yield begin, length - SLACK
        begin += length + length % 2


def _ebml(file: BinaryIO, size: int) -> Walk:
    """Matroska, WebM: elements with their number and length, which live films leave open."""
    begin = 0
    end = size
    while begin < end:
        head = _at(file, begin, 12)
        number, length, header = _vint(head)
        if number is None:
            yield begin, NOTHING
            return
        if number == 0x18538067 and length is not None:
            yield begin, header + length
            end = min(end, begin + header + length)  # what follows does not belong to it
        if number not in EBML_MASTERS and length is not None:
            yield begin, header + length
            begin += length
        begin += header


def _vint(head: bytes) -> tuple[int | None, int | None, int]:
    """(number of an element or None; its length, None if open; bytes of both)."""
    first = 9 - head[0].bit_length()
    if first > 4:
        return None, None, 0
    second = 9 - head[first].bit_length()
    if second > 8:
        return None, None, 0
    bits = 7 * second
    length = int.from_bytes(head[first : first + second], "big") & ((1 << bits) - 1)
    return (
        int.from_bytes(head[:first], "big"),
        None if length == (1 << bits) - 1 else length,
        first + second,
    )


def _flv(file: BinaryIO, size: int) -> Walk:
    """Flash: tags, after each of which its length is repeated."""
    begin = 4 + struct.unpack(">I", _at(file, 5, 4))[0]
    while begin < size:
        length = 11 + int.from_bytes(_at(file, begin + 1, 3), "big")
        yield begin, length + 4
        if (
            begin + length + 4 <= size
            and struct.unpack(">I", _at(file, begin + length, 4))[0] != length
        ):
            yield begin, NOTHING
            return
        begin += length + 4


def _ogg(file: BinaryIO, size: int) -> Walk:
    """Ogg: pages, which begin with their name."""
    begin = 0
    while begin < size:
        head = _at(file, begin, 27)
        if not b"OggS".startswith(head[: min(4, size - begin)]):
            yield begin, NOTHING
            return
        length = 27 + head[26]
        length += sum(_at(file, begin + 27, head[26]))
        yield begin, length
        begin += length


def _packets(file: BinaryIO, size: int) -> Walk:
    """Transport streams: packets of one length, the last of which may be a part of one."""
    for length, sync in TS_PACKETS.items():
        if all(_at(file, sync + i * length, 1) == b"G" for i in range(min(5, size // length))):
            complete = size // length * length
            if size > complete:
                yield complete, length
            return


def _gif(file: BinaryIO, size: int) -> Walk:
    """GIF: blocks until ";", which lacks where it is cut."""
    begin = 13 + _colours(_at(file, 10, 1)[0])
    while (kind := _at(file, begin, 1)) in (b"!", b",") and begin < size:
        begin += 2 if kind == b"!" else 11 + _colours(_at(file, begin + 9, 1)[0])
        while length := _at(file, begin, 1)[0]:
            begin += 1 + length
        begin += 1
    yield begin, NOTHING if begin < size and kind != b";" else 1


def _colours(flags: int) -> int:
    """Bytes of a GIF's table of colours."""
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _objects(file: BinaryIO, size: int) -> Walk:
    """ASF, WMV: objects with their identity and length, which live films leave open."""
    begin = 0
    while begin < size and _at(file, begin, 16) in ASF_OBJECTS:
        length = struct.unpack("<Q", _at(file, begin + 16, 8))[0]
        if length < 24:
            return
        yield begin, length
        begin += length


def _chunks(file: BinaryIO, size: int) -> Walk:
    """PNG that is animated: chunks until IEND, which lacks where it is cut."""
    kind = b""
    end = len(png.SIGNATURE)
    for kind, data in png.chunks(file):
        yield data.start - 8, 12 + len(data) if kind.isalpha() else NOTHING
        end = data.stop + 4
    if kind != b"IEND":
        yield end, 12


def _dv(file: BinaryIO, size: int) -> Walk:
    """Bare DV: frames of one length, which is twice as much if they have a second channel."""
    if length := DV_FRAMES.get(_at(file, 0, 4)):
        length *= 2 if _at(file, length, 2) == b"\x1f\x0f" else 1
        yield size // length * length, length if size % length else 0


def _jpegs(file: BinaryIO, size: int) -> Walk:
    """Bare Motion JPEG: pictures, the last of which must have an end."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = content.rfind(b"\xff\xd8\xff")
        yield begin, size - begin if content.rfind(b"\xff\xd9") > begin else size - begin + 2


def _at(file: BinaryIO, begin: int, length: int) -> bytes:
    """Bytes of a file; zeros behind its end."""
    file.seek(begin, io.SEEK_SET)
    return file.read(length).ljust(length, b"\0")


WALKS: dict[Any, Callable[[BinaryIO, int], Walk]] = {
    frozenset({"mov", "mp4"}): _boxes,
    frozenset({"avi"}): _riff,
    frozenset({"matroska", "webm"}): _ebml,
    frozenset({"flv"}): _flv,
    frozenset({"ogg"}): _ogg,
    frozenset({"gif"}): _gif,
    frozenset({"mpegts"}): _packets,
    frozenset({"asf"}): _objects,
    frozenset({"apng"}): _chunks,
    frozenset({"dv"}): _dv,
    frozenset({"mjpeg"}): _jpegs,
}
