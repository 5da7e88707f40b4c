"""JSON that may hold anything: read as plain values, and held to a schema.

Everything that is wrong with it is a ValueError that says where.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from nstlab.base.files import regular_file

LONGEST = 64 << 20  # bytes; longer files are not read
# Parts of a JSON Schema.
TEXT = {"type": "string"}
NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def read(path: str | os.PathLike) -> Any:
    """The JSON of a file as plain values.

    Raises:
        ValueError: if it is not JSON, or longer than LONGEST; an InputError if it is not a regular
            file.
        OSError: if the file cannot be read.
    """
    path = regular_file(path)
    if path.stat().st_size > LONGEST:
        raise ValueError(f"has more than {LONGEST >> 20} MB")
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str | bytes) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: if it is not JSON, holds NaN or infinity, or is nested too deeply.
    """

    def refuse(number: str) -> Any:
        raise ValueError(f"{number} is not a number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def list_of(element: dict[str, Any]) -> dict[str, Any]:
    """The schema of a list, given that of its elements."""
    return {"type": "array", "items": element}


def dict_of(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with any names, given that of its values."""
    return {"type": "object", "additionalProperties": value}


def object_with(optional: dict[str, Any] | None = None, **fields: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object, given those of its fields; it may have others.

    Args:
        optional: fields that may be missing.
        fields: fields that it must have.
    """
    return {"type": "object", "required": list(fields), "properties": fields | (optional or {})}


def check(data: Any, schema: dict[str, Any]) -> None:
    """Raise ValueError, saying where and what, if the data do not fit the schema."""
    try:
        _validator(json.dumps(schema))(data, name_prefix="it")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{error!s:.80}") from None


@functools.cache
def _validator(schema: str) -> Callable[..., Any]:
    """A function that checks data, compiled once, as that takes longer than to use it."""
    import fastjsonschema

    draft = {"$schema": "http://json-schema.org/draft-04/schema"}  # in which 1.0 is not an integer
    return fastjsonschema.compile(draft | json.loads(schema))
