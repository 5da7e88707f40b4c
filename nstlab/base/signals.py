"""Signals that end a process: Ctrl-C, and SIGTERM, by which clusters end a job."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The handler of signals while a command runs."""

    raised = False  # whether it has interrupted the command

    def __call__(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt, unless one is being handled: to save takes time."""
        if not stems_from(sys.exception()):
            self.raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def handle(self, whole_process: bool) -> Iterator[None]:
        """Let signals interrupt the block.

        Args:
            whole_process: whether only the process's end follows. After an interrupt, signals are
                then ignored for good, since Python would show a traceback of what it does at its
                end.
        """
        with handling(self, only_default=True) as replaced:
            yield
            if whole_process and self.raised:
                replaced.clear()

    def ignore_more(self) -> None:
        """Ignore all further signals."""
        for number in SIGNALS:
            if signal.getsignal(number) is self:
                signal.signal(number, signal.SIG_IGN)


def stems_from(error: BaseException | None, kind: type[BaseException] = KeyboardInterrupt) -> bool:
    """Whether an error is of a kind, by default an interrupt, or came while one was handled."""
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def handling(handler: Any, only_default: bool = False) -> Iterator[dict[int, Any]]:
    """Handle SIGNALS in the block, if this is the main thread, the only one that can.

    Args:
        handler: as for `signal.signal`.
        only_default: leave signals for which somebody else has a handler.

    Yields:
        {number: handler} of the handlers that are restored after the block.
    """
    replaced: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if not only_default or _is_default(signal.getsignal(number)):
                replaced[number] = signal.signal(number, handler)
    try:
        yield replaced
    finally:
        for number, earlier in replaced.items():
            signal.signal(number, earlier)


def _is_default(handler: Any) -> bool:
    """Whether a handler is Python's or ours."""
    return handler in (signal.SIG_DFL, signal.default_int_handler) or isinstance(
        handler, Interrupts
    )


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait for the end of the block: for libraries that an interrupt would confuse."""
    waiting: list[int] = []
    with handling(lambda number, frame: waiting.append(number)):
        yield
    for number in waiting[:1]:
        signal.raise_signal(number)
