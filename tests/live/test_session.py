"""Sessions: a run in a thread that is steered from outside. Nothing here waits for a fixed time; events are waited for."""

import itertools
import threading
from dataclasses import dataclass

import pytest

from nstlab import content, minimize, noise, style
from nstlab.live.session import OVER, Frame, Session, State
from nstlab.method.network import VGG19
from nstlab.settings import InputError

LONG = 60.0  # seconds after which a test that hangs is given up


@dataclass(frozen=True)
class Note:
    """A command."""

    text: str
    urgent: bool = False


@pytest.fixture
def run(tiny, photo, painting):
    """Makes the generator of a small transfer's steps, to which nothing but weights can be sent."""
    net = VGG19(tiny, normalize=False, precision="float32")

    def make(steps=10):
        goal = content("conv4_2", photo) + 1e2 * style(("conv1_1", "conv3_1"), painting)
        return minimize(goal, net, noise(photo, 0), steps=steps)

    return make


class Painter:
    """A source of steps that keeps what it was sent, and rests after every `rests`-th one."""

    def __init__(self, run, rests=0):
        self.run, self.rests, self.sent = run, rests, []

    def __call__(self, steps):
        while True:
            inner = self.run(steps)
            for _ in range(self.rests or steps):
                self.sent.append((yield next(inner)))
            if not self.rests:
                return
            self.sent.append((yield None))


class Seen:
    """A watcher that keeps all frames and lets a test wait for one."""

    def __init__(self):
        self.frames, self.changed = [], threading.Condition()

    def __call__(self, frame: Frame) -> None:
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()

    def wait(self, wanted) -> Frame:
        with self.changed:
            assert self.changed.wait_for(lambda: any(wanted(f) for f in self.frames), LONG)
            return next(f for f in self.frames if wanted(f))


@pytest.fixture
def session(run):
    """Makes a session that is closed in the end, and its watcher."""
    made = []

    def make(steps=10_000, source=run, frames=1e9):
        session, seen = Session(lambda: source(steps), frames), Seen()
        session.watch(seen)
        made.append(session)
        return session, seen

    yield make
    for each in made:
        assert each.close(LONG) in (*OVER, State.READY)


def test_a_session_runs_to_its_end(session):
    s, seen = session(10)
    assert s.state is State.READY
    s.start()
    assert s.wait(LONG) is State.FINISHED
    assert [f.step.index for f in seen.frames if f.state is State.RUNNING and f.step] == list(range(11))
    assert seen.frames[-1].state is State.FINISHED
    assert seen.frames[-1].step.index == 10


def test_a_paused_session_makes_no_step_until_it_goes_on(session):
    s, seen = session()
    s.start()
    seen.wait(lambda f: f.step and f.step.index >= 3)
    s.pause()
    at = seen.wait(lambda f: f.state is State.PAUSED).step.index
    assert s.step.index == at
    s.start()
    seen.wait(lambda f: f.step and f.step.index > at)


def test_single_steps_are_made_one_by_one(session):
    s, seen = session()
    s.single()
    first = seen.wait(lambda f: f.state is State.PAUSED)
    for count in range(1, 4):
        s.single()
        seen.wait(lambda f, n=first.step.index + count: f.state is State.PAUSED and f.step.index == n)
    assert s.step.index == first.step.index + 3


def test_a_command_comes_with_the_next_step(session, run):
    painter = Painter(run)
    s, seen = session(source=painter)
    s.start()
    seen.wait(lambda f: f.step and f.step.index >= 2)
    s.send(Note("light"))
    seen.wait(lambda f: [Note("light")] in painter.sent)


def test_twenty_quick_commands_come_at_once(session, run):
    painter = Painter(run)
    s, seen = session(source=painter)
    s.single()
    paused = seen.wait(lambda f: f.state is State.PAUSED).step
    painter.sent.clear()
    notes = [Note(str(i)) for i in range(20)]
    for note in notes:
        s.send(note)
    assert s.step is paused
    s.single()
    seen.wait(lambda f: f.state is State.PAUSED and f.step.index == paused.index + 1)
    assert painter.sent == [notes]


