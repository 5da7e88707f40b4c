"""L-BFGS on the pixels, independent of the scale of the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from nstlab.base.names import HISTORY
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

FIRST_STEP = 0.01  # root mean square change of a pixel in a first step along the gradient
LONGEST_STEP = 0.25  # root mean square change of a pixel in any step
SHORTEST_STEP = 1e-7  # below this, float32 pixels do not change
# The history of pictures with more numbers, most of the optimizer's memory, is kept in 16 bits.
LARGE = 1 << 22


@dataclass(frozen=True, eq=False)
class Curvature:
    """What is known of the inverse Hessian H, from pairs of a step s and the change y of the
    gradient in it, n = x.numel().

    One slot is always free, so that the previous state stays valid while the next pair is written,
    even if the step is interrupted.

    Attributes:
        tensors: `pairs`, one matrix (2, slots, n) of s and B y, in 16 bits for large pictures; `sy`
            and `yy`, (slots, slots), all products s_i·y_j and y_i·B y_j.
        order: the slots used, oldest first.
    """

    order: list[int]
    tensors: dict[str, Tensor]

    def added(
        self, s: Tensor, y: Tensor, smooth: Callable[[Tensor, Tensor], None], slots: int
    ) -> Curvature:
        """A copy with one more pair, which replaces the oldest one if only one slot is free.

        smooth(y, row): writes B y into a row."""
        tensors = dict(self.tensors)
        if not tensors:
            small = torch.float32 if s.device.type == "mps" else torch.float64
            tensors["pairs"] = torch.zeros(
                2, slots, s.numel(), dtype=_type_of_pairs(s), device=s.device
            )
            tensors["sy"] = tensors["yy"] = torch.zeros(slots, slots, dtype=small, device=s.device)
        slot = next(i for i in range(slots) if i not in self.order)
        tensors["pairs"][0, slot] = s.flatten()
        del s  # a large picture's counts
        smooth(y, tensors["pairs"][1, slot].view_as(y))
        products = _products(tensors["pairs"], y).to(tensors["sy"].dtype)
        tensors["sy"], tensors["yy"] = tensors["sy"].clone(), tensors["yy"].clone()
        tensors["sy"][:, slot] = products[0]
        tensors["yy"][:, slot] = tensors["yy"][slot, :] = products[1]
        return Curvature([*self.order, slot][-(slots - 1) :], tensors)

    def product(self, g: Tensor, bg: Tensor) -> Tensor:
        """H g, by the compact representation, given B g, whose memory it takes.

        The scale γ of the initial H is that of the newest pair.
        """
        pairs, sy, yy = (self.tensors[name] for name in ("pairs", "sy", "yy"))
        # Does not wait for a GPU.
        order = torch.tensor(self.order, pin_memory=g.is_cuda).to(g.device, non_blocking=True)
        sg, yg = _products(pairs, g).to(sy.dtype)[:, order]
        r = sy[order][:, order].triu()
        yy = yy[order][:, order]
        gamma = r[-1, -1] / yy[-1, -1]
        q = torch.linalg.solve_triangular(r, sg[:, None], upper=True)[:, 0]
        p = r.diagonal() * q + gamma * (yy @ q - yg)
        p = torch.linalg.solve_triangular(r.T, p[:, None], upper=False)[:, 0]
        coefficients = (
            sy.new_zeros(2, pairs.shape[1])
            .index_copy(1, order, torch.stack([p, -gamma * q]))
            .to(g.dtype)
        )
        total = bg.mul_(gamma.to(g.dtype)).flatten()
        return _add_combination(total, coefficients, pairs).view_as(bg)


def _type_of_pairs(picture: Tensor) -> torch.dtype:
    """The type in which the pairs of a picture are kept: they are most of the optimizer's memory,
    and need no more."""
    return picture.dtype if picture.numel() <= LARGE else torch.bfloat16


def _bytes_of_pair(picture: Tensor) -> int:
    return 2 * picture.numel() * _type_of_pairs(picture).itemsize


def _products(pairs: Tensor, v: Tensor) -> Tensor:
    """(2, K, n), v of n numbers -> (2, K): the scalar product of each row with v."""
    rows = pairs.flatten(0, 1)
    v = v.flatten()
    if rows.dtype == v.dtype:
        return (rows @ v).view(pairs.shape[:2])
    products = v.new_empty(len(rows))
    for i, row in enumerate(rows):
        products[i] = row.to(v.dtype) @ v  # one row widened at a time
    return products.view(pairs.shape[:2])


def _add_combination(total: Tensor, coefficients: Tensor, pairs: Tensor) -> Tensor:
    """(n,), (2, K), (2, K, n) -> (n,): add the weighted sum of all rows to a total."""
    rows = pairs.flatten(0, 1)
    coefficients = coefficients.flatten()
    if rows.dtype == total.dtype:
        return total.add_(coefficients @ rows)
    for coefficient, row in zip(coefficients, rows, strict=True):
        total.addcmul_(coefficient, row.to(total.dtype))
    return total


def _planes(picture: Tensor) -> Tensor:
    """A large picture's planes, of which temporary tensors are made one at a time, or the picture
    as one: (P, …)."""
    return picture.flatten(0, -3) if picture.numel() > LARGE and picture.ndim > 2 else picture[None]


def smoothed(picture: Tensor, cutoff: float, out: Tensor) -> None:
    """Write the picture, (…, H, W), into `out`, each spatial frequency f, in cycles per pixel,
    weighted by 1 / sqrt(1 + (f / cutoff)²)."""
    shape = picture.shape[-2:]
    weights = _weights(*shape, cutoff, picture.device, picture.dtype)
    planes = _planes(picture)
    for plane, into in zip(planes, out.view_as(planes), strict=True):
        into.copy_(torch.fft.irfft2(torch.fft.rfft2(plane).mul_(weights), s=shape))


@lru_cache(maxsize=4)
def _weights(
    height: int, width: int, cutoff: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(H, W // 2 + 1): those of all frequencies.

    Kept, since to make them costs a GPU as much as a tenth of a step.
    """
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=device, dtype=dtype)
    return (1 + (down**2 + across**2) / cutoff**2).rsqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


