"""Clips: the frames of a video file, or of a folder of pictures, one at a time."""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.base.settings import user_path
from nstlab.pictures import images as im
from nstlab.pictures import samples
from nstlab.pictures.kinds import READABLE
from nstlab.video.containers import decode, library, open_container
from nstlab.video.converting import Converter, shown_shape
from nstlab.video.probing import RATE, aspect_of, probe
from nstlab.video.timing import Timeline
from nstlab.video.wholeness import TOLERANCE, Gaps, flaw


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a clip, upright and with square pixels.

    Attributes:
        picture: (1, 3, h, w) sRGB in [0, 1].
        time: when it is shown, in seconds of the clip.
        until: when it ends, in seconds of the clip.
    """

    picture: Tensor
    time: Fraction
    until: Fraction


@dataclass(frozen=True)
class Clip:
    """A video file, or a folder of pictures.

    Attributes:
        path: of the file or the folder.
        shape: (h, w) of its frames.
        rate: frames a second, on average.
        length: in seconds, if the file says it.
        sounds: indices of the streams of sound that can be decoded, the default one first.
        video: index of the stream of its frames.
        origin: time in the file at which the clip begins, in seconds: that of the first picture, or
            of a sound that is earlier.
    """

    path: Path
    shape: tuple[int, int]
    rate: Fraction
    length: Fraction | None = None
    sounds: tuple[int, ...] = ()
    video: int = 0
    origin: Fraction = Fraction(0)

    def frames(self, shape: Sequence[int] | None = None) -> Iterator[Frame]:
        """The frames in their order, the first from time 0.

        The last one is shown until pictures and sound have ended.

        Args:
            shape: (h, w) of the pictures, by default that of the clip.

        Raises:
            InputError: where the file is damaged, or, after all frames, if a part of the file is
                known to be missing.
        """
        shape = self.shape if shape is None else tuple(shape)
        return self._load_pictures(shape) if self.path.is_dir() else self._decode(shape)

    def _load_pictures(self, shape: Sequence[int]) -> Iterator[Frame]:
        for i, path in enumerate(pictures(self.path)):
            picture = im.load(path)
            self.check_shape(picture.shape[-2:], i)
            yield Frame(im.resize(picture, shape), i / self.rate, (i + 1) / self.rate)

    def _decode(self, shape: Sequence[int]) -> Iterator[Frame]:
        last = None
        with open_container(self.path) as container:
            reading = _Reading(self, container, shape)
            try:
                for frame in reading.frames():
                    if last is not None:
                        yield replace(last, until=frame.time)
                    last = frame
                problem = reading.problem(last)
            except InputError as error:
                problem = error
        if last is not None:
            yield replace(last, until=reading.timeline.end(last.until))
        if problem is not None:
            raise problem

    def check_shape(self, shape: Sequence[int], index: int) -> None:
        """Raise InputError if the frame of that index has another (h, w) than the clip."""
        if tuple(shape) != self.shape:
            (height, width), (h, w) = self.shape, shape
            raise InputError(
                f"{self.path}: changes its size from {width}×{height} to {w}×{h} px after "
                f"{index} frames"
            )


class _Reading:
    """One pass through a video file."""

    def __init__(self, clip: Clip, container: Any, shape: Sequence[int]):
        self.clip = clip
        self.container = container
        self.stream = container.streams[clip.video]
        self.converter = Converter(clip.path, shape)
        self.timeline = Timeline(clip.path, container, self.stream, clip.rate, clip.origin)
        self.gaps = Gaps(container, clip.rate)
        self.damage: InputError | None = None  # where reading had to end

    def frames(self) -> Iterator[Frame]:
        """The frames with their times, as far as the file can be read."""
        times: deque[tuple[Fraction, Fraction]] = deque()  # of frames that are being converted
        for frame in itertools.chain(self._decoded_frames(), [None]):
            if frame is not None:
                times.append(self.timeline.newest)
            for picture in self.converter.convert(frame):
                yield Frame(picture, *times.popleft())

    def _decoded_frames(self) -> Iterator[Any]:
        """The decoded frames, which are added to the timeline, until something is wrong."""
        path = self.clip.path
        timeline = self.timeline
        sounds = [self.container.streams[index] for index in self.clip.sounds[:1]]
        try:
            for frame in decode(self.container, self.stream, sounds, self._note):
                if frame.is_corrupt:
                    raise InputError(f"{path}: is damaged after {timeline.count} frames")
                shape = shown_shape(frame, aspect_of(self.stream))
                self.clip.check_shape(shape, timeline.count)
                timeline.add(frame)
                yield frame
        except InputError as error:
            self.damage = error
        except library().FFmpegError as error:
            self.damage = InputError(
                f"{path}: is damaged after {timeline.count} frames ({error.strerror})"
            )

    def _note(self, packet: Any) -> None:
        self.timeline.note(packet)
        self.gaps.note(packet)

    def problem(self, last: Frame | None) -> InputError | None:
        """What is wrong with the file, which has been read to its end."""
        path = self.clip.path
        length = self.clip.length
        if self.damage is not None:
            return self.damage
        if last is None:
            return InputError(f"{path}: has no frames that can be read")
        if length is not None and self.timeline.end(last.until) + TOLERANCE < length:
            return InputError(
                f"{path}: ends after {float(last.until):.2f} of {float(length):.2f} s"
            )
        cause = flaw(path, self.container.format.name)
        if cause is None and self.gaps.is_missing:
            cause = "is damaged; a part of it lacks"
        return None if cause is None else InputError(f"{path}: {cause}")


def clip(source: str | os.PathLike) -> Clip:
    """Find out what a video file or a folder of pictures holds.

    Args:
        source: path of the file or of the folder.

    Raises:
        InputError: for anything else, and for a file whose pictures cannot be decoded.
    """
    if not os.fspath(source):  # which Path takes for this folder
        raise InputError("clip: name a video file, or a folder of pictures")
    path = user_path(source)
    if os.path.isdir(path):  # of a name that no file can have, False
        paths = pictures(path)
        return Clip(path, im.shape_of(paths[0]), RATE, len(paths) / RATE)
    return Clip(path, *probe(path))


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, ordered by name, in which 9 comes before 10.

    Raises:
        InputError: if there is none.
    """
    paths = samples.pictures_in(folder)
    if not paths:
        raise InputError(f"{folder}: there is no picture in it; allowed are {READABLE}")
    return sorted(paths, key=_natural_order)


def _natural_order(path: Path) -> list[int | str]:
    """The parts of a file's name, numbers as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdecimal() else part for part in parts]
