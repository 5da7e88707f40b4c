"""When each frame of a video file is shown, and when the clip ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError
from nstlab.video.containers import is_bare

LONGEST = 1_000_000  # s: what is beyond it is no time of a clip
DECODE_TIMED = ("avi", "asf")  # formats that tell when pictures are decoded, not when shown


class Timeline:
    """The times of one stream of pictures, in seconds of its clip.

    Args:
        path: of the file, for errors.
        container: PyAV's, whose packets are noted.
        stream: of the pictures.
        rate: frames a second, on average.
        origin: time of the file at which the clip begins.
    """

    def __init__(self, path: Path, container: Any, stream: Any, rate: Fraction, origin: Fraction):
        self.path = path
        self.stream = stream
        self.step = 1 / rate
        self.origin = origin
        self.is_bare = is_bare(container)
        self.is_decode_timed = container.format.name in DECODE_TIMED
        self.count = 0  # frames so far
        self.time = -self.step  # of the newest frame
        self.until = Fraction(0)  # when it ends
        self.delay = 0  # ticks between the dts of a frame and when it is shown
        self.first_packets: dict[int, int] = {}  # until there is a frame: pts and dts
        self.stream_ends: dict[int, Fraction] = {}  # of sound, and of pictures that are repeated

    def note(self, packet: Any) -> None:
        """Note a packet before it is decoded: when it ends, and its dts."""
        is_picture = packet.stream is self.stream
        pts = packet.pts
        dts = packet.dts
        start = dts if pts is None else pts
        if start is not None and not (is_picture and packet.size):
            end = (start + max(packet.duration or 0, 0)) * packet.time_base - self.origin
            if end <= LONGEST:
                index = packet.stream.index
                self.stream_ends[index] = max(self.stream_ends.get(index, end), end)
        if is_picture and not self.count and pts is not None and dts is not None:
            self.first_packets[pts] = dts

    def add(self, frame: Any) -> None:
        """Find out when the next frame is shown; a time that does not rise is replaced.

        Raises:
            InputError: for a time beyond LONGEST.
        """
        time = self._stated_time(frame)
        if time is None or time <= self.time:
            time = self.time + self.step
        if time > LONGEST:
            raise InputError(
                f"{self.path}: frame {self.count} is said to be shown at {float(time):.4g} s; "
                f"a clip may last {LONGEST:,} s"
            )
        duration = max(frame.duration or 0, 0) * frame.time_base
        self.time = time
        self.until = time + (duration if 0 < duration <= LONGEST else self.step)
        self.count += 1

    @property
    def newest(self) -> tuple[Fraction, Fraction]:
        """(when the newest frame is shown, when it ends); the first is shown from 0."""
        return (Fraction(0) if self.count == 1 else self.time), self.until

    def _stated_time(self, frame: Any) -> Fraction | None:
        """When a frame is shown, as the file states it; None if it does not."""
        ticks = frame.pts
        if self.is_decode_timed:  # the first frame is shown when it is decoded
            if not self.count and None not in (frame.dts, ticks):
                self.delay = frame.dts - self.first_packets.get(ticks, ticks)
            ticks = None if frame.dts is None else frame.dts - self.delay
        if ticks is None:
            return None
        if self.is_bare:  # FFmpeg has counted, in the order in which they are stored
            return self.until
        return ticks * frame.time_base - self.origin

    def end(self, last_until: Fraction) -> Fraction:
        """When the clip ends, in seconds.

        The last frame is shown for as long as the sound goes on, if that is longer than a frame.

        Args:
            last_until: when the last frame ends by itself.
        """
        pictures_end = max(last_until, self.stream_ends.get(self.stream.index, last_until))
        sound_end = max(self.stream_ends.values(), default=pictures_end)
        return sound_end if sound_end > pictures_end + self.step else pictures_end
