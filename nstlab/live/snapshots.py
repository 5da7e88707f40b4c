"""Snapshots of a painting to go back to: a few, spread over all that has been painted."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nstlab.recipes.base import RunSettings

LENGTH = 8  # snapshots that are kept
SECOND = 4  # step of a run's second snapshot


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A picture to go back to, (1, 3, H, W) in [0, 1], as it was optimized and as it was shown,
    with its settings.

    Attributes:
        count: the number of its step among those of all runs.
        run, index: the number of its run, and of the step in that run.
    """

    count: int
    run: int
    index: int
    settings: RunSettings
    picture: Tensor
    shown: Tensor


@dataclass
class Snapshots:
    """Up to LENGTH snapshots: of steps 0, 4, 8, 16, … of each run, and before each change."""

    frames: list[Snapshot] = field(default_factory=list)

    @staticmethod
    def wants(index: int) -> bool:
        """Whether this step of a run is one to keep: step 0, or a power of 2 from SECOND on."""
        return index == 0 or (index >= SECOND and index.bit_count() == 1)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless its step has one already.

        If there are then too many, the one nearest to its neighbours goes; the first and the last
        always stay."""
        if self.frames and self.frames[-1].count == snapshot.count:
            return
        frames = [*self.frames, snapshot]
        if len(frames) > LENGTH:
            del frames[
                min(range(1, LENGTH), key=lambda i: frames[i + 1].count - frames[i - 1].count)
            ]
        self.frames = frames  # replaced whole, since other threads read it
