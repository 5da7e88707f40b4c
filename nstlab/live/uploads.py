"""Files that are uploaded from the page: in parts, and kept only if they are pictures."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.pictures import images as im

CHUNK = 1 << 20  # bytes of a file in one message; servers refuse messages of 10 MB
MAX_BYTES = 200 << 20  # bytes of a file
MOST = 4  # files that are on their way at the same time; of more, the oldest is forgotten


class Uploads:
    """Files that are on their way, and the folder where they are kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._parts: dict[str, dict[int, bytes]] = {}

    def add_part(
        self, upload: str, number: int, count: int, name: str, data: bytes
    ) -> bytes | None:
        """Take one part of a file.

        Args:
            upload: the page's id of the file.
            number: of the part, from 0.
            count: how many parts the file has.
            name: of the file, for messages.
            data: at most CHUNK bytes.

        Returns:
            The whole file once all parts have come; None before.

        Raises:
            InputError: for a file of more than MAX_BYTES, of which the page sends one part without
                data; and for parts that cannot be.
        """
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
        """Write a file, if it passes the checks of all pictures.

        Args:
            name: the file's name on the user's machine.
            data: what it holds.

        Returns:
            Its path in the folder; the new name depends on what the file holds.

        Raises:
            InputError: with the name that the user knows, if the file is no picture or cannot be
                written.
        """
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:50] or "picture"
        try:
            folder = files.make_folder(self.folder.absolute())
            bare = folder / f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}"
            with files.replacing(bare) as temporary:
                temporary.write_bytes(data)
                suffix = im.format_of(temporary).lower()
            path = bare.with_suffix(f".{suffix}")
            with files.writing(path):
                os.replace(bare, path)
            return path
        except InputError as error:
            message = str(error)  # which begins with a name that the user does not know
            reason = message.partition(": ")[2] or message
            raise InputError(f"{name}: {reason}") from None
