"""A generator of steps, driven in a thread: start it, pause it, make single steps, stop it, and
send it messages.

    session = Session(painting.steps, show)   # show(session) is called at most five times a second
    session.start()
    session.send(Change(settings))            # returns at once; the next step is made with it
    session.wait()                            # where there is no browser

One worker thread drives the generator. All other threads only say what is to happen next, under one
lock. The worker takes all messages that have come by the time it begins a step. The watcher is not
shown each step, but always the last one for now.

The generator never ends by itself. It yields None when it has nothing to do until a message comes
or `start` is called again; the session then rests. An exception in the worker ends the session, and
is kept in `error`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from enum import StrEnum
from typing import Protocol

from nstlab.base.settings import InputError
from nstlab.method.steps import Step

logger = logging.getLogger("nstlab")

FRAMES = 5.0  # times a second that the watcher is called, at most


class Message(Protocol):
    """What can be sent to the generator.

    An urgent message is delivered even while the session is paused.
    """

    urgent: bool


Steps = Generator[Step | None, Sequence[Message] | None, None]


class Phase(StrEnum):
    """What a session is doing."""

    READY = "ready"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    RESTING = "resting"
    STOPPED = "stopped"
    FAILED = "failed"


OVER = (Phase.STOPPED, Phase.FAILED)


def explained(error: Exception) -> str:
    """What to tell the user of an error that has just been caught.

    One that is not about the user's input is logged.
    """
    if isinstance(error, InputError):
        return str(error)
    logger.exception("something failed while a picture was painted")
    return f"{type(error).__name__}: {error}"


class _Stopped(Exception):
    """Raised in the worker when it is to end."""


class Session:
    """A worker thread that drives one generator of steps.

    Methods may be called from any thread and return at once, except `wait` and `close`.

    Args:
        make: called in the worker, begins the generator.
        watcher: called in the worker with the session, after steps and whenever the phase has
            changed.
    """

    def __init__(
        self, make: Callable[[], Steps], watcher: Callable[[Session], None] = lambda session: None
    ):
        self.make, self.watcher = make, watcher
        self.phase, self.step, self.error = Phase.READY, None, ""
        self._shown = 0.0  # when the watcher was last called
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._allowed: float = math.inf  # steps that may be made; 0 while paused
        self._resting, self._stopping = False, False
        self._worker: threading.Thread | None = None

    # --- from outside

    def start(self) -> None:
        """Begin; or, when paused or at rest, go on."""
        self._allow(math.inf)

    def single(self) -> None:
        """Make one step and pause."""
        self._allow(1)

    def pause(self) -> None:
        """Stop after the step that is being made, until `start` or `single`."""
        with self._changed:
            self._allowed = 0

    @property
    def pausing(self) -> bool:
        """Whether a pause is wanted, though its step may still be under way."""
        return self._allowed < math.inf

    def send(self, message: Message) -> None:
        """Give the generator a message with its next step."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def wait(self, seconds: float | None = None) -> Phase:
        """Wait until the session is over or rests, or for so many seconds.

        Return its phase then.
        """
        if self._worker is not None:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.phase in OVER or (self.phase is Phase.RESTING and self._idle),
                    seconds,
                )
            if self.phase in OVER:
                self._worker.join()
        return self.phase

    def close(self, seconds: float | None = 10.0) -> Phase:
        """Stop after the step that is being made, and wait until nothing is left running."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(seconds)
        return self.phase

    def _allow(self, steps: float) -> None:
        """Let so many more steps be made."""
        with self._changed:
            self._allowed = self._allowed + steps if self.pausing else steps
            self._resting = False
            self._changed.notify_all()
            if self._worker is None:
                self.phase = Phase.PREPARING
                self._worker = threading.Thread(
                    target=self._work, name="nstlab session", daemon=True
                )
                self._worker.start()

    # --- the worker

    def _work(self) -> None:
        try:
            with contextlib.closing(self.make()) as steps:
                self._enter(Phase.RUNNING)
                self._take(next(steps))
                while True:
                    self._take(steps.send(self._await()))
        except _Stopped:
            self._enter(Phase.STOPPED)
        except Exception as error:
            self.error = explained(error)
            self._enter(Phase.FAILED)

    def _await(self) -> Sequence[Message]:
        """Wait until there is something to do; return the messages to do it with."""
        while (messages := self._received()) is None:
            self._enter(Phase.RESTING if self._resting and self._allowed else Phase.PAUSED)
        if self.phase is not Phase.RUNNING:
            self._enter(Phase.RUNNING)
        return messages

    def _received(self) -> Sequence[Message] | None:
        """Return all messages, for the next step; it counts unless one of them is urgent.

        If there is nothing to do, wait for something; but return None if the phase does not say so
        yet, since the watcher must not be called under the lock.
        """
        with self._changed:
            if self.phase is not Phase.RUNNING:
                self._changed.wait_for(lambda: not self._idle)
            if self._stopping:
                raise _Stopped
            if self._idle:
                return None
            if not any(message.urgent for message in self._messages):
                self._allowed -= 1
            messages, self._messages = self._messages, []
            return messages

    @property
    def _idle(self) -> bool:
        """Whether there is nothing to do now."""
        if self._stopping or any(message.urgent for message in self._messages):
            return False
        return not self._allowed or (self._resting and not self._messages)

    def _take(self, step: Step | None) -> None:
        """Keep what the generator yielded: a step, or None if it has nothing to do."""
        self._resting = step is None
        if step is not None:
            self.step = step
            if time.monotonic() - self._shown >= 1 / FRAMES:
                self._show()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._show()
        with self._changed:
            self._changed.notify_all()

    def _show(self) -> None:
        """Call the watcher. If that fails, the run goes on."""
        self._shown = time.monotonic()
        try:
            self.watcher(self)
        except Exception:
            logger.exception("the watcher of the session failed")
