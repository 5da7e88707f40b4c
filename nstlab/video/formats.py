"""Kinds of films: what each can show, and whether a film can be written, before it is painted."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.pictures.opening import MAX_ASPECT
from nstlab.video.clips import Clip
from nstlab.video.sound import tracks

logger = logging.getLogger("nstlab")

TICKS = 90_000  # a second: the clock of the films that are written
CODECS = {  # suffix: (codec, its options), of good quality
    ".mp4": (
        "libx264",
        # Frames are stored in the order in which they are shown (bf 0), see writing.
        {"crf": "17", "preset": "medium", "flags": "+frame_duration", "bf": "0"},
    ),
    ".webm": (
        "libvpx-vp9",
        {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4", "flags": "+frame_duration"},
    ),
}
# Seconds for which a film can show one picture.
LONGEST = dict.fromkeys(CODECS, (1 << 31) // TICKS) | {".gif": 655.35}
SUFFIXES = tuple(LONGEST)


def film_shape(shape: Sequence[int], size: int, name: Any = "clip") -> tuple[int, int]:
    """The shape of a film: even numbers, since codecs halve the resolution of colours.

    Args:
        shape: (H, W) of the clip.
        size: long side of the film in pixels, about which it gets.
        name: of the clip, for errors.

    Returns:
        (H, W) of the film.

    Raises:
        InputError: for proportions that pictures may not have.
    """
    if max(shape) > MAX_ASPECT * min(shape):
        height, width = shape
        raise InputError(
            f"{name}: {width}×{height} is too long; the ratio of its sides may be at most "
            f"{MAX_ASPECT:g}"
        )
    height, width = (2 * round(side / 2) for side in sizes.fit_size(shape, size, name))
    longest = int(MAX_ASPECT) * min(height, width)  # which rounding may have exceeded
    return min(height, longest), min(width, longest)


def check_film(out: Path) -> Path:
    """Check, before any work is done, that a film can be written.

    Args:
        out: a path whose suffix says the kind of film; without one, a folder.

    Returns:
        The path.

    Raises:
        InputError: if it cannot be written, or is a folder with other pictures than a film's.
    """
    if out.suffix.lower() in SUFFIXES:
        return files.check_writable(out)
    if out.suffix:
        raise InputError(
            f"{out}: films are written as {', '.join(SUFFIXES)} or, without a suffix, as a folder "
            "of pictures"
        )
    if not out.exists():
        return files.check_writable(out)
    if not out.is_dir():
        raise InputError(f"{out}: is a file; a folder of pictures cannot take its place")
    for path in frame_files(out):
        facts: dict[str, Any] = {}
        with contextlib.suppress(InputError):  # it may be anything
            facts = im.read_settings(path)
        if "frame" not in facts:
            raise InputError(
                f"{path}: is no frame of a film, and would be lost; choose another folder"
            )
    return files.check_writable(out / "0.png")


def check_shown(out: Path, seconds: Fraction) -> None:
    """Raise InputError if the film cannot show one picture for so many seconds."""
    longest = LONGEST.get(out.suffix.lower(), math.inf)
    if seconds > longest:
        raise InputError(
            f"{out}: a picture is to be shown for {float(seconds):.6g} s; this kind of film shows "
            f"none for more than {longest} s; choose another kind, an earlier end (--to), or "
            "a folder"
        )


def check_sound(out: Path, clip: Clip) -> None:
    """Warn, before any work, if the film cannot have the clip's sound, or its first sound."""
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


def frame_files(folder: Path) -> list[Path]:
    """The files of a folder that have names of frames, 000000.png and so on, in their order."""
    return sorted(path for path in folder.glob("*.png") if re.fullmatch(r"\d{6}", path.stem))
