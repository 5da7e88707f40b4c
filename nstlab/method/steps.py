"""What a run reports: its schedule of sizes, each step, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from torch import Tensor

from nstlab.base.names import FULL
from nstlab.base.settings import MIN_SIDE, InputError
from nstlab.method.checkpoint import MEMORY, Checkpoint
from nstlab.method.fast.graphs import to_host
from nstlab.method.optimizers import State


class Status(StrEnum):
    """Why a run is where it is."""

    RUNNING = "running"
    LEFT = "left before its end"
    FINISHED = "all steps done"
    REACHED = "loss threshold reached"
    CONVERGED = "loss no longer changes"
    STALLED = "no step lowers the loss"


# What is done to pictures that are shown or kept; the loss is that of unfinished ones.
Finish = Callable[[Tensor], Tensor]


def unfinished(picture: Tensor) -> Tensor:
    """The picture as it is."""
    return picture


@dataclass(frozen=True)
class Level:
    """One size (H, W) of the schedule, and the number of steps at it."""

    shape: tuple[int, int]
    steps: int


def pyramid(
    shape: Sequence[int],
    steps: int,
    levels: int = 1,
    too_small: Callable[[Sequence[int]], object] | None = None,
) -> tuple[Level, ...]:
    """A schedule from coarse to fine: at most `levels` sizes, each twice the one before, with
    `steps` at the last one, which is `shape` (H, W) itself, and half as many at each of the others.
    Sizes with a side below 2 · MIN_SIDE are left out, and those that are `too_small`.

    If there are coarser sizes, a size of more than FULL pixels has fewer steps, in proportion: what
    the coarser ones have painted is there already, and only details are new."""
    if levels < 1:
        raise InputError(f"levels: {levels} is not allowed; allowed is 1 or more")
    height, width = shape
    factors = [
        2**k
        for k in reversed(range(levels))
        if k == 0 or min(height, width) // 2**k >= 2 * MIN_SIDE
    ]
    sizes = [(height // f, width // f, steps if f == 1 else steps // 2) for f in factors]
    while len(sizes) > 1 and too_small is not None and too_small(sizes[0][:2]):
        sizes.pop(0)
    return tuple(
        Level((h, w), round(count * min(1.0, FULL / max(h, w))) if len(sizes) > 1 else count)
        for h, w, count in sizes
    )


@dataclass(frozen=True, eq=False)
class Best:
    """The picture with the lowest loss at the present size and weights.

    Raises:
        FloatingPointError: if the loss is not finite.
    """

    loss: float
    x: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if not math.isfinite(self.loss):
            raise FloatingPointError("the loss of the best picture so far is not finite")


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """The state of a run after a step.

    Pictures are (1, 3, H, W) sRGB in [0, 1], at this step's size.

    Attributes:
        index: number of steps done; 0 is the first picture.
        loss: the weighted total.
        evaluations: of loss and gradient, since the start.
        seconds: since the start.
        level: index of the size in the schedule.
        event: what the optimizer's guard did in this step, or "".
        events: all of them so far.
        status: whether the run goes on, or why it has ended.
        weights: of the terms, by name, as in `Objective.weights`.
    """

    index: int
    loss: float
    evaluations: int
    seconds: float
    level: int
    event: str
    events: tuple[str, ...]
    status: Status
    weights: dict[str, float]
    _scale: float  # by which the optimizer's loss is smaller than the total
    _names: tuple[str, ...]
    _state: State
    _best: Best
    _recent: tuple[float, ...]  # losses, for the criterion that stops a run
    _optimizer: str
    _in_float32: bool  # whether 16 bits have given way to float32
    _finish: Finish

    @cached_property
    def terms(self) -> dict[str, float]:
        """Each term's unweighted value, by name; copied from the device when first asked for."""
        return dict(zip(self._names, self._state.at.values.tolist(), strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        height, width = self._state.x.shape[-2:]
        return height, width

    def snapshot(self) -> Tensor:
        """The picture of this step, a detached copy, finished and clipped to [0, 1]."""
        return self._finish(self.unfinished())

    def unfinished(self) -> Tensor:
        """The picture of this step as it is optimized, from which another run may go on: a detached
        copy, clipped to [0, 1]."""
        return _shown(self._state.x)

    def preview(self) -> Callable[[], Tensor]:
        """Begin to copy the picture of this step to the host, without waiting.

        Calling what is returned gives the copy.
        """
        return to_host(self.snapshot())

    def best(self) -> Tensor:
        """The picture with the lowest loss at this size so far, a detached copy, finished and
        clipped to [0, 1]."""
        return self._finish(_shown(self._best.x))

    def light(self) -> Step:
        """A copy to keep, without the optimizer's memory; it cannot make a checkpoint."""
        return replace(self, _state=replace(self._state, tensors={}))

    def result(self) -> Result:
        """The result if the run ended here."""
        terms = dict(zip(self._names, self._best.values.tolist(), strict=True))
        status = Status.LEFT if self.status is Status.RUNNING else self.status
        return Result(
            self.best(),
            self._best.loss * self._scale,
            terms,
            status,
            self.index,
            self.evaluations,
            self.seconds,
            self.events,
        )

    def checkpoint(self) -> Checkpoint:
        """All that is needed to resume from here.

        To be called before the step after the next one begins.
        """
        state, best = self._state, self._best
        tensors = {
            "x": state.x,
            "grad": state.at.grad,
            "values": state.at.values,
            "loss": state.at.loss,
        }
        tensors |= {"best_x": best.x} if best.x is not state.x else {}
        tensors |= {"best_values": best.values}
        tensors |= {f"{MEMORY}{name}": tensor for name, tensor in state.tensors.items()}
        data = {
            name: getattr(self, name)
            for name in ("index", "evaluations", "seconds", "level", "weights")
        }
        data |= {
            "loss": state.loss,
            "best_loss": best.loss,
            "numbers": state.numbers,
            "stalled": state.stalled,
        }
        data |= {
            "events": list(self.events),
            "recent": list(self._recent),
            "optimizer": self._optimizer,
            "fine": self._in_float32,
        }
        return Checkpoint({name: _kept(t) for name, t in tensors.items()}, data)


def _shown(picture: Tensor) -> Tensor:
    """A detached copy, clipped to [0, 1]."""
    return picture.detach().clamp(0, 1)


def _kept(tensor: Tensor) -> Tensor:
    """A copy on the CPU."""
    return tensor.detach().cpu().contiguous().clone()


@dataclass(frozen=True, eq=False)
class Result:
    """The best picture of the last size, (1, 3, H, W) sRGB in [0, 1], and how it came."""

    image: Tensor
    loss: float
    terms: dict[str, float]
    status: Status
    steps: int
    evaluations: int
    seconds: float
    events: tuple[str, ...]
