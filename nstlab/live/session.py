"""A generator of steps, driven in a thread: start it, pause it, stop it, send it messages.

    session = Session(painting.steps, show)   # show(session) is called at most five times a second
    session.start()
    session.send(Change(settings))            # returns at once; the next step is made with it
    session.wait()                            # where there is no browser

One worker thread drives the generator. All other threads only say what is to happen next, under one
lock. The worker takes all messages sent before it begins a step. The watcher is not shown each
step, but always the last one before a pause or a rest.

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

from nstlab.base.errors import InputError
from nstlab.method.steps import Step

logger = logging.getLogger("nstlab")

FRAMES = 5.0  # times a second that the watcher is called, at most


class Message(Protocol):
    """What can be sent to the generator.

    An urgent message is delivered even while the session is paused.
    """

    urgent: bool


Steps = Generator[Step | None, Sequence[Message] | None, None]
Watcher = Callable[["Session"], None]


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


def explain(error: Exception) -> str:
    """Say to the user what went wrong; log the error if it is not about the user's input."""
    if isinstance(error, InputError):
        return str(error)
    logger.exception("something failed while a picture was painted")
    return f"{type(error).__name__}: {error}"


class _Stopped(Exception):
    """Raised in the worker when it is to end."""


class _Gate:
    """Whether the next step may be made, and with which messages.

    `changed` is the session's only lock; whoever waits is notified of every change.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.resting = False  # whether the generator has nothing to do
        self.allowed = math.inf  # steps that may be made; 0 while paused
        self._messages: list[Message] = []
        self._stopping = False

    def allow(self, steps: float) -> None:
        """Let this many more steps be made."""
        with self.changed:
            self.allowed = self.allowed + steps if self.allowed < math.inf else steps
            self.resting = False
            self.changed.notify_all()

    def pause(self) -> None:
        """Allow no more steps."""
        with self.changed:
            self.allowed = 0

    def send(self, message: Message) -> None:
        """Keep a message for the next step."""
        with self.changed:
            self._messages.append(message)
            self.changed.notify_all()

    def stop(self) -> None:
        """Let the worker end."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do now."""
        if self._stopping or any(message.urgent for message in self._messages):
            return False
        return not self.allowed or (self.resting and not self._messages)

    def take(self, wait: bool) -> Sequence[Message] | None:
        """Take all messages, for the next step; it counts unless one of them is urgent.

        Args:
            wait: whether to wait while there is nothing to do; else that returns None.

        Raises:
            _Stopped: if the worker is to end.
        """
        with self.changed:
            if wait:
                self.changed.wait_for(lambda: not self.idle)
            if self._stopping:
                raise _Stopped
            if self.idle:
                return None
            if not any(message.urgent for message in self._messages):
                self.allowed -= 1
            messages = self._messages
            self._messages = []
            return messages


class Session:
    """A worker thread that drives one generator of steps.

    Its methods may be called from any thread and return at once, except `wait` and `close`.

    Args:
        make_steps: called in the worker, makes the generator.
        watcher: called in the worker with the session, after steps and at each change of phase.

    Attributes:
        phase: what the session is doing.
        step: the last step; None before the first.
        error: why the session failed; "" unless it has.
    """

    def __init__(self, make_steps: Callable[[], Steps], watcher: Watcher = lambda session: None):
        self.make_steps = make_steps
        self.watcher = watcher
        self.phase = Phase.READY
        self.step: Step | None = None
        self.error = ""
        self._gate = _Gate()
        self._shown_at = 0.0  # when the watcher was last called
        self._worker = threading.Thread(target=self._work, name="nstlab session", daemon=True)

    # --- from outside

    def start(self) -> None:
        """Begin; or, when paused or at rest, go on."""
        self._allow(math.inf)

    def single(self) -> None:
        """Make one step and pause."""
        self._allow(1)

    def pause(self) -> None:
        """Stop after the step that is being made, until `start` or `single`."""
        self._gate.pause()

    @property
    def pausing(self) -> bool:
        """Whether a pause is wanted, though its step may still be under way."""
        return self._gate.allowed < math.inf

    def send(self, message: Message) -> None:
        """Give the generator a message with its next step."""
        self._gate.send(message)

    def wait(self, seconds: float | None = None) -> Phase:
        """Wait until the session is over or rests, or for so many seconds; return its phase."""
        if self.phase is not Phase.READY:
            with self._gate.changed:
                self._gate.changed.wait_for(self._has_finished, seconds)
            if self.phase in OVER:
                self._worker.join()
        return self.phase

    def close(self, seconds: float | None = 10.0) -> Phase:
        """Stop after the step that is being made, wait for the worker, and return the phase."""
        self._gate.stop()
        if self.phase is not Phase.READY:
            self._worker.join(seconds)
        return self.phase

    def _has_finished(self) -> bool:
        """Whether the session is over, or rests with nothing left to do."""
        return self.phase in OVER or (self.phase is Phase.RESTING and self._gate.idle)

    def _allow(self, steps: float) -> None:
        """Let this many more steps be made; start the worker before the first."""
        with self._gate.changed:
            self._gate.allow(steps)
            if self.phase is Phase.READY:
                self.phase = Phase.PREPARING
                self._worker.start()

    # --- the worker

    def _work(self) -> None:
        try:
            with contextlib.closing(self.make_steps()) as steps:
                self._enter(Phase.RUNNING)
                self._keep(next(steps))
                while True:
                    self._keep(steps.send(self._await_work()))
        except _Stopped:
            self._enter(Phase.STOPPED)
        except Exception as error:
            self.error = explain(error)
            self._enter(Phase.FAILED)

    def _await_work(self) -> Sequence[Message]:
        """Wait until there is something to do; return the messages to do it with."""
        # The phase changes before the wait, since the watcher must not be called under the lock.
        while (messages := self._gate.take(wait=self.phase is not Phase.RUNNING)) is None:
            resting = self._gate.resting and self._gate.allowed
            self._enter(Phase.RESTING if resting else Phase.PAUSED)
        if self.phase is not Phase.RUNNING:
            self._enter(Phase.RUNNING)
        return messages

    def _keep(self, step: Step | None) -> None:
        """Keep what the generator yielded: a step, or None if it has nothing to do."""
        self._gate.resting = step is None
        if step is not None:
            self.step = step
            if time.monotonic() - self._shown_at >= 1 / FRAMES:
                self._show()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._show()
        with self._gate.changed:
            self._gate.changed.notify_all()

    def _show(self) -> None:
        """Call the watcher. If that fails, the run goes on."""
        self._shown_at = time.monotonic()
        try:
            self.watcher(self)
        except Exception:
            logger.exception("the watcher of the session failed")
