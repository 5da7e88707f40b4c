"""A generator of steps, driven in a thread: start, pause, resume, make single steps, stop, and send it commands.

    session = Session(painting.steps)
    session.watch(show)              # called with each Frame, at most so many times a second
    session.start()
    session.send(Change(settings))   # returns at once; the next step is made with it
    session.wait()                   # for headless use

One worker thread drives the generator; everything else only says what is to happen next, under one lock. The worker takes all
commands that have come by the time it begins a step. Of frames the newest wins; those that nobody had time to see are skipped.
An exception in the worker ends the session, and is kept in `error`.

A generator that yields None has nothing to do until a command comes, or `start` is called again: the session then rests.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from nstlab.method.engine import Step
from nstlab.settings import InputError

log = logging.getLogger("nstlab")

FRAMES = 5.0  # a second, at most
WINDOW = 20  # steps over which the rate is taken


class Command(Protocol):
    """What can be sent to a generator of steps. An urgent command is obeyed even while the session is paused."""

    urgent: bool


Steps = Generator[Step | None, Sequence[Command] | None, None]


class State(StrEnum):
    """What a session is doing."""

    READY = "ready"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    RESTING = "resting"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


OVER = (State.FINISHED, State.STOPPED, State.FAILED)


@dataclass(frozen=True, eq=False)
class Frame:
    """What viewers are shown: the state, the last step, evaluations a second of late, and why the session failed."""

    state: State
    step: Step | None
    rate: float
    error: str = ""


class Rate:
    """Evaluations a second over the last steps."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def note(self, step: Step) -> None:
        """A step has been made just now."""
        if self.points and step.evaluations < self.points[-1][1]:  # those of another run
            self.points.clear()
        self.points.append((time.monotonic(), step.evaluations))

    @property
    def value(self) -> float:
        """0 before there are two steps."""
        if len(self.points) < 2 or self.points[-1][0] <= self.points[0][0]:
            return 0.0
        (began, first), (ended, last) = self.points[0], self.points[-1]
        return (last - first) / (ended - began)


class _Stopped(Exception):
    """Raised in the worker where it is to end."""


class Session:
    """Drives one generator. `make`, called in the worker, begins it. frames: a second, at most.

    Methods may be called from any thread and return at once, but for `wait` and `close`."""

    def __init__(self, make: Callable[[], Steps], frames: float = FRAMES):
        self.make, self.interval = make, 1 / frames
        self.state, self.step, self.error = State.READY, None, ""
        self._rate, self._watchers, self._shown = Rate(), [], 0.0
        self._turn = threading.Condition()
        self._commands: list[Command] = []
        self._allowed: float = math.inf  # steps that may be made; 0 while paused
        self._resting, self._stopping = False, False
        self._worker: threading.Thread | None = None

    # --- from outside

    def watch(self, watcher: Callable[[Frame], None]) -> None:
        """Have it called, in the worker, with new frames, and with the last one of each state."""
        self._watchers.append(watcher)

    def start(self) -> None:
        """Begin; or, when paused or at rest, go on."""
        self._allow(math.inf)

    def pause(self) -> None:
        """Stop after the step that is being made, until `start` or `single`."""
        with self._turn:
            self._allowed = 0

    def single(self) -> None:
        """Make one step and pause."""
        self._allow(1 if self._allowed == math.inf else self._allowed + 1)

    def send(self, command: Command) -> None:
        """Let the generator have a command, with its next step."""
        with self._turn:
            self._commands.append(command)
            self._turn.notify_all()

    def stop(self) -> None:
        """End after the step that is being made."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()

    def wait(self, seconds: float | None = None) -> State:
        """Wait until the session is over or rests, or so long; how it stands then."""
        if self._worker is not None:
            with self._turn:
                self._turn.wait_for(lambda: self.state in OVER or (self.state is State.RESTING and self._idle), seconds)
            if self.state in OVER:
                self._worker.join()
        return self.state

    def close(self, seconds: float | None = 10.0) -> State:
        """Stop and wait: nothing is left running."""
        self.stop()
        if self._worker is not None:
            self._worker.join(seconds)
        return self.state

    @property
    def pausing(self) -> bool:
        """Whether a pause is wanted, though its step may still be made."""
        return self._allowed < math.inf

    @property
    def frame(self) -> Frame:
        """What a viewer would be shown now."""
        return Frame(self.state, self.step, self._rate.value, self.error)

    def _allow(self, steps: float) -> None:
        with self._turn:
            self._allowed, self._resting = steps, False
            self._turn.notify_all()
            if self._worker is None:
                self.state = State.PREPARING
                self._worker = threading.Thread(target=self._work, name="nstlab session", daemon=True)
                self._worker.start()

    # --- the worker

    def _work(self) -> None:
        steps: Steps | None = None
        try:
            steps = self.make()
            self._set(State.RUNNING)
            self._take(next(steps))
            while True:
                self._take(steps.send(self._await() or None))
        except StopIteration:
            self._set(State.FINISHED)
        except _Stopped:
            self._set(State.STOPPED)
        except Exception as error:
            self.error = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, InputError):
                log.exception("the session failed")
            self._set(State.FAILED)
        finally:
            if steps is not None:
                steps.close()

    def _await(self) -> Sequence[Command]:
        """Wait until there is something to do; the commands to do it with."""
        while True:
            waiting = State.RESTING if self._resting and self._allowed else State.PAUSED
            with self._turn:
                while self._idle and self.state is waiting:
                    self._turn.wait()
                if self._stopping:
                    raise _Stopped
                if not self._idle:
                    commands = self._taken()
                    break
            self._set(waiting)  # outside the lock: a slow watcher holds nobody up
        if self.state is not State.RUNNING:
            self._set(State.RUNNING)
        return commands

    def _taken(self) -> Sequence[Command]:
        """All commands. What is urgent costs none of the steps that may be made."""
        if not any(command.urgent for command in self._commands):
            self._allowed -= 1
        commands, self._commands = self._commands, []
        return commands

    @property
    def _idle(self) -> bool:
        """Whether nothing is to be done now."""
        if self._stopping or any(command.urgent for command in self._commands):
            return False
        return not self._allowed or (self._resting and not self._commands)

    def _take(self, step: Step | None) -> None:
        self._resting = step is None
        if step is None or step is self.step:
            return
        self.step = step
        self._rate.note(step)
        if time.monotonic() - self._shown >= self.interval:
            self._show()

    def _set(self, state: State) -> None:
        self.state = state
        self._show()
        with self._turn:
            self._turn.notify_all()

    def _show(self) -> None:
        """Tell the watchers. One that fails must not end the run."""
        self._shown = time.monotonic()
        for watcher in self._watchers:
            try:
                watcher(self.frame)
            except Exception:
                log.exception("a watcher of the session failed")
