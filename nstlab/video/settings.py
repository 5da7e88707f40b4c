"""Settings of `nstlab video`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nstlab.base.options import results_folder
from nstlab.base.settings import (
    DEVICES,
    MAX_SIDE,
    MIN_SIDE,
    InputError,
    Settings,
    field_type,
    option,
    pairs_to_dict,
)
from nstlab.recipes.base import MAIN, RunSettings, known, named

FLOW_NAMES = ("dis", "raft")


def repaints(recipe: type[RunSettings]) -> bool:
    """Whether a recipe makes a picture of a photo and a painting, so that it can paint the frames
    of a clip."""
    return list(recipe.roles().values()) == ["content", "style"]


def words(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """A recipe's fields as the `parameters` of a film: ("beta", "50", "style_layers",
    "conv1_1,conv2_1")."""
    return tuple(word for name, value in fields.items() for word in (name, _line(value)))


def _line(value: Any) -> str:
    """A value as text; several as a line of CSV, which has quotes around those with commas."""
    if not isinstance(value, (tuple, list)):
        return str(value)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(value)
    return line.getvalue()


def _values(name: str, line: str) -> list[str]:
    """The values in a line of CSV, or the one file that it names."""
    if os.path.isfile(line):
        return [line]
    try:
        rows = csv.reader(io.StringIO(line, newline=""), strict=True)
        return [value for row in rows for value in row]
    except csv.Error:
        said = 'give values as conv1_1,conv2_1 or "a, b.jpg",c.jpg'
        raise InputError(f"parameters: {name} has quotes that do not match; {said}") from None


@dataclass(frozen=True)
class VideoSettings(Settings):
    """Repaint each frame of CLIP in the style of PAINTING, so that the film does not flicker (Ruder
    et al. 2016)."""

    clip: str = option(help="a video file, or a folder of pictures", paths=True, identity=False)
    painting: str = option(
        help="a picture file, or the name of a sample", paths=True, identity=False
    )
    out: Path = option(
        Path("film.mp4"),
        "where the film goes, .mp4, .webm or .gif; without a suffix, a folder of pictures",
        output=True,
        identity=False,
    )
    from_: float = option(0.0, "seconds of the clip that are left out", low=0, high=1e6, unit="s")
    to: float | None = option(
        None,
        "second at which the film ends (default: the clip's end)",
        low=0.001,
        high=1e6,
        unit="s",
    )
    every: int = option(1, "paint only every n-th frame", low=1, high=1000)
    size: int = option(512, "long side of the film", low=MIN_SIDE, high=MAX_SIDE, unit="px")
    recipe: str = option(MAIN, "whose objective; it reads a photo and a painting")
    parameters: tuple[str, ...] = option(
        (),
        "a setting of the recipe, such as -p beta 50, or a list, as -p style_layers "
        "conv1_1,conv2_1; may be repeated",
        short="-p",
        pairs=True,
    )
    steps: int = option(
        14,
        "optimizer steps of a frame that has one before it; the first takes the recipe's",
        low=0,
        high=10_000,
    )
    temporal: float = option(50.0, "weight of the difference from earlier frames", low=0, high=1e12)
    earlier: tuple[int, ...] = option(
        (1, 2, 4),
        "which frames before it a frame is held to, where the nearest does not show the same; "
        "without any, each is "
        "painted alone",
        low=1,
        high=100,
    )
    passes: int = option(
        1, "times the film is gone through, forwards and backwards in turn", low=1, high=20
    )
    cut: float = option(
        0.3, "part of a frame seen in the one before, below which a new scene begins", low=0, high=1
    )
    flow: str = option(
        FLOW_NAMES[0],
        "how motion is found; raft needs its weights on this machine",
        choices=FLOW_NAMES,
    )
    model: str | None = option(
        None,
        "paint in one pass by this model of `nstlab learn`, or 'shipped', rather than by the "
        "optimizer",
        paths=True,
        identity=False,
    )
    blend: float = option(
        0.8,
        "with a model: part that the earlier frame has, where it shows the same",
        low=0,
        high=0.99,
    )
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES, identity=False)
    results: Path = results_folder("frames are kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to is not None and self.to <= self.from_:
            raise InputError(
                f"to: {self.to:g} s is not after the film's beginning, {self.from_:g} s"
            )
        if self.model is not None and (self.passes > 1 or self.parameters or self.recipe != MAIN):
            raise InputError(
                "model: passes, recipe and its settings (-p) are for films by the optimizer"
            )
        self.frame_settings("photo")

    def frame_settings(self, photo: str, size: int | None = None) -> RunSettings:
        """The settings of a frame that is painted alone; size: its long side, by default what was
        asked for. InputError for what the recipe does not have, or does not allow."""
        cls = named(self.recipe)
        if not repaints(cls):
            usable = [name for name, each in known().items() if repaints(each)]
            raise InputError(
                f"recipe: '{self.recipe}' does not repaint a photo; allowed is {', '.join(usable)}"
            )
        given = pairs_to_dict(self.parameters)
        if taken := sorted(given.keys() & {"size", *cls.roles()}):
            raise InputError(f"parameters: {taken[0]} is the film's own; leave out -p")
        many = {name for name, annotation, _ in cls.options() if field_type(annotation)[1]}
        chosen = {
            name: _values(name, value) if name in many else value for name, value in given.items()
        }
        own = dict(zip(cls.roles(), (photo, self.painting), strict=True))
        return cls.from_dict({**own, "size": size or self.size, **chosen})

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """Those of the recipe's settings, too, such as masks and weights; its photo is the clip."""
        frame = self.frame_settings(self.clip)
        photo = frame.field_of("content")
        own = frame.files
        return {name: own[name] for name in own if name != photo} | super().files

    @property
    def span(self) -> tuple[Fraction, Fraction | None]:
        """When the film begins and ends, in seconds of the clip, as written: 0.8 is 4/5, and not
        the float above it."""
        begin, end = (
            None if each is None else Fraction(str(each)) for each in (self.from_, self.to)
        )
        return begin or Fraction(0), end
