"""Which frames of a clip are painted, and when the film shows each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.video.clips import Clip
from nstlab.video.settings import VideoSettings


@dataclass(frozen=True)
class Shot:
    """A frame of the clip that is painted.

    Attributes:
        photo: (1, 3, H, W) sRGB in [0, 1], in the film's size and 256 levels.
        time: when it is shown, in seconds of the film.
        until: when it ends, in seconds of the film.
    """

    photo: Tensor
    time: Fraction
    until: Fraction


def shots(clip: Clip, settings: VideoSettings, shape: Sequence[int]) -> Iterator[Shot]:
    """The frames of a clip that are painted, each once it is known how long it is shown.

    Args:
        clip: is read from its beginning.
        settings: tell which part of it, and every how many frames.
        shape: (H, W) of the film.

    Raises:
        InputError: where the clip is damaged, after what it has before.
    """
    begin, end = settings.span
    damage: InputError | None = None
    shot: Shot | None = None
    frames = (frame for frame in clip.frames(shape) if frame.until > begin)
    if end is not None:
        frames = itertools.takewhile(lambda frame: frame.time < end, frames)
    try:
        for i, frame in enumerate(frames):
            until = (frame.until if end is None else min(frame.until, end)) - begin
            if i % settings.every == 0:
                if shot is not None:
                    yield shot
                time = max(frame.time - begin, Fraction(0))
                shot = Shot(im.quantize(frame.picture), time, until)
            elif shot is not None:
                shot = replace(shot, until=until)
    except InputError as error:
        damage = error
    if shot is not None:
        yield shot
    if damage is not None:
        raise damage


def shot_count(clip: Clip, settings: VideoSettings) -> int | None:
    """How many frames are painted; None if the clip does not say how long it is."""
    if clip.length is None:
        return None
    begin, end = settings.span
    duration = (clip.length if end is None else min(clip.length, end)) - begin
    return max(1, math.ceil(math.ceil(duration * clip.rate) / settings.every))
