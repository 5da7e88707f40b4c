"""L-BFGS, Adam and gradient descent on the pixels, behind one small protocol.

    state = optimizer.init(x, evaluate)            # evaluates once
    state = optimizer.step(state, evaluate)        # changes nothing in place, may evaluate several times

`evaluate(x) -> Evaluation` gives loss and gradient. An optimizer is a frozen record of its options; everything that
changes is in the `State`, plain tensors and numbers, which can be stored and taken up again. Lengths of steps are in
pixel units, in which 1 is the distance from black to white, so that nothing depends on the scale of the objective.

The guard: an evaluation that is not finite, or that explodes, never becomes the state's picture. The optimizer goes
back, shortens its step, forgets what it knew of curvature, and says so in `state.event`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

EXPLOSION = 10.0  # a first-order loss this many times the last one is an explosion; in a line search, its square is
FIRST_STEP = 0.01  # root mean square change of a pixel in a first step along the gradient
LONGEST_STEP = 0.25  # root mean square change of a pixel in any step
SHORTEST_STEP = 1e-7  # below this nothing changes in float32 pixels
NOT_FINITE = "loss not finite, rolled back"
EXPLODED = "loss exploded, rolled back"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """loss (scalar) and gradient (shape of the picture) at a picture; `values` are the terms', for the record."""

    loss: Tensor
    grad: Tensor
    values: Tensor


Evaluate = Callable[[Tensor], Evaluation]  # it may have an attribute `metric`, see LBFGS


@dataclass(frozen=True, eq=False)
class State:
    """A picture, what is known there, and the optimizer's memory.

    tensors and numbers are the memory, by name. `stalled` says that no step that lowers the loss was found."""

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
        """The state at a first picture."""
        ...

    def step(self, state: State, evaluate: Evaluate) -> State:
        """The next state; its picture is never one whose loss is not finite or exploded."""
        ...


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _start(x: Tensor, evaluate: Evaluate, numbers: dict[str, Any]) -> State:
    at = evaluate(x)
    loss = float(at.loss)
    if not (math.isfinite(loss) and math.isfinite(float(at.grad.sum()))):
        raise FloatingPointError("the loss of the first picture, or its gradient, is not finite")
    return State(x, at, loss, numbers=numbers)


# --- first order ------------------------------------------------------------------------------------------------


