"""L-BFGS on the pixels, independent of the scale of the objective."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nstlab import large
from nstlab.method.optimizers import (
    BOUNDS,
    EXPLODED,
    EXPLOSION,
    NOT_FINITE,
    Evaluate,
    Evaluation,
    State,
    clipped,
    rms,
    started,
)
from nstlab.names import HISTORY

FIRST_STEP = 0.01  # root mean square change of a pixel in a first step along the gradient
LONGEST_STEP = 0.25  # root mean square change of a pixel in any step
SHORTEST_STEP = 1e-7  # below this, float32 pixels do not change


@dataclass(frozen=True, eq=False)
class Curvature:
    """What is known of the inverse Hessian H, from pairs of a step s and the change y of the gradient in it, n = x.numel().

    tensors: `pairs`, one matrix (2, slots, n) of s and B y, in 16 bits for large pictures; `sy` and `yy`, (slots, slots), all
    products s_i·y_j and y_i·B y_j. order: the slots used, oldest first. One slot is always free, so
    that the previous state stays valid while the next pair is written, even if the step is interrupted."""

    order: list[int]
    tensors: dict[str, Tensor]

    def added(self, s: Tensor, y: Tensor, by: Tensor, slots: int) -> Curvature:
        """A copy with one more pair, which replaces the oldest one if only one slot is free."""
        tensors = dict(self.tensors)
        if not tensors:
            small = torch.float32 if s.device.type == "mps" else torch.float64
            make = large.zeros if large.is_small(s) else large.unset  # of a large picture, only slots in use are read
            tensors["pairs"] = make(s, (2, slots, s.numel()), _type_of_pairs(s))
            tensors["sy"] = tensors["yy"] = torch.zeros(slots, slots, dtype=small, device=s.device)
        slot = next(i for i in range(slots) if i not in self.order)
        rows = _rows(tensors["pairs"], s, max(slot, *self.order, 0))
        large.write(s, rows, (0, slot))
        large.write(by, rows, (1, slot))
        products = _products(rows, y, slots).to(tensors["sy"].dtype)
        tensors["sy"], tensors["yy"] = tensors["sy"].clone(), tensors["yy"].clone()
        tensors["sy"][:, slot] = products[0]
        tensors["yy"][:, slot] = tensors["yy"][slot, :] = products[1]
        return Curvature([*self.order, slot][-(slots - 1) :], tensors)

    def product(self, g: Tensor, bg: Tensor) -> Tensor:
        """H g, by the compact representation, given B g. The scale γ of the initial H is that of the newest pair."""
        pairs, sy, yy = (self.tensors[name] for name in ("pairs", "sy", "yy"))
        rows, slots = _rows(pairs, g, max(self.order)), pairs.shape[1]
        order = torch.tensor(self.order, pin_memory=g.is_cuda).to(g.device, non_blocking=True)  # does not wait for a GPU
        sg, yg = _products(rows, g, slots).to(sy.dtype)[:, order]
        r, yy = sy[order][:, order].triu(), yy[order][:, order]
        gamma = r[-1, -1] / yy[-1, -1]
        q = torch.linalg.solve_triangular(r, sg[:, None], upper=True)[:, 0]
        p = r.diagonal() * q + gamma * (yy @ q - yg)
        p = torch.linalg.solve_triangular(r.T, p[:, None], upper=False)[:, 0]
        coefficients = sy.new_zeros(2, slots).index_copy(1, order, torch.stack([p, -gamma * q]))
        coefficients = coefficients[:, : rows.shape[1]]
        coefficients, gamma = coefficients.to(g.dtype).flatten(), gamma.to(g.dtype)

        def combined(bg: Tensor, rows: Tensor) -> Tensor:
            return (gamma * bg.flatten() + coefficients @ _matrix(rows, bg.dtype)).view_as(bg)

        return large.over(combined, bg, rows, planes=2 * rows.shape[1])


def _type_of_pairs(picture: Tensor) -> torch.dtype:
    """The type in which the pairs of a picture are kept: they are most of the optimizer's memory, and need no more."""
    return picture.dtype if picture.numel() <= large.LARGE else torch.bfloat16


