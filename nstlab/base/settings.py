"""Settings: the default, range, unit and help of each field, written once.

Command-line options, studio controls, sweep axes, stored JSON and validation are all derived from
the fields of settings classes. This module imports nothing heavy (no torch), so that `nstlab
--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import types
import typing
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

DEVICES = ("auto", "cpu", "cuda", "mps")
TILES = ("auto", "off")  # whether pictures are evaluated in tiles, see recipes.capacity
# Ways to give a painting the photo's shape, see images.fit.
FITS = ("stretch", "crop", "area", "own")
MAX_SIDE = 16384  # px
MIN_SIDE = 16  # px; the fifth block of VGG19 sees one position for every 16 pixels
RESULTS = "results"  # folder in which runs are kept
# Part of the ids of runs, films and models: raised whenever the same settings give others.
VERSION = 4
# Fields that may change during a run; fields that matter only when it begins.
LIVE, START, NETWORK = "live", "start", "network"
LONG = 1000  # characters; a longer message is cut in its middle
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of what a terminal obeys or hides
JOINERS = "\u200c\u200d"  # which are part of words and emoji
# The groups of a recipe's fields.
GROUPS = (LIVE, START, "pictures", "regions", NETWORK, "optimizer")


class InputError(ValueError):
    """The user gave something that cannot be used.

    The message is one line: the problem, and what is allowed. If it is long, as with a word of
    thousands of letters, its beginning and its end."""

    def __init__(self, message: str):
        line = " ".join(message.splitlines())
        if len(line) > LONG:
            line = f"{line[: LONG // 2]} … {line[-LONG // 2 :]}"
        super().__init__(printable(line))


def printable(text: str, kept: str = "") -> str:
    """The text with control characters, but for those that are kept, escaped as Python writes them.

    Names of files may hold any; a terminal would obey them, or show the text in another order."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in HIDDEN and char not in JOINERS and char not in kept
        else char
        for char in text
    )


def is_whole(text: str) -> bool:
    """Whether a text is a whole number without a sign; `int` refuses thousands of digits."""
    return text.isdecimal() and len(text) < 20


def user_path(path: str | os.PathLike) -> Path:
    """The path with `~` and `~user` at its beginning replaced by a home folder.

    `./~` is a file's name.
    """
    path = Path(os.path.expanduser(path))
    return path.absolute() if str(path).startswith("~") else path  # so that nobody expands it again


def nearest(name: str, allowed: Sequence[str]) -> str:
    """A suggestion for a misspelt name, "; did you mean 'conv4_2'?", or "" if none is close."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def one_of(what: str, value: str, allowed: Sequence[str]) -> str:
    """The value, if it is allowed.

    Raises:
        InputError: naming `what` and the allowed values otherwise.
    """
    if value not in allowed:
        raise InputError(
            f"{what}: '{value}' is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"
        )
    return value


@dataclass(frozen=True)
class Option:
    """What one settings field allows, and how it is presented."""

    help: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    or_path: bool = False  # a path of a file that is read is allowed besides the choices
    # Words that are never taken for a path, because they are choices of other recipes.
    reserved: tuple[str, ...] = ()
    log: bool = False  # its slider is logarithmic
    # Turns what users write into the stored value, element by element.
    parse: Callable[[Any], Any] | None = None
    layers: bool = False  # names layers of the network
    # Part of a run's id; paths and devices are not (the contents of files are hashed instead)
    identity: bool = True
    positional: bool = False  # positional on the command line, although it has a default
    short: str = ""  # a short name on the command line, such as "-p"
    pairs: bool = False  # takes two words at a time on the command line, and may be repeated
    group: str = ""  # for fields of recipes: one of GROUPS
    role: str = ""  # for fields that name a picture: its name among the recipe's inputs
    paths: bool = False  # for other fields that name files or folders that are read
    output: bool = False  # names a file or a folder that is written

    @property
    def reads(self) -> bool:
        """Whether the field may name files that are read."""
        return bool(self.role) or self.or_path or self.paths

    def allowed(self) -> str:
        """What is allowed, in words: "from 16 to 8192 px"."""
        if self.choices:
            return ", ".join(self.choices) + (" or a path" if self.or_path else "")
        if self.low is None:
            return "a finite number"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.low:g} or more{unit}"
            if self.high is None
            else f"from {self.low:g} to {self.high:g}{unit}"
        )

    def check(self, name: str, value: Any) -> Any:
        """One value, or one element of a tuple, parsed.

        Raises:
            InputError: with the field's name, if it is not allowed.
        """
        if self.parse is not None:
            return self.parse(value)
        if (
            self.choices
            and value not in self.choices
            and (not self.or_path or value in self.reserved)
        ):
            raise InputError(
                f"{name}: '{value}' is not one of "
                f"{self.allowed()}{nearest(str(value), self.choices)}"
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            if not low <= value <= high or value in (math.inf, -math.inf):
                raise InputError(
                    f"{name}: {value!s:.40} is not allowed; allowed is {self.allowed()}"
                )
        return value


def pair_up(words: Sequence[str]) -> dict[str, str]:
    """{name: value} of words that come in pairs.

    Raises:
        InputError: if the last one has no value.
    """
    if len(words) % 2:
        raise InputError(f"parameters: '{words[-1]}' has no value; give pairs: -p seed 3")
    return dict(zip(words[::2], words[1::2], strict=True))


def option(default: Any = dataclasses.MISSING, help: str = "", **kwargs: Any) -> Any:
    """A dataclass field with its Option."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **kwargs)})


