"""Audiences: somebody is watching as long as pictures are answered, however long nothing is sent."""

from nstlab.live.audience import ANSWER_WAIT, AWAY, Audience


def test_somebody_is_watching_as_long_as_pictures_are_answered():
    now = 0.0
    audience = Audience(lambda: now)
    audience.sent()  # nobody has ever come: there is nobody to miss
    now += 10 * AWAY
    assert (audience.busy, audience.gone) == (False, False)
    audience.answered()
    now += 10 * AWAY  # silence alone means nothing
    assert (audience.busy, audience.gone) == (False, False)
    audience.sent()
    assert audience.busy
    now += ANSWER_WAIT  # the next picture does not wait for ever
    assert not audience.busy
    audience.sent()
    now += AWAY - ANSWER_WAIT
    assert not audience.gone
    now += 0.1
    assert audience.gone  # since the first picture was not answered
    audience.sent()
    audience.answered()
    assert (audience.busy, audience.gone) == (False, False)
