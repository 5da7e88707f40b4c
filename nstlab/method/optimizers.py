"""L-BFGS, Adam and gradient descent on the pixels, behind one small protocol.

    state = optimizer.init(x, evaluate)            # evaluates once
    state = optimizer.step(state, evaluate)        # changes nothing in place, may evaluate several times

`evaluate(x) -> Evaluation` gives loss and gradient. An optimizer is a frozen record of its options; everything that
changes is in the `State`, plain tensors and numbers, which can be stored and taken up again. Lengths of steps are in
pixel units, in which 1 is the distance from black to white, so that nothing depends on the scale of the objective.

The guard: an evaluation that is not finite, or that explodes, never becomes the state's picture. The optimizer goes
back, shortens its step, forgets what it knew of curvature, and says so in `state.event`. And pixels stay in [0, 1],
unless `bounds` says otherwise, so that the loss that is reported is that of the picture that is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nstlab.method.names import HISTORY, RATE

EXPLOSION = 10.0  # a first-order loss this many times the last one is an explosion; in a line search, its square is
BOUNDS = (0.0, 1.0)  # black and white
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


Evaluate = Callable[[Tensor], Evaluation]


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

    def fits(self, state: State) -> bool:
        """Whether the memory of a state, which may come from a damaged file, is whole and of this optimizer's making."""
        ...


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _is_positive(value: Any) -> bool:
    """Whether it is a number more than 0."""
    return isinstance(value, (int, float)) and 0 < value < math.inf


