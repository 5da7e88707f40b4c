"""Audiences: somebody is watching as long as pictures are answered, however long nothing is sent."""

from nstlab.live.audience import ANSWER_WAIT, AWAY, Audience


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_next_picture_waits_for_an_answer_but_not_for_ever():
    audience = Audience(clock := Clock())
    audience.answered()
    assert not audience.busy
    audience.sent()
    assert audience.busy
    audience.answered()
    assert not audience.busy
    audience.sent()
    clock.now += ANSWER_WAIT
    assert not audience.busy


def test_nobody_is_watching_when_pictures_are_not_answered():
    audience = Audience(clock := Clock())
    audience.answered()
    for _ in range(3):
        audience.sent()
        assert not audience.gone
        clock.now += AWAY / 3
    clock.now += 0.1
    assert audience.gone
    audience.answered()
    assert not audience.gone


def test_silence_alone_means_nothing():
    audience = Audience(clock := Clock())
    audience.sent()  # nobody has ever come: there is nobody to miss
    audience.answered()
    clock.now += 10 * AWAY
    assert not audience.gone
