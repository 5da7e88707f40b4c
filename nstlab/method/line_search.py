"""The line search of L-BFGS: how far to go along a direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nstlab.method.curvature import planes_of
from nstlab.method.optimizers import EXPLODED, EXPLOSION, NOT_FINITE, Evaluate, Evaluation, State


@dataclass(frozen=True, eq=False)
class Trial:
    """A point of the line search, and products of the step s and the gradient's change y.

    Attributes:
        slope: g·s, the change of the loss to first order, with the gradient g before the step.
        sy, yy, ss: s·y, y·y and s·s.
    """

    x: Tensor
    evaluation: Evaluation
    loss: float
    slope: float
    sy: float
    yy: float
    ss: float

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.yy)


def search(
    state: State,
    direction: Tensor,
    evaluate: Evaluate,
    bounds: tuple[float, float] | None,
    decrease: float,
    trials: int,
) -> tuple[Trial | None, str]:
    """Evaluate x + t d, clipped, for t = 1 and smaller, until the loss is low enough (Armijo).

    Args:
        direction: d, of the picture's shape.
        bounds: of a pixel; None for no limits.
        decrease: the part of the change g·s by which the loss must fall.
        trials: the most evaluations.

    Returns:
        The trial that lowers the loss enough, or None; and what the guard did, or "".
    """
    t = 1.0
    event = ""
    for _ in range(trials):
        trial = _evaluate_at(state, direction, t, evaluate, bounds)
        if not trial.slope < 0:
            break
        if not trial.is_finite:
            t /= 10
            event = NOT_FINITE
            continue
        if trial.loss <= state.loss + decrease * trial.slope:
            return trial, event
        if trial.loss - state.loss > (EXPLOSION**2 - 1) * abs(state.loss):
            event = EXPLODED
        t *= _cubic_minimum(state.loss, trial.slope, trial.loss, trial.slope + trial.sy)
    return None, event


def _evaluate_at(
    state: State,
    direction: Tensor,
    t: float,
    evaluate: Evaluate,
    bounds: tuple[float, float] | None,
) -> Trial:
    """Evaluate the picture x + t d, clipped."""
    x = torch.add(state.x, direction, alpha=t)
    if bounds is not None:
        x.clamp_(*bounds)
    evaluation = evaluate(x)
    products = _step_products(x, state.x, evaluation.grad, state.evaluation.grad)
    # The only transfer from the device.
    numbers = torch.cat([evaluation.loss[None], products]).tolist()
    return Trial(x, evaluation, *numbers)


def _step_products(x: Tensor, old_x: Tensor, grad: Tensor, old_grad: Tensor) -> Tensor:
    """(4,): g·s, s·y, y·y, s·s of the step s, the gradient's change y and the old gradient g."""
    sums = []
    planes = (planes_of(tensor) for tensor in (x, old_x, grad, old_grad))
    for after, before, grad_after, g in zip(*planes, strict=True):
        s = after - before
        y = grad_after - g
        sums.append(torch.stack([_dot(g, s), _dot(s, y), _dot(y, y), _dot(s, s)]))
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The scalar product of two tensors of one shape."""
    return torch.dot(a.flatten(), b.flatten())


def _cubic_minimum(f0: float, slope0: float, f1: float, slope1: float) -> float:
    """Where the cubic with these values and slopes at 0 and 1 is lowest, within [0.05, 0.9].

    Nocedal and Wright 2006, equation 3.59.
    """
    a = slope0 + slope1 - 3 * (f1 - f0)
    discriminant = a * a - slope0 * slope1
    if not (math.isfinite(discriminant) and discriminant > 0):
        return 0.3
    root = math.sqrt(discriminant)
    minimum = 1 - (slope1 + root - a) / (slope1 - slope0 + 2 * root)
    return min(0.9, max(0.05, minimum))
