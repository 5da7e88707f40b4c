"""What one field of settings allows, and how command line and studio present it."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError, nearest

RESULTS = "results"  # folder in which runs are kept
# Fields that may change during a run; fields that matter only when it begins.
LIVE, START, NETWORK = "live", "start", "network"
# The groups of a recipe's fields.
GROUPS = (LIVE, START, "pictures", "regions", NETWORK, "optimizer")


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
        if self.high is None:
            return f"{self.low:g} or more{unit}"
        return f"from {self.low:g} to {self.high:g}{unit}"

    def check(self, name: str, value: Any) -> Any:
        """One value, or one element of a tuple, parsed and checked.

        Args:
            name: of the field, for the message.

        Raises:
            InputError: if the value is not one of the choices, not within the range, or not finite.
        """
        if self.parse is not None:
            return self.parse(value)
        if self.choices and value not in self.choices:
            self._check_path(name, value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_range(name, value)
        return value

    def _check_path(self, name: str, value: Any) -> None:
        """Raise InputError if what is no choice may not be a path either."""
        if not self.or_path or value in self.reserved:
            suggestion = nearest(str(value), self.choices)
            raise InputError(f"{name}: '{value}' is not one of {self.allowed()}{suggestion}")

    def _check_range(self, name: str, value: float) -> None:
        """Raise InputError for a number that is not in the range, or not finite."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not low <= value <= high or value in (math.inf, -math.inf):
            raise InputError(f"{name}: {value!s:.40} is not allowed; allowed is {self.allowed()}")


def option(default: Any = dataclasses.MISSING, help: str = "", **kwargs: Any) -> Any:
    """A dataclass field with its Option.

    Args:
        default: its value if none is given; a field without one is required.
        help: one line about it.
        kwargs: the other attributes of Option.
    """
    return dataclasses.field(default=default, metadata={"option": Option(help, **kwargs)})


def results_folder(holds: str = "runs are kept") -> Any:
    """The field for the folder of results; its help is "folder in which {holds}"."""
    return option(Path(RESULTS), f"folder in which {holds}", identity=False)


def field_type(annotation: Any) -> tuple[type, bool, bool]:
    """What a field's annotation says.

    Returns:
        The type of one element, whether the field is a tuple, and whether it may be None.
    """
    optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True, optional
    return annotation, False, optional
