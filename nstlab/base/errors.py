"""The error that users see, and how their values are written and suggested in its message."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

LONG = 1000  # characters; a longer message is cut in its middle
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of what a terminal obeys or hides
JOINERS = "\u200c\u200d"  # which are part of words and emoji


class InputError(ValueError):
    """The user gave something that cannot be used.

    Args:
        message: the problem and what is allowed. It becomes one line of printable characters; of a
            longer one than LONG, the beginning and the end are kept.
    """

    def __init__(self, message: str):
        line = " ".join(message.splitlines())
        if len(line) > LONG:
            line = f"{line[: LONG // 2]} … {line[-LONG // 2 :]}"
        super().__init__(printable(line))


def printable(text: str, allowed: str = "") -> str:
    """The text with its control characters escaped as Python writes them.

    Names of files may hold any; a terminal would obey them, or show the text in another order.

    Args:
        allowed: control characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(char) if char not in allowed else char for char in text)


def _escaped(char: str) -> str:
    """A character, escaped if a terminal obeys or hides it."""
    if unicodedata.category(char) in HIDDEN and char not in JOINERS:
        return char.encode("unicode_escape").decode()
    return char


def nearest(name: str, allowed: Sequence[str]) -> str:
    """A suggestion for a misspelt name, or "" if no allowed name is close to it.

    >>> nearest("conv4-2", ["conv4_1", "conv4_2"])
    "; did you mean 'conv4_2'?"
    """
    matches = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """The value, if it is one of the allowed ones.

    Args:
        name: what the value is for, as the message calls it: "pool".

    Raises:
        InputError: if it is not; the message lists the allowed values and suggests the nearest.
    """
    if value not in allowed:
        raise InputError(
            f"{name}: '{value}' is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"
        )
    return value
