"""Settings: each field's default, range, unit and help, written once.

Command-line options, studio controls, sweep axes, stored JSON and validation all derive from the fields of settings classes.
Imports neither torch nor anything else heavy, so that `nstlab --help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

DEVICES = ("auto", "cpu", "cuda", "mps")
FITS = ("stretch", "crop", "area")  # how a painting gets the photo's shape
MAX_SIDE = 16384  # px
MIN_SIDE = 16  # px; the fifth block of VGG19 sees one position for every 16 pixels
RESULTS = "results"  # folder in which runs are kept
LIVE, START = "live", "start"  # fields that may change while a run goes on; those that only matter as it begins
GROUPS = (LIVE, START, "pictures", "network", "optimizer")  # what a recipe's fields are about


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: the problem, and what is allowed."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


def nearest(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    """ "; did you mean 'conv4_2'?" for the allowed name that is nearest to `name`, or nothing if none is near."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


@dataclass(frozen=True)
class Option:
    """What is allowed in one settings field, and how to say it."""

    help: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    or_path: bool = False  # besides the choices, a path is allowed
    reserved: tuple[str, ...] = ()  # names that are no paths; those that are no choices here are ones elsewhere
    log: bool = False  # a slider over it is logarithmic
    parse: Callable[[Any], Any] | None = None  # from what users write to the stored value, for each element
    identity: bool = True  # part of a run's id; paths and devices are not, their contents are hashed instead
    positional: bool = False  # on the command line, though it has a default
    short: str = ""  # another name on the command line: "-p"
    pairs: bool = False  # on the command line two words at a time, as often as one likes
    group: str = ""  # one of GROUPS, for the fields of recipes
    role: str = ""  # of a recipe's field that names a picture: what it is among the inputs

    def allowed(self) -> str:
        """What is allowed, in words: "from 16 to 8192 px"."""
        if self.choices:
            return ", ".join(self.choices) + (" or a path" if self.or_path else "")
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}{unit}"
        return f"{self.low:g} or more{unit}" if self.low is not None else "a finite number"

    def check(self, name: str, value: Any) -> Any:
        """`value` (one element of it, for tuples) if it is allowed, parsed; else InputError names field and value."""
        if self.parse is not None:
            return self.parse(value)
        if self.choices and value not in self.choices and (not self.or_path or value in self.reserved):
            raise InputError(f"{name}: '{value}' is not one of {self.allowed()}{nearest(str(value), list(self.choices))}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = self.low if self.low is not None else -math.inf, self.high if self.high is not None else math.inf
            if not low <= value <= high or value in (math.inf, -math.inf):
                raise InputError(f"{name}: {value!s:.40} is not allowed; allowed is {self.allowed()}")
        return value


def option(default: Any = dataclasses.MISSING, help: str = "", **kwargs: Any) -> Any:
    """A dataclass field with its Option."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **kwargs)})


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def kind(annotation: Any) -> tuple[type, bool, bool]:
    """(element type, is a tuple of them, may be None) of a field's annotation."""
    optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True, optional
    return annotation, False, optional


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays, of which grids are often made, as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _element(name: str, value: Any, wanted: type, opt: Option) -> Any:
    """One value of the wanted type, checked; numbers and paths may come as their text."""
    value = plain(value)
    if (wanted is float and isinstance(value, (int, str))) or (wanted is int and isinstance(value, str)):
        with contextlib.suppress(ValueError, OverflowError):
            value = value if isinstance(value, bool) else wanted(value)
    elif wanted is bool and str(value).lower() in ("true", "false"):
        value = str(value).lower() == "true"
    elif wanted is Path and isinstance(value, str):
        value = Path(value)
    elif wanted is str and isinstance(value, (int, Path)):  # a layer's index, a path given as Path
        value = str(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(f"{name}: {value!r} is not {'an' if wanted is int else 'a'} {wanted.__name__}")
    return opt.check(name, value)


@dataclass(frozen=True)
class Settings:
    """Base of all settings: validated when made, immutable, to and from plain JSON values."""

    def __post_init__(self) -> None:
        for name, annotation, opt in self.options():
            object.__setattr__(self, name, self._checked(name, annotation, opt))

    def _checked(self, name: str, annotation: Any, opt: Option) -> Any:
        value, (wanted, many, optional) = plain(getattr(self, name)), kind(annotation)
        if value is None and optional:
            return None
        if not many:
            return _element(name, value, wanted, opt)
        values = (value,) if isinstance(value, (str, int, float)) else value
        if not isinstance(values, (tuple, list)):
            raise InputError(f"{name}: {value!r} is not a list")
        return tuple(_element(name, v, wanted, opt) for v in values)

    @classmethod
    def options(cls) -> Iterator[tuple[str, Any, Option]]:
        """(name, annotation, Option) of each field, in order."""
        for f in dataclasses.fields(cls):
            yield f.name, _hints(cls)[f.name], f.metadata["option"]

    @classmethod
    def option_of(cls, field: str) -> Option:
        """The Option of one field."""
        return next(opt for name, _, opt in cls.options() if name == field)

    def to_dict(self, identity: bool = False) -> dict[str, Any]:
        """Plain JSON values; with `identity` only the fields that decide the result's pixels."""
        plain = {}
        for name, _, opt in self.options():
            if opt.identity or not identity:
                value = getattr(self, name)
                plain[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; an unknown field is an error that names the nearest one."""
        names = [name for name, *_ in cls.options()]
        for name in plain:
            if name not in names:
                raise InputError(f"{cls.__name__} has no setting '{name}'{nearest(name, names)}")
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING and f.name not in plain:
                raise InputError(f"{cls.__name__}: '{f.name}' is missing")
        return cls(**plain)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return type(self).from_dict({**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **changes})
