"""Clips: the frames of a video file, or of a folder of pictures, one at a time; and its sound."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from nstlab.base.settings import InputError, user_path
from nstlab.pictures import images as im
from nstlab.pictures import samples
from nstlab.pictures.kinds import READABLE
from nstlab.pictures.opening import check_memory, check_shape
from nstlab.video.containers import decoded, library, opened, sounds, usable_sounds, videos
from nstlab.video.converting import Converter, shown_shape
from nstlab.video.wholeness import flaw

logger = logging.getLogger("nstlab")

RATE = Fraction(25)  # frames a second of a folder of pictures, and of a clip that does not say
RATES = (Fraction(1, 1000), 1000)  # those that a clip may say
LONGEST = 1_000_000  # s: what is beyond it is no time of a clip
HELD = 6  # frames that a decoder holds at a time, since others are made from them
DECODED = ("avi", "asf")  # formats that tell when pictures are decoded, not when they are shown
FROM_ZERO = ("asf", "nut")  # formats whose length is counted from 0, not from the first picture
SPARE = 1  # s that the end may lack: some whole files have a few frames less than they say


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, (1, 3, h, w) sRGB in [0, 1], upright and with square pixels; when it is shown, and
    until when, in seconds."""

    picture: Tensor
    time: Fraction
    until: Fraction


@dataclass(frozen=True)
class Clip:
    """A video file, or a folder of pictures.

    shape: (h, w) of its frames. rate: frames a second, on average. length: in seconds, if the file
    says it. sounds: indices of those of its streams that are sound and can be read, the default one
    first. video: index of the stream of its frames. origin: time in the file at which the clip
    begins, in seconds: that of the first picture, or of a sound that is earlier."""

    path: Path
    shape: tuple[int, int]
    rate: Fraction
    length: Fraction | None = None
    sounds: tuple[int, ...] = ()
    video: int = 0
    origin: Fraction = Fraction(0)

    def frames(self, shape: Sequence[int] | None = None) -> Iterator[Frame]:
        """The frames in their order, the first from the clip's beginning, the last one until its
        pictures and sound have ended.

        shape: (h, w) in which they are wanted, if not in their own. Raises InputError where the
        file is damaged, or, after all frames, if it is known to lack a part."""
        shape = self.shape if shape is None else tuple(shape)
        return self._pictures(shape) if self.path.is_dir() else self._decoded(shape)

    def _pictures(self, shape: Sequence[int]) -> Iterator[Frame]:
        for i, path in enumerate(pictures(self.path)):
            picture = im.load(path)
            self.check_alike(picture.shape[-2:], i)
            yield Frame(im.resize(picture, shape), i / self.rate, (i + 1) / self.rate)

    def _decoded(self, shape: Sequence[int]) -> Iterator[Frame]:
        last = None
        with opened(self.path) as source:
            reading = _Reading(self, source, shape)
            try:
                for frame in reading.frames():
                    if last is not None:
                        yield replace(last, until=frame.time)
                    last = frame
                problem = reading.problem(last)
            except InputError as error:
                problem = error
        if last is not None:
            yield replace(last, until=reading.end(last))
        if problem is not None:
            raise problem

    def check_alike(self, shape: Sequence[int], index: int) -> None:
        """InputError if the frame of that index has another shape than the first."""
        if tuple(shape) != self.shape:
            (height, width), (h, w) = self.shape, shape
            raise InputError(
                f"{self.path}: changes its size from {width}×{height} to {w}×{h} px after "
                f"{index} frames"
            )


