"""Files: opened only if regular, tried before work is done, replaced whole or not at all.

What cannot be used raises InputError, in one line that names the file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nstlab.base.errors import InputError
from nstlab.base.settings import user_path

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("nstlab")
# Errors of folders that know no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
POLL = 0.5  # seconds between two attempts to lock results that another process is computing
TEMPORARY = ".nstlab-"  # the beginning of the names of files that are still being written


# --- paths ----------------------------------------------------------------------------------------


def shipped_folder(*parts: str) -> Path:
    """A folder that comes with the project, inside the package or, in a checkout, beside it."""
    package = Path(__file__).parents[1]
    inside = package.joinpath(*parts)
    return inside if inside.is_dir() else package.parent.joinpath(*parts)


def regular_file(path: str | os.PathLike) -> Path:
    """The path, if it names a regular file or a link to one.

    Reading a pipe or a device might never end.

    Raises:
        InputError: if something else has this name, and if no file can have it.
        OSError: as `os.stat` does, such as FileNotFoundError.
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


def make_folder(path: str | os.PathLike) -> Path:
    """Make a folder, with those above it, if it does not exist yet; return its path.

    Raises:
        InputError: if it cannot be made.
    """
    path = user_path(path)
    with writing(path):
        if os.path.isfile(path):
            raise InputError(f"{path}: is a file; a folder is needed")
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(path: str | os.PathLike) -> Path:
    """The path, if a file can be written there, which is tried.

    Raises:
        InputError: if it cannot, so that nobody works for hours and then loses the result.
    """
    path = user_path(path)
    with writing(path):
        with contextlib.suppress(FileNotFoundError):
            regular_file(path)
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"{path}: may not be written")
        _temporary(path).unlink()
    return path


# --- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn what goes wrong in the block, such as a full disk, into an InputError with the path."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason})") from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all, whenever the process is killed.

    Yields a temporary path beside `path`, which takes its place if the block succeeds, and is
    deleted if it fails. If `path` is a link, the link stays and the file that it names is replaced.

    Raises:
        InputError: for an OSError in the block.
    """
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
    """Delete temporary files below a folder, left by processes killed while they wrote."""
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def delete(path: Path) -> None:
    """Delete a file, a folder with everything in it, or only a link to one, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path:
    """Rename a folder that will be deleted, so that half of it is never found; return its path."""
    name = f"{folder.name.partition('.')[0]}.{uuid.uuid4().hex[:8]}.removed"
    return folder.rename(folder.with_name(name))


# --- locks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path, busy: str, poll: float | None = None) -> Iterator[None]:
    """Hold a lock on a file of that path against other processes; it ends with this process.

    Where the folder, as on some servers, knows no locks, a file that exists as long as the block
    runs is the lock, and the log says so.

    Args:
        busy: the message if another process holds the lock.
        poll: seconds between two attempts to get it then, instead of an error.

    Raises:
        InputError: if another process holds the lock, and if the file cannot be written.
    """
    from filelock import FileLock, SoftFileLock

    with writing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of FileLock become soft by themselves
        lock = FileLock(path)
        if not _acquire(lock, busy, poll):
            lock = SoftFileLock(path.with_name(f"{path.name}.lock"))
            _acquire(lock, busy, poll)
    if isinstance(lock, SoftFileLock):
        logger.warning(
            "%s: has no locks; the file %s is one until this ends", path.parent, lock.lock_file
        )
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, busy: str, poll: float | None) -> bool:
    """Acquire a lock; return False if it is the system's and the folder knows none."""
    from filelock import SoftFileLock, Timeout

    try:
        lock.acquire(timeout=0 if poll is None else -1, poll_interval=poll or 1.0)
    except Timeout:
        if isinstance(lock, SoftFileLock):
            busy = f"{busy}; if there is none any more, delete {lock.lock_file}"
        raise InputError(busy) from None
    except (NotImplementedError, OSError) as error:
        knows_locks = isinstance(error, OSError) and error.errno not in NO_LOCKS
        if knows_locks or isinstance(lock, SoftFileLock):
            raise
        return False
    return True


@contextlib.contextmanager
def locked_results(root: str | os.PathLike, folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder of results, finished and partial, against other processes.

    Args:
        root: the folder of all results.
        folder: that of these.
        wait: for another process that holds the lock.

    Raises:
        InputError: if another process holds the lock, unless this one waits.
    """
    name = f"{folder.parent.name}-{folder.name.partition('.')[0]}"
    busy = f"results: {folder} is being computed by another process; wait for it to end"
    with locked(make_folder(Path(root) / "locks") / name, busy, POLL if wait else None):
        yield
