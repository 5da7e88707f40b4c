"""Settings: the default, range, unit and help of each field, written once.

Command-line options, studio controls, sweep axes, stored JSON and validation are all derived from
the fields of settings classes. This module imports nothing heavy (no torch), so that `nstlab
--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from nstlab.base.errors import InputError, nearest
from nstlab.base.options import Option, field_type, option

DEVICES = ("auto", "cpu", "cuda", "mps")
TILES = ("auto", "off")  # whether pictures are evaluated in tiles, see recipes.capacity
# Ways to give a painting the photo's shape, see images.fit.
FITS = ("stretch", "crop", "area", "own")
MAX_SIDE = 16384  # px
MIN_SIDE = 16  # px; the fifth block of VGG19 sees one position for every 16 pixels
# Part of the ids of runs, films and models: raised whenever the same settings give others.
VERSION = 4


def is_whole_number(text: str) -> bool:
    """Whether a text is a whole number without a sign; `int` refuses thousands of digits."""
    return text.isdecimal() and len(text) < 20


def user_path(path: str | os.PathLike) -> Path:
    """The path with `~` or `~user` at its beginning replaced by a home folder.

    `./~` is a file's name.
    """
    path = Path(os.path.expanduser(path))
    return path.absolute() if str(path).startswith("~") else path  # so that nobody expands it again


def pairs_to_dict(words: Sequence[str]) -> dict[str, str]:
    """{name: value} of words that come in pairs.

    Raises:
        InputError: if the last name has no value.
    """
    if len(words) % 2:
        raise InputError(f"parameters: '{words[-1]}' has no value; give pairs: -p seed 3")
    return dict(zip(words[::2], words[1::2], strict=True))


@cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def to_python(value: Any) -> Any:
    """The value, with NumPy's numbers and arrays turned into Python's numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


# What may be given for a type, besides itself.
_CONVERTED = {int: (str,), float: (int, str), Path: (str,), str: (int, Path)}


def _check_element(name: str, value: Any, kind: type, opt: Option) -> Any:
    """One value, converted to its type and checked."""
    value = to_python(value)
    if kind is not bool and value in ("", None) and (kind is Path or opt.reads):
        # Path would take "" for this folder.
        raise InputError(f"{name}: name {opt.allowed() if opt.choices else 'a file or a folder'}")
    value = _convert(value, kind)
    if opt.reads and kind is not Path and isinstance(value, str):
        value = os.path.expanduser(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        article = "an" if kind is int else "a"
        raise InputError(f"{name}: {value!r} is not {article} {kind.__name__}")
    return opt.check(name, value)


def _convert(value: Any, kind: type) -> Any:
    """A value in its type, if it is one that may be given for it; else as it is."""
    if kind is bool:
        return {"true": True, "false": False}.get(str(value).lower(), value)
    if kind is Path:
        return user_path(value) if isinstance(value, (str, Path)) else value
    if isinstance(value, _CONVERTED[kind]) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return kind(value)
    return value


def _json_value(value: Any) -> Any:
    """One value as JSON has it."""
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Settings:
    """Base of all settings: immutable, validated when made, converted to and from JSON values."""

    def __post_init__(self) -> None:
        for name, _, _ in self.options():
            object.__setattr__(self, name, self.validate(name, getattr(self, name)))

    @classmethod
    def validate(cls, field: str, value: Any) -> Any:
        """A value for a field, converted to the field's type.

        Numbers, truth values and paths may be given as text, and one value for a tuple.

        Raises:
            InputError: for an unknown field, and for a value that the field does not allow.
        """
        cls._require(field)
        value = to_python(value)
        kind, is_tuple, is_optional = field_type(_annotations(cls)[field])
        opt = cls.option_of(field)
        name = field.rstrip("_")  # from_, since Python has a word for itself
        if value is None and is_optional:
            return None
        if not is_tuple:
            return _check_element(name, value, kind, opt)
        values = (value,) if isinstance(value, (str, int, float)) else value
        if not isinstance(values, (tuple, list)):
            raise InputError(f"{name}: {value!r} is not a list")
        return tuple(_check_element(name, element, kind, opt) for element in values)

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
        for field in dataclasses.fields(cls):
            yield field.name, _annotations(cls)[field.name], field.metadata["option"]

    @classmethod
    def option_of(cls, field: str) -> Option:
        """The Option of one field."""
        return cls.__dataclass_fields__[field].metadata["option"]

    def _values(self, fields: Iterable[str]) -> dict[str, tuple[str | Path, ...]]:
        """{field: its values} of some fields, without those that are left open."""
        values = {}
        for field in fields:
            value = getattr(self, field)
            if value not in ((), None, (None,)):
                values[field] = value if isinstance(value, tuple) else (value,)
        return values

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """{field: paths} of the files and folders that are read, without samples and choices."""
        existing = {}
        for field, values in self._values(n for n, _, opt in self.options() if opt.reads).items():
            # By Path, as they are opened, for which `a.png/` is `a.png`.
            paths = tuple(path for path in values if os.path.exists(Path(path)))
            if paths:
                existing[field] = paths
        return existing

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """{field: paths} of the files that are written. A folder stands for all files in it."""
        return self._values(name for name, _, opt in self.options() if opt.output)

    def to_dict(self, identity: bool = False) -> dict[str, Any]:
        """The settings as JSON values.

        Args:
            identity: only the fields that decide the result's pixels.
        """
        values = {}
        for name, _, opt in self.options():
            value = getattr(self, name)
            if identity and not opt.identity:
                continue
            if isinstance(value, tuple):
                values[name] = [_json_value(element) for element in value]
            else:
                values[name] = _json_value(value)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: for an unknown field, a required one that is missing, and a value that is
                not allowed.
        """
        for name in values:
            cls._require(name)
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in values:
                raise InputError(f"{cls.__name__}: '{field.name}' is missing")
        return cls(**values)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        current = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return self.from_dict(current | changes)


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
