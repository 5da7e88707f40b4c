"""The sound of a clip, on its way into a film: copied, or encoded anew; what cannot be used is
found out by trial."""

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

TRIED = 50  # packets of a sound that are written on trial

Packets = Iterator[tuple[Fraction, Any]]  # (time in seconds, packet for a container)


class Track(NamedTuple):
    """A sound of a clip as a film takes it: the index of its stream; copied, or encoded anew."""

    index: int
    copied: bool


def tracks(kind: str, clip: Clip) -> Iterator[Track]:
    """The ways in which a kind of film can have a clip's sound, the best first: copied where the
    container can hold it and players know it, or encoded anew.

    Each has been tried with the first packets.

    Args:
        kind: "mp4" or "webm".
    """
    for track in itertools.starmap(Track, itertools.product(clip.sounds, (True, False))):
        try:
            with library().open(io.BytesIO(), "w", format=kind) as container:
                for _, packet in itertools.islice(packets_of(container, clip, track), TRIED):
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
    """(time, packet) of a clip's sound from its time `begin`, which becomes 0, until `end`.

    Raises:
        ValueError: for one that cannot be decoded, or not be copied.
    """
    with open_container(clip.path) as source:
        stream = source.streams[track.index]
        origin = clip.origin + begin
        name = stream.codec_context.codec.canonical_name
        packets = _packets(source, stream)
        if not track.copied:
            target = container.add_stream(
                container.default_audio_codec, rate=48_000, layout="stereo"
            )
            packets = _encoded(target, _decoded(packets))
        elif name in container.supported_codecs and not name.startswith("pcm"):
            target = container.add_stream_from_template(stream)
        else:
            raise ValueError(f"{name} cannot be copied")
        last = -1
        for packet in packets:
            if packet.dts is None or packet.pts is None:  # the last one, which is empty
                continue
            tick = packet.time_base
            moved = round(origin / packet.time_base)
            packet.pts = packet.pts - moved
            packet.dts = packet.dts - moved
            if packet.pts * tick >= end:
                return
            if packet.dts > last:  # times of damaged sounds may go back
                last, packet.stream = packet.dts, target
                yield packet.pts * tick, packet


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
