"""What a program prints, where the streams may fail and names of files may hold anything."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nstlab.base.errors import printable

LOG = "nstlab"  # the name of the lab's log


def say(text: str) -> None:
    """Print one line for the user, on stderr."""
    print(f"nstlab: {printable(text)}", file=sys.stderr)


def tell(text: str) -> None:
    """Print one line of a command's results, on stdout."""
    print(printable(text))


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in columns that line up, numbers with four digits."""
    lines = [
        [printable(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(
            "  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        )


class LastingStream:
    """A stream that never fails: what cannot be written is dropped. error: why, the first time.

    Control characters, which may come from names of files, are escaped, but for those `kept`."""

    def __init__(self, stream: Any, kept: str):
        self.stream, self.kept, self.error = stream, kept, None

    def write(self, text: str) -> int:
        """Write the text, and return its length."""
        self._try(self.stream.write, printable(text, self.kept))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[..., Any], *args: str) -> None:
        if self.error is not None:
            return
        try:
            action(*args)
        except (OSError, ValueError) as error:
            self.error = error
            with contextlib.suppress(OSError, ValueError, AttributeError):
                # What is still buffered goes nowhere; Python would try and fail again at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Make stdout, which is yielded, and stderr streams that never fail, in the block.

    The shell may have closed them, and they may lack some characters."""
    before = sys.stdout, sys.stderr
    usable = [open(os.devnull, "w", encoding="utf-8") if each is None else each for each in before]  # noqa: SIM115
    for stream in usable:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without α can still show the rest
    sys.stdout = LastingStream(usable[0], "\n")
    sys.stderr = LastingStream(usable[1], "\n\r\t")
    stdout, stderr = sys.stdout, sys.stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before


class _OneLine(logging.Formatter):
    """Shows a message in one line, whatever names of files are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def prepare_log() -> None:
    """Show warnings and notes of the lab on stderr, and no other package's."""
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter(LOG))
    handler.setFormatter(_OneLine("nstlab: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger(LOG).setLevel(logging.INFO)


def hush() -> None:
    """Let this process tell of errors only: another one tells the rest, also of an interrupt."""
    logging.getLogger(LOG).setLevel(logging.ERROR)
