"""What a run reports: its schedule of sizes, each step, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.base.names import FULL
from nstlab.base.settings import MIN_SIDE
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


def identity(picture: Tensor) -> Tensor:
    """The picture as it is: the `Finish` that changes nothing."""
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
    """A schedule of sizes from coarse to fine, each twice the one before.

    The last size is `shape`, with `steps`; each of the others has half as many. If there are
    others, a size of more than FULL pixels has fewer steps, in proportion: what the coarser ones
    have painted is there already, and only details are new.

    Args:
        shape: (H, W) of the result.
        steps: at the last size.
        levels: how many sizes at most. Those with a side below 2 · MIN_SIDE are left out.
        too_small: (H, W) -> whether a size is left out, too, unless it is the last one.

    Raises:
        InputError: if `levels` is less than 1.
    """
    if levels < 1:
        raise InputError(f"levels: {levels} is not allowed; allowed is 1 or more")
    height, width = shape
    sizes = [(height, width)]
    for k in range(1, levels):
        if min(height, width) // 2**k < 2 * MIN_SIDE:
            break
        sizes.insert(0, (height // 2**k, width // 2**k))
    while len(sizes) > 1 and too_small is not None and too_small(sizes[0]):
        sizes.pop(0)
    if len(sizes) == 1:
        return (Level(sizes[0], steps),)
    counts = [steps // 2] * (len(sizes) - 1) + [steps]
    return tuple(
        Level(size, round(count * min(1.0, FULL / max(size))))
        for size, count in zip(sizes, counts, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Best:
    """The picture with the lowest loss at the present size and weights.

    Attributes:
        loss: over the scale, as the optimizer sees it.
        x: the picture, (1, 3, H, W).
        values: of the terms, unweighted.

    Raises:
        FloatingPointError: if the loss is not finite.
    """

    loss: float
    x: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if not math.isfinite(self.loss):
            raise FloatingPointError("the loss of the best picture so far is not finite")

    @classmethod
    def of(cls, state: State) -> Best:
        """The state's picture."""
        return cls(state.loss, state.x, state.evaluation.values)


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
    _recent_losses: tuple[float, ...]  # losses, for the criterion that stops a run
    _optimizer: str
    _in_float32: bool  # whether 16 bits have given way to float32
    _finish: Finish

    @cached_property
    def terms(self) -> dict[str, float]:
        """Each term's unweighted value, by name; copied from the device when first asked for."""
        return dict(zip(self._names, self._state.evaluation.values.tolist(), strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        height, width = self._state.x.shape[-2:]
        return height, width

    def snapshot(self) -> Tensor:
        """The picture of this step, a detached copy, finished and clipped to [0, 1]."""
        return self._finish(self.unfinished())

    def unfinished(self) -> Tensor:
        """The picture of this step as it is optimized, a detached copy, clipped to [0, 1].

        Another run may go on from it.
        """
        return _clipped_copy(self._state.x)

    def preview(self) -> Callable[[], Tensor]:
        """Begin to copy the picture of this step to the host, without waiting.

        Returns:
            A function that waits for the copy and gives it.
        """
        return to_host(self.snapshot())

    def best(self) -> Tensor:
        """The picture with the lowest loss at this size so far, as `snapshot` gives it."""
        return self._finish(_clipped_copy(self._best.x))

    def light(self) -> Step:
        """A copy to keep, without the optimizer's memory; it cannot make a checkpoint."""
        return replace(self, _state=replace(self._state, tensors={}))

    def result(self) -> Result:
        """The result if the run ended here."""
        return Result(
            image=self.best(),
            loss=self._best.loss * self._scale,
            terms=dict(zip(self._names, self._best.values.tolist(), strict=True)),
            status=Status.LEFT if self.status is Status.RUNNING else self.status,
            steps=self.index,
            evaluations=self.evaluations,
            seconds=self.seconds,
            events=self.events,
        )

    def checkpoint(self) -> Checkpoint:
        """All that is needed to resume from here.

        To be called before the step after the next one begins.
        """
        state = self._state
        best = self._best
        tensors = {
            "x": state.x,
            "grad": state.evaluation.grad,
            "values": state.evaluation.values,
            "loss": state.evaluation.loss,
            "best_values": best.values,
        }
        if best.x is not state.x:
            tensors["best_x"] = best.x
        for name, tensor in state.tensors.items():
            tensors[f"{MEMORY}{name}"] = tensor
        data = {
            "index": self.index,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "level": self.level,
            "weights": self.weights,
            "loss": state.loss,
            "best_loss": best.loss,
            "numbers": state.numbers,
            "stalled": state.stalled,
            "events": list(self.events),
            "recent": list(self._recent_losses),
            "optimizer": self._optimizer,
            "fine": self._in_float32,
        }
        return Checkpoint({name: _copy_on_cpu(tensor) for name, tensor in tensors.items()}, data)


def _clipped_copy(picture: Tensor) -> Tensor:
    """A detached copy, clipped to [0, 1]."""
    return picture.detach().clamp(0, 1)


def _copy_on_cpu(tensor: Tensor) -> Tensor:
    """A detached, contiguous copy on the CPU."""
    return tensor.detach().cpu().contiguous().clone()


@dataclass(frozen=True, eq=False)
class Result:
    """The best picture of the last size, and how the run came to it.

    Attributes:
        image: (1, 3, H, W) sRGB in [0, 1].
        loss: the weighted total.
        terms: each term's unweighted value, by name.
        status: why the run ended.
        steps: done, of all sizes.
        evaluations: of loss and gradient.
        seconds: since the start, including those before a checkpoint.
        events: what the optimizer's guard did.
    """

    image: Tensor
    loss: float
    terms: dict[str, float]
    status: Status
    steps: int
    evaluations: int
    seconds: float
    events: tuple[str, ...]