def _has(state: State, shapes: dict[str, tuple[int, ...]], small: Sequence[str] = ()) -> bool:
    """Whether the memory's tensors are those of these shapes, in the picture's type, but for the `small` ones."""
    found = state.tensors
    same = all(tensor.dtype == state.x.dtype for name, tensor in found.items() if name not in small)
    whole = {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    return whole and same and len({found[name].dtype for name in small if name in found}) <= 1


def _clipped(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return x if bounds is None else x.clamp(*bounds)


def _start(x: Tensor, evaluate: Evaluate, numbers: dict[str, Any]) -> State:
    at = evaluate(x)
    loss = float(at.loss)
    if not (math.isfinite(loss) and math.isfinite(float(at.grad.sum()))):
        raise FloatingPointError("the loss of the first picture, or its gradient, is not finite")
    return State(x, at, loss, numbers=numbers)


# --- first order ------------------------------------------------------------------------------------------------


def _guarded(state: State, x: Tensor, evaluate: Evaluate, tensors: dict, numbers: dict) -> State:
    """The state at x; or, if picture or loss are not finite there, or the loss explodes, the old one with half the rate and no
    memory. A picture of NaN may have a finite loss, for a ReLU can make 0 of NaN."""
    at = evaluate(x)
    loss, *sums = torch.stack([at.loss, at.grad.abs().sum(), x.abs().sum()]).tolist()
    finite = all(map(math.isfinite, (loss, *sums)))
    if finite and loss <= EXPLOSION * state.loss:
        return State(x, at, loss, tensors, numbers)
    event = EXPLODED if finite else NOT_FINITE
    kept = {name: value for name, value in numbers.items() if name != "count"} | {"rate": numbers["rate"] / 2}
    return replace(state, tensors={}, numbers=kept, event=event)


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015. `rate` is about the change of each pixel in a step.

    Departure: epsilon is relative to the root mean square of the gradient, so that the objective's scale does not
    matter."""

    rate: float = RATE
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-3
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return _start(_clipped(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        (b1, b2), g = self.betas, state.at.grad
        count = state.numbers.get("count", 0) + 1
        m = state.tensors.get("m", torch.zeros_like(g)).lerp(g, 1 - b1)
        v = state.tensors.get("v", torch.zeros_like(g)).lerp(g * g, 1 - b2)
        root = (v / (1 - b2**count)).sqrt()
        rate = state.numbers["rate"]
        x = state.x - rate / (1 - b1**count) * m / (root + self.epsilon * _rms(root) + torch.finfo(g.dtype).tiny)
        return _guarded(state, _clipped(x, self.bounds), evaluate, {"m": m, "v": v}, {"rate": rate, "count": count})

    def fits(self, state: State) -> bool:
        begun = {"m", "v"} if "count" in state.numbers else set()
        whole = _has(state, dict.fromkeys(begun, tuple(state.x.shape)))
        return whole and all(map(_is_positive, state.numbers.values())) and state.numbers.keys() - {"count"} == {"rate"}


@dataclass(frozen=True)
class GradientDescent:
    """Plain gradient descent with a constant factor, chosen so that the first step changes pixels by `rate` (rms)."""

    rate: float = RATE
    bounds: tuple[float, float] | None = BOUNDS

    def init(self, x: Tensor, evaluate: Evaluate) -> State:
        return _start(_clipped(x, self.bounds), evaluate, {"rate": self.rate})

    def step(self, state: State, evaluate: Evaluate) -> State:
        g, rate = state.at.grad, state.numbers["rate"]
        unit = state.numbers.get("unit") or 1 / max(float(_rms(g)), torch.finfo(g.dtype).tiny)
        x = _clipped(state.x - rate * unit * g, self.bounds)
        return _guarded(state, x, evaluate, {}, {"rate": rate, "unit": unit})

    def fits(self, state: State) -> bool:
        known = state.numbers.keys() - {"unit"} == {"rate"} and not state.tensors
        return known and all(map(_is_positive, state.numbers.values()))


# --- L-BFGS -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Trial:
    """A point of the line search: its picture, the step to it, what was found there, and products with the step."""

    x: Tensor
    s: Tensor
    y: Tensor
    at: Evaluation
    loss: float
    slope: float  # g·s, the decrease that the gradient promised
    sy: float
    yy: float
    ss: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.yy)


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS (Nocedal 1980; Liu and Nocedal 1989), independent of the objective's scale.

    The direction uses the compact representation of the inverse Hessian (Byrd, Nocedal, Schnabel 1994, theorem 2.2):
    two products of the history, kept as one matrix, with a vector, and small triangular systems in float64.

    What differs from the textbook, and from torch.optim.LBFGS, whose absolute thresholds stall on a small loss and
    explode on a large one: the first step has a length in pixel units; a pair (s, y) is kept if s·y is positive
    relative to |s| |y|; the line search asks for sufficient decrease only (Armijo), which the quasi-Newton step
    nearly always meets at once, so that an iteration costs about one evaluation. And pixels stay within `bounds`, by
    two-metric projection (Bertsekas 1982; Gafni and Bertsekas 1984): those that are at a bound and are pushed
    outwards are left out of the step, and the step is clipped. Without that, a network answers to pixels that are
    lost when the picture is saved. Last, the initial inverse Hessian is not γ I but γ B, where B weighs the spatial
    frequency f (cycles per pixel) by 1 / sqrt(1 + (f / smooth)²), about as the amplitudes of natural images fall: what
    has to change is mostly larger than a pixel.

    history: curvature pairs kept. memory: bytes they may take; None for no limit. bounds: None for no limits.
    smooth: in cycles per pixel; None for B = I.
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
        return _start(_clipped(x, self.bounds), evaluate, {"order": [], "length": self.first_step})

    def pairs(self, x: Tensor) -> int:
        """How many curvature pairs are kept for a picture: `history`, or what the memory budget allows."""
        each = 2 * x.numel() * x.element_size()
        return self.history if self.memory is None else max(1, min(self.history, self.memory // each - 1))

    def step(self, state: State, evaluate: Evaluate) -> State:
        free = self._free(state.x, state.at.grad)
        trial, event = self._search(state, self._direction(state, free), evaluate)
        if trial is None:
            return self._forget(state, event)
        new = State(trial.x, trial.at, trial.loss, event=event)
        length = math.sqrt(trial.ss / trial.s.numel())
        if event or not trial.sy > self.curvature * math.sqrt(trial.ss * trial.yy):
            return replace(new, numbers={"order": [], "length": length})
        return self._remember(state, new, trial.s, trial.y * free, length)

    def fits(self, state: State) -> bool:
        order, slots = state.numbers.get("order"), self.pairs(state.x) + 1
        if not isinstance(order, list) or not _is_positive(state.numbers.get("length")):
            return False
        if not state.tensors:
            return not order
        square = (slots, slots)
        whole = _has(state, {"pairs": (2, slots, state.x.numel()), "sy": square, "yy": square}, small=("sy", "yy"))
        return whole and len(order) < slots and all(type(i) is int and 0 <= i < slots and order.count(i) == 1 for i in order)

    def _forget(self, state: State, event: str) -> State:
        """The same picture without memory of curvature; the next step goes along the gradient, and not as far."""
        length = min(state.numbers["length"], self.first_step) / 10
        stalled = not event and not state.numbers["order"] and length < SHORTEST_STEP
        numbers = {"order": [], "length": max(length, SHORTEST_STEP / 10)}
        return replace(state, tensors={}, numbers=numbers, event=event, stalled=stalled)

    def _free(self, x: Tensor, g: Tensor) -> Tensor:
        """1 where a pixel may move, 0 where it is at a bound and the gradient pushes it outwards."""
        if self.bounds is None:
            return torch.ones_like(x)
        low, high = self.bounds
        return 1.0 - (((x <= low) & (g > 0)) | ((x >= high) & (g < 0))).to(x.dtype)

    def _smoothed(self, v: Tensor) -> Tensor:
        """B v, for v of shape (…, H, W); v itself if it has no two dimensions."""
        if self.smooth is None or v.ndim < 2:
            return v
        height, width = v.shape[-2:]
        down = torch.fft.fftfreq(height, device=v.device, dtype=v.dtype)[:, None]
        across = torch.fft.rfftfreq(width, device=v.device, dtype=v.dtype)
        weight = (1 + (down**2 + across**2) / self.smooth**2).rsqrt()
        return torch.fft.irfft2(torch.fft.rfft2(v) * weight, s=(height, width))

    # --- the line search along d: x + t d, clipped; t = 1 first

    def _search(self, state: State, d: Tensor, evaluate: Evaluate) -> tuple[_Trial | None, str]:
        """(the trial that lowers the loss enough, or None if there is none; the event)."""
        t, event = 1.0, ""
        for _ in range(self.trials):
            trial = self._try(state, t * d, evaluate)
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

    def _try(self, state: State, step: Tensor, evaluate: Evaluate) -> _Trial:
        x = _clipped(state.x + step, self.bounds)
        s, at = x - state.x, evaluate(x)
        y = at.grad - state.at.grad
        products = [at.loss, _dot(state.at.grad, s), _dot(s, y), _dot(y, y), _dot(s, s)]
        return _Trial(x, s, y, at, *torch.stack(products).tolist())  # the one transfer from the device

    # --- the memory: slots of one matrix (2, history + 1, n) of s and B y. One slot is always free, so that writing the
    # next pair leaves the previous state whole, should the step be interrupted.

    def _remember(self, old: State, new: State, s: Tensor, y: Tensor, length: float) -> State:
        order, tensors = list(old.numbers["order"]), dict(old.tensors)
        slots = self.pairs(s) + 1
        if not tensors:
            small = torch.float32 if s.device.type == "mps" else torch.float64
            tensors["pairs"] = s.new_zeros(2, slots, s.numel())
            tensors["sy"] = tensors["yy"] = s.new_zeros(slots, slots, dtype=small)
        slot = next(i for i in range(slots) if i not in order)
        pairs = tensors["pairs"]
        pairs[0, slot], pairs[1, slot] = s.flatten(), self._smoothed(y).flatten()
        products = (pairs.flatten(0, 1) @ y.flatten()).view(2, slots).to(tensors["sy"].dtype)
        tensors["sy"], tensors["yy"] = tensors["sy"].clone(), tensors["yy"].clone()
        tensors["sy"][:, slot] = products[0]
        tensors["yy"][:, slot] = tensors["yy"][slot, :] = products[1]
        order = [*order, slot][-(slots - 1) :]
        return replace(new, tensors=tensors, numbers={"order": order, "length": length})

    def _direction(self, state: State, free: Tensor) -> Tensor:
        """-H g of the free pixels, at most LONGEST_STEP long; without curvature, along the gradient."""
        g = state.at.grad * free
        bg = self._smoothed(g)
        if not state.numbers["order"]:
            return -state.numbers["length"] / _rms(bg).clamp_min(torch.finfo(g.dtype).tiny) * bg * free
        pairs, sy, yy = (state.tensors[name] for name in ("pairs", "sy", "yy"))
        rows = pairs.flatten(0, 1)  # (2 slots, n)
        slots, order = pairs.shape[1], _sent(state.numbers["order"], g.device)
        sg, yg = (rows @ g.flatten()).to(sy.dtype).view(2, slots)[:, order]
        r, yy = sy[order][:, order].triu(), yy[order][:, order]
        gamma = r[-1, -1] / yy[-1, -1]
        q = torch.linalg.solve_triangular(r, sg[:, None], upper=True)[:, 0]
        p = r.diagonal() * q + gamma * (yy @ q - yg)
        p = torch.linalg.solve_triangular(r.T, p[:, None], upper=False)[:, 0]
        coefficients = sy.new_zeros(2, slots).index_copy(1, order, torch.stack([p, -gamma * q]))
        coefficients, gamma = coefficients.to(g.dtype), gamma.to(g.dtype)
        return _limited(-(gamma * bg.flatten() + coefficients.flatten() @ rows).view_as(g) * free)


def _sent(numbers: list[int], device: torch.device) -> Tensor:
    """As a tensor on the device; a GPU is not waited for."""
    there = torch.tensor(numbers)
    return there.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else there.to(device)


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