class _Reading:
    """One pass through a video file."""

    def __init__(self, clip: Clip, source: Any, shape: Sequence[int]):
        self.clip = clip
        self.source = source
        self.stream = source.streams[clip.video]
        self.converter = Converter(clip.path, shape)
        self.is_bare = _is_bare(source)
        self.count, self.last = 0, -1 / clip.rate  # frames so far, and the time of the newest
        self.until = Fraction(0)  # when the newest ends
        # When sound ends, and pictures that are repeated, in the clip's time.
        self.ends: dict[int, Fraction] = {}
        self.sent: dict[int, int] = {}  # until there is a frame: pts and dts of its packets
        self.delay = 0  # ticks between the dts of a frame and when it is shown
        self.newest: dict[int, Fraction] = {}  # when the newest packet of each stream is decoded
        self.corrupt: dict[int, Fraction] = {}  # and the newest one that is not whole
        self.damaged: InputError | None = None
        self.lacks = False  # whether a part of the file is known to

    def frames(self) -> Iterator[Frame]:
        """The frames with their times, as far as the file can be read."""
        times: deque[tuple[Fraction, Fraction]] = deque()
        for frame, shown in itertools.chain(self._checked(), [(None, None)]):
            if shown is not None:
                times.append(shown)
            for picture in self.converter.convert(frame):
                yield Frame(picture, *times.popleft())

    def _checked(self) -> Iterator[tuple[Any, tuple[Fraction, Fraction]]]:
        """(frame, (its time, when it ends)) as long as nothing is wrong with them."""
        path = self.clip.path
        sounds = [self.source.streams[index] for index in self.clip.sounds[:1]]
        try:
            for frame in decoded(self.source, self.stream, sounds, self._note):
                if frame.is_corrupt:
                    raise InputError(f"{path}: is damaged after {self.count} frames")
                self.clip.check_alike(shown_shape(frame, _aspect(self.stream)), self.count)
                yield frame, self._times(frame)
                self.count += 1
        except InputError as error:
            self.damaged = error
        except library().FFmpegError as error:
            self.damaged = InputError(
                f"{path}: is damaged after {self.count} frames ({error.strerror})"
            )

    def _times(self, frame: Any) -> tuple[Fraction, Fraction]:
        """When a frame is shown and when it ends: times that do not rise are replaced, those beyond
        all bounds refused."""
        step = 1 / self.clip.rate
        tick = frame.time_base
        shown = frame.pts
        if self.source.format.name in DECODED:  # the first one is shown when it is decoded
            if not self.count and None not in (frame.dts, shown):
                self.delay = frame.dts - self.sent.get(shown, shown)
            shown = None if frame.dts is None else frame.dts - self.delay
        if shown is None:
            told = None
        elif self.is_bare:  # FFmpeg has counted, in the order in which they are stored
            told = self.until
        else:
            told = shown * tick - self.clip.origin
        self.last = told if told is not None and told > self.last else self.last + step
        if self.last > LONGEST:
            raise InputError(
                f"{self.clip.path}: frame {self.count} is said to be shown at "
                f"{float(self.last):.4g} s; "
                f"a clip may last {LONGEST:,} s"
            )
        length = max(frame.duration or 0, 0) * tick
        self.until = self.last + (length if 0 < length <= LONGEST else step)
        return (self.last if self.count else Fraction(0)), self.until

    def _note(self, packet: Any) -> None:
        """Look at a packet: how long it lasts, and whether something before it, or a part of it,
        lacks."""
        index, tick = packet.stream.index, packet.time_base
        begin = packet.pts if packet.pts is not None else packet.dts
        if begin is not None and (not packet.size or packet.stream is not self.stream):
            end = (begin + max(packet.duration or 0, 0)) * tick - self.clip.origin
            if end <= LONGEST:
                self.ends[index] = max(self.ends.get(index, end), end)
        pts, dts = packet.pts, packet.dts
        if packet.stream is self.stream and not self.count and pts is not None and dts is not None:
            self.sent[pts] = dts
        if packet.dts is not None:
            time: Fraction = packet.dts * tick
            before, self.newest[index] = self.newest.get(index, time), time
            if packet.is_corrupt:
                self.corrupt[index] = time
            near = before - self.corrupt.get(index, before - LONGEST) < SPARE
            # Where recordings were joined, transport streams look damaged, too, but do not lack
            # any time.
            self.lacks |= near and (
                self.source.format.name != "mpegts" or (time - before) * self.clip.rate > 1.5
            )

    def end(self, last: Frame) -> Fraction:
        """When the clip ends: the last picture is shown for as long as the sound goes on, if that
        is longer than a frame."""
        until = max(last.until, self.ends.get(self.clip.video, last.until))
        sound = max(self.ends.values(), default=until)
        return sound if sound > until + 1 / self.clip.rate else until

    def problem(self, last: Frame | None) -> InputError | None:
        """What is wrong with the file, which has been read to its end."""
        path, length = self.clip.path, self.clip.length
        if self.damaged is not None:
            return self.damaged
        if last is None:
            return InputError(f"{path}: has no frames that can be read")
        if length is not None and self.end(last) + SPARE < length:
            return InputError(
                f"{path}: ends after {float(last.until):.2f} of {float(length):.2f} s"
            )
        what = flaw(path, self.source.format.name) or (
            "is damaged; a part of it lacks" if self.lacks else None
        )
        return None if what is None else InputError(f"{path}: {what}")


