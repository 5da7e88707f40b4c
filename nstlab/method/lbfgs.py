"""L-BFGS on the pixels, independent of the scale of the objective."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nstlab.base.names import HISTORY
from nstlab.method.curvature import Curvature, bytes_of_pair, smooth
from nstlab.method.line_search import search
from nstlab.method.optimizers import BOUNDS, Evaluate, State, clip, initial_state, rms

FIRST_STEP = 0.01  # root mean square change of a pixel in a first step along the gradient
LONGEST_STEP = 0.25  # root mean square change of a pixel in any step
SHORTEST_STEP = 1e-7  # below this, float32 pixels do not change


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS, independent of the objective's scale.

    Nocedal 1980; Liu and Nocedal 1989. The direction uses the compact representation of the inverse
    Hessian (Byrd, Nocedal, Schnabel 1994, theorem 2.2): two products of the history, kept as one
    matrix, with a vector, and small triangular systems in float64.

    Departures from the textbook, and from torch.optim.LBFGS, whose absolute thresholds stall on a
    small loss and explode on a large one:

    - The first step has a length in pixel units.
    - A pair (s, y) is kept if s·y is positive relative to |s| |y|.
    - The line search asks only for sufficient decrease (Armijo), which the quasi-Newton step nearly
      always gives at once, so that an iteration costs about one evaluation.
    - Pixels stay within `bounds`, by two-metric projection (Bertsekas 1982; Gafni and Bertsekas
      1984): pixels that are at a bound and are pushed outwards are left out of the step, and the
      step is clipped. Otherwise the network would respond to values that are lost when the picture
      is saved.
    - The initial inverse Hessian is not γ I but γ B, where B weights the spatial frequency f
      (cycles per pixel) by 1 / sqrt(1 + (f / smooth)²), about as the amplitudes of natural images
      fall off: most of what has to change is larger than a pixel.

    Attributes:
        history: curvature pairs kept.
        memory: bytes that they may take; None for no limit.
        bounds: of a pixel; None for no limits.
        smooth: in cycles per pixel; None for B = I.
        first_step: root mean square change of a pixel in a step along the gradient.
        decrease: the part of the change g·s that the line search asks for.
        curvature: the smallest s·y / (|s| |y|) of a pair that is kept.
        trials: the most evaluations in a step.
    """

    history: int = HISTORY
    memory: int | None = 1 << 30
    bounds: tuple[float, float] | None = BOUNDS
    smooth: float | None = 0.03
    first_step: float = FIRST_STEP
    decrease: float = 1e-4
    curvature: float = 1e-6
    trials: int = 12

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        numbers = {"order": [], "length": self.first_step}
        return initial_state(clip(x, self.bounds), evaluate, numbers)

    def step(self, state: State, evaluate: Evaluate) -> State:
        # The direction has no name here, so that its memory is free after the search.
        trial, event = search(
            state, self._direction(state), evaluate, self.bounds, self.decrease, self.trials
        )
        if trial is None:
            return self._forget(state, event)
        new = State(trial.x, trial.evaluation, trial.loss, event=event)
        length = math.sqrt(trial.ss / trial.x.numel())
        is_curved = trial.sy > self.curvature * math.sqrt(trial.ss * trial.yy)
        if event or not is_curved:
            return replace(new, numbers={"order": [], "length": length})
        y = trial.evaluation.grad - state.evaluation.grad
        y.masked_fill_(self._is_blocked(state), 0)
        curvature = Curvature(state.numbers["order"], state.tensors).with_pair(
            trial.x - state.x, y, self._smooth, self.pairs(y) + 1
        )
        numbers = {"order": curvature.order, "length": length}
        return replace(new, tensors=curvature.tensors, numbers=numbers)

    def pairs(self, x: Tensor) -> int:
        """How many curvature pairs are kept: `history`, or fewer if `memory` is short."""
        if self.memory is None:
            return max(1, self.history)
        return max(1, min(self.history, self.memory // bytes_of_pair(x) - 1))

    def bytes_kept(self, x: Tensor) -> int:
        """Bytes of the pairs that are kept for a picture, with the slot for the next one."""
        return (self.pairs(x) + 1) * bytes_of_pair(x)

    def _direction(self, state: State) -> Tensor:
        """-H g for the free pixels, at most LONGEST_STEP long; without curvature, along -B g."""
        blocked = self._is_blocked(state)
        g = state.evaluation.grad.masked_fill(blocked, 0)
        bg = torch.empty_like(g)
        self._smooth(g, bg)
        if state.numbers["order"]:
            curvature = Curvature(state.numbers["order"], state.tensors)
            return _shorten(curvature.product(g, bg).neg_().masked_fill_(blocked, 0))
        direction = bg * (-state.numbers["length"] / _positive(rms(bg)))
        return direction.masked_fill_(blocked, 0)

    def _smooth(self, x: Tensor, out: Tensor) -> None:
        """Write B x into `out`."""
        smooth(x, out, self.smooth)

    def _is_blocked(self, state: State) -> Tensor:
        """Where a pixel is at a bound and would be pushed outwards."""
        x = state.x
        g = state.evaluation.grad
        if self.bounds is None:
            return torch.zeros((), dtype=torch.bool, device=x.device)
        low, high = self.bounds
        return ((x <= low) & (g > 0)).logical_or_((x >= high) & (g < 0))

    def _forget(self, state: State, event: str) -> State:
        """The same picture without curvature; the next step, along -B g, is shorter."""
        length = min(state.numbers["length"], self.first_step) / 10
        stalled = not event and not state.numbers["order"] and length < SHORTEST_STEP
        numbers = {"order": [], "length": max(length, SHORTEST_STEP / 10)}
        return replace(state, tensors={}, numbers=numbers, event=event, stalled=stalled)


def _shorten(direction: Tensor) -> Tensor:
    """The direction, scaled down to LONGEST_STEP if it is longer."""
    factor = (LONGEST_STEP / _positive(rms(direction))).clamp(max=1.0)
    return direction.mul_(factor)


def _positive(length: Tensor) -> Tensor:
    """A length to divide by, also if it is 0."""
    return length.clamp_min(torch.finfo(length.dtype).tiny)
