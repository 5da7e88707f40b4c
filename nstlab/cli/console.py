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
    """Print rows in columns that line up, numbers with four digits.

    Args:
        rows: all of one length, the first with the columns' titles.
    """
    lines = [[_cell_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [f"{text:{width}}" for text, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _cell_text(cell: Any) -> str:
    return printable(f"{cell:.4g}" if isinstance(cell, float) else str(cell))


class LastingStream:
    """A stream that never fails: what cannot be written is dropped.

    Args:
        stream: what is written to.
        kept: control characters that are not escaped; others may come from names of files.

    Attributes:
        error: why something could not be written, the first time.
    """

    def __init__(self, stream: Any, kept: str):
        self.stream = stream
        self.kept = kept
        self.error: OSError | ValueError | None = None

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
    """Make stdout and stderr streams that never fail, in the block.

    Yields:
        The stream of stdout.
    """
    before = sys.stdout, sys.stderr
    stdout = LastingStream(_usable(sys.stdout), "\n")
    stderr = LastingStream(_usable(sys.stderr), "\n\r\t")
    sys.stdout = stdout
    sys.stderr = stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before


def _usable(stream: Any) -> Any:
    """A stream that can be written to: the shell may have closed it, and it may lack characters."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a terminal without α can still show the rest
    return stream


class _OneLine(logging.Formatter):
    """Shows a message in one line, whatever names of files are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, with control characters escaped."""
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
