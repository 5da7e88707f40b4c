"""Settings of `nstlab video`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError
from nstlab.base.options import field_type, option, results_folder
from nstlab.base.settings import DEVICES, MAX_SIDE, MIN_SIDE, Settings, pairs_to_dict
from nstlab.recipes.base import MAIN, RunSettings, known, named

FLOW_NAMES = ("dis", "raft")


def repaints(recipe: type[RunSettings]) -> bool:
    """Whether a recipe makes a picture of a photo and a painting, as films need."""
    return list(recipe.roles().values()) == ["content", "style"]


def words(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """A recipe's fields, {name: value}, as `parameters`: ("beta", "50", "init", "noise")."""
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
        advice = 'give values as conv1_1,conv2_1 or "a, b.jpg",c.jpg'
        raise InputError(f"parameters: {name} has quotes that do not match; {advice}") from None


def _repainting_recipe(name: str) -> type[RunSettings]:
    """The recipe of that name; InputError if there is none, or it does not repaint a photo."""
    recipe = named(name)
    if not repaints(recipe):
        usable = [name for name, recipe in known().items() if repaints(recipe)]
        raise InputError(
            f"recipe: '{name}' does not repaint a photo; allowed is {', '.join(usable)}"
        )
    return recipe


def _parse_parameters(recipe: type[RunSettings], words: Sequence[str]) -> dict[str, Any]:
    """{field: value or values} of a recipe; InputError for fields that the film itself sets."""
    parameters: dict[str, Any] = pairs_to_dict(words)
    reserved = sorted(parameters.keys() & {"size", *recipe.roles()})
    if reserved:
        raise InputError(f"parameters: {reserved[0]} is the film's own; leave out -p")
    for name, annotation, _ in recipe.options():
        _, is_tuple, _ = field_type(annotation)
        if is_tuple and name in parameters:
            parameters[name] = _values(name, parameters[name])
    return parameters


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
        """The settings of a frame that is painted alone.

        Args:
            photo: the frame's file, or a name that stands for it.
            size: long side of the frame in pixels, by default that of the film.

        Raises:
            InputError: for what the recipe does not have, or does not allow.
        """
        cls = _repainting_recipe(self.recipe)
        pictures = dict(zip(cls.roles(), (photo, self.painting), strict=True))
        parameters = _parse_parameters(cls, self.parameters)
        return cls.from_dict({**pictures, "size": size or self.size, **parameters})

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """{field: paths} of what is read, by the recipe, too, such as masks and weights."""
        frame = self.frame_settings(self.clip)
        photo = frame.field_of("content")  # for which the clip stands
        paths = {name: paths for name, paths in frame.files.items() if name != photo}
        return paths | super().files

    @property
    def span(self) -> tuple[Fraction, Fraction | None]:
        """(when the film begins, when it ends or None), in seconds of the clip, as written.

        0.8 is 4/5, and not the float above it.
        """
        end = None if self.to is None else Fraction(str(self.to))
        return Fraction(str(self.from_)), end
