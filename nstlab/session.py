"""A run that can be steered while it goes on: start, pause, resume, step, stop, and change weights.

    session = Session(plan.steps)
    session.watch(show)              # called with each Frame, at most so many times a second
    session.start()
    session.change(style=300.0)      # returns at once; the next step is made with it
    session.wait()                   # for headless use

One worker thread drives a generator of steps; everything else only sets what it is to do next, under one lock. Changes that
come quickly are put together: the worker takes what has been wished by the time it begins a step, and sends it to the
generator. Of frames the newest wins; those that nobody had time to see are skipped. An exception in the worker ends the
session, and is kept in `error`.

A generator that yields None has nothing to do until something is wished, or `resume` is called: the session then rests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nstlab.engine import Step
from nstlab.settings import InputError

log = logging.getLogger("nstlab")

FRAMES = 5.0  # a second, at most
WINDOW = 20  # steps over which the rate is taken
Steps = Generator[Step | None, Mapping[str, Any] | None, Any]


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
    """What viewers are shown. rate: evaluations a second of late. events: all so far, as words."""

    state: State
    step: Step | None
    rate: float
    events: tuple[str, ...]
    error: str = ""


class _Stopped(Exception):
    """Raised in the worker where it is to end."""


class Session:
    """Drives one run. `make`, called in the worker, begins it and returns the generator of its steps.

    frames: a second, at most. urgent: wishes that are granted even while the session is paused.
    Methods may be called from any thread and return at once, but for `wait` and `close`."""

    def __init__(self, make: Callable[[], Steps], frames: float = FRAMES, urgent: Collection[str] = ()):
        self.make, self.interval, self.urgent = make, 1 / frames, frozenset(urgent)
        self.state, self.error, self.result = State.READY, "", None
        self.step_now: Step | None = None
        self._events: list[str] = []
        self._times: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._watchers: list[Callable[[Frame], None]] = []
        self._turn = threading.Condition()
        self._wishes: dict[str, Any] = {}
        self._singles, self._paused, self._stopping = 0, False, False
        self._resting, self._roused = False, False
        self._shown = 0.0
        self._worker: threading.Thread | None = None

    # --- from outside

    def watch(self, watcher: Callable[[Frame], None]) -> None:
        """Have it called, in the worker, with new frames, and with the last one of each state."""
        self._watchers.append(watcher)

    def start(self) -> None:
        """Begin; or, when paused or at rest, go on."""
        with self._turn:
            self._paused, self._roused = False, True
            self._turn.notify_all()
            if self._worker is None:
                self.state = State.PREPARING
                self._worker = threading.Thread(target=self._work, name="nstlab session", daemon=True)
                self._worker.start()

    resume = start

    def pause(self) -> None:
        """Stop after the step that is being made, until `resume` or `single`."""
        with self._turn:
            self._paused = True

    def single(self) -> None:
        """Make one step and pause."""
        if self._worker is None:
            self.start()
        with self._turn:
            self._paused, self._singles = True, self._singles + 1
            self._turn.notify_all()

    def change(self, **wishes: Any) -> None:
        """Send the generator something by name: for the engine, weights of its objective. The newest wish for each name
        holds from the next step on."""
        with self._turn:
            self._wishes |= wishes
            self._turn.notify_all()

    def stop(self) -> None:
        """End after the step that is being made."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()

    def wait(self, seconds: float | None = None) -> State:
        """Until the session is over or rests, or so long; how it stands then."""
        if self._worker is not None:
            with self._turn:
                self._turn.wait_for(lambda: self.state in OVER or (self.state is State.RESTING and self._idle()), seconds)
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
        return self._paused

    @property
    def frame(self) -> Frame:
        """What a viewer would be shown now."""
        return Frame(self.state, self.step_now, self._rate(), tuple(self._events), self.error)

    # --- the worker

    def _work(self) -> None:
        steps: Steps | None = None
        try:
            steps = self.make()
            self._set(State.RUNNING)
            self._take(next(steps))
            while True:
                self._take(steps.send(self._wished()))
        except StopIteration as end:
            self.result = end.value
            self._set(State.FINISHED)
        except _Stopped:
            self._set(State.STOPPED)
        except InputError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("the session failed")
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            if steps is not None:
                steps.close()

    def _wished(self) -> dict[str, Any] | None:
        """Wait for this worker's turn to make a step; the wishes to make it with."""
        while (taken := self._taken()) is None:
            self._set(State.PAUSED if self._paused else State.RESTING)  # outside the lock: a slow watcher holds nobody up
        if self.state is not State.RUNNING:
            self._times.clear()
            self._set(State.RUNNING)
        return taken or None

    def _taken(self) -> dict[str, Any] | None:
        """The wishes, as soon as there is something to do; None if the state does not yet tell that there is nothing."""
        with self._turn:
            while self._idle():
                if self.state is not (State.PAUSED if self._paused else State.RESTING):
                    return None
                self._turn.wait()
            if self._stopping:
                raise _Stopped
            if not self._pressing():
                self._singles = max(0, self._singles - 1)
            self._roused = False
            wishes, self._wishes = self._wishes, {}
            return wishes

    def _pressing(self) -> bool:
        """Whether something is wished that cannot wait for the end of a pause."""
        return not self.urgent.isdisjoint(self._wishes)

    def _idle(self) -> bool:
        """Whether nothing is to be done now."""
        if self._stopping or self._pressing() or self._singles:
            return False
        return self._paused or (self._resting and not self._wishes and not self._roused)

    def _take(self, step: Step | None) -> None:
        self._resting = step is None
        if step is None or step is self.step_now:
            return
        self.step_now = step
        self._times.append((time.monotonic(), step.evaluations))
        if step.event:
            self._events.append(f"step {step.index}: {step.event}")
        if time.monotonic() - self._shown >= self.interval:
            self._show()

    def _set(self, state: State) -> None:
        self.state = state
        self._show()
        with self._turn:
            self._turn.notify_all()

    def _fail(self, message: str) -> None:
        self.error = message
        self._set(State.FAILED)

    def _show(self) -> None:
        """Tell the watchers. One that fails must not end the run."""
        self._shown = time.monotonic()
        for watcher in self._watchers:
            try:
                watcher(self.frame)
            except Exception:
                log.exception("a watcher of the session failed")

    def _rate(self) -> float:
        """Evaluations a second over the last steps; 0 before there are two."""
        times = list(self._times)
        if len(times) < 2 or times[-1][0] <= times[0][0]:
            return 0.0
        return (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])
