"""The engine: one generator that minimises any objective by changing the pixels of one image.

    for step in minimize(goal, net, start=noise(photo), steps=300):
        print(step.index, step.loss, step.terms)

What it guarantees:
1. The result is never worse than the best picture seen.
2. An evaluation that is not finite, or explodes, never reaches the picture; it is an event in `step.event`.
3. Interrupted at any moment, the last step yielded has the best picture and a usable checkpoint.
4. Resumed from a checkpoint, it makes the same pixels as if it had not stopped, on the same machine.
5. The same objective, start and machine make the same pixels.
6. Weights may change between steps (`run.send({"style": 500.0})` instead of `next(run)`); curvature is then forgotten.

The engine prints nothing and writes no file; whoever drains it does.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nstlab import images as im
from nstlab.method.checkpoint import MEMORY, Checkpoint
from nstlab.method.fast import evaluation as fast
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.graphs import Replayed, to_host
from nstlab.method.memory import FINE
from nstlab.method.names import STEPS
from nstlab.method.network import VGG19
from nstlab.method.objectives import Bound, Objective
from nstlab.method.optimizers import LBFGS, Evaluate, Evaluation, Optimizer, State
from nstlab.settings import MIN_SIDE

ALGORITHM = 3  # raised whenever the same settings make other pixels than before; part of the id of a run
PATIENCE = 10  # steps over which `stop_change` looks for progress


class Status(StrEnum):
    """Why a run is where it is."""

    RUNNING = "running"
    LEFT = "left before its end"
    FINISHED = "all steps done"
    REACHED = "loss threshold reached"
    CONVERGED = "loss no longer changes"
    STALLED = "no step lowers the loss"


@dataclass(frozen=True)
class Level:
    """A part of the schedule: a size (H, W), and the number of steps at it."""

    shape: tuple[int, int]
    steps: int


def pyramid(shape: Sequence[int], steps: int, levels: int = 1) -> tuple[Level, ...]:
    """A schedule from coarse to fine: at most `levels` sizes, each twice the one before, the last one (H, W) itself,
    with `steps` there and half as many at each of the others. Sizes below twice the smallest side that is allowed are
    left out."""
    height, width = shape
    factors = [2**k for k in reversed(range(levels)) if k == 0 or min(height, width) // 2**k >= 2 * MIN_SIDE]
    return tuple(Level((height // f, width // f), steps if f == 1 else steps // 2) for f in factors)


@dataclass(frozen=True, eq=False)
class Best:
    """The lowest loss seen at the present level and weights, and its picture; FloatingPointError if the loss is not finite."""

    loss: float
    x: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if not math.isfinite(self.loss):
            raise FloatingPointError("the loss of the best picture so far is not finite")


@dataclass(frozen=True, eq=False)
class Step:
    """What can be known after a step. Pictures are (1, 3, H, W) in [0, 1] at this step's size.

    index counts steps from 0, the first picture; seconds and evaluations are since the start."""

    index: int
    loss: float
    evaluations: int
    seconds: float
    level: int
    event: str
    status: Status
    weights: dict[str, float]
    _scale: float
    _names: tuple[str, ...]
    _state: State
    _best: Best
    events: tuple[str, ...]
    _recent: tuple[float, ...]
    _optimizer: str
    _fine: bool

    @cached_property
    def terms(self) -> dict[str, float]:
        """Each term's unweighted value, by name; fetched from the device when it is first asked for."""
        return dict(zip(self._names, self._state.at.values.tolist(), strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the picture at this step."""
        return tuple(self._state.x.shape[-2:])

    def snapshot(self) -> Tensor:
        """The present picture, a detached copy clipped to [0, 1]."""
        return self._state.x.detach().clamp(0, 1)

    def preview(self) -> Callable[[], Tensor]:
        """Begin to fetch the present picture to the host, for viewers, and go on; what is returned gives it, in [0, 1]."""
        return to_host(self.snapshot())

    def best(self) -> Tensor:
        """The picture of the lowest loss at this size so far, a detached copy clipped to [0, 1]."""
        return self._best.x.detach().clamp(0, 1)

    def light(self) -> Step:
        """The same without the optimizer's memory, for those who keep it; it has no checkpoint."""
        return replace(self, _state=replace(self._state, tensors={}))

    def result(self) -> Result:
        """What the run would return if it ended here."""
        terms = dict(zip(self._names, self._best.values.tolist(), strict=True))
        status = Status.LEFT if self.status is Status.RUNNING else self.status
        return Result(
            self.best(), self._best.loss * self._scale, terms, status, self.index, self.evaluations, self.seconds, self.events
        )

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on from here. Valid until the step after the next one begins."""
        state, best = self._state, self._best
        tensors = {"x": state.x, "grad": state.at.grad, "values": state.at.values, "loss": state.at.loss}
        tensors |= {"best_x": best.x, "best_values": best.values}
        tensors |= {f"{MEMORY}{name}": tensor for name, tensor in state.tensors.items()}
        data = {name: getattr(self, name) for name in ("index", "evaluations", "seconds", "level", "weights")}
        data |= {"loss": state.loss, "best_loss": best.loss, "numbers": state.numbers, "stalled": state.stalled}
        data |= {"events": list(self.events), "recent": list(self._recent), "optimizer": self._optimizer, "fine": self._fine}
        return Checkpoint({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, data)


@dataclass(frozen=True, eq=False)
class Result:
    """The best picture of the last size, and how it came about. `history` is not kept here; steps are yielded."""

    image: Tensor
    loss: float
    terms: dict[str, float]
    status: Status
    steps: int
    evaluations: int
    seconds: float
    events: tuple[str, ...]


class Evaluator:
    """Loss and gradient of a bound objective, counted."""

    def __init__(self, bound: Bound, count: int = 0):
        self.bound, self.count = bound, count
        self.evaluate = Replayed(bound.evaluate) if bound.net.device.type == "cuda" else bound.evaluate

    def __call__(self, x: Tensor) -> Evaluation:
        """x (1, 3, H, W) -> loss over the objective's scale, gradient, each term's unweighted value."""
        self.count += 1
        loss, grad, values = self.evaluate(x)
        return Evaluation(loss, grad.contiguous(), values)


@dataclass
class _Run:
    """The generator's local state, as one thing that its small functions share."""

    objective: Objective
    net: VGG19
    schedule: tuple[Level, ...]
    optimizer: Optimizer
    stop_loss: float | None
    stop_change: float | None

    def __post_init__(self) -> None:
        self.index, self.level, self.fine, self.events = 0, 0, False, ()
        self.began, self.recent = time.perf_counter(), []

    def bind(self, weights: Mapping[str, float], count: int) -> None:
        arithmetic = Arithmetic(torch.float32) if self.fine else arithmetic_of(self.net)
        self.bound = self.evaluate = None  # their memory is free before the next ones take theirs
        self.bound = fast.bind(self.objective, self.net, self.schedule[self.level].shape, arithmetic)
        self.bound.reweight(weights)
        self.evaluate: Evaluate = Evaluator(self.bound, count)

    def begin(self, x: Tensor) -> None:
        """Start (anew) at x, with no memory of curvature."""
        self.state = self.optimizer.init(x, self.evaluate)
        self.best = Best(self.state.loss, self.state.x, self.state.at.values)
        self.recent = []

    def resume(self, checkpoint: Checkpoint) -> None:
        data, tensors, like = checkpoint.data, checkpoint.tensors, self.net.conv1_1_weight
        checkpoint.check(self.objective, [level.shape for level in self.schedule], self.optimizer, like.dtype)
        self.index, self.level, self.fine = data["index"], data["level"], data["fine"]
        self.events = tuple(data["events"])
        self.bind(data["weights"], data["evaluations"])
        self.state = checkpoint.state(like)
        self.best = Best(data["best_loss"], tensors["best_x"].to(like.device), tensors["best_values"].to(like.device))
        self.began -= data["seconds"]
        self.recent = list(data["recent"])

    def advance(self) -> None:
        if self.coarse and (self.state.stalled or self.index >= self.done() - self.finishing):
            self.refine()
        self.state = self.optimizer.step(self.state, self.evaluate)
        self.index += 1
        if self.state.event:
            self.events = (*self.events, f"step {self.index}: {self.state.event}")
        if self.state.loss < self.best.loss:
            self.best = Best(self.state.loss, self.state.x, self.state.at.values)
        self.recent = [*self.recent[-PATIENCE:], self.state.loss]

    @property
    def coarse(self) -> bool:
        """Whether this is the last size, in 16 bits for speed alone, which float32 is to finish."""
        last = self.level == len(self.schedule) - 1
        return last and not self.fine and self.net.precision == "auto" and self.bound.arithmetic.dtype.itemsize < 4

    @property
    def finishing(self) -> int:
        """Steps of the last size that are done in float32 in any case."""
        return round(FINE.get(self.bound.arithmetic.dtype, 0) * self.schedule[-1].steps)

    def refine(self) -> None:
        """Go on from the best picture in float32, with the memory of curvature."""
        self.fine = True
        self.bind(self.bound.weights, self.evaluate.count)
        if self.state.stalled:
            self.begin(self.best.x)
        else:
            at = self.evaluate(self.best.x)
            self.state = replace(self.state, x=self.best.x, at=at, loss=float(at.loss))
            self.best, self.recent = Best(self.state.loss, self.state.x, at.values), []

    def done(self) -> int:
        """Steps of all levels up to and with the present one."""
        return sum(level.steps for level in self.schedule[: self.level + 1])

    @property
    def status(self) -> Status:
        last = self.level == len(self.schedule) - 1
        if self.stop_loss is not None and last and self.loss(self.best.loss) <= self.stop_loss:
            return Status.REACHED
        if self.state.stalled and not (self.coarse and self.index < self.done()):
            return Status.STALLED
        if self.stop_change is not None and len(self.recent) > PATIENCE and self.progress() < self.stop_change:
            return Status.CONVERGED
        return Status.FINISHED if self.index >= self.done() else Status.RUNNING

    def progress(self) -> float:
        """The part of the loss that the recent steps removed."""
        return (self.recent[0] - min(self.recent)) / max(abs(self.recent[0]), 1e-300)

    def loss(self, scaled: float) -> float:
        return scaled * self.bound.scale

    def report(self) -> Step:
        return Step(
            self.index, self.loss(self.state.loss), self.evaluate.count, time.perf_counter() - self.began, self.level,
            self.state.event, self.status, dict(self.bound.weights), self.bound.scale, tuple(self.bound.names), self.state,
            self.best, self.events, tuple(self.recent), repr(self.optimizer), self.fine,
        )  # fmt: skip


def minimize(
    objective: Objective,
    net: VGG19,
    start: Tensor,
    steps: int = STEPS,
    optimizer: Optimizer | None = None,
    levels: int = 1,
    stop_loss: float | None = None,
    stop_change: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> Generator[Step, Mapping[str, float] | None, Result]:
    """Yield a Step for the first picture (index 0) and after every step; return the Result.

    Args:
        start: the first picture, (1, 3, H, W) in [0, 1]; it sets the result's size. With a pyramid it is scaled down.
        steps: at the full size (see `pyramid`).
        optimizer: LBFGS() by default.
        stop_loss: stop as soon as the total loss, at full size, is at most this.
        stop_change: leave a level when the last ten steps lowered the loss by less than this part of it.
        checkpoint: take up an earlier run of the same objective, network, start and schedule.
    The step is all that a caller need keep; one that is kept holds its pictures' memory.
    `send(changes)` in place of next() sets weights by their names in `objective.weights` before the next step.
    Raises: InputError for a start that is no picture, for weights that are not allowed and for a checkpoint that does not
    fit; FloatingPointError if the loss of the first picture, or its gradient, is not finite."""
    im.check_picture(start, "start")
    run = _Run(objective, net, pyramid(start.shape[-2:], steps, levels), optimizer or LBFGS(), stop_loss, stop_change)
    if checkpoint is not None:
        run.resume(checkpoint)
    else:
        run.bind({}, 0)
        run.begin(im.resize(start.detach().to(net.conv1_1_weight), run.schedule[0].shape).contiguous())
        _reweight(run, (yield run.report()))
    while True:
        while run.status is Status.RUNNING:
            run.advance()
            _reweight(run, (yield run.report()))
        if run.status is Status.REACHED or run.level == len(run.schedule) - 1:
            return run.report().result()
        _next_level(run, start)


def _reweight(run: _Run, changes: Mapping[str, float] | None) -> None:
    if changes:
        run.bound.reweight(changes)
        run.evaluate = Evaluator(run.bound, run.evaluate.count)
        run.begin(run.state.x)


def _next_level(run: _Run, start: Tensor) -> None:
    """The next size begins with the best picture of this one, enlarged; or with the start at that size, changed as it
    was at this one, so that it keeps the start's details. Whichever has the lower loss."""
    run.index = run.done()  # a level left early counts as done, so that the total stays what was announced
    run.level += 1
    best, shape = run.best.x, run.schedule[run.level].shape
    start = start.detach().to(best)
    change = im.interpolated(best - im.resize(start, best.shape[-2:]), shape)
    run.bind(run.bound.weights, run.evaluate.count)
    pictures = im.resize(best, shape).contiguous(), (im.resize(start, shape) + change).clamp(0, 1)
    losses = torch.stack([run.evaluate(x).loss for x in pictures]).nan_to_num(math.inf)
    run.begin(pictures[int(losses.argmin())])


def drained(steps: Generator[Step, Any, Any], watch: Callable[[Step], None] | None = None) -> Any:
    """The value of a run that is carried out to its end; `watch` sees each step."""
    with contextlib.closing(steps):
        try:
            while True:
                step = next(steps)
                if watch is not None:
                    watch(step)
        except StopIteration as end:
            return end.value


def solve(*args: Any, **kwargs: Any) -> Result:
    """`minimize`, run to its end."""
    return drained(minimize(*args, **kwargs))
