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
    """The handler of signals while a command runs.

    Attributes:
        raised: whether it has interrupted the command.
    """

    raised = False

    def __call__(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt, unless one is being handled, which takes time."""
        if not follows(sys.exception()):
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
        with handling(self, only_usual=True) as before:
            yield
            if whole_process and self.raised:
                before.clear()

    def ignore_more(self) -> None:
        """Ignore all further signals."""
        for number in SIGNALS:
            if signal.getsignal(number) is self:
                signal.signal(number, signal.SIG_IGN)


def follows(error: BaseException | None, kind: type[BaseException] = KeyboardInterrupt) -> bool:
    """Whether an error is of a kind, by default an interrupt, or was raised while handling one."""
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def handling(handler: Any, only_usual: bool = False) -> Iterator[dict[int, Any]]:
    """Handle signals in the block; yields the handlers that are restored after it.

    Only the main thread can handle any.

    Args:
        only_usual: leave those that somebody else has changed.
    """
    before: dict[int, Any] = {}
    for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
        earlier = signal.getsignal(number)
        usual = earlier in (signal.SIG_DFL, signal.default_int_handler) or isinstance(
            earlier, Interrupts
        )
        if usual or not only_usual:
            before[number] = signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait for the end of the block: for libraries that an interrupt would confuse."""
    waiting: list[int] = []
    with handling(lambda number, frame: waiting.append(number)):
        yield
    for number in waiting[:1]:
        signal.raise_signal(number)
