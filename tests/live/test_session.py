"""Sessions: a generator in a thread that is steered from outside. Nothing here waits for a fixed time, but for what happens."""

import itertools
import threading
import time
from dataclasses import dataclass

import pytest
from helpers import until

from nstlab.live import session as module
from nstlab.live.session import OVER, Phase, Session
from nstlab.settings import InputError

LONG = 60.0  # seconds after which a test that hangs is given up


@dataclass(frozen=True)
class Note:
    """A message."""

    text: str
    urgent: bool = False


@dataclass(frozen=True, eq=False)
class Numbered:
    """A step."""

    index: int


class Source:
    """Makes steps, keeps what it is sent, and has nothing to do after every `rests`-th step."""

    def __init__(self, rests=10**9):
        self.rests, self.sent, self.closed = rests, [], False

    def __call__(self):
        try:
            for index in itertools.count():
                time.sleep(0.001)  # so that other threads have their turn
                self.sent.append((yield Numbered(index)))
                if (index + 1) % self.rests == 0:
                    self.sent.append((yield None))
        finally:
            self.closed = True


@pytest.fixture
def make(monkeypatch):
    """Makes sessions that are shown after every step, and closed in the end."""
    monkeypatch.setattr(module, "FRAMES", 1e9)
    made = []

    def make(source, watcher=lambda session: None):
        made.append(Session(source, watcher))
        return made[-1]

    yield make
    for each in made:
        assert each.close(LONG) in (*OVER, Phase.READY)


def begun(session):
    """Its first steps: the first picture, and a single step, after which it pauses."""
    session.single()
    until(lambda: session.phase is Phase.PAUSED)
    assert session.step.index == 1


def test_a_session_runs_until_it_rests_and_shows_every_step(make):
    seen = []
    session = make(Source(rests=10), lambda s: seen.append((s.phase, s.step and s.step.index)))
    assert session.phase is Phase.READY
    session.start()
    assert session.wait(LONG) is Phase.RESTING
    running = [(Phase.RUNNING, index) for index in (None, *range(10))]
    until(lambda: seen == [*running, (Phase.RESTING, 9)])


def test_a_rest_ends_with_a_message_a_start_or_a_single_step(make):
    session = make(source := Source(rests=3))
    session.start()
    session.wait(LONG)
    assert source.sent == [[], [], []]
    session.send(Note("light"))
    until(lambda: len(source.sent) == 7)
    assert source.sent[3] == [Note("light")]
    session.wait(LONG)
    session.start()
    until(lambda: len(source.sent) == 11)
    session.wait(LONG)
    session.single()
    until(lambda: session.phase is Phase.PAUSED)
    assert session.step.index == 9


def test_a_paused_session_makes_no_step_until_it_goes_on(make):
    session = make(Source())
    session.start()
    until(lambda: session.step and session.step.index >= 3)
    session.pause()
    assert session.pausing
    until(lambda: session.phase is Phase.PAUSED)
    at = session.step.index
    session.send(Note("water"))
    assert session.wait(0.01) is Phase.PAUSED
    assert session.step.index == at
    session.start()
    until(lambda: session.step.index > at)


def test_single_steps_are_made_one_by_one(make):
    session = make(Source())
    begun(session)
    session.single()
    session.single()
    until(lambda: session.step.index == 3 and session.phase is Phase.PAUSED)


def test_twenty_quick_messages_come_at_once_with_the_next_step(make):
    session = make(source := Source())
    begun(session)
    notes = [Note(str(i)) for i in range(20)]
    for note in notes:
        session.send(note)
    assert session.step.index == 1
    session.single()
    until(lambda: session.step.index == 2 and session.phase is Phase.PAUSED)
    assert source.sent == [[], notes]


def test_what_is_urgent_does_not_wait_for_the_end_of_a_pause(make):
    session = make(source := Source())
    begun(session)
    notes = [Note("water"), Note("fire", urgent=True)]
    for note in notes:
        session.send(note)
    until(lambda: session.step.index == 2 and session.phase is Phase.PAUSED)
    assert source.sent == [[], notes]


@pytest.mark.parametrize("paused", [False, True])
def test_a_closed_session_keeps_its_last_step_and_closes_the_generator(make, paused):
    session = make(source := Source())
    if paused:
        begun(session)
    else:
        session.start()
        until(lambda: session.step)
    assert session.close(LONG) is Phase.STOPPED
    assert source.closed
    assert session.step
    assert not any(thread.name == "nstlab session" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError("broken"), "RuntimeError: broken"), (InputError("size: 3 is not allowed"), "size: 3 is not allowed")],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_an_exception_in_the_worker_ends_the_session_and_is_told(make, error, says, steps):
    def source():
        for index in range(steps):
            yield Numbered(index)
        raise error

    seen = []
    session = make(source, lambda s: seen.append((s.phase, s.error)))
    session.start()
    assert session.wait(LONG) is Phase.FAILED
    assert session.error == says
    assert seen[-1] == (Phase.FAILED, says)
    assert (session.step.index if session.step else -1) == steps - 1


def test_a_watcher_that_fails_does_not_end_the_run(make):
    session = make(Source(rests=5), lambda s: 1 / 0)
    session.start()
    assert session.wait(LONG) is Phase.RESTING


def test_steps_are_skipped_rather_than_queued_but_not_the_last_one(make, monkeypatch):
    monkeypatch.setattr(module, "FRAMES", 1e-9)  # hardly any
    seen = []
    session = make(Source(rests=40), lambda s: seen.append(s.step and s.step.index))
    session.start()
    session.wait(LONG)
    until(lambda: seen == [None, 39])
