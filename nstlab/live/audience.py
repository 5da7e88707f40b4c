"""Whether somebody looks at a studio's page, told from how it answers the pictures that it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

AWAY = 10.0  # seconds after which nobody looks, if no picture is answered
PATIENCE = 1.0  # seconds to wait for the answer to a picture before the next one is sent


class Audience:
    """Who looks. Every message of the page counts as an answer to what it was sent.

    came: whether anybody has ever looked. away: whether the painting is paused because nobody does.
    waits: whether somebody waits in the kernel itself, who need not look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.came, self.away, self.waits = False, False, False
        self._sent: float | None = None  # when the last picture was sent, if it has not been answered
        self._owed: float | None = None  # when the first picture was that has not been answered

    def answered(self) -> None:
        """A message has come from the page."""
        self.came, self._sent, self._owed = True, None, None

    def sent(self) -> None:
        """A picture is on its way to the page."""
        if self.came:
            self._sent = self.clock()
            self._owed = self._sent if self._owed is None else self._owed

    @property
    def busy(self) -> bool:
        """Whether a picture is still on its way, so that the next one had better wait."""
        return self._sent is not None and self.clock() - self._sent < PATIENCE

    @property
    def gone(self) -> bool:
        """Whether no picture has been answered for so long that nobody can be looking."""
        return self._owed is not None and self.clock() - self._owed > AWAY