def test_a_stopped_session_keeps_its_last_step_and_closes_the_run(run, session):
    closed = []

    def source(steps):
        try:
            yield from run(steps)
        finally:
            closed.append(True)

    s, seen = session(source=source)
    s.start()
    seen.wait(lambda f: f.step and f.step.index >= 2)
    assert s.close(LONG) is State.STOPPED
    assert closed == [True]
    assert s.step.index >= 2
    assert not any(t.name == "nstlab session" for t in threading.enumerate())


def test_a_paused_session_can_be_stopped(session):
    s, seen = session()
    s.single()
    seen.wait(lambda f: f.state is State.PAUSED)
    assert s.close(LONG) is State.STOPPED


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError("broken"), "RuntimeError: broken"), (InputError("size: 3 is not allowed"), "size: 3 is not")],
)
def test_an_exception_in_the_worker_ends_the_session_and_is_told(run, session, error, says):
    def source(steps):
        yield from itertools.islice(run(steps), 3)
        raise error

    s, seen = session(source=source)
    s.start()
    assert s.wait(LONG) is State.FAILED
    assert s.error.startswith(says)
    assert seen.frames[-1].error == s.error
    assert s.step.index == 2


def test_what_cannot_begin_fails_as_well():
    def make():
        raise InputError("photo.png: no such file")

    s = Session(make)
    s.start()
    assert s.wait(LONG) is State.FAILED
    assert s.error == "photo.png: no such file"
    assert s.frame.step is None


def test_a_watcher_that_fails_does_not_end_the_run(session):
    s, seen = session(5)
    s.watch(lambda frame: 1 / 0)
    s.start()
    assert s.wait(LONG) is State.FINISHED
    assert seen.frames[-1].state is State.FINISHED


def test_frames_are_skipped_rather_than_queued(session):
    s, seen = session(40, frames=1e-9)  # hardly any
    s.start()
    assert s.wait(LONG) is State.FINISHED
    assert len([f for f in seen.frames if f.step]) <= 3  # the first one, perhaps, and the last of the state
    assert seen.frames[-1].step.index == 40


def test_the_rate_counts_evaluations(session):
    s, _ = session(30)
    s.start()
    s.wait(LONG)
    assert s.frame.rate > 0
    assert Session(lambda: None).frame.rate == 0


def test_a_run_that_has_nothing_to_do_rests_until_something_is_commanded(run, session):
    painter = Painter(run, rests=3)
    s, seen = session(source=painter)
    s.start()
    assert s.wait(LONG) is State.RESTING
    assert s.step.index == 2
    assert painter.sent == [None, None, None]
    s.send(Note("light"))
    seen.wait(lambda f: len(painter.sent) >= 7)
    assert s.wait(LONG) is State.RESTING
    assert painter.sent[3] == [Note("light")]
    s.start()
    seen.wait(lambda f: len(painter.sent) >= 11)
    assert s.wait(LONG) is State.RESTING
    s.single()  # one step of the next round
    assert seen.wait(lambda f: f.state is State.PAUSED).step.index == 0


def test_what_is_urgent_does_not_wait_for_the_end_of_a_pause(run, session):
    painter = Painter(run)
    s, seen = session(source=painter)
    s.single()
    first = seen.wait(lambda f: f.state is State.PAUSED).step.index
    painter.sent.clear()
    s.send(Note("water"))
    s.send(Note("fire", urgent=True))
    seen.wait(lambda f: f.state is State.PAUSED and f.step.index == first + 1)
    assert painter.sent == [[Note("water"), Note("fire", urgent=True)]]


def test_waiting_ends_after_so_long(session):
    s, seen = session()
    s.single()
    seen.wait(lambda f: f.state is State.PAUSED)
    assert s.wait(0.01) is State.PAUSED
