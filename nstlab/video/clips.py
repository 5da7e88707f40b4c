"""Clips: the frames of a video file, or of a folder of pictures, one at a time; and its sound."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.settings import InputError, user_path

RATE = Fraction(25)  # frames a second of a folder of pictures, and of a clip that does not say
LISTS = {"hls", "concat", "dash"}  # formats of files that only name others


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, (1, 3, h, w) sRGB in [0, 1], upright and with square pixels; when it is shown, and until when, in seconds."""

    picture: Tensor
    time: Fraction
    until: Fraction


@dataclass(frozen=True)
class Clip:
    """A video file, or a folder of pictures. shape: (h, w) of its frames. rate: frames a second, on average. length: in
    seconds, if the file says it. sounds: whether it has sound."""

    path: Path
    shape: tuple[int, int]
    rate: Fraction
    length: Fraction | None = None
    sounds: bool = False

    def frames(self) -> Iterator[Frame]:
        """The frames in their order. Raises InputError, when it comes to it, where the file is damaged."""
        return self._pictures() if self.path.is_dir() else self._decoded()

    def _pictures(self) -> Iterator[Frame]:
        for i, path in enumerate(pictures(self.path)):
            yield Frame(self._alike(im.load(path), i), i / self.rate, (i + 1) / self.rate)

    def _decoded(self) -> Iterator[Frame]:
        done, last, until = 0, -1 / self.rate, Fraction(0)
        with opened(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            begin = (stream.start_time or 0) * stream.time_base
            try:
                for frame in container.decode(stream):
                    if frame.is_corrupt:
                        raise InputError(f"{self.path}: is damaged after {done} frames")
                    own = None if frame.pts is None else frame.pts * frame.time_base - begin
                    last = own if own is not None and own > last else last + 1 / self.rate  # times rise
                    until = last + ((frame.duration or 0) * frame.time_base or 1 / self.rate)
                    yield Frame(self._alike(_upright(frame, stream), done), last, until)
                    done += 1
            except library().FFmpegError as error:
                raise InputError(f"{self.path}: is damaged after {done} frames ({error.strerror})") from None
            if done == 0:
                raise InputError(f"{self.path}: has no frames that can be read")
            if self.length is not None and until + 1 < self.length:  # some whole files lack a few frames
                raise InputError(f"{self.path}: ends after {float(until):.2f} of {float(self.length):.2f} s")

    def _alike(self, picture: Tensor, index: int) -> Tensor:
        if tuple(picture.shape[-2:]) != self.shape:
            (height, width), (h, w) = self.shape, picture.shape[-2:]
            raise InputError(f"{self.path}: changes its size from {width}×{height} to {w}×{h} px after {index} frames")
        return picture


def clip(source: str | os.PathLike) -> Clip:
    """What a video file or a folder of pictures holds. Raises InputError for anything else."""
    if not os.fspath(source):  # which Path takes for this folder
        raise InputError("clip: name a video file, or a folder of pictures")
    path = user_path(source)
    if path.is_dir():
        found = pictures(path)
        return Clip(path, im.shape_of(found[0]), RATE, len(found) / RATE)
    with opened(path) as container:
        stream = container.streams.video[0]
        try:
            first = next(container.decode(stream), None)
        except library().FFmpegError as error:
            raise InputError(f"{path}: is damaged ({error.strerror})") from None
        if first is None:
            raise InputError(f"{path}: has no frames")
        rate = Fraction(stream.average_rate or stream.guessed_rate or RATE)
        height, width = _upright(first, stream).shape[-2:]
        return Clip(path, (height, width), rate, _length(container), bool(container.streams.audio))


def _length(container: Any) -> Fraction | None:
    """How long a file says that its pictures last, in seconds; None if it does not say."""
    stream = container.streams.video[0]
    if stream.duration:
        return stream.duration * stream.time_base
    with contextlib.suppress(KeyError, ValueError):  # Matroska has it as text, 00:01:02.5
        hours, minutes, seconds = map(Fraction, stream.metadata["DURATION"].split(":"))
        return 3600 * hours + 60 * minutes + seconds
    whole = container.duration and not container.streams.audio  # otherwise that of its sound, perhaps
    return Fraction(container.duration, 1_000_000) if whole else None


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, ordered by name, in which 9 comes before 10. InputError if there is none."""
    found = im.pictures_in(folder)
    if not found:
        raise InputError(f"{folder}: there is no picture ({', '.join(im.FORMATS)}) in it")
    return sorted(found, key=lambda path: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)])


def library() -> Any:
    """PyAV; InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError("video: PyAV is not installed; pip install 'nstlab[video]'") from None
    return av


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A video file, open. Raises InputError if it is none, or has no picture."""
    av = library()
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:  # whole paths, since a colon ends the name of a protocol; and nothing is read from a network
        container = av.open(str(files.regular(path).absolute()), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: is not a video ({getattr(error, 'strerror', None) or error})") from None
    with container:
        if container.format.name in LISTS:
            raise InputError(f"{path}: is a list of files; name one of them")
        if not container.streams.video:
            raise InputError(f"{path}: has no video stream")
        yield container


def _upright(frame: Any, stream: Any) -> Tensor:
    """A decoded frame's picture, (1, 3, h, w): on white, turned as its file says, its pixels made square."""
    clear = frame.format.name.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya", "pal8"))
    values = torch.from_numpy(frame.to_ndarray(format="rgba" if clear else "rgb24"))
    picture = values.permute(2, 0, 1)[None].float() / 255  # (1, 3 or 4, h, w)
    if clear:
        picture = 1 + picture[:, 3:] * (picture[:, :3] - 1)
    if (aspect := stream.sample_aspect_ratio or 1) != 1:
        picture = im.resize(picture, (picture.shape[-2], max(1, round(picture.shape[-1] * aspect))))
    return torch.rot90(picture, round(frame.rotation / 90), (-2, -1)).contiguous()
