"""Sessions: a run in a thread that is steered from outside. Nothing here waits for a fixed time; events are waited for."""

import itertools
import threading

import pytest

from nstlab import content, minimize, noise, style
from nstlab.network import VGG19
from nstlab.session import OVER, Frame, Session, State
from nstlab.settings import InputError

LONG = 60.0  # seconds after which a test that hangs is given up


@pytest.fixture
def net(tiny):
    return VGG19(tiny, normalize=False, precision="float32")


@pytest.fixture
def run(net, photo, painting):
    """Makes the generator of a small transfer."""

    def make(steps=10):
        goal = content("conv4_2", photo) + 1e2 * style(("conv1_1", "conv3_1"), painting)
        return minimize(goal, net, noise(photo, 0), steps=steps)

    return make


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
    assert s.result.steps == 10
    assert [f.step.index for f in seen.frames if f.state is State.RUNNING and f.step] == list(range(11))
    assert seen.frames[-1].state is State.FINISHED
    assert seen.frames[-1].step.index == 10


def test_a_paused_session_makes_no_step_until_it_goes_on(session):
    s, seen = session()
    s.start()
    seen.wait(lambda f: f.step and f.step.index >= 3)
    s.pause()
    at = seen.wait(lambda f: f.state is State.PAUSED).step.index
    assert s.step_now.index == at
    s.resume()
    seen.wait(lambda f: f.step and f.step.index > at)


def test_single_steps_are_made_one_by_one(session):
    s, seen = session()
    s.single()
    first = seen.wait(lambda f: f.state is State.PAUSED)
    for count in range(1, 4):
        s.single()
        seen.wait(lambda f, n=first.step.index + count: f.state is State.PAUSED and f.step.index == n)
    assert s.step_now.index == first.step.index + 3


def test_a_change_holds_from_the_next_step_on(session):
    s, seen = session()
    s.start()
    before = seen.wait(lambda f: f.step and f.step.index >= 2)
    assert before.step.weights["style"] == 100
    s.change(style=5.0)
    after = seen.wait(lambda f: f.step and f.step.weights["style"] == 5)
    assert after.step.index > before.step.index


def test_twenty_quick_changes_are_one(session, run):
    sent = []

    def source(steps):
        inner = run(steps)
        wishes = yield next(inner)
        while True:
            sent.append(wishes)
            wishes = yield inner.send(wishes)

    s, seen = session(source=source)
    s.single()
    paused = seen.wait(lambda f: f.state is State.PAUSED).step
    sent.clear()
    for i in range(20):
        s.change(style=float(i + 1), content=2.0)
    assert s.step_now is paused
    s.single()
    after = seen.wait(lambda f: f.state is State.PAUSED and f.step.index == paused.index + 1).step
    assert sent == [{"style": 20.0, "content": 2.0}]
    assert after.evaluations - paused.evaluations <= 4  # one for the new weights, one or a few for the step
    assert after.weights["style"] == 20


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
    assert s.step_now.index >= 2
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
    assert s.step_now.index == 2


def test_a_wrong_weight_fails_with_the_reason(session):
    s, _ = session()
    s.change(stile=1.0)
    s.start()
    assert s.wait(LONG) is State.FAILED
    assert "did you mean 'style'" in s.error


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


def test_events_are_words(session, run, monkeypatch):
    from nstlab import engine

    whole = engine.Evaluator.__call__

    def evaluate(self, x):
        at = whole(self, x)
        if self.count == 5:
            return engine.Evaluation(at.loss * float("nan"), at.grad, at.values)
        return at

    monkeypatch.setattr(engine.Evaluator, "__call__", evaluate)
    s, _ = session(8)
    s.start()
    assert s.wait(LONG) is State.FINISHED
    (event,) = s.frame.events
    assert event.endswith("loss not finite, rolled back")
    assert event.startswith("step ")


class Painter:
    """A source of steps that rests after every third one, and keeps what it was sent."""

    def __init__(self, run):
        self.run, self.sent = run, []

    def __call__(self, steps):
        while True:
            inner = self.run(steps)
            wishes = yield next(inner)
            for _ in range(2):
                self.sent.append(wishes)
                wishes = yield next(inner)
            self.sent.append(wishes)
            wishes = yield None
            self.sent.append(wishes)


def test_a_run_that_has_nothing_to_do_rests_until_something_is_wished(run, session):
    painter = Painter(run)
    s, seen = session(source=painter)
    s.start()
    assert s.wait(LONG) is State.RESTING
    assert s.step_now.index == 2
    assert painter.sent == [None, None, None]
    s.change(light="blue")
    seen.wait(lambda f: len(painter.sent) >= 7)
    assert s.wait(LONG) is State.RESTING
    assert painter.sent[3] == {"light": "blue"}
    s.resume()
    seen.wait(lambda f: len(painter.sent) >= 11)
    assert s.wait(LONG) is State.RESTING
    s.single()  # one step of the next round
    assert seen.wait(lambda f: f.state is State.PAUSED).step.index == 0


def test_what_is_urgent_does_not_wait_for_the_end_of_a_pause(run):
    sent, seen = [], Seen()

    def source():
        inner = run(1000)
        wishes = yield next(inner)
        while True:
            sent.append(wishes)
            wishes = yield next(inner)

    s = Session(source, 1e9, urgent=("fire",))
    s.watch(seen)
    s.single()
    first = seen.wait(lambda f: f.state is State.PAUSED).step.index
    sent.clear()
    s.change(water=1)
    s.change(fire=2)
    seen.wait(lambda f: f.state is State.PAUSED and f.step.index == first + 1)
    assert sent == [{"water": 1, "fire": 2}]
    assert s.close(LONG) is State.STOPPED


def test_waiting_ends_after_so_long(session):
    s, seen = session()
    s.single()
    seen.wait(lambda f: f.state is State.PAUSED)
    assert s.wait(0.01) is State.PAUSED
