"""Files: opened only if regular, tried before work is done, replaced whole or not at all, and JSON that may be anything.

What cannot be used raises InputError, in one line that names the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nstlab.settings import InputError

LONGEST = 64 << 20  # bytes of JSON that are read
TEMPORARY = ".nstlab-"  # how the names of files begin that are still being written


def regular(path: str | os.PathLike) -> Path:
    """The path, if it names a regular file, itself or through a link; reading a pipe or a device might never end.

    Raises: InputError for anything else that is there; FileNotFoundError and other OSErrors as `os.stat` does."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; a file is needed")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file but a pipe, a socket or a device")
    return Path(path)


def same(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether both name one file that is there."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


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
    """Turn what goes wrong in the block, as with a full disk, into an InputError: the one place where that is said."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


def folder(path: str | os.PathLike) -> Path:
    """The folder, made if it is not there yet; InputError if it cannot be."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not. A link
    stays, and what it names is replaced.

    So a file is whole or not there, whenever the process is killed. An OSError becomes an InputError."""
    temporary = _temporary(path)
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, os.path.realpath(path))
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: str | os.PathLike) -> Path:
    """A new, empty file beside what the path names, with the same ending. InputError if there can be none."""
    with writing(path):
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}{target.suffix}")
        temporary.touch(exist_ok=False)
        return temporary


def remove_leftovers(folder: Path) -> None:
    """Delete, below a folder, what processes left that were killed while they wrote."""
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def remove(path: Path) -> None:
    """Delete a folder with all that it holds, or a file, if there is one; of a link, the link."""
    if os.path.isdir(path) and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path: str | os.PathLike) -> Any:
    """A file's JSON as plain values. Raises ValueError for what is none, also of what kind of file; OSError as reading does."""
    path = regular(path)
    if path.stat().st_size > LONGEST:
        raise ValueError(f"has more than {LONGEST >> 20} MB")
    return parse_json(path.read_text(encoding="utf-8"))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def parse_json(text: str | bytes) -> Any:
    """JSON as plain values. Raises ValueError for what is none, also for NaN, and for what is nested too deeply to be read."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


# --- what JSON must look like, as JSON Schema -------------------------------------------------------------------

TEXT = {"type": "string"}
NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def many(each: dict[str, Any]) -> dict[str, Any]:
    """A list of such."""
    return {"type": "array", "items": each}


def named(each: dict[str, Any]) -> dict[str, Any]:
    """An object all of whose values are such."""
    return {"type": "object", "additionalProperties": each}


def record(optional: dict[str, Any] | None = None, **fields: dict[str, Any]) -> dict[str, Any]:
    """An object that has at least these fields, and perhaps the optional ones."""
    return {"type": "object", "required": list(fields), "properties": fields | (optional or {})}


def check_json(data: Any, schema: dict[str, Any]) -> None:
    """Raise ValueError, which says what is missing or wrong, unless the data are as the schema has it."""
    from jsonschema import Draft4Validator  # in which 1.0 is no integer

    try:
        error = next(Draft4Validator(schema).iter_errors(data), None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if error is not None:
        where = ".".join(map(str, error.absolute_path))
        raise ValueError(f"{where or 'it'}: {error.message:.80}")