def _guarded(state: State, x: Tensor, evaluate: Evaluate, tensors: dict, numbers: dict) -> State:
    """The state at x; or, if the loss is not finite or explodes there, the old one with half the rate and no memory."""
    at = evaluate(x)
    loss, grad = torch.stack([at.loss, at.grad.abs().sum()]).tolist()
    finite = math.isfinite(loss) and math.isfinite(grad)
    if finite and loss <= EXPLOSION * state.loss:
        return State(x, at, loss, tensors, numbers)
    event = EXPLODED if finite else NOT_FINITE
    return replace(state, tensors={}, numbers={"rate": numbers["rate"] / 2}, event=event)


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015. `rate` is about the change of each pixel in a step.

    Departure: epsilon is relative to the root mean square of the gradient, so that the objective's scale does not
    matter."""

    rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-3

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return _start(x, evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        (b1, b2), g = self.betas, state.at.grad
        count = state.numbers.get("count", 0) + 1
        m = state.tensors.get("m", torch.zeros_like(g)).lerp(g, 1 - b1)
        v = state.tensors.get("v", torch.zeros_like(g)).lerp(g * g, 1 - b2)
        root = (v / (1 - b2**count)).sqrt()
        rate = state.numbers["rate"]
        x = state.x - rate / (1 - b1**count) * m / (root + self.epsilon * _rms(root) + torch.finfo(g.dtype).tiny)
        return _guarded(state, x, evaluate, {"m": m, "v": v}, {"rate": rate, "count": count})


@dataclass(frozen=True)
class GradientDescent:
    """Plain gradient descent with a constant factor, chosen so that the first step changes pixels by `rate` (rms)."""

    rate: float = 0.02

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return _start(x, evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        g, rate = state.at.grad, state.numbers["rate"]
        unit = state.numbers.get("unit") or 1 / max(float(_rms(g)), torch.finfo(g.dtype).tiny)
        return _guarded(state, state.x - rate * unit * g, evaluate, {}, {"rate": rate, "unit": unit})


# --- L-BFGS -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS (Nocedal 1980; Liu and Nocedal 1989), independent of the objective's scale.

    The direction uses the compact representation of the inverse Hessian (Byrd, Nocedal, Schnabel 1994, theorem 2.2):
    two products of the history, kept as one matrix, with a vector, and small triangular systems in float64.

    What differs from the textbook, and from torch.optim.LBFGS, whose absolute thresholds stall on a small loss and
    explode on a large one: the first step has a length in pixel units; a pair (s, y) is kept if s·y is positive
    relative to |s| |y|; the line search asks for sufficient decrease only (Armijo), which the quasi-Newton step
    nearly always meets at once, so that an iteration costs about one evaluation; and the initial inverse Hessian is
    not γ I but γ B, where B is `evaluate.metric`, if it has one: the (3, 3) matrix of network.colour_metric, which is
    applied to each pixel's colour.

    history: curvature pairs kept. memory: bytes they may take; None for no limit.
    """

    history: int = 50
    memory: int | None = 2 << 30
    first_step: float = FIRST_STEP
    decrease: float = 1e-4
    curvature: float = 1e-6
    trials: int = 12

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return _start(x, evaluate, {"order": [], "length": self.first_step})

    def pairs(self, x: Tensor) -> int:
        """How many curvature pairs are kept for a picture: `history`, or what the memory budget allows."""
        each = 2 * x.numel() * x.element_size()
        return self.history if self.memory is None else max(1, min(self.history, self.memory // each - 1))

    def step(self, state: State, evaluate: Evaluate) -> State:
        metric = getattr(evaluate, "metric", None)
        direction = _limited(self._direction(state, metric))
        found, event = self._search(state, direction, evaluate)
        if found is None and not event and not state.numbers["order"]:
            length = state.numbers["length"] / 10
            return replace(state, numbers={"order": [], "length": length}, event="", stalled=length < SHORTEST_STEP)
        if found is None:  # forget curvature, and begin anew along the gradient
            length = max(SHORTEST_STEP, min(state.numbers["length"], self.first_step) / 10)
            return replace(state, tensors={}, numbers={"order": [], "length": length}, event=event, stalled=False)
        t, at, loss, sy, yy, ss = found
        s, y = t * direction, at.grad - state.at.grad
        new = State(state.x + s, at, loss, event=event)
        length = math.sqrt(ss / s.numel())
        if event or not sy > self.curvature * math.sqrt(ss * yy):
            return replace(new, numbers={"order": [], "length": length})
        return self._remember(state, new, s, y, metric, length)

    # The line search along d: f(x + t d), t = 1 first.

    def _search(self, state: State, d: Tensor, evaluate: Evaluate) -> tuple[tuple | None, str]:
        """((t, evaluation, loss, s·y, y·y, s·s) or None, event)."""
        t, event, g = 1.0, "", state.at.grad
        for _ in range(self.trials):
            at = evaluate(state.x + t * d)
            y = at.grad - g
            # One transfer from the device for each evaluation.
            loss, slope, new_slope, yy, dd = torch.stack(
                [at.loss, _dot(g, d), _dot(at.grad, d), _dot(y, y), _dot(d, d)]
            ).tolist()
            if not slope < 0:
                return None, event
            if not (math.isfinite(loss) and math.isfinite(yy)):
                t, event = t / 10, NOT_FINITE
            elif loss <= state.loss + self.decrease * t * slope:
                return (t, at, loss, t * (new_slope - slope), yy, t * t * dd), event
            else:
                event = EXPLODED if loss > EXPLOSION**2 * state.loss else event
                t *= _cubic_minimum(state.loss, t * slope, loss, t * new_slope)
        return None, event

    # The memory: slots of one matrix (2, history + 1, n) of s and B y. One slot is always free, so that writing the
    # next pair leaves the previous state whole, should the step be interrupted.

    def _remember(self, old: State, new: State, s: Tensor, y: Tensor, metric: Tensor | None, length: float) -> State:
        order, tensors = list(old.numbers["order"]), dict(old.tensors)
        slots = self.pairs(s) + 1
        if not tensors:
            small = torch.float32 if s.device.type == "mps" else torch.float64
            tensors["pairs"] = s.new_zeros(2, slots, s.numel())
            tensors["sy"] = tensors["yy"] = s.new_zeros(slots, slots, dtype=small)
        slot = next(i for i in range(slots) if i not in order)
        pairs = tensors["pairs"]
        pairs[0, slot], pairs[1, slot] = s.flatten(), _recoloured(y, metric).flatten()
        products = (pairs.flatten(0, 1) @ y.flatten()).view(2, slots).to(tensors["sy"].dtype)
        tensors["sy"], tensors["yy"] = tensors["sy"].clone(), tensors["yy"].clone()
        tensors["sy"][:, slot] = products[0]
        tensors["yy"][:, slot] = tensors["yy"][slot, :] = products[1]
        order = [*order, slot][-(slots - 1) :]
        return replace(new, tensors=tensors, numbers={"order": order, "length": length})

    def _direction(self, state: State, metric: Tensor | None) -> Tensor:
        """-H g, of the picture's shape; without curvature, along the gradient with a length in pixel units."""
        g, order = state.at.grad, state.numbers["order"]
        bg = _recoloured(g, metric)
        if not order:
            return -state.numbers["length"] / _rms(bg).clamp_min(torch.finfo(g.dtype).tiny) * bg
        pairs, sy, yy = (state.tensors[name] for name in ("pairs", "sy", "yy"))
        rows = pairs.flatten(0, 1)  # (2 slots, n)
        slots = pairs.shape[1]
        sg, yg = (rows @ g.flatten()).to(sy.dtype).view(2, slots)[:, order]
        r, yy = sy[order][:, order].triu(), yy[order][:, order]
        gamma = r[-1, -1] / yy[-1, -1]
        q = torch.linalg.solve_triangular(r, sg[:, None], upper=True)[:, 0]
        p = r.diagonal() * q + gamma * (yy @ q - yg)
        p = torch.linalg.solve_triangular(r.T, p[:, None], upper=False)[:, 0]
        coefficients = sy.new_zeros(2, slots)
        coefficients[0, order], coefficients[1, order] = p, -gamma * q
        coefficients, gamma = coefficients.to(g.dtype), gamma.to(g.dtype)
        return -(gamma * bg.flatten() + coefficients.flatten() @ rows).view_as(g)


def _recoloured(v: Tensor, metric: Tensor | None) -> Tensor:
    """B v: the (3, 3) matrix applied to the colour at each position of (1, 3, H, W); v itself without a matrix."""
    return v if metric is None else torch.einsum("cd,bdhw->bchw", metric, v)


def _limited(d: Tensor) -> Tensor:
    """d, shortened to LONGEST_STEP."""
    return d * (LONGEST_STEP / _rms(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)


def _cubic_minimum(f0: float, slope0: float, f1: float, slope1: float) -> float:
    """Where in (0, 1) the cubic with these values and slopes at 0 and 1 is lowest, kept within [0.05, 0.9]
    (Nocedal and Wright 2006, equation 3.59)."""
    a = slope0 + slope1 - 3 * (f1 - f0)
    root = a * a - slope0 * slope1
    if not (math.isfinite(root) and root > 0):
        return 0.3
    root = math.sqrt(root)
    return min(0.9, max(0.05, 1 - (slope1 + root - a) / (slope1 - slope0 + 2 * root)))
