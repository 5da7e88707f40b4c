"""What the engine needs of an optimizer, and the two of first order: Adam and gradient descent.
(L-BFGS is in lbfgs.)

    state = optimizer.init(x, evaluate)            # evaluates once
    state = optimizer.step(state, evaluate)        # changes nothing in place; evaluates

`evaluate(x) -> Evaluation` gives loss and gradient. An optimizer is a frozen record of its options.
Everything that changes is in the `State`: plain tensors and numbers, which can be stored and
resumed from. Lengths of steps are in pixel units, in which 1 is the distance from black to white,
so that nothing depends on the scale of the objective.

The guard: a picture whose loss is not finite, or explodes, never becomes the state's picture. The
optimizer goes back, shortens its step, forgets what it knew of curvature, and says so in
`state.event`. Pixels stay in [0, 1], unless `bounds` says otherwise, so that the reported loss is
that of the picture as it is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nstlab.base.names import RATE

# A first-order step explodes if it makes the loss this many times larger; a line search, its
# square.
EXPLOSION = 10.0
BOUNDS = (0.0, 1.0)  # black and white
NOT_FINITE = "loss not finite, rolled back"
EXPLODED = "loss exploded, rolled back"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """loss (scalar) and gradient (of the picture's shape) at a picture.

    `values` are those of the terms, for the record.
    """

    loss: Tensor
    grad: Tensor
    values: Tensor


Evaluate = Callable[[Tensor], Evaluation]


@dataclass(frozen=True, eq=False)
class State:
    """A picture x, its evaluation, and the optimizer's memory: `tensors` and `numbers` by name.

    Attributes:
        event: what the guard did in the last step, or "".
        stalled: no step that lowers the loss was found.
    """

    x: Tensor
    at: Evaluation
    loss: float
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    event: str = ""
    stalled: bool = False


class Optimizer(Protocol):
    """What the engine needs of an optimizer."""

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        """Evaluate a first picture.

        Raises:
            FloatingPointError: if its loss is not finite.
        """
        ...

    def step(self, state: State, evaluate: Evaluate) -> State:
        """Return the next state.

        A picture whose loss is not finite, or explodes, is never in it.
        """
        ...


def rms(x: Tensor) -> Tensor:
    """Root mean square, a scalar."""
    return (x.square().sum() / x.numel()).sqrt()


def clipped(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """x with its pixels kept within the bounds, if there are any."""
    return x if bounds is None else x.clamp(*bounds)


def started(x: Tensor, evaluate: Evaluate, numbers: dict[str, Any]) -> State:
    """The state at a first picture.

    Raises:
        FloatingPointError: if its loss or gradient is not finite.
    """
    at = evaluate(x)
    loss = float(at.loss)
    if not (math.isfinite(loss) and math.isfinite(float(at.grad.sum()))):
        raise FloatingPointError("the loss of the first picture, or its gradient, is not finite")
    return State(x, at, loss, numbers=numbers)


# --- first order ----------------------------------------------------------------------------------


def _guarded(state: State, x: Tensor, evaluate: Evaluate, tensors: dict, numbers: dict) -> State:
    """The state at x.

    If picture or loss are not finite there, or the loss explodes: the old state with half the rate
    and without memory. (A picture of NaN may have a finite loss, since a ReLU can turn NaN into 0.)
    """
    at = evaluate(x)
    loss, *sums = torch.stack([at.loss, at.grad.abs().sum(), x.abs().sum()]).tolist()
    finite = all(map(math.isfinite, (loss, *sums)))
    if finite and loss - state.loss <= (EXPLOSION - 1) * abs(state.loss):
        return State(x, at, loss, tensors, numbers)
    event = EXPLODED if finite else NOT_FINITE
    kept = {name: value for name, value in numbers.items() if name != "count"} | {
        "rate": numbers["rate"] / 2
    }
    return replace(state, tensors={}, numbers=kept, event=event)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015).

    `rate` is about the change of each pixel in a step; black to white is 1.

    Departure from the paper: epsilon is relative to the root mean square of the gradient, so that
    the scale of the objective does not matter.
    """

    rate: float = RATE
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-3
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return started(clipped(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        (b1, b2), g = self.betas, state.at.grad
        count = state.numbers.get("count", 0) + 1
        m = state.tensors.get("m", torch.zeros_like(g)).lerp(g, 1 - b1)
        v = state.tensors.get("v", torch.zeros_like(g)).lerp(g * g, 1 - b2)
        root = (v / (1 - b2**count)).sqrt()
        rate = state.numbers["rate"]
        x = state.x - rate / (1 - b1**count) * m / (
            root + self.epsilon * rms(root) + torch.finfo(g.dtype).tiny
        )
        return _guarded(
            state,
            clipped(x, self.bounds),
            evaluate,
            {"m": m, "v": v},
            {"rate": rate, "count": count},
        )


@dataclass(frozen=True)
class GradientDescent:
    """Plain gradient descent: x - c ∇L, with c such that the first step changes pixels by `rate`
    (root mean square)."""

    rate: float = RATE
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return started(clipped(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        g = state.at.grad
        rate = state.numbers["rate"]
        unit = state.numbers.get("unit") or 1 / max(float(rms(g)), torch.finfo(g.dtype).tiny)
        x = clipped(state.x - rate * unit * g, self.bounds)
        return _guarded(state, x, evaluate, {}, {"rate": rate, "unit": unit})
