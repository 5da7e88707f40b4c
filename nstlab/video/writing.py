"""Films: frames and sound into a file, MP4, WebM or GIF, or frames into a folder."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import os
import re
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
from nstlab.base.settings import InputError
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.pictures.opening import MAX_ASPECT
from nstlab.video.clips import Clip
from nstlab.video.containers import library
from nstlab.video.sound import Packets, Track, packets_of, tracks

logger = logging.getLogger("nstlab")

COLOURS = {
    "colorspace": 1,
    "color_primaries": 1,
    "color_trc": 1,
    "color_range": 1,
}  # BT.709 in FFmpeg's lists, and 16 to 235
TICKS = 90_000  # a second: the clock of the films that are written
CODECS = {  # suffix: (codec, its options), of good quality
    ".mp4": (
        "libx264",
        {"crf": "17", "preset": "medium", "flags": "+frame_duration", "bf": "0"},
    ),  # bf: see _pictures
    ".webm": (
        "libvpx-vp9",
        {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4", "flags": "+frame_duration"},
    ),
}
GIF_SIDE = 480  # px: long side at which an animation is kept small
# Hundredths of a second: browsers show what is to be shown for less at a tenth of its speed.
GIF_SHOWN = 2
# Seconds for which a film can show one picture.
LONGEST = dict.fromkeys(CODECS, (1 << 31) // TICKS) | {".gif": 655.35}
KINDS = tuple(LONGEST)

Timed = tuple[Path, Fraction]  # a kept frame, and its time in seconds


# --- before a film is painted ---------------------------------------------------------------------


def film_shape(shape: Sequence[int], size: int, what: Any = "clip") -> tuple[int, int]:
    """(H, W) of the film of a clip of shape (H, W), with a long side of `size` px: even numbers,
    since codecs halve the resolution of colours. InputError, about `what`, for proportions that
    pictures may not have."""
    if max(shape) > MAX_ASPECT * min(shape):
        height, width = shape
        raise InputError(
            f"{what}: {width}×{height} is too long; the ratio of its sides may be at most "
            f"{MAX_ASPECT:g}"
        )
    height, width = (2 * round(side / 2) for side in sizes.fit_size(shape, size, what))
    most = int(MAX_ASPECT) * min(height, width)  # which rounding may have exceeded
    return min(height, most), min(width, most)


def check_film(out: Path) -> Path:
    """The path, if a film can be written there; else InputError, before any work is done."""
    if out.suffix.lower() in KINDS:
        return files.check_writable(out)
    if out.suffix:
        raise InputError(
            f"{out}: films are written as {', '.join(KINDS)} or, without a suffix, as a folder of "
            "pictures"
        )
    if not out.exists():
        return files.check_writable(out)
    if not out.is_dir():
        raise InputError(f"{out}: is a file; a folder of pictures cannot take its place")
    for path in _numbered(out):
        about: dict[str, Any] = {}
        with contextlib.suppress(InputError):  # it may be anything
            about = im.read_settings(path)
        if "frame" not in about:
            raise InputError(
                f"{path}: is no frame of a film, and would be lost; choose another folder"
            )
    return files.check_writable(out / "0.png")


def check_shown(out: Path, seconds: Fraction) -> None:
    """InputError if the film cannot show one picture for so many seconds."""
    longest = LONGEST.get(out.suffix.lower(), math.inf)
    if seconds > longest:
        raise InputError(
            f"{out}: a picture is to be shown for {float(seconds):.6g} s; this kind of film shows "
            f"none for more than {longest} s; choose another kind, an earlier end (--to), or "
            "a folder"
        )


def check_sound(out: Path, clip: Clip) -> None:
    """Warn, before any work is done, if the film cannot have the clip's sound, or the first one of
    several."""
    if not clip.sounds or out.suffix.lower() not in CODECS:
        return
    track = next(tracks(out.suffix[1:].lower(), clip), None)
    if track is None:
        logger.warning(
            "%s: its sound cannot be written into %s; the film is silent", clip.path, out
        )
    elif track.index != clip.sounds[0]:
        logger.warning(
            "%s: its first sound cannot be written into %s; another one takes its place",
            clip.path,
            out,
        )


def _numbered(folder: Path) -> list[Path]:
    """The files of a folder that have names of frames, in their order."""
    return sorted(path for path in folder.glob("*.png") if re.fullmatch(r"\d{6}", path.stem))


# --- writing --------------------------------------------------------------------------------------


def write_film(
    out: Path,
    frames: Sequence[Timed],
    end: Fraction,
    clip: Clip | None = None,
    begin: Fraction = Fraction(0),
) -> None:
    """Write a film, or its frames into a folder.

    frames: pictures of one size, as `film_shape` has it, in files, read one at a time. end: when
    the last one ends. clip: whose sound is added, from its time `begin`, which is 0 in the film;
    what of it cannot be written is left out with a warning. Raises InputError if the film cannot be
    written; what was there before then stays."""
    for (_, time), until in zip(frames, _ends(frames, end), strict=True):
        check_shown(out, until - time)
    if not out.suffix:
        _write_folder(out, [path for path, _ in frames])
    elif out.suffix.lower() == ".gif":
        _write_gif(out, frames, end)
    else:
        _write_video(out, frames, end, clip, begin)


def _ends(frames: Sequence[Timed], end: Fraction) -> list[Fraction]:
    """When each frame ends."""
    return [*(time for _, time in frames[1:]), end]


def _write_folder(out: Path, paths: Sequence[Path]) -> None:
    """All frames, copied beside their places first; if anything goes wrong, older ones are put
    back."""
    with (
        files.writing(out),
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=files.make_folder(out)) as new,
        tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=out) as old,
        contextlib.ExitStack() as undo,
    ):
        names = [f"{i:06}.png" for i in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            shutil.copyfile(path, Path(new) / name)
        for path in _numbered(out):
            os.replace(path, Path(old) / path.name)
            undo.callback(os.replace, Path(old) / path.name, path)
        for name in names:
            os.replace(Path(new) / name, out / name)
            undo.callback((out / name).unlink)
        undo.pop_all()


def _write_gif(out: Path, frames: Sequence[Timed], end: Fraction) -> None:
    """An animation of at most GIF_SIDE px that is repeated; it lasts as long as the frames, some of
    which are left out, with a warning, if they follow each other too fast for it."""
    shown = _gif_times(frames, end)
    last = max(GIF_SHOWN, round(100 * end))
    if len(shown) < len(frames):
        logger.warning(
            "%s: shows %d of %d frames, since an animation shows none for less than %g s",
            out,
            len(shown),
            len(frames),
            GIF_SHOWN / 100,
        )
    shape = im.shape_of(frames[0][0])
    shape = sizes.fit_size(shape, min(GIF_SIDE, max(shape)))

    def pictures() -> Iterator[Image.Image]:
        for path, _ in shown:
            yield im.to_pil(im.resize(im.load(path), shape)).quantize(
                dither=Image.Dither.FLOYDSTEINBERG
            )

    made = pictures()
    with files.replacing(out) as temporary:
        durations = [
            10 * (b - a) for a, b in itertools.pairwise([*(tick for _, tick in shown), last])
        ]
        try:
            next(made).save(
                temporary, "GIF", save_all=True, append_images=made, duration=durations, loop=0
            )
        except (OverflowError, struct.error):  # equal pictures that follow each other become one
            check_shown(out, Fraction(sum(durations), 1000))


def _gif_times(frames: Sequence[Timed], end: Fraction) -> list[tuple[Path, int]]:
    """(file, when it begins) of the frames that an animation shows, in hundredths of a second,
    whose rounding does not add up: each for GIF_SHOWN or more, and at most 1 late."""
    shown, earliest = [], 0
    for path, time in frames:
        tick = max(earliest, round(100 * time))
        if not shown or (tick - 100 * time <= 1 and tick + GIF_SHOWN <= round(100 * end)):
            shown.append((path, tick))
            earliest = tick + GIF_SHOWN
    return shown


def _write_video(
    out: Path, frames: Sequence[Timed], end: Fraction, clip: Clip | None, begin: Fraction
) -> None:
    """A container with the best sound that can be written, or without any."""
    ways = () if clip is None else tracks(out.suffix[1:].lower(), clip)
    problem = None  # with the sound
    with files.replacing(out) as temporary:
        for track in itertools.chain(ways, [None]):
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
    frames: Sequence[Timed],
    end: Fraction,
    clip: Clip | None,
    begin: Fraction,
    track: Track | None,
) -> None:
    """Write a container with pictures and, if there is a track, the clip's sound, ordered by
    time."""
    with library().open(str(path), "w") as container:
        parts = [
            _pictures(
                container,
                CODECS[path.suffix.lower()],
                frames,
                end,
                round(clip.rate) if clip else 25,
            )
        ]
        if clip is not None and track is not None:
            parts.append(packets_of(container, clip, track, begin, end))
        for _, packet in heapq.merge(*parts, key=itemgetter(0)):
            container.mux(packet)


def _pictures(
    container: Any,
    codec: tuple[str, dict[str, str]],
    frames: Sequence[Timed],
    end: Fraction,
    rate: int,
) -> Packets:
    """(time, packet) of the frames; a rate is told, but each frame has its own time. In MP4, the
    last packet's duration is the last frame's only if frames are stored in the order in which they
    are shown."""
    av = library()
    tick = Fraction(1, TICKS)
    stream = container.add_stream(codec[0], rate=rate, options=codec[1])
    stream.height, stream.width = im.shape_of(frames[0][0])
    stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", tick, tick
    for name, number in COLOURS.items():
        setattr(stream.codec_context, name, number)
    for (source, time), until in zip(frames, _ends(frames, end), strict=True):
        frame = av.VideoFrame.from_image(im.to_pil(im.load(source)))
        frame = frame.reformat(format="yuv420p", dst_colorspace=COLOURS["colorspace"])
        frame.pts = round(time * TICKS)
        frame.time_base = tick
        frame.duration = round(until * TICKS) - frame.pts
        for packet in stream.encode(frame):
            yield packet.dts * packet.time_base, packet
    for packet in stream.encode():
        yield packet.dts * packet.time_base, packet
