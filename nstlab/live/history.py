"""Snapshots of a painting to go back to: a few, spread over all steps painted so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nstlab.recipes.base import RunSettings

LENGTH = 8  # snapshots that are kept
SECOND = 4  # step of a run's second snapshot


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A picture to go back to, with its settings.

    Attributes:
        count: number of its step among those of all runs.
        run: number of its run.
        index: number of its step in that run.
        settings: what it was painted with.
        picture: (1, 3, H, W) in [0, 1], as it was optimized.
        shown: (1, 3, H, W) in [0, 1], as it was shown.
    """

    count: int
    run: int
    index: int
    settings: RunSettings
    picture: Tensor
    shown: Tensor


@dataclass
class History:
    """Up to LENGTH snapshots, oldest first.

    A painting adds those of steps 0, 4, 8, 16, … of each run, and one before each change.
    """

    snapshots: list[Snapshot] = field(default_factory=list)

    @staticmethod
    def is_due(index: int) -> bool:
        """Whether this step of a run is one to keep: step 0, or a power of 2 from SECOND on."""
        return index == 0 or (index >= SECOND and index.bit_count() == 1)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless its step has one already.

        If there are then too many, the one nearest to its neighbours is dropped. The first and the
        last always stay.
        """
        if self.snapshots and self.snapshots[-1].count == snapshot.count:
            return
        snapshots = [*self.snapshots, snapshot]
        if len(snapshots) > LENGTH:
            del snapshots[_most_crowded([snapshot.count for snapshot in snapshots])]
        self.snapshots = snapshots  # replaced, not changed, since other threads read it


def _most_crowded(counts: list[int]) -> int:
    """The index, neither first nor last, whose neighbours are nearest to each other."""
    return min(range(1, len(counts) - 1), key=lambda i: counts[i + 1] - counts[i - 1])
