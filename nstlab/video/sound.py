"""The sound of a clip, on its way into a film: copied, or encoded anew."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from operator import attrgetter
from typing import Any, NamedTuple

from nstlab.video.clips import Clip
from nstlab.video.containers import library, open_container

logger = logging.getLogger("nstlab")

TRIAL_PACKETS = 50  # of a sound, that are written on trial

Packets = Iterator[tuple[Fraction, Any]]  # (time in seconds, packet for a container)


class Track(NamedTuple):
    """A sound of a clip as a film takes it.

    Attributes:
        index: of its stream in the clip.
        copied: whether its packets are copied, rather than encoded anew.
    """

    index: int
    copied: bool


def tracks(kind: str, clip: Clip) -> Iterator[Track]:
    """The ways in which a kind of film can have a clip's sound, the best first.

    A sound is copied where the container can hold it and players know it, or else encoded anew.
    Each way has been tried with the first packets.

    Args:
        kind: of container, "mp4" or "webm".
        clip: whose sounds are tried.
    """
    for index, copied in itertools.product(clip.sounds, (True, False)):
        track = Track(index, copied)
        try:
            with library().open(io.BytesIO(), "w", format=kind) as container:
                packets = packets_of(container, clip, track)
                for _, packet in itertools.islice(packets, TRIAL_PACKETS):
                    container.mux(packet)
        except Exception as error:  # whatever an odd stream makes of the libraries
            logger.debug("%s: %s cannot be written as %s (%s)", clip.path, track, kind, error)
        else:
            yield track


def packets_of(
    container: Any,
    clip: Clip,
    track: Track,
    begin: Fraction = Fraction(0),
    end: Fraction | float = math.inf,
) -> Packets:
    """The packets of a clip's sound, for a container.

    Args:
        container: PyAV's, to which a stream is added.
        clip: whose sound it is.
        track: which sound, and whether it is copied.
        begin: time of the clip that becomes 0, in seconds.
        end: time after `begin` at which the sound ends, in seconds.

    Yields:
        (time in seconds, packet).

    Raises:
        ValueError: for a sound that cannot be decoded, or not be copied.
    """
    with open_container(clip.path) as source:
        stream = source.streams[track.index]
        packets = _packets(source, stream)
        if track.copied:
            target = _add_copy(container, stream)
        else:
            codec = container.default_audio_codec
            target = container.add_stream(codec, rate=48_000, layout="stereo")
            packets = _encoded(target, _decoded(packets))
        last_dts = -1
        for packet in packets:
            if packet.dts is None or packet.pts is None:  # the last one, which is empty
                continue
            shift = round((clip.origin + begin) / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            time = packet.pts * packet.time_base
            if time >= end:
                return
            if packet.dts > last_dts:  # times of damaged sounds may go back
                last_dts = packet.dts
                packet.stream = target
                yield time, packet


def _add_copy(container: Any, stream: Any) -> Any:
    """Add a stream for copied packets; ValueError if the container, or players, cannot have it."""
    name = stream.codec_context.codec.canonical_name
    if name not in container.supported_codecs or name.startswith("pcm"):
        raise ValueError(f"{name} cannot be copied")
    return container.add_stream_from_template(stream)


def _packets(source: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, as far as the file can be read."""
    try:
        yield from source.demux(stream)
    except library().FFmpegError as error:
        logger.warning(
            "%s: the sound ends where the file is damaged (%s)", source.name, error.strerror
        )


def _decoded(packets: Iterable[Any]) -> Iterator[Any]:
    """The sound of packets, without those that are damaged."""
    for packet in packets:
        with contextlib.suppress(library().FFmpegError):
            yield from packet.decode()


def _encoded(stream: Any, frames: Iterable[Any]) -> Iterator[Any]:
    """Packets of sound in the form that a stream asks for.

    That of the frames may change on the way.
    """
    for _, alike in itertools.groupby(
        frames, attrgetter("format.name", "layout.name", "sample_rate")
    ):
        resampler = library().AudioResampler(stream.format, stream.layout, stream.rate)
        for frame in itertools.chain(alike, [None]):
            for part in resampler.resample(frame):
                yield from stream.encode(part)
    yield from stream.encode(None)
