"""Files: opened only if regular, tried before work is done, replaced whole or not at all; and JSON that may hold anything.

What cannot be used raises InputError, in one line that names the file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nstlab.settings import InputError

LONGEST = 64 << 20  # bytes; longer JSON is not read
TEMPORARY = ".nstlab-"  # the beginning of the names of files that are still being written


# --- files ------------------------------------------------------------------------------------------------------


def shipped(*parts: str) -> Path:
    """A folder that comes with the project: inside an installed package, or beside the package in a checkout."""
    here = Path(__file__).parent
    inside = here.joinpath(*parts)
    return inside if inside.is_dir() else here.parent.joinpath(*parts)


def regular(path: str | os.PathLike) -> Path:
    """The path, if it names a regular file or a link to one: reading a pipe or a device might never end.

    Raises: InputError for anything else that is there; FileNotFoundError and other OSErrors as `os.stat` does."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; a file is needed")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file but a pipe, a socket or a device")
    return Path(path)


def same_file(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether both paths name one existing file."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def check_apart(out: str | os.PathLike, source: str | os.PathLike, what: str) -> None:
    """Raise InputError if to write `out` would take the place of an input, which is the `what`."""
    if same_file(out, source):
        raise InputError(f"{out}: is the {what}, which would be lost; choose another --out")


def folder(path: str | os.PathLike) -> Path:
    """The folder, made if it does not exist yet. InputError if it cannot be made."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def check_place(path: str | os.PathLike) -> Path:
    """The path, if a file can be written there, which is tried; else InputError, before any work is done."""
    path = Path(path)
    with writing(path):
        with contextlib.suppress(FileNotFoundError):
            regular(path)
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"{path}: may not be written")
        _temporary(path).unlink()
    return path


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn what goes wrong in the block, such as a full disk, into an InputError that names the path."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place if the block succeeds and is deleted if it fails.

    So the file is whole or not there, whenever the process is killed. If `path` is a link, the link stays and the file that
    it names is replaced. An OSError becomes an InputError."""
    with writing(path):
        temporary = _temporary(path)
        mode = temporary.stat().st_mode  # from the umask; a library may rename a file of its own
        try:
            yield temporary
            if temporary.stat().st_mode != mode:
                temporary.chmod(mode)
            os.replace(temporary, os.path.realpath(path))
        finally:
            temporary.unlink(missing_ok=True)


def _temporary(path: str | os.PathLike) -> Path:
    """A new, empty file beside the file that the path names, with the same suffix."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}{target.suffix}")
    temporary.touch(exist_ok=False)
    return temporary


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files below a folder that were left by processes killed while they wrote."""
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def delete(path: Path) -> None:
    """Delete a folder with everything in it, or a file, if it exists; only the link if it is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- JSON -------------------------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike) -> Any:
    """A file's JSON as plain values. ValueError if it is not JSON (InputError if not a regular file), OSError if unreadable."""
    path = regular(path)
    if path.stat().st_size > LONGEST:
        raise ValueError(f"has more than {LONGEST >> 20} MB")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """JSON as plain values. ValueError if it is not JSON, if it holds NaN or infinity, or if it is nested too deeply."""

    def refuse(number: str) -> Any:
        raise ValueError(f"{number} is not a number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


# Parts of a JSON Schema.
TEXT = {"type": "string"}
NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def list_of(each: dict[str, Any]) -> dict[str, Any]:
    """The schema of a list of such values."""
    return {"type": "array", "items": each}


def dict_of(each: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with any names and such values."""
    return {"type": "object", "additionalProperties": each}


def object_with(optional: dict[str, Any] | None = None, **fields: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has at least these fields, and perhaps the optional ones."""
    return {"type": "object", "required": list(fields), "properties": fields | (optional or {})}


def check_json(data: Any, schema: dict[str, Any]) -> None:
    """Raise ValueError, saying where and what, if the data do not fit the schema."""
    try:
        _form(json.dumps(schema))(data, name_prefix="it")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{error!s:.80}") from None


@functools.cache
def _form(schema: str) -> Callable[..., Any]:
    """A function that holds data to a schema, made once, as that takes longer than to use it."""
    import fastjsonschema

    draft = {"$schema": "http://json-schema.org/draft-04/schema"}  # in which 1.0 is not an integer
    return fastjsonschema.compile(draft | json.loads(schema))
