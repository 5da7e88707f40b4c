"""Whether anybody is watching a studio's page, judged by its answers to the pictures it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

AWAY = 10.0  # seconds without an answer after which nobody is watching
ANSWER_WAIT = 1.0  # seconds to wait for the answer to a picture before the next one is sent


class Audience:
    """Whoever watches the page.

    Every message from it counts as an answer to all pictures sent so far.

    Args:
        clock: returns the time in seconds.

    Attributes:
        away: whether the painting is paused because nobody is watching.
        waiting: whether somebody waits in the kernel itself, and so need not watch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.away = False
        self.waiting = False
        self._has_answered = False  # whether there has been an answer at all
        self._unanswered: list[float] = []  # when each picture was sent that has not been answered

    def note_answer(self) -> None:
        """Note that a message has come from the page."""
        self._has_answered = True
        self._unanswered.clear()

    def note_picture(self) -> None:
        """Note that a picture was sent to the page, unless nobody has ever answered."""
        if self._has_answered:
            self._unanswered.append(self.clock())

    @property
    def busy(self) -> bool:
        """Whether a picture is still on its way, so that the next one should wait."""
        return bool(self._unanswered) and self.clock() - self._unanswered[-1] < ANSWER_WAIT

    @property
    def gone(self) -> bool:
        """Whether pictures have gone unanswered for so long that nobody can be watching."""
        return bool(self._unanswered) and self.clock() - self._unanswered[0] > AWAY
