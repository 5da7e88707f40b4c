"""Films: frames and sound into a file, MP4, WebM or GIF, or frames into a folder."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.video.clips import Clip
from nstlab.video.containers import library
from nstlab.video.formats import CODECS, TICKS, check_shown, frame_files
from nstlab.video.sound import Packets, Track, packets_of, tracks

logger = logging.getLogger("nstlab")

# BT.709 in FFmpeg's lists, and levels from 16 to 235
COLOUR_TAGS = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
RATE = 25  # frames a second that a film without a clip tells
GIF_SIDE = 480  # px: long side at which an animation is kept small
# Hundredths of a second: browsers show what is to be shown for less at a tenth of its speed.
GIF_LEAST = 2

TimedPath = tuple[Path, Fraction]  # file of a frame, and when it is shown, in seconds


def write_film(
    out: Path,
    frames: Sequence[TimedPath],
    end: Fraction,
    clip: Clip | None = None,
    begin: Fraction = Fraction(0),
) -> None:
    """Write a film, or its frames into a folder.

    Args:
        out: path whose suffix says the kind of film; without one, a folder.
        frames: (file, time in seconds) of pictures of one size, as `formats.film_shape` has it.
        end: when the last one ends, in seconds.
        clip: whose sound is added; what of it cannot be written is left out with a warning.
        begin: time of the clip that is 0 in the film, in seconds.

    Raises:
        InputError: if the film cannot be written; what was there before then stays.
    """
    for (_, time), until in zip(frames, _ends(frames, end), strict=True):
        check_shown(out, until - time)
    if not out.suffix:
        _write_folder(out, [path for path, _ in frames])
    elif out.suffix.lower() == ".gif":
        _write_gif(out, frames, end)
    else:
        _write_video(out, frames, end, clip, begin)


def _ends(frames: Sequence[TimedPath], end: Fraction) -> list[Fraction]:
    """When each frame ends: when the next one is shown."""
    return [time for _, time in frames[1:]] + [end]


def _write_folder(out: Path, paths: Sequence[Path]) -> None:
    """Write a folder of frames, copied beside their places first.

    If anything goes wrong, older frames are put back.
    """
    with (
        files.writing(out),
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=files.make_folder(out)) as new,
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=out) as old,
        contextlib.ExitStack() as undo,
    ):
        names = [f"{i:06}.png" for i in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            shutil.copyfile(path, Path(new) / name)
        for path in frame_files(out):
            os.replace(path, Path(old) / path.name)
            undo.callback(os.replace, Path(old) / path.name, path)
        for name in names:
            os.replace(Path(new) / name, out / name)
            undo.callback((out / name).unlink)
        undo.pop_all()


def _write_gif(out: Path, frames: Sequence[TimedPath], end: Fraction) -> None:
    """Write an animation of at most GIF_SIDE px that is repeated.

    It lasts as long as the frames, some of which are left out, with a warning, if they follow each
    other too fast for it.
    """
    timed_paths = _gif_times(frames, end)
    if len(timed_paths) < len(frames):
        logger.warning(
            "%s: shows %d of %d frames, since an animation shows none for less than %g s",
            out,
            len(timed_paths),
            len(frames),
            GIF_LEAST / 100,
        )
    starts = [start for _, start in timed_paths]
    ends = [*starts[1:], max(GIF_LEAST, round(100 * end))]
    durations = [10 * (stop - start) for start, stop in zip(starts, ends, strict=True)]  # in ms
    images = _gif_images([path for path, _ in timed_paths])
    with files.replacing(out) as temporary:
        try:
            next(images).save(
                temporary, "GIF", save_all=True, append_images=images, duration=durations, loop=0
            )
        except (OverflowError, struct.error):  # equal pictures that follow each other become one
            check_shown(out, Fraction(sum(durations), 1000))


def _gif_images(paths: Sequence[Path]) -> Iterator[Image.Image]:
    """The pictures of an animation, small and with palettes of their own."""
    shape = im.shape_of(paths[0])
    shape = sizes.fit_size(shape, min(GIF_SIDE, max(shape)))
    for path in paths:
        image = im.to_pil(im.resize(im.load(path), shape))
        yield image.quantize(dither=Image.Dither.FLOYDSTEINBERG)


def _gif_times(frames: Sequence[TimedPath], end: Fraction) -> list[tuple[Path, int]]:
    """(file, start in hundredths of a second) of the frames that an animation shows.

    Each is shown for GIF_LEAST or more, and starts at most 1 late; rounding does not add up.
    """
    timed_paths: list[tuple[Path, int]] = []
    earliest = 0
    for path, time in frames:
        start = max(earliest, round(100 * time))
        if not timed_paths or (start - 100 * time <= 1 and start + GIF_LEAST <= round(100 * end)):
            timed_paths.append((path, start))
            earliest = start + GIF_LEAST
    return timed_paths


def _write_video(
    out: Path, frames: Sequence[TimedPath], end: Fraction, clip: Clip | None, begin: Fraction
) -> None:
    """Write a container with the best sound that can be written, or without any."""
    candidates = () if clip is None else tracks(out.suffix[1:].lower(), clip)
    problem = None  # with the sound
    with files.replacing(out) as temporary:
        for track in itertools.chain(candidates, [None]):
            if track is None and problem is not None:
                logger.warning("%s: has no sound, which cannot be written (%s)", out, problem)
            try:
                _encode(temporary, frames, end, clip, begin, track)
                return
            except (library().FFmpegError, ArithmeticError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                problem = getattr(error, "strerror", None) or error
                if track is None or isinstance(error, OSError):  # a full disk, say
                    raise InputError(f"{out}: cannot be written ({problem})") from None


def _encode(
    path: Path,
    frames: Sequence[TimedPath],
    end: Fraction,
    clip: Clip | None,
    begin: Fraction,
    track: Track | None,
) -> None:
    """Write a container with pictures and the clip's sound, ordered by time."""
    rate = RATE if clip is None else round(clip.rate)
    with library().open(str(path), "w") as container:
        codec, options = CODECS[path.suffix.lower()]
        stream = _add_stream(container, codec, options, rate, im.shape_of(frames[0][0]))
        streams = [_encode_pictures(stream, frames, end)]
        if clip is not None and track is not None:
            streams.append(packets_of(container, clip, track, begin, end))
        for _, packet in heapq.merge(*streams, key=itemgetter(0)):
            container.mux(packet)


def _add_stream(
    container: Any, codec: str, options: dict[str, str], rate: int, shape: Sequence[int]
) -> Any:
    """Add a stream of pictures of shape (H, W), whose frames have times of their own."""
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = shape
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
    for name, number in COLOUR_TAGS.items():
        setattr(stream.codec_context, name, number)
    return stream


def _encode_pictures(stream: Any, frames: Sequence[TimedPath], end: Fraction) -> Packets:
    """(time, packet) of the frames.

    In MP4, the last packet's duration is the last frame's only if frames are stored in the order in
    which they are shown.
    """
    for (path, time), until in zip(frames, _ends(frames, end), strict=True):
        frame = library().VideoFrame.from_image(im.to_pil(im.load(path)))
        frame = frame.reformat(format="yuv420p", dst_colorspace=COLOUR_TAGS["colorspace"])
        frame.pts = round(time * TICKS)
        frame.time_base = Fraction(1, TICKS)
        frame.duration = round(until * TICKS) - frame.pts
        for packet in stream.encode(frame):
            yield packet.dts * packet.time_base, packet
    for packet in stream.encode():
        yield packet.dts * packet.time_base, packet