def _step_products(x: Tensor, old: Tensor, grad: Tensor, old_grad: Tensor) -> Tensor:
    """(g·s, s·y, y·y, s·s) of the step s from the old picture, the change y of the gradient, and
    the old gradient g."""
    parts = []
    for new, before, after, g in zip(*map(_planes, (x, old, grad, old_grad)), strict=True):
        s = new - before
        y = after - g
        parts.append(torch.stack([_dot(g, s), _dot(s, y), _dot(y, y), _dot(s, s)]))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A point of the line search, and products of the step s and the gradient's change y."""

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
    """Limited-memory BFGS (Nocedal 1980.

    Liu and Nocedal 1989), independent of the objective's scale.

    The direction uses the compact representation of the inverse Hessian (Byrd, Nocedal, Schnabel
    1994, theorem 2.2): two products of the history, kept as one matrix, with a vector, and small
    triangular systems in float64.

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
        memory: bytes that they may take, None for no limit.
        bounds: of a pixel, None for no limits.
        smooth: in cycles per pixel, None for B = I.
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
        return started(clipped(x, self.bounds), evaluate, {"order": [], "length": self.first_step})

    def pairs(self, x: Tensor) -> int:
        """How many curvature pairs fit: `history`, or fewer if memory is short."""
        most = math.inf if self.memory is None else self.memory // _bytes_of_pair(x) - 1
        return max(1, int(min(self.history, most)))

    def bytes_kept(self, x: Tensor) -> int:
        """Bytes of the pairs that are kept for a picture, with the slot for the next one."""
        return (self.pairs(x) + 1) * _bytes_of_pair(x)

    def step(self, state: State, evaluate: Evaluate) -> State:
        trial, event = self._search(state, self._direction(state), evaluate)
        if trial is None:
            return self._forget(state, event)
        new = State(trial.x, trial.at, trial.loss, event=event)
        length = math.sqrt(trial.ss / trial.x.numel())
        if event or not trial.sy > self.curvature * math.sqrt(trial.ss * trial.yy):
            return replace(new, numbers={"order": [], "length": length})
        y = (trial.at.grad - state.at.grad).masked_fill_(self._held(state), 0)
        curvature = Curvature(state.numbers["order"], state.tensors).added(
            trial.x - state.x, y, self._smooth, self.pairs(y) + 1
        )
        return replace(
            new, tensors=curvature.tensors, numbers={"order": curvature.order, "length": length}
        )

    def _forget(self, state: State, event: str) -> State:
        """The same picture without curvature.

        The next step goes along the gradient, and less far.
        """
        length = min(state.numbers["length"], self.first_step) / 10
        stalled = not event and not state.numbers["order"] and length < SHORTEST_STEP
        numbers = {"order": [], "length": max(length, SHORTEST_STEP / 10)}
        return replace(state, tensors={}, numbers=numbers, event=event, stalled=stalled)

    def _held(self, state: State) -> Tensor:
        """Where a pixel is at a bound and would be pushed outwards."""
        x, g = state.x, state.at.grad
        if self.bounds is None:
            return torch.zeros((), dtype=torch.bool, device=x.device)
        low, high = self.bounds
        return ((x <= low) & (g > 0)).logical_or_((x >= high) & (g < 0))

    def _smooth(self, v: Tensor, out: Tensor) -> None:
        """Write B v, for v of shape (…, H, W), into `out`; v if it has one dimension."""
        if self.smooth is None or v.ndim < 2:
            out.copy_(v)
        else:
            smoothed(v, self.smooth, out)

    def _direction(self, state: State) -> Tensor:
        """-H g for the free pixels, at most LONGEST_STEP long.

        Along the gradient if there is no curvature.
        """
        fixed = self._held(state)
        g = state.at.grad.masked_fill(fixed, 0)
        bg = torch.empty_like(g)
        self._smooth(g, bg)
        if state.numbers["order"]:
            d = Curvature(state.numbers["order"], state.tensors).product(g, bg).neg_()
        else:
            d = bg * (-state.numbers["length"] / rms(bg).clamp_min(torch.finfo(g.dtype).tiny))
        d.masked_fill_(fixed, 0)
        return _limit(d) if state.numbers["order"] else d

    # --- the line search along d: x + t d, clipped; first t = 1

    def _search(self, state: State, d: Tensor, evaluate: Evaluate) -> tuple[_Trial | None, str]:
        """(the trial that lowers the loss enough, None if there is none; the event, or "")."""
        t, event = 1.0, ""
        for _ in range(self.trials):
            trial = self._try(state, d, t, evaluate)
            if not trial.slope < 0:
                break
            if not trial.finite:
                t = t / 10
                event = NOT_FINITE
            elif trial.loss <= state.loss + self.decrease * trial.slope:
                return trial, event
            else:
                worse = trial.loss - state.loss
                event = EXPLODED if worse > (EXPLOSION**2 - 1) * abs(state.loss) else event
                t *= _cubic_minimum(state.loss, trial.slope, trial.loss, trial.slope + trial.sy)
        return None, event

    def _try(self, state: State, d: Tensor, t: float, evaluate: Evaluate) -> _Trial:
        """Evaluate the picture x + t d, clipped."""
        x = torch.add(state.x, d, alpha=t)
        if self.bounds is not None:
            x.clamp_(*self.bounds)
        at = evaluate(x)
        products = _step_products(x, state.x, at.grad, state.at.grad)
        # The only transfer from the device.
        return _Trial(x, at, *torch.cat([at.loss[None], products]).tolist())


def _limit(d: Tensor) -> Tensor:
    """d, shortened to LONGEST_STEP if it is longer."""
    factor = (LONGEST_STEP / rms(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp(max=1.0)
    return d.mul_(factor)


def _cubic_minimum(f0: float, slope0: float, f1: float, slope1: float) -> float:
    """Where the cubic with these values and slopes at 0 and 1 is lowest, kept within [0.05, 0.9]
    (Nocedal and Wright 2006, equation 3.59)."""
    a = slope0 + slope1 - 3 * (f1 - f0)
    root = a * a - slope0 * slope1
    if not (math.isfinite(root) and root > 0):
        return 0.3
    root = math.sqrt(root)
    return min(0.9, max(0.05, 1 - (slope1 + root - a) / (slope1 - slope0 + 2 * root)))
