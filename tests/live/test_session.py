"""Sessions: a generator in a thread that is steered from outside. Nothing here waits for a fixed
time, but for what happens."""

import itertools
import time
from collections import namedtuple

import pytest
from helpers import until

from nstlab.live import session as module
from nstlab.live.session import Phase, Session

LONG = 60.0  # seconds after which a test that hangs is given up

Note = namedtuple("Note", "text urgent", defaults=[False])  # a message
Numbered = namedtuple("Numbered", "index")  # a step


class Source:
    """Makes steps, keeps what it is sent, and has nothing to do after every `rests`-th step."""

    def __init__(self, rests=10**9):
        self.rests, self.sent = rests, []

    def __call__(self):
        for index in itertools.count():
            time.sleep(0.001)  # so that other threads have their turn
            self.sent.append((yield Numbered(index)))
            if (index + 1) % self.rests == 0:
                self.sent.append((yield None))


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
        assert each.close(LONG) is Phase.STOPPED
        assert each.step  # its last one


def settled(session, phase, index):
    """Wait for a phase after that step."""
    until(lambda: session.phase is phase and session.step and session.step.index == index)


def test_a_session_shows_every_step_until_it_rests_and_goes_on_when_told_to(
    make,
):
    seen = []
    session = make(
        source := Source(rests=3), lambda s: seen.append((s.phase, s.step and s.step.index))
    )
    assert session.phase is Phase.READY
    session.start()
    assert session.wait(LONG) is Phase.RESTING
    until(
        lambda: seen == [*((Phase.RUNNING, index) for index in (None, 0, 1, 2)), (Phase.RESTING, 2)]
    )
    session.send(Note("light"))
    settled(session, Phase.RESTING, 5)
    assert source.sent == [[], [], [], [Note("light")], [], [], []]
    session.start()
    settled(session, Phase.RESTING, 8)
    session.single()
    settled(session, Phase.PAUSED, 9)


def test_a_paused_session_makes_single_steps_and_only_what_is_urgent_does_not_wait_for_one(make):
    session = make(source := Source())
    session.start()
    until(lambda: session.step and session.step.index >= 3)
    session.pause()
    until(lambda: session.phase is Phase.PAUSED)
    at, notes = session.step.index, [Note(str(i)) for i in range(20)]
    for note in notes:
        session.send(note)
    assert session.wait(0.01) is Phase.PAUSED
    assert session.step.index == at
    session.single()
    session.single()
    settled(session, Phase.PAUSED, at + 2)
    session.send(Note("water"))
    session.send(Note("fire", urgent=True))
    settled(session, Phase.PAUSED, at + 3)
    assert source.sent[at:] == [notes, [], [Note("water"), Note("fire", urgent=True)]]
    session.start()
    until(lambda: session.step.index > at + 3)


def test_a_watcher_is_told_the_last_step_rather_than_each_and_may_fail(make, monkeypatch):
    monkeypatch.setattr(module, "FRAMES", 1e-9)  # hardly any
    seen = []

    def watcher(session):
        seen.append(session.step and session.step.index)
        raise ZeroDivisionError

    session = make(Source(rests=40), watcher)
    session.start()
    assert session.wait(LONG) is Phase.RESTING
    until(lambda: seen == [None, 39])
