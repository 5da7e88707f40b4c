"""Files: opened only if regular, tried before work is done, replaced whole or not at all; and JSON
that may hold anything.

What cannot be used raises InputError, in one line that names the file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import mimetypes
import os
import shutil
import stat
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nstlab.base.settings import InputError, Settings, user_path

logger = logging.getLogger("nstlab")
# Errors of folders that know none.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
LONGEST = 64 << 20  # bytes; longer JSON is not read
POLL = 0.5  # seconds between two attempts to lock results that another process is computing
TEMPORARY = ".nstlab-"  # the beginning of the names of files that are still being written


# --- files ----------------------------------------------------------------------------------------


def shipped(*parts: str) -> Path:
    """A folder that comes with the project: in an installed package, or beside a checkout's."""
    here = Path(__file__).parents[1]
    inside = here.joinpath(*parts)
    return inside if inside.is_dir() else here.parent.joinpath(*parts)


def regular(path: str | os.PathLike) -> Path:
    """The path, if it names a regular file or a link to one: reading a pipe or a device might never
    end.

    Raises:
        InputError: for anything else that is there, and for what no file can be called;
            FileNotFoundError and other OSErrors as `os.stat` does.
    """
    path = user_path(path)
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        raise InputError(f"{path}: no file can have this name") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; a file is needed")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file but a pipe, a socket or a device")
    return path


def check_outputs(*settings: Settings) -> None:
    """Raise InputError if a file that is written is one that is read, by whatever name or link.

    A folder stands for the files in it; of one that is read, only pictures count."""
    written = {
        key: (path, field)
        for part in settings
        for field, paths in part.outputs.items()
        for key, path in _identified(paths)
    }
    for part in settings if written else ():
        for field, paths in part.files.items():
            for key, path in _identified(paths, pictures=True):
                if key in written:
                    role = f"the {field}"
                    if isinstance(getattr(part, field, None), tuple):
                        role = f"one of {role}"
                    elif path not in map(Path, paths):  # but in a folder
                        role = f"one of the files of {role}"
                    raise InputError(_lost(*written[key], path, role))


def _lost(out: Path, option: str, path: Path, role: str) -> str:
    """Why a file that is read as `role` may not be written by the setting `option`."""
    through = "" if str(out) == str(path) else f", {path}"
    return f"{out}: is {role}{through}, which would be lost; choose another --{option}"


def _identified(
    paths: Iterable[str | os.PathLike], pictures: bool = False
) -> Iterator[tuple[tuple[int, int], Path]]:
    """(device and number, path) of the files, and of those in the folders, that exist: a link has
    the numbers of its file. pictures: of those in folders, only what is named as a picture."""
    for path in map(Path, paths):
        inside = []
        with contextlib.suppress(OSError, ValueError):
            inside = [path / name for name in os.listdir(path) if not pictures or _is_picture(name)]
        for file in inside or [path]:
            with contextlib.suppress(OSError, ValueError):
                status = os.stat(file)
                yield (status.st_dev, status.st_ino), file


def _is_picture(name: str) -> bool:
    return (mimetypes.guess_type(name, strict=False)[0] or "").startswith("image/")


def folder(path: str | os.PathLike) -> Path:
    """The folder, made if it does not exist yet.

    Raises:
        InputError: if it cannot be made.
    """
    path = user_path(path)
    with writing(path):
        if os.path.isfile(path):
            raise InputError(f"{path}: is a file; a folder is needed")
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_place(path: str | os.PathLike) -> Path:
    """The path, if a file can be written there, which is tried; else InputError."""
    path = user_path(path)
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
    """Turn an error in the block, such as a full disk, into an InputError with the path."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(
            f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place if the block succeeds and is deleted if
    it fails.

    So the file is whole or not there, whenever the process is killed. If `path` is a link, the link
    stays and the file that it names is replaced. An OSError becomes an InputError."""
    path = user_path(path)
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
    """Delete temporary files below a folder that killed processes have left."""
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


@contextlib.contextmanager
def locked(path: Path, message: str, wait: float | None = None) -> Iterator[None]:
    """Hold a lock on a file of that path against other processes; it ends with this process.

    Where the folder, as on some servers, knows no locks, a file that exists as long as the lock is
    one, and the log says so.

    Args:
        message: what InputError says if another process holds it.
        wait: seconds between two attempts to get it then, instead.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    timeout, poll = (0, 1.0) if wait is None else (-1, wait)
    with writing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of FileLock become soft by themselves
        for kind, name in ((FileLock, path.name), (SoftFileLock, f"{path.name}.lock")):
            lock = kind(path.with_name(name))
            try:
                lock.acquire(timeout=timeout, poll_interval=poll)
                break
            except Timeout:
                ended = f"; if there is none any more, delete {lock.lock_file}"
                raise InputError(message + ended * isinstance(lock, SoftFileLock)) from None
            except (NotImplementedError, OSError) as error:
                if kind is SoftFileLock or getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                    raise
    if isinstance(lock, SoftFileLock):
        logger.warning(
            "%s: has no locks; the file %s is one until this ends", path.parent, lock.lock_file
        )
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_results(root: str | os.PathLike, computed: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder of results, finished and partial, against other processes.

    It ends with this process.

    Args:
        root: the folder of all results.
        wait: for another process that holds the lock, rather than raise InputError.
    """
    name = f"{computed.parent.name}-{computed.name.partition('.')[0]}"
    message = f"results: {computed} is being computed by another process; wait for it to end"
    with locked(folder(Path(root) / "locks") / name, message, POLL if wait else None):
        yield


def delete(path: Path) -> None:
    """Delete a folder with everything in it, or a file, if it exists.

    Only the link if it is one.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path:
    """Rename a folder at once, so that half of it is never found; return its new path."""
    name = f"{folder.name.partition('.')[0]}.{uuid.uuid4().hex[:8]}.removed"
    return folder.rename(folder.with_name(name))


# --- JSON -----------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike) -> Any:
    """A file's JSON as plain values.

    Raises:
        ValueError: if it is not JSON (InputError if not a regular file), OSError if unreadable.
    """
    path = regular(path)
    if path.stat().st_size > LONGEST:
        raise ValueError(f"has more than {LONGEST >> 20} MB")
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: if it is not JSON, if it holds NaN or infinity, or if it is nested too deeply.
    """

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
