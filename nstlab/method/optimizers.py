"""What the engine needs of an optimizer, and the two of first order: Adam and gradient descent.

L-BFGS is in lbfgs.

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
    """What is known of the objective at a picture.

    Attributes:
        loss: scalar.
        grad: its gradient, of the picture's shape.
        values: of the terms, for the record.
    """

    loss: Tensor
    grad: Tensor
    values: Tensor


Evaluate = Callable[[Tensor], Evaluation]


@dataclass(frozen=True, eq=False)
class State:
    """A picture, its evaluation, and the optimizer's memory.

    Attributes:
        x: the picture, (1, 3, H, W).
        evaluation: of x.
        loss: of x, on the host.
        tensors, numbers: the optimizer's memory, by name.
        event: what the guard did in the last step, or "".
        stalled: no step that lowers the loss was found.
    """

    x: Tensor
    evaluation: Evaluation
    loss: float
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    event: str = ""
    stalled: bool = False


class Optimizer(Protocol):
    """What the engine needs of an optimizer."""

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        """Evaluate a first picture.

        Args:
            x: (1, 3, H, W) sRGB in [0, 1].
            evaluate: picture -> loss and gradient.

        Raises:
            FloatingPointError: if its loss or gradient is not finite.
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


def clip(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """x with its pixels kept within the bounds, if there are any."""
    return x if bounds is None else x.clamp(*bounds)


def initial_state(x: Tensor, evaluate: Evaluate, numbers: dict[str, Any]) -> State:
    """The state at a first picture.

    Args:
        numbers: with which the optimizer begins.

    Raises:
        FloatingPointError: if its loss or gradient is not finite.
    """
    evaluation = evaluate(x)
    loss = float(evaluation.loss)
    if not (math.isfinite(loss) and math.isfinite(float(evaluation.grad.sum()))):
        raise FloatingPointError("the loss of the first picture, or its gradient, is not finite")
    return State(x, evaluation, loss, numbers=numbers)


# --- first order ----------------------------------------------------------------------------------


def _guard(state: State, x: Tensor, evaluate: Evaluate, tensors: dict, numbers: dict) -> State:
    """The state at x, or the old one with half the rate and without memory.

    The optimizer goes back if picture or loss are not finite, or if the loss explodes. (A picture
    of NaN may have a finite loss, since a ReLU can turn NaN into 0.)
    """
    evaluation = evaluate(x)
    scalars = [evaluation.loss, evaluation.grad.abs().sum(), x.abs().sum()]
    scalars = torch.stack(scalars).tolist()  # the only transfer from the device
    loss = scalars[0]
    is_finite = all(map(math.isfinite, scalars))
    if is_finite and loss - state.loss <= (EXPLOSION - 1) * abs(state.loss):
        return State(x, evaluation, loss, tensors, numbers)
    numbers = {**numbers, "rate": numbers["rate"] / 2}
    numbers.pop("count", None)  # Adam begins anew
    return replace(state, tensors={}, numbers=numbers, event=EXPLODED if is_finite else NOT_FINITE)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015).

    Departure from the paper: epsilon is relative to the root mean square of the gradient, so that
    the scale of the objective does not matter.

    Attributes:
        rate: about the change of each pixel in a step; black to white is 1.
        betas: decay of the running means of the gradient and of its square.
        epsilon: added to the root of the latter, as a part of its root mean square.
        bounds: of a pixel; None for no limits.
    """

    rate: float = RATE
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-3
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return initial_state(clip(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        g = state.evaluation.grad
        rate = state.numbers["rate"]
        count = state.numbers.get("count", 0) + 1
        beta1, beta2 = self.betas
        m = state.tensors.get("m", torch.zeros_like(g)).lerp(g, 1 - beta1)
        v = state.tensors.get("v", torch.zeros_like(g)).lerp(g * g, 1 - beta2)
        root = (v / (1 - beta2**count)).sqrt()
        denominator = root + self.epsilon * rms(root) + torch.finfo(g.dtype).tiny
        x = clip(state.x - rate / (1 - beta1**count) * m / denominator, self.bounds)
        numbers = {"rate": rate, "count": count}
        return _guard(state, x, evaluate, tensors={"m": m, "v": v}, numbers=numbers)


@dataclass(frozen=True)
class GradientDescent:
    """Plain gradient descent: x - c ∇L, with the same c at each step.

    Attributes:
        rate: the change of the pixels in the first step (root mean square); black to white is 1.
        bounds: of a pixel; None for no limits.
    """

    rate: float = RATE
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return initial_state(clip(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        g = state.evaluation.grad
        rate = state.numbers["rate"]
        unit = state.numbers.get("unit")
        if not unit:  # the first step
            unit = 1 / max(float(rms(g)), torch.finfo(g.dtype).tiny)
        x = clip(state.x - rate * unit * g, self.bounds)
        return _guard(state, x, evaluate, tensors={}, numbers={"rate": rate, "unit": unit})
