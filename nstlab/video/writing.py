"""Films: frames and sound into a file, MP4, WebM or GIF, or frames into a folder."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image

from nstlab import files
from nstlab import images as im
from nstlab.settings import InputError
from nstlab.video.clips import Clip, library, opened

COLOURS = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}  # BT.709 in FFmpeg's lists, and 16 to 235
TICKS = 90_000  # a second: the clock of the films that are written
CODECS = {  # suffix: (codec, its options), of good quality
    ".mp4": ("libx264", {"crf": "17", "preset": "medium", "flags": "+frame_duration", "bf": "0"}),  # bf: see _pictures
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4", "flags": "+frame_duration"}),
}
GIF_SIDE = 480  # px: long side at which an animation is kept small
KINDS = (*CODECS, ".gif")

Timed = tuple[Path, Fraction]  # a kept frame, and its time in seconds
Packets = Iterator[tuple[Fraction, Any]]  # (time in seconds, packet for a container)


def check_film(out: Path) -> Path:
    """The path, if a film can be written there; else InputError, before any work is done."""
    if out.suffix.lower() in KINDS:
        return files.check_place(out)
    if out.suffix:
        raise InputError(f"{out}: films are written as {', '.join(KINDS)} or, without a suffix, as a folder of pictures")
    if not out.exists():
        return files.check_place(out)
    if not out.is_dir():
        raise InputError(f"{out}: is a file; a folder of pictures cannot take its place")
    for path in _numbered(out):
        if "frame" not in im.read_settings(path):
            raise InputError(f"{path}: is no frame of a film, and would be lost; choose another folder")
    return files.check_place(out / "0.png")


def _numbered(folder: Path) -> list[Path]:
    """The files of a folder that have names of frames, in their order."""
    return sorted(path for path in folder.glob("*.png") if re.fullmatch(r"\d{6}", path.stem))


def write_film(
    out: Path, frames: Sequence[Timed], end: Fraction, clip: Clip | None = None, begin: Fraction = Fraction(0)
) -> None:
    """Write a film, or its frames into a folder.

    frames: pictures of one size in files, read one at a time. end: when the last one ends. clip: whose sound is added, from
    its time `begin`, which is 0 in the film. Raises InputError if it cannot be written; what was there before then stays."""
    if not out.suffix:
        for i, (path, _) in enumerate(frames):
            with files.replacing(files.folder(out) / f"{i:06}.png") as temporary:
                shutil.copyfile(path, temporary)
        for surplus in _numbered(out)[len(frames) :]:  # of a longer film
            surplus.unlink()
    elif out.suffix.lower() == ".gif":
        _write_gif(out, frames, end)
    else:
        with files.replacing(out) as temporary:
            _encode(temporary, frames, end, clip, begin)


def _write_gif(out: Path, frames: Sequence[Timed], end: Fraction) -> None:
    """An animation of at most GIF_SIDE px that is repeated."""
    shape = im.shape_of(frames[0][0])
    shape = im.fit_size(shape, min(GIF_SIDE, max(shape)))

    def pictures() -> Iterator[Image.Image]:
        for path, _ in frames:
            yield im.to_pil(im.resize(im.load(path), shape)).quantize(dither=Image.Dither.FLOYDSTEINBERG)

    times = [*(time for _, time in frames), end]
    ticks = [round(100 * time) for time in times]  # hundredths of a second, whose rounding does not add up
    made = pictures()
    with files.replacing(out) as temporary:
        durations = [10 * max(2, b - a) for a, b in itertools.pairwise(ticks)]
        next(made).save(temporary, "GIF", save_all=True, append_images=made, duration=durations, loop=0)


def _encode(path: Path, frames: Sequence[Timed], end: Fraction, clip: Clip | None, begin: Fraction) -> None:
    """Write a container with pictures and sound, in the order of their times."""
    av = library()
    try:
        with av.open(str(path), "w") as container:
            parts = [_pictures(container, CODECS[path.suffix.lower()], frames, end, round(clip.rate) if clip else 25)]
            if clip is not None and clip.sounds:
                parts.append(_sound(container, clip, begin, end))
            for _, packet in heapq.merge(*parts, key=itemgetter(0)):
                container.mux(packet)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from None


def _pictures(container: Any, codec: tuple[str, dict[str, str]], frames: Sequence[Timed], end: Fraction, rate: int) -> Packets:
    """(time, packet) of the frames; a rate is told, but each frame has its own time. In MP4, the last packet's duration is the
    last frame's only if frames are stored in the order in which they are shown."""
    av, tick = library(), Fraction(1, TICKS)
    stream = container.add_stream(codec[0], rate=rate, options=codec[1])
    stream.height, stream.width = im.shape_of(frames[0][0])
    stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", tick, tick
    for name, number in COLOURS.items():
        setattr(stream.codec_context, name, number)
    for (source, time), until in zip(frames, [*(time for _, time in frames[1:]), end], strict=True):
        frame = av.VideoFrame.from_image(im.to_pil(im.load(source)))
        frame = frame.reformat(format="yuv420p", dst_colorspace=COLOURS["colorspace"])
        frame.pts, frame.time_base = round(time * TICKS), tick
        frame.duration = round(until * TICKS) - frame.pts
        for packet in stream.encode(frame):
            yield packet.dts * packet.time_base, packet
    for packet in stream.encode():
        yield packet.dts * packet.time_base, packet


def _sound(container: Any, clip: Clip, begin: Fraction, end: Fraction) -> Packets:
    """(time, packet) of a clip's sound from its time `begin`, which becomes 0, until `end`: as it is where the container can
    hold it and players know it, and encoded anew where not."""
    with opened(clip.path) as source:
        stream, origin = source.streams[clip.sounds[0]], clip.origin + begin
        name = stream.codec_context.codec.canonical_name
        if name in container.supported_codecs and not name.startswith("pcm"):
            made, packets = container.add_stream_from_template(stream), source.demux(stream)
        else:
            made = container.add_stream(container.default_audio_codec, rate=48_000, layout="stereo")
            packets = _encoded(made, _decoded(source.demux(stream)))
        for packet in packets:
            if packet.dts is None or packet.pts is None:  # the last one, which is empty
                continue
            tick, moved = packet.time_base, round(origin / packet.time_base)
            packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
            if packet.pts * tick >= end:
                return
            if packet.dts >= 0:
                packet.stream = made
                yield packet.pts * tick, packet


def _decoded(packets: Iterable[Any]) -> Iterator[Any]:
    """The sound of packets, without those that are damaged."""
    for packet in packets:
        with contextlib.suppress(library().FFmpegError):
            yield from packet.decode()


def _encoded(made: Any, frames: Iterable[Any]) -> Iterator[Any]:
    """Packets of sound in the form that a stream asks for."""
    av = library()
    resampler = av.AudioResampler(made.format, made.layout, made.rate)
    for frame in frames:
        for each in resampler.resample(frame):
            yield from made.encode(each)
    for each in resampler.resample(None):
        yield from made.encode(each)
    yield from made.encode(None)
