"""Large files from the network: put into place only when whole and checked by hash, and continued
where a download stopped."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nstlab.base import files
from nstlab.base.errors import InputError

TIMEOUT = 30.0  # seconds without a byte after which a server is given up


@dataclass(frozen=True)
class Download:
    """A file that `fetch` can get. `sha256` is the beginning of its hash, which is part of the
    file's name."""

    url: str
    sha256: str
    megabytes: int  # of 2^20 bytes, rounded

    @property
    def path(self) -> Path:
        """Where it is kept: torch.hub's folder, where torchvision looks as well."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    @property
    def part(self) -> Path:
        """Where it is while it is incomplete."""
        return self.path.with_suffix(".part")


def fetch(
    download: Download, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Download a file into its place and check its hash; an interrupted download continues where it
    stopped.

    Args: progress: called with the number of bytes received and the number in all (0 if unknown).
    Returns: the file's path; one that is there already is checked and kept. Raises: InputError if
    it cannot be had (what has come is kept) or if its hash is wrong (then it is removed)."""
    path = download.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = f"{path} is being downloaded by another process; wait for it to end"
        with files.locked(download.part.with_suffix(".part.lock"), held):
            return _fetched(download, progress)
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # ValueError: malformed headers
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{download.url} could not be downloaded ({reason}); run the same command again to go "
            "on, or put the "
            f"file at {path} by hand"
        ) from None


def _fetched(download: Download, progress: Callable[[int, int], None]) -> Path:
    """The path of the file that is there, if its hash is right, or else of the downloaded one."""
    path = files.check_writable(download.path)
    part = files.check_writable(download.part)
    if path.is_file() and _is_right(path, download):
        return path
    _receive(download.url, part, (download.megabytes + 1) << 20, progress)
    if not _is_right(part, download):
        part.unlink()
        raise InputError(
            f"{download.url}: the file's hash is not {download.sha256}…; it was removed, please "
            "try again"
        )
    return part.replace(path)


def _is_right(path: Path, download: Download) -> bool:
    """Whether the file's hash is the expected one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(download.sha256)


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from https to http, or to ftp."""

    def redirect_request(
        self, request: urllib.request.Request, *rest: Any
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(rest[-1]).scheme
        if scheme != request.type:
            raise OSError(f"the server redirects from {request.type} to {scheme}")
        return super().redirect_request(request, *rest)

    def http_error_302(self, request: urllib.request.Request, answer: Any, *rest: Any) -> Any:
        try:
            return super().http_error_302(request, answer, *rest)
        except Exception:
            answer.close()  # which urllib leaves open
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _receive(url: str, part: Path, most: int, progress: Callable[[int, int], None]) -> None:
    """Append what is missing to the partial file; start it anew if the server cannot send a part
    only.

    most: bytes after which no more are received, since the file cannot be the right one."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.build_opener(_SameScheme).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        done = have if response.status == 206 else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        while done <= most and (chunk := response.read1(1 << 20)):  # what has come, however slowly
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if done < total and done <= most:
        raise OSError(f"the connection ended after {done} of {total} bytes")