def _rows(pairs: Tensor, like: Tensor, last: int) -> Tensor:
    """(2, slots, n) -> (2, slots, *like.shape), a view; of a large picture's slots, those up to the last one that is used."""
    end = pairs.shape[1] if large.is_small(like) else last + 1
    return large.view(pairs, lambda pairs: pairs.view(*pairs.shape[:2], *like.shape)[:, :end])


def _matrix(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(2, K, …) -> (2 K, m)."""
    return rows.flatten(2).flatten(0, 1).to(dtype)


def _products(rows: Tensor, v: Tensor, slots: int) -> Tensor:
    """(2, K, …), (…) -> (2, slots): the scalar product of each row with v, and 0 for slots without a row."""
    found = large.sums(lambda v, rows: _matrix(rows, v.dtype) @ v.flatten(), v, rows, planes=2 * rows.shape[1])
    return torch.nn.functional.pad(found.view(2, -1), (0, slots - rows.shape[1]))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


def _step_products(x: Tensor, old: Tensor, grad: Tensor, old_grad: Tensor) -> Tensor:
    """(g·s, s·y, y·y, s·s) of the step s from the old picture, the change y of the gradient, and the old gradient g."""
    s, y = x - old, grad - old_grad
    return torch.stack([_dot(old_grad, s), _dot(s, y), _dot(y, y), _dot(s, s)])


@dataclass(frozen=True, eq=False)
class _Trial:
    """A point of the line search, and products of the step s to it and of the change y of the gradient."""

    x: Tensor
    at: Evaluation
    loss: float
    slope: float  # g·s, the change of the loss to first order
    sy: float
    yy: float
    ss: float

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.yy)


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS (Nocedal 1980; Liu and Nocedal 1989), independent of the objective's scale.

    The direction uses the compact representation of the inverse Hessian (Byrd, Nocedal, Schnabel 1994, theorem 2.2):
    two products of the history, kept as one matrix, with a vector, and small triangular systems in float64.

    Departures from the textbook, and from torch.optim.LBFGS, whose absolute thresholds stall on a small loss and explode on
    a large one:

    - The first step has a length in pixel units.
    - A pair (s, y) is kept if s·y is positive relative to |s| |y|.
    - The line search asks only for sufficient decrease (Armijo), which the quasi-Newton step nearly always gives at once,
      so that an iteration costs about one evaluation.
    - Pixels stay within `bounds`, by two-metric projection (Bertsekas 1982; Gafni and Bertsekas 1984): pixels that are at a
      bound and are pushed outwards are left out of the step, and the step is clipped. Otherwise the network would respond to
      values that are lost when the picture is saved.
    - The initial inverse Hessian is not γ I but γ B, where B weights the spatial frequency f (cycles per pixel) by
      1 / sqrt(1 + (f / smooth)²), about as the amplitudes of natural images fall off: most of what has to change is larger
      than a pixel.

    history: curvature pairs kept. memory: bytes that they may take, None for no limit. bounds: of a pixel, None for no
    limits. smooth: in cycles per pixel, None for B = I. first_step: root mean square change of a pixel in a step along the
    gradient. decrease: the part of the change g·s that the line search asks for. curvature: the smallest s·y / (|s| |y|) of a
    pair that is kept. trials: the most evaluations in a step.
    """

    history: int = HISTORY
    memory: int | None = 2 << 30
    bounds: tuple[float, float] | None = BOUNDS
    smooth: float | None = 0.03
    first_step: float = FIRST_STEP
    decrease: float = 1e-4
    curvature: float = 1e-6
    trials: int = 12

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return started(clipped(x, self.bounds), evaluate, {"order": [], "length": self.first_step})

    def pairs(self, x: Tensor) -> int:
        """How many curvature pairs are kept for a picture: `history`, or fewer if memory does not allow it."""
        each = 2 * x.numel() * _type_of_pairs(x).itemsize
        return self.history if self.memory is None else max(1, min(self.history, self.memory // each - 1))

    def step(self, state: State, evaluate: Evaluate) -> State:
        trial, event = self._search(state, self._direction(state), evaluate)
        if trial is None:
            return self._forget(state, event)
        new = State(trial.x, trial.at, trial.loss, event=event)
        length = math.sqrt(trial.ss / trial.x.numel())
        if event or not trial.sy > self.curvature * math.sqrt(trial.ss * trial.yy):
            return replace(new, numbers={"order": [], "length": length})
        s = large.over(torch.sub, trial.x, state.x)
        y = large.over(lambda g, old, x: (g - old) * self._free(x, old), trial.at.grad, state.at.grad, state.x)
        curvature = Curvature(state.numbers["order"], state.tensors).added(s, y, self._smoothed(y), self.pairs(s) + 1)
        return replace(new, tensors=curvature.tensors, numbers={"order": curvature.order, "length": length})

    def _forget(self, state: State, event: str) -> State:
        """The same picture without curvature; the next step goes along the gradient, and less far."""
        length = min(state.numbers["length"], self.first_step) / 10
        stalled = not event and not state.numbers["order"] and length < SHORTEST_STEP
        numbers = {"order": [], "length": max(length, SHORTEST_STEP / 10)}
        return replace(state, tensors={}, numbers=numbers, event=event, stalled=stalled)

    def _free(self, x: Tensor, g: Tensor) -> Tensor:
        """1 where a pixel may move, 0 where it is at a bound and would be pushed outwards."""
        if self.bounds is None:
            return torch.ones_like(x)
        low, high = self.bounds
        return 1.0 - (((x <= low) & (g > 0)) | ((x >= high) & (g < 0))).to(x.dtype)

    def _smoothed(self, v: Tensor) -> Tensor:
        """B v, for v of shape (…, H, W); v itself if it has fewer than two dimensions."""
        if self.smooth is None or v.ndim < 2:
            return v
        return large.smoothed(v, self.smooth)

    def _direction(self, state: State) -> Tensor:
        """-H g for the free pixels, at most LONGEST_STEP long; along the gradient if there is no curvature."""
        g = large.over(lambda g, x: g * self._free(x, g), state.at.grad, state.x)
        bg = self._smoothed(g)
        if state.numbers["order"]:
            d, sign = Curvature(state.numbers["order"], state.tensors).product(g, bg), -1.0
        else:
            d, sign = bg, -state.numbers["length"] / rms(bg).clamp_min(torch.finfo(g.dtype).tiny)
        d = large.over(lambda d, x, g: sign * d * self._free(x, g), d, state.x, state.at.grad)
        return _limited(d) if state.numbers["order"] else d

    # --- the line search along d: x + t d, clipped; first t = 1

    def _search(self, state: State, d: Tensor, evaluate: Evaluate) -> tuple[_Trial | None, str]:
        """(the trial that lowers the loss enough, None if there is none; the event, or "")."""
        t, event = 1.0, ""
        for _ in range(self.trials):
            trial = self._try(state, d, t, evaluate)
            if not trial.slope < 0:
                break
            if not trial.finite:
                t, event = t / 10, NOT_FINITE
            elif trial.loss <= state.loss + self.decrease * trial.slope:
                return trial, event
            else:
                event = EXPLODED if trial.loss > EXPLOSION**2 * state.loss else event
                t *= _cubic_minimum(state.loss, trial.slope, trial.loss, trial.slope + trial.sy)
        return None, event

    def _try(self, state: State, d: Tensor, t: float, evaluate: Evaluate) -> _Trial:
        """Evaluate the picture x + t d, clipped."""
        x = large.over(lambda x, d: clipped(x + t * d, self.bounds), state.x, d)
        at = evaluate(x)
        products = large.sums(_step_products, x, state.x, at.grad, state.at.grad)
        return _Trial(x, at, *torch.cat([at.loss[None], products]).tolist())  # the only transfer from the device


def _limited(d: Tensor) -> Tensor:
    """d, shortened to LONGEST_STEP if it is longer."""
    factor = (LONGEST_STEP / rms(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)
    return large.over(lambda d: d * factor, d)


def _cubic_minimum(f0: float, slope0: float, f1: float, slope1: float) -> float:
    """Where the cubic with these values and slopes at 0 and 1 is lowest, kept within [0.05, 0.9] (Nocedal and Wright 2006,
    equation 3.59)."""
    a = slope0 + slope1 - 3 * (f1 - f0)
    root = a * a - slope0 * slope1
    if not (math.isfinite(root) and root > 0):
        return 0.3
    root = math.sqrt(root)
    return min(0.9, max(0.05, 1 - (slope1 + root - a) / (slope1 - slope0 + 2 * root)))
