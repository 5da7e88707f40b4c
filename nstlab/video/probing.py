"""What a video file says before its frames are read, and which of its streams can be decoded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from nstlab.base.errors import InputError
from nstlab.pictures.opening import check_memory, check_shape
from nstlab.video.containers import (
    decoder_of,
    is_bare,
    is_last,
    library,
    open_container,
    picture_streams,
    sound_streams,
)
from nstlab.video.converting import shown_shape
from nstlab.video.timing import LONGEST

logger = logging.getLogger("nstlab")

RATE = Fraction(25)  # frames a second of a clip that does not say
RATES = (Fraction(1, 1000), 1000)  # those that a clip may say
HELD_FRAMES = 6  # that a decoder holds at a time, since others are made from them
FROM_ZERO = ("asf", "nut")  # formats whose length is counted from 0, not from the first picture
TRIES = 20  # errors after which a sound is taken for one that cannot be decoded
PROBED = 5000  # packets that are looked at for each sound's first one


class Probe(NamedTuple):
    """What is known of a video file, see `clips.Clip`."""

    shape: tuple[int, int]
    rate: Fraction
    length: Fraction | None
    sounds: tuple[int, ...]
    video: int
    origin: Fraction


def probe(path: Path) -> Probe:
    """Find out what a video file holds, from its first frame and its first sounds.

    The first stream of pictures that can be decoded is taken. The file is opened once, unless that
    is another than the first.

    Raises:
        InputError: if it is not a video, or if its pictures cannot be decoded or held in memory.
    """
    problems: list[InputError] = []
    while True:
        with open_container(path) as container:
            streams = picture_streams(container)
            try:
                return _probe_stream(path, container, streams[len(problems)])
            except InputError as error:
                problems.append(error)
        if len(problems) == len(streams):
            raise problems[0]


def _probe_stream(path: Path, container: Any, stream: Any) -> Probe:
    """What a file holds whose frames are those of a stream; InputError if it has none."""
    aspect = aspect_of(stream)
    _check_size(path, stream, aspect)
    trial = _SoundTrial(container)
    try:
        frame = _first_frame(container, stream, trial)
    except library().FFmpegError as error:
        raise InputError(f"{path}: is damaged ({error.strerror})") from None
    if frame is None:
        raise InputError(f"{path}: has no frames")
    _check_size(path, frame, aspect)
    _warn_of_sound(path, sound_streams(container), trial.usable)
    rate = _rate(container, stream)
    origin = _origin(container, stream, trial.usable, rate)
    length = _length(container, stream, origin)
    return Probe(shown_shape(frame, aspect), rate, length, trial.usable, stream.index, origin)


def _first_frame(container: Any, stream: Any, trial: _SoundTrial) -> Any:
    """The first frame of a stream, or None; goes on until the sounds have been tried, too."""
    decoder = decoder_of(stream)
    frame = None
    try:
        for packet in container.demux(stream, *trial.streams):
            if packet.stream is not stream:
                trial.add(packet)
            elif frame is None and (packet.size or is_last(packet)):
                frame = next(iter(decoder.decode(packet)), None)
            if frame is not None and trial.is_finished:
                break
    except library().FFmpegError:
        if frame is None:  # otherwise the file is damaged further on
            raise
    return frame


class _SoundTrial:
    """Which sounds of a file can be decoded, by trial of their first packets."""

    def __init__(self, container: Any):
        self.streams = [stream for stream in sound_streams(container) if stream.codec_context]
        self.errors = {stream.index: 0 for stream in self.streams}  # of those not yet decided
        self.remaining = PROBED * len(self.streams)  # packets
        self._usable: set[int] = set()

    @property
    def usable(self) -> tuple[int, ...]:
        """Indices of the streams that can be decoded, default ones first."""
        return tuple(stream.index for stream in self.streams if stream.index in self._usable)

    @property
    def is_finished(self) -> bool:
        """Whether all are decided, or enough packets have been looked at."""
        return not self.errors or self.remaining == 0

    def add(self, packet: Any) -> None:
        """Decode a packet of a sound that is not yet decided."""
        if self.is_finished:
            return
        self.remaining -= 1
        index = packet.stream.index
        if index not in self.errors:
            return
        try:
            if packet.decode():
                self._usable.add(index)
                del self.errors[index]
        except library().FFmpegError:
            self.errors[index] += 1
            if self.errors[index] == TRIES:
                del self.errors[index]


def _warn_of_sound(path: Path, streams: Sequence[Any], usable: Sequence[int]) -> None:
    """Warn if a file's sound, or the first one of several, cannot be decoded."""
    if streams and not usable:
        logger.warning("%s: its sound cannot be read; the film is silent", path)
    elif usable and usable[0] != streams[0].index:
        logger.warning("%s: its first sound cannot be read; another one takes its place", path)


# --- what a stream says ---------------------------------------------------------------------------


def aspect_of(stream: Any) -> Fraction:
    """Width / height of the pixels of a stream."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and aspect > 0 else Fraction(1)


def _check_size(path: Path, pixels: Any, aspect: Fraction) -> None:
    """InputError, before decoding, for more pixels than are allowed or fit in memory."""
    width, height = pixels.width, pixels.height
    if not (width and height):  # only frames tell
        return
    for shown_width in (width, max(1, round(width * aspect))):
        check_shape(path, shown_width, height)
    bits = pixels.format.padded_bits_per_pixel if pixels.format else 32
    check_memory(path, HELD_FRAMES * width * height * bits // 8)


def _rate(container: Any, stream: Any) -> Fraction:
    """Frames a second, on average; RATE if what the file says cannot be."""
    # The average of a bare stream is what FFmpeg takes where nothing is told.
    average = stream.codec_context.framerate if is_bare(container) else stream.average_rate
    for rate in (average, stream.guessed_rate):
        if rate and RATES[0] <= Fraction(rate) <= RATES[1]:
            return Fraction(rate)
    return RATE


def _start(stream: Any) -> Fraction:
    """When a stream starts, in seconds of the file."""
    return (stream.start_time or 0) * stream.time_base


def _origin(container: Any, stream: Any, sounds: Sequence[int], rate: Fraction) -> Fraction:
    """When the clip starts: with its first picture, or with a sound over a frame earlier."""
    start = _start(stream)
    if not sounds:
        return start
    sound_start = _start(container.streams[sounds[0]])
    return sound_start if sound_start + 1 / rate < start else start


def _length(container: Any, stream: Any, origin: Fraction) -> Fraction | None:
    """Seconds from the origin to the end of the pictures; None if the file does not say."""
    if is_bare(container):
        return None
    end = None
    if stream.duration:
        start = 0 if container.format.name in FROM_ZERO else _start(stream)
        end = start + stream.duration * stream.time_base
    else:
        end = _tagged_duration(stream)
        # Of several streams, the duration may be that of the sound.
        if end is None and container.duration and len(container.streams) == 1:
            end = Fraction(container.duration, 1_000_000)
    return end - origin if end is not None and 0 < end - origin <= LONGEST else None


def _tagged_duration(stream: Any) -> Fraction | None:
    """The duration that Matroska has as text, 00:01:02.5, in seconds."""
    with contextlib.suppress(KeyError, ValueError, ZeroDivisionError):
        hours, minutes, seconds = map(Fraction, stream.metadata["DURATION"].split(":"))
        return 3600 * hours + 60 * minutes + seconds
    return None
