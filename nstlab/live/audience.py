"""Whether anybody is watching a studio's page, judged by how it answers the pictures that it is
sent."""

from __future__ import annotations

import time
from collections.abc import Callable

AWAY = 10.0  # seconds without an answer after which nobody is watching
ANSWER_WAIT = 1.0  # seconds to wait for the answer to a picture before the next one is sent


class Audience:
    """Whoever watches the page.

    Every message from it counts as an answer to the pictures sent so far.

    Args:
        away: whether the painting is paused because nobody is watching.
        waiting: whether somebody waits in the kernel itself, and so need not watch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.away, self.waiting = False, False
        self._came = False  # whether there has been an answer at all
        self._unanswered: list[float] = []  # when each picture was sent that has not been answered

    def answered(self) -> None:
        """Note that a message has come from the page."""
        self._came = True
        self._unanswered.clear()

    def sent(self) -> None:
        """Note that a picture is on its way to the page.

        Before the first answer there is nobody to miss.
        """
        if self._came:
            self._unanswered.append(self.clock())

    @property
    def busy(self) -> bool:
        """Whether a picture is still on its way, so that the next one should wait."""
        return bool(self._unanswered) and self.clock() - self._unanswered[-1] < ANSWER_WAIT

    @property
    def gone(self) -> bool:
        """Whether pictures have gone unanswered for so long that nobody can be watching."""
        return bool(self._unanswered) and self.clock() - self._unanswered[0] > AWAY
