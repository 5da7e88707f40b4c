"""Files of clips: opened, or refused by what they are; their streams, and how these are decoded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.pictures.decoding import LARGE
from nstlab.pictures.opening import describe_unknown, max_pixels

LISTS = {"hls", "concat", "dash"}  # formats of files that only name others
# Suffixes of cameras' raw pictures: some of these files look like ordinary TIFFs.
RAW_SUFFIXES = {
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".raf", ".orf", ".rw2", ".pef", ".srw",
    ".3fr", ".iiq",
}  # fmt: skip
STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders leave alpha out


def library() -> Any:
    """The module of PyAV.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError("video: PyAV is not installed; pip install 'nstlab[video]'") from None
    return av


# --- opening --------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a video file, as PyAV's input container.

    Raises:
        InputError: if it is not a video, or has no moving pictures.
    """
    av = library()
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    # An absolute path, since a colon ends the name of a protocol; nothing is read from a network.
    absolute = str(files.regular_file(path).absolute())
    try:
        container = av.open(
            absolute, options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError) as error:
        reason = _kind_of(path) or getattr(error, "strerror", None) or error
        raise InputError(f"{path}: is not a video ({reason})") from None
    with container:
        _check_container(path, container)
        yield container


def _check_container(path: Path, container: Any) -> None:
    """InputError for a list of files, a still picture, a text, and for sound alone."""
    name = container.format.name
    if name in LISTS:
        raise InputError(f"{path}: is a list of files; name one of them")
    is_still = container.metadata.get("major_brand", "").strip() in STILL_BRANDS
    # FFmpeg's readers of pictures, and of text
    if is_still or name.endswith("_pipe") or name in ("image2", "tty"):
        raise InputError(f"{path}: is not a video ({_kind_of(path) or 'a still picture'})")
    if not picture_streams(container):
        raise InputError(f"{path}: has no video stream{_instead(container)}")


def _instead(container: Any) -> str:
    """What a file without usable pictures has instead, in words."""
    if any(stream.codec_context is None for stream in container.streams.video):
        return " whose codec FFmpeg knows"
    return f", only sound ({container.format.long_name})" if container.streams.audio else ""


def _kind_of(path: Path) -> str | None:
    """What a file that is no video is, in words, such as a picture or a text; None if unknown."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return "a camera's raw picture"
    # Whatever a damaged file makes its reader raise.
    with contextlib.suppress(Exception), Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format not in ("TIFF", "MPO"):
            return (
                f"an animated {image.format}, which FFmpeg cannot decode; save its frames as "
                "pictures in a folder"
            )
        return f"a still picture, {image.format}"
    kind = describe_unknown(path)
    if kind in ("not a picture (or damaged)", "a video, or sound"):
        return None
    return kind.removeprefix("not a picture but ")


# --- streams --------------------------------------------------------------------------------------


def picture_streams(container: Any) -> list[Any]:
    """The streams of moving pictures whose codec is known, without covers and previews.

    Default ones come first, those of one picture last.
    """
    disposition = library().stream.Disposition
    still = disposition.attached_pic | disposition.timed_thumbnails
    streams = (stream for stream in container.streams.video if not stream.disposition & still)
    decodable = [stream for stream in _default_first(streams) if stream.codec_context]
    return sorted(decodable, key=lambda stream: stream.frames == 1)


def sound_streams(container: Any) -> list[Any]:
    """The streams of sound, whether they can be decoded or not, default ones first."""
    return _default_first(container.streams.audio)


def _default_first(streams: Any) -> list[Any]:
    default = library().stream.Disposition.default
    return sorted(streams, key=lambda stream: not stream.disposition & default)


def is_bare(container: Any) -> bool:
    """Whether it is no container but a stream alone (H.264, MPEG-2, …), which has no times."""
    return bool(container.format.flags & library().format.Flags.no_timestamps.value)


# --- decoding -------------------------------------------------------------------------------------


def decoder_of(stream: Any) -> Any:
    """The codec context that decodes a stream of pictures, with alpha where there is some.

    It refuses pictures of more pixels than are allowed.
    """
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


def is_last(packet: Any) -> bool:
    """Whether a packet is the empty one that ends its stream, which makes a decoder finish."""
    return packet.dts is None and packet.size == 0


def decode(
    container: Any,
    stream: Any,
    others: Sequence[Any] = (),
    note: Callable[[Any], Any] = lambda packet: None,
) -> Iterator[Any]:
    """Decode the frames of a stream of pictures.

    Args:
        container: is read to its end.
        stream: of the pictures.
        others: streams whose packets are noted, too.
        note: called with each packet, but for the last of a stream, before it is decoded.

    Yields:
        PyAV's frames.
    """
    decoder = decoder_of(stream)
    for packet in container.demux(stream, *others):
        if not is_last(packet):
            note(packet)
        # Another empty one repeats the picture; a decoder takes it for the end.
        if packet.stream is stream and (packet.size or is_last(packet)):
            yield from decoder.decode(packet)
