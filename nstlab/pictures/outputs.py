"""No file that is read is written: checked before work is done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nstlab.base.errors import InputError
from nstlab.base.settings import Settings
from nstlab.pictures.samples import is_picture

FileId = tuple[int, int]  # device and number of a file, which a link shares with it


def check_outputs(*settings: Settings) -> None:
    """Raise InputError if a file that is written is one that is read, by whatever name or link.

    A folder stands for the files in it; of one that is read, only pictures count.

    Args:
        settings: all settings of a command; the files that one of them writes may be another's.
    """
    written: dict[FileId, tuple[Path, str]] = {}
    for group in settings:
        for field, paths in group.outputs.items():
            written |= {file_id: (path, field) for file_id, path in _identify(paths)}
    if not written:
        return
    for group in settings:
        for field, paths in group.files.items():
            for file_id, path in _identify(paths, only_pictures=True):
                if file_id in written:
                    out, option = written[file_id]
                    raise InputError(_refusal(out, option, path, _role(group, field, path, paths)))


def _role(settings: Settings, field: str, path: Path, paths: Iterable[str | os.PathLike]) -> str:
    """What a file that is read is: "the content", or one of several."""
    if isinstance(getattr(settings, field, None), tuple):
        return f"one of the {field}"
    if path not in map(Path, paths):  # but in a folder
        return f"one of the files of the {field}"
    return f"the {field}"


def _refusal(out: Path, option: str, path: Path, role: str) -> str:
    """Why a file that is read may not be written; option: the setting that names it."""
    other_name = "" if str(out) == str(path) else f", {path}"
    return f"{out}: is {role}{other_name}, which would be lost; choose another --{option}"


def _identify(
    paths: Iterable[str | os.PathLike], only_pictures: bool = False
) -> Iterator[tuple[FileId, Path]]:
    """(id, path) of the files, and of those in the folders, that exist."""
    for path in map(Path, paths):
        for file in _files_in(path, only_pictures) or [path]:
            with contextlib.suppress(OSError, ValueError):
                status = os.stat(file)
                yield (status.st_dev, status.st_ino), file


def _files_in(path: Path, only_pictures: bool) -> list[Path]:
    """The files in a folder; none if it is not a folder."""
    with contextlib.suppress(OSError, ValueError):
        names = os.listdir(path)
        return [path / name for name in names if not only_pictures or is_picture(name)]
    return []
