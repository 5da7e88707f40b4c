"""Large files from the network: checked by hash, and continued where a download stopped."""

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
    """A file that `fetch` can download."""

    url: str
    sha256: str  # the beginning of its hash, in hexadecimal digits
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
    """Download a file and check its hash; an interrupted download continues where it stopped.

    A file that exists already is checked and kept.

    Args:
        download: the file.
        progress: called with the number of bytes received and the number in all (0 if unknown).

    Returns:
        The file's path.

    Raises:
        InputError: if the download fails (the partial file is kept), or if the hash is wrong (the
            file is removed).
    """
    path = download.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{path} is being downloaded by another process; wait for it to end"
        with files.locked(download.part.with_suffix(".part.lock"), busy):
            return _check_or_download(download, progress)
    except InputError:
        raise
    # ValueError: malformed headers
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{download.url} could not be downloaded ({reason}); run the same command again to go "
            f"on, or put the file at {path} by hand"
        ) from None


def _check_or_download(download: Download, progress: Callable[[int, int], None]) -> Path:
    """The path of the file that exists, if its hash is right, or else of the downloaded one."""
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

    def http_error_302(self, request: urllib.request.Request, response: Any, *rest: Any) -> Any:
        try:
            return super().http_error_302(request, response, *rest)
        except Exception:
            response.close()  # which urllib leaves open
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _receive(url: str, part: Path, limit: int, progress: Callable[[int, int], None]) -> None:
    """Append what is missing to the partial file, or start anew if the server sends all of it.

    limit: bytes after which no more are received, since the file cannot be the right one."""
    partial = part.stat().st_size if part.exists() else 0  # bytes
    request = urllib.request.Request(url, headers={"Range": f"bytes={partial}-"} if partial else {})
    try:
        response = urllib.request.build_opener(_SameScheme).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and partial:  # nothing is missing
            return
        raise
    continues = response.status == 206
    with response, part.open("ab" if continues else "wb") as file:
        done = partial if continues else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        while done <= limit and (chunk := response.read1(1 << 20)):  # however slowly it comes
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if done < total and done <= limit:
        raise OSError(f"the connection ended after {done} of {total} bytes")