def results_folder(holds: str = "runs are kept") -> Any:
    """The field for the folder of results."""
    return option(Path(RESULTS), f"folder in which {holds}", identity=False)


@cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def field_type(annotation: Any) -> tuple[type, bool, bool]:
    """What a field's annotation says: (the type of one element, whether the field is a tuple,
    whether it may be None)."""
    optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True, optional
    return annotation, False, optional


def plain(value: Any) -> Any:
    """The value, with NumPy's numbers and arrays, common in grids, turned into Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


# What may be given for a type, besides itself.
_CONVERTED = {int: (str,), float: (int, str), Path: (str,), str: (int, Path)}


def _element(name: str, value: Any, wanted: type, opt: Option) -> Any:
    """One value of the wanted type, checked.

    Numbers, truth values and paths may be given as text.
    """
    value = plain(value)
    if wanted is bool:
        value = {"true": True, "false": False}.get(str(value).lower(), value)
    elif value in ("", None) and (wanted is Path or opt.reads):  # Path takes "" for this folder
        raise InputError(f"{name}: name {opt.allowed() if opt.choices else 'a file or a folder'}")
    elif isinstance(value, _CONVERTED[wanted]) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = user_path(value) if wanted is Path else wanted(value)
    if wanted is Path and isinstance(value, Path):
        value = user_path(value)
    elif opt.reads and isinstance(value, str):
        value = os.path.expanduser(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(
            f"{name}: {value!r} is not {'an' if wanted is int else 'a'} {wanted.__name__}"
        )
    return opt.check(name, value)


def _written(value: Any) -> Any:
    """A value as JSON has it."""
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Settings:
    """Base of all settings: immutable, validated when made, converted to and from JSON."""

    def __post_init__(self) -> None:
        for name, _, _ in self.options():
            object.__setattr__(self, name, self.checked(name, getattr(self, name)))

    @classmethod
    def checked(cls, field: str, value: Any) -> Any:
        """A value for a field, in the field's type.

        Raises:
            InputError: for an unknown field, and for what it may not be.
        """
        cls._require(field)
        value, (wanted, many, optional) = plain(value), field_type(_annotations(cls)[field])
        opt = cls.option_of(field)
        name = field.rstrip("_")  # from_, since Python has a word for itself
        if value is None and optional:
            return None
        if not many:
            return _element(name, value, wanted, opt)
        values = (value,) if isinstance(value, (str, int, float)) else value
        if not isinstance(values, (tuple, list)):
            raise InputError(f"{name}: {value!r} is not a list")
        return tuple(_element(name, v, wanted, opt) for v in values)

    @classmethod
    def _require(cls, field: str) -> None:
        """Raise InputError unless there is such a field."""
        fields = cls.__dataclass_fields__
        if field not in fields:
            raise InputError(
                f"{cls.__name__} has no setting '{field}'{nearest(field, list(fields))}"
            )

    @classmethod
    def options(cls) -> Iterator[tuple[str, Any, Option]]:
        """(name, annotation, Option) of each field, in order."""
        for f in dataclasses.fields(cls):
            yield f.name, _annotations(cls)[f.name], f.metadata["option"]

    @classmethod
    def option_of(cls, field: str) -> Option:
        """The Option of one field."""
        return cls.__dataclass_fields__[field].metadata["option"]

    def _named(self, names: Iterable[str]) -> dict[str, tuple[str | Path, ...]]:
        """{field: values} of some fields, without those that are left open."""
        values = {name: getattr(self, name) for name in names}
        several = {
            name: paths if isinstance(paths, tuple) else (paths,) for name, paths in values.items()
        }
        return {name: paths for name, paths in several.items() if paths not in ((), (None,))}

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """{field: paths} of the files and folders that are read, rather than samples or choices."""
        named = self._named(name for name, _, opt in self.options() if opt.reads)
        # By Path, as they are opened, for which `a.png/` is `a.png`.
        existing = {
            name: tuple(p for p in paths if os.path.exists(Path(p)))
            for name, paths in named.items()
        }
        return {name: paths for name, paths in existing.items() if paths}

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """{field: paths} of the files that are written. A folder stands for all files in it."""
        return self._named(name for name, _, opt in self.options() if opt.output)

    def to_dict(self, identity: bool = False) -> dict[str, Any]:
        """The settings as plain JSON values.

        With `identity`, only the fields that decide the result's pixels.
        """
        values = {}
        for name, _, opt in self.options():
            value = getattr(self, name)
            if identity and not opt.identity:
                continue
            values[name] = (
                [_written(v) for v in value] if isinstance(value, tuple) else _written(value)
            )
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: for a required field that is missing, and for an unknown one.
        """
        for name in values:
            cls._require(name)
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in values:
                raise InputError(f"{cls.__name__}: '{field.name}' is missing")
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return self.from_dict(
            {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes
        )


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Settings):
    """Where a picture is computed, and how it is written."""

    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    depth: int = option(
        8, "bits of each channel of the output, 8 or 16; a .jpg has 8", low=8, high=16
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in (8, 16):
            raise InputError(f"depth: {self.depth} is not allowed; allowed is 8 or 16")
