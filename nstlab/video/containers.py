"""Files of clips: opened, or refused by what they are; and which of their streams can be used."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nstlab.base import files
from nstlab.base.settings import InputError
from nstlab.pictures.decoding import LARGE
from nstlab.pictures.opening import max_pixels

LISTS = {"hls", "concat", "dash"}  # formats of files that only name others
RAW = {
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".nrw",
    ".arw",
    ".srf",
    ".raf",
    ".orf",
    ".rw2",
    ".pef",
    ".srw",
    ".3fr",
    ".iiq",
}
STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders leave alpha out
TRIES = 20  # errors after which a sound is taken for one that cannot be read
PROBED = 5000  # packets that are looked at for each sound's first one


def library() -> Any:
    """PyAV; InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError("video: PyAV is not installed; pip install 'nstlab[video]'") from None
    return av


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A video file, open. Raises InputError if it is none, or has no moving pictures."""
    av = library()
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    # Whole paths, since a colon ends the name of a protocol; and nothing is read from a network.
    whole = str(files.regular_file(path).absolute())
    try:
        container = av.open(
            whole, options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError) as error:
        reason = kind_of(path) or getattr(error, "strerror", None) or error
        raise InputError(f"{path}: is not a video ({reason})") from None
    with container:
        name = container.format.name
        if name in LISTS:
            raise InputError(f"{path}: is a list of files; name one of them")
        still = container.metadata.get("major_brand", "").strip() in STILL_BRANDS
        # FFmpeg's readers of pictures, and of text
        if still or name.endswith("_pipe") or name in ("image2", "tty"):
            raise InputError(f"{path}: is not a video ({kind_of(path) or 'a still picture'})")
        if not videos(container):
            raise InputError(f"{path}: has no video stream{_instead(container)}")
        yield container


def _instead(container: Any) -> str:
    """What a file without usable pictures has instead, in words."""
    if any(stream.codec_context is None for stream in container.streams.video):
        return " whose codec FFmpeg knows"
    return f", only sound ({container.format.long_name})" if container.streams.audio else ""


def kind_of(path: Path) -> str | None:
    """What a file is that is no video, in words: a picture, or a text; None if that is not
    known."""
    if path.suffix.lower() in RAW:
        return "a camera's raw picture"
    # Whatever a damaged file makes its reader raise.
    with contextlib.suppress(Exception), Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format not in ("TIFF", "MPO"):
            return (
                f"an animated {image.format}, which FFmpeg cannot decode; save its frames as "
                "pictures in a folder"
            )
        return f"a still picture, {image.format}"
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "an empty file"
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # whose last letter may be cut
        if all(letter.isprintable() or letter.isspace() for letter in text):
            return "a text"
    return None


# --- streams ------------------------------------------------------------------------------------


def videos(container: Any) -> list[Any]:
    """The streams of moving pictures whose codec is known, default ones first, those of one picture
    last; covers and previews are none."""
    shown = library().stream.Disposition
    no_film = shown.attached_pic | shown.timed_thumbnails
    streams = (stream for stream in container.streams.video if not stream.disposition & no_film)
    known = [stream for stream in _default_first(streams) if stream.codec_context]
    return sorted(known, key=lambda stream: stream.frames == 1)


def _default_first(streams: Any) -> list[Any]:
    default = library().stream.Disposition.default
    return sorted(streams, key=lambda stream: not stream.disposition & default)


def sounds(container: Any) -> tuple[int, ...]:
    """Indices of the streams of sound, whether they can be read or not, default ones first."""
    return tuple(stream.index for stream in _default_first(container.streams.audio))


def usable_sounds(path: Path) -> tuple[int, ...]:
    """Indices of a file's sounds whose first packets can be decoded, default ones first."""
    with opened(path) as container:
        streams = [
            stream for stream in _default_first(container.streams.audio) if stream.codec_context
        ]
        usable = set()
        errors = dict.fromkeys((stream.index for stream in streams), 0)
        packets = container.demux(*streams) if streams else iter(())
        with contextlib.suppress(library().FFmpegError):  # the file may be damaged further on
            for _, packet in zip(range(PROBED * len(streams)), packets, strict=False):
                if errors and packet.stream.index in errors:
                    _try(packet, usable, errors)
                elif not errors:
                    break
        return tuple(stream.index for stream in streams if stream.index in usable)


def _try(packet: Any, usable: set[int], errors: dict[int, int]) -> None:
    """Decode a packet of sound, and note for its stream whether it is usable, or how often it was
    not."""
    index = packet.stream.index
    try:
        if packet.decode():
            usable.add(index)
            del errors[index]
    except library().FFmpegError:
        errors[index] += 1
        if errors[index] == TRIES:
            del errors[index]


def decoder_of(stream: Any) -> Any:
    """The codec context that decodes a stream of pictures: with alpha, and no pictures of more
    pixels than are allowed."""
    context = stream.codec_context
    av = library()
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if tags.get("alpha_mode") == "1" and context.name in ALPHA_DECODERS:
        with contextlib.suppress(av.codec.codec.UnknownCodecError):  # a build without it
            context = av.CodecContext.create(ALPHA_DECODERS[context.name], "r")
    context.options = {"max_pixels": str(max_pixels())}
    # Several large frames at a time.
    context.thread_type = "SLICE" if stream.width * stream.height > LARGE else "AUTO"
    return context


def decoded(
    container: Any,
    stream: Any,
    others: Sequence[Any] = (),
    note: Callable[[Any], Any] = lambda packet: None,
) -> Iterator[Any]:
    """The frames of a stream of pictures. note: called with each packet of it, and of the others,
    before it is decoded."""
    decoder = decoder_of(stream)
    for packet in container.demux(stream, *others):
        if packet.dts is None and packet.size == 0:  # the last one of its stream
            if packet.stream is stream:
                yield from decoder.decode(packet)
            continue
        note(packet)
        # An empty one repeats the picture; a decoder takes it for the end.
        if packet.stream is stream and packet.size:
            yield from decoder.decode(packet)