def clip(source: str | os.PathLike) -> Clip:
    """What a video file or a folder of pictures holds. Raises InputError for anything else."""
    if not os.fspath(source):  # which Path takes for this folder
        raise InputError("clip: name a video file, or a folder of pictures")
    path = user_path(source)
    if os.path.isdir(path):  # of a name that no file can have, False
        found = pictures(path)
        return Clip(path, im.shape_of(found[0]), RATE, len(found) / RATE)
    with opened(path) as container:
        indices = [stream.index for stream in videos(container)]
        told = sounds(container)
    usable = usable_sounds(path) if told else ()
    problems = []
    for index in indices:
        try:
            found = _clip(path, index, usable)
        except InputError as error:
            problems.append(error)
        else:
            if told and not usable:
                logger.warning("%s: its sound cannot be read; the film is silent", path)
            elif usable and usable[0] != told[0]:
                logger.warning(
                    "%s: its first sound cannot be read; another one takes its place", path
                )
            return found
    raise problems[0]


def _clip(path: Path, index: int, sounds: tuple[int, ...]) -> Clip:
    """The clip of a file's stream of that index. InputError if its pictures cannot be read, or not
    be held in memory."""
    with opened(path) as container:
        stream = container.streams[index]
        aspect = _aspect(stream)
        _check_size(path, stream, aspect)
        try:
            first = next(decoded(container, stream), None)
        except library().FFmpegError as error:
            raise InputError(f"{path}: is damaged ({error.strerror})") from None
        if first is None:
            raise InputError(f"{path}: has no frames")
        _check_size(path, first, aspect)
        shape = shown_shape(first, aspect)
        rate = _rate(container, stream)
        begins = [_begin(container.streams[each]) for each in (index, *sounds[:1])]
        origin = min(begins) if min(begins) + 1 / rate < begins[0] else begins[0]
        return Clip(path, shape, rate, _length(container, stream, origin), sounds, index, origin)


def _aspect(stream: Any) -> Fraction:
    """Width / height of the pixels of a stream."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and aspect > 0 else Fraction(1)


def _check_size(path: Path, pixels: Any, aspect: Fraction) -> None:
    """InputError for more pixels than are allowed, or than memory can hold, before they are
    decoded."""
    width, height = pixels.width, pixels.height
    if width and height:  # else only frames tell
        for each in (width, max(1, round(width * aspect))):
            check_shape(path, each, height)
        bits = pixels.format.padded_bits_per_pixel if pixels.format else 32
        check_memory(path, HELD * width * height * bits // 8)


def _is_bare(container: Any) -> bool:
    """Whether it is no container but a stream alone (H.264, MPEG-2, …), which has no times."""
    return bool(container.format.flags & library().format.Flags.no_timestamps.value)


def _rate(container: Any, stream: Any) -> Fraction:
    """Frames a second, on average; RATE if what the file says cannot be."""
    # The average of a bare stream is what FFmpeg takes where nothing is told.
    average = stream.codec_context.framerate if _is_bare(container) else stream.average_rate
    told = (Fraction(each) for each in (average, stream.guessed_rate) if each)
    return next((rate for rate in told if RATES[0] <= rate <= RATES[1]), RATE)


def _begin(stream: Any) -> Fraction:
    return (stream.start_time or 0) * stream.time_base


def _length(container: Any, stream: Any, origin: Fraction) -> Fraction | None:
    """How long, from the origin, a file says that its pictures last, in seconds; None if it does
    not say, or cannot be."""
    if _is_bare(container):
        return None
    end = None
    others = len(container.streams) > 1
    # Matroska has it as text, 00:01:02.5
    with contextlib.suppress(KeyError, ValueError, ZeroDivisionError):
        hours, minutes, seconds = map(Fraction, stream.metadata["DURATION"].split(":"))
        end = 3600 * hours + 60 * minutes + seconds
    if stream.duration:
        begin = 0 if container.format.name in FROM_ZERO else _begin(stream)
        end = begin + stream.duration * stream.time_base
    elif end is None and container.duration and not others:  # otherwise that of its sound, perhaps
        end = Fraction(container.duration, 1_000_000)
    return end - origin if end is not None and 0 < end - origin <= LONGEST else None


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, ordered by name, in which 9 comes before 10. InputError if there is
    none."""
    found = samples.pictures_in(folder)
    if not found:
        raise InputError(f"{folder}: there is no picture in it; allowed are {READABLE}")
    return sorted(
        found,
        key=lambda path: [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)
        ],
    )
