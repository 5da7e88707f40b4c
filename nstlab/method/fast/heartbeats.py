"""Which ranks of a run are there: heartbeats and messages in the launcher's store.

A process that is stopped, or a machine that is cut off, closes no connection: so each rank counts
its heartbeats in the store, and whoever misses those of another ends the run. However long a rank
computes or writes, its heart beats.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nstlab.base.errors import InputError

BEAT = 5.0  # seconds between two heartbeats of a rank
# Heartbeats, three minutes: a library that writes a large file may hold the interpreter for a
# while.
MISSED = 36
MEETING = 600.0  # seconds within which all ranks have to be there
LINGER = 2.0  # seconds that the first rank waits, at its end, for those that may not answer
WHY = "nstlab why"  # the key of the reason for which a run ends


class RankLost(InputError):
    """Another rank has ended, is stopped, or cannot be reached."""


@dataclass(frozen=True)
class Heartbeats:
    """The heartbeats of the ranks of a run, of which this one is `rank` of `size`.

    Attributes:
        store: torch.distributed's store, in which all ranks read and write.
    """

    rank: int
    size: int
    store: Any

    def wait_for_all(self) -> None:
        """Wait until all ranks are there.

        Raises:
            RankLost: naming the missing ones, after MEETING seconds.
        """
        self.write(f"nstlab here {self.rank}", "yes")
        end = time.monotonic() + MEETING
        while missing := self._without("here", range(self.size)):
            if time.monotonic() > end:
                raise RankLost(
                    f"rank {', '.join(missing)} of {self.size}: not there after {MEETING:.0f} s"
                )
            time.sleep(0.05)

    @contextlib.contextmanager
    def beating(self, disconnect: Callable[[int], None]) -> Iterator[None]:
        """Count heartbeats, and watch those of others, during the block; then say that it ended.

        Args:
            disconnect: called in another thread with a rank that is lost, to end all waiting.
        """
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(ended, disconnect), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self.write(f"nstlab ended {self.rank}", "in order")
            self._linger()

    def outlives_first(self) -> bool:
        """Wait for the first rank to end, as long as its heart beats.

        Returns:
            whether it has ended in order.
        """
        beats = -1
        waited = 0.0
        pause = 0.1
        while waited <= MISSED * BEAT:
            if not self._without("ended", range(1)):
                return True
            before = beats
            beats = self._count(0)
            if beats < 0:
                break
            waited = waited + pause if beats == before else 0.0
            time.sleep(pause)
        return False

    def write(self, key: str, text: str) -> None:
        """Write for all ranks, unless one has written already, or the store is lost."""
        with contextlib.suppress(RuntimeError):
            self.store.compare_set(key, "", text)

    def read(self, key: str) -> str:
        """What was written, "" if nothing was or the store is lost."""
        with contextlib.suppress(RuntimeError):
            if self.store.check([key]):
                return self.store.get(key).decode()
        return ""

    def _without(self, word: str, ranks: range) -> list[str]:
        """Those of the ranks that have not written "here" or "ended"."""
        return [str(rank) for rank in ranks if not self.read(f"nstlab {word} {rank}")]

    def _linger(self) -> None:
        """Let the others see that the first rank, which may keep the store, has ended."""
        end = time.monotonic() + LINGER
        others = range(1, self.size if self.rank == 0 else 1)
        while time.monotonic() < end and self._without("ended", others):
            time.sleep(0.05)

    def _watch(self, ended: threading.Event, disconnect: Callable[[int], None]) -> None:
        """Count heartbeats, and watch those of the ranks that this one waits for.

        Own ones measure the time, so that nobody is missed if all processes were stopped together.
        """
        others = range(1, self.size) if self.rank == 0 else range(1)
        seen = dict.fromkeys(others, 0)
        missed = dict.fromkeys(others, 0)
        while not ended.wait(BEAT) and self._count(self.rank, 1) > 0:
            for rank in others:
                before, seen[rank] = seen[rank], self._count(rank)
                missed[rank] = missed[rank] + 1 if seen[rank] == before else 0
                if missed[rank] > MISSED:
                    reason = f"no heartbeat for {MISSED * BEAT:.0f} s"
                    self.write(WHY, f"rank {rank} is stopped or cut off: {reason}")
                    disconnect(rank)
                    return

    def _count(self, rank: int, more: int = 0) -> int:
        """The number of a rank's heartbeats, after so many more; -1 if the store is lost."""
        with contextlib.suppress(RuntimeError):
            return self.store.add(f"nstlab beats {rank}", more)
        return -1
