"""Files that are uploaded from the page: in parts, since servers refuse large messages, and kept
only if they are pictures."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from nstlab.base import files
from nstlab.base.settings import InputError
from nstlab.pictures import images as im

CHUNK = 1 << 20  # bytes of a file in one message; servers refuse messages of 10 MB
MAX_BYTES = 200 << 20  # bytes of a file
MOST = 4  # files that are on their way at the same time; of more, the oldest is forgotten


class Uploads:
    """Files that are on their way, and the folder where they are kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._parts: dict[str, dict[int, bytes]] = {}

    def part(self, upload: str, number: int, count: int, name: str, data: bytes) -> bytes | None:
        """Take part `number` of `count` of a file; return the whole file once all parts have come.

        Raises InputError for a file of more than MAX_BYTES, of which the page sends one part
        without data."""
        if count * CHUNK > MAX_BYTES:
            raise InputError(
                f"{name}: has more than {MAX_BYTES >> 20} MB, the most that can be uploaded"
            )
        if not 0 <= number < count or len(data) > CHUNK:
            raise InputError(f"{name}: part {number} of {count} cannot be used")
        parts = self._parts.setdefault(upload, {})
        parts[number] = data
        for older in list(self._parts)[:-MOST]:
            del self._parts[older]
        if not all(i in parts for i in range(count)):
            return None
        del self._parts[upload]
        return b"".join(parts[i] for i in range(count))

    def forget(self) -> None:
        """Drop the parts of files whose rest will never come."""
        self._parts.clear()

    def keep(self, name: str, data: bytes) -> Path:
        """Write a file if it passes the checks of all pictures. Its new name says what it is and
        depends on what it holds.

        Raises InputError, with the name that the user knows, if it is no picture or cannot be
        written."""
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:50] or "picture"
        try:
            bare = (
                files.make_folder(self.folder.absolute())
                / f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}"
            )
            with files.replacing(bare) as temporary:
                temporary.write_bytes(data)
                suffix = im.format_of(temporary).lower()
            path = bare.with_suffix(f".{suffix}")
            with files.writing(path):
                os.replace(bare, path)
            return path
        except InputError as error:
            raise InputError(
                re.sub(r"^.*?: ", lambda _: f"{name}: ", str(error), count=1)
            ) from None
