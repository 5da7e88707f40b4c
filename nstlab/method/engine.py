"""The engine: one generator that minimises any objective by changing the pixels of one image.

    for step in minimize(goal, net, start=noise(photo), steps=300):
        print(step.index, step.loss, step.terms)

It guarantees:
1. The result is never worse than the best picture seen.
2. An evaluation that is not finite, or explodes, never reaches the picture; it is reported in
   `step.event`.
3. If the run is interrupted at any moment, the last step has the best picture and a usable
   checkpoint.
4. A run resumed from a checkpoint makes the same pixels as one that did not stop, on the same
   machine.
5. The same objective, start and machine make the same pixels.
6. Weights may change between steps (`run.send({"style": 500.0})` instead of `next(run)`); curvature
   is then forgotten.

The engine prints nothing and writes no file; its caller does.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nstlab.base.names import STEPS
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.fast.arithmetic import FINE, Arithmetic, arithmetic_of
from nstlab.method.fast.tiles import TiledBound, bind
from nstlab.method.fast.windows import Tiling
from nstlab.method.lbfgs import LBFGS
from nstlab.method.objectives import Bound, Objective
from nstlab.method.optimizers import Evaluation, Optimizer, State
from nstlab.method.steps import Best, Finish, Level, Result, Status, Step, pyramid, unfinished
from nstlab.networks.base import Network
from nstlab.pictures import images as im
from nstlab.pictures.decoding import interpolate

WINDOW = 10  # steps over which `stop_change` measures progress


@dataclass
class _Run:
    """The state of `minimize`, which its small functions share."""

    objective: Objective
    net: Network
    schedule: tuple[Level, ...]
    optimizer: Optimizer
    stop_loss: float | None
    stop_change: float | None
    finish: Finish
    tiling: Tiling | None

    index: int = 0  # steps done
    level: int = 0  # index of the present size in the schedule
    fine: bool = False  # whether a coarser type of numbers has given way to float32
    evaluations: int = 0
    events: tuple[str, ...] = ()
    recent: list[float] = field(default_factory=list)  # the losses of the last steps
    began: float = field(default_factory=time.perf_counter)
    bound: Bound = field(init=False)
    state: State = field(init=False)
    best: Best = field(init=False)

    def bind(self, weights: Mapping[str, float]) -> None:
        """Bind the objective at the present size, with these weights."""
        vars(self).pop("bound", None)  # its memory is free before the next one takes its own
        self.bound = bind(
            self.objective, self.net, self.schedule[self.level].shape, self.arithmetic, self.tiling
        )
        self.bound.reweight(weights)

    def evaluate(self, x: Tensor) -> Evaluation:
        """x (1, 3, H, W) -> loss / scale, its gradient, each term's unweighted value; see
        Bound.evaluate."""
        self.evaluations += 1
        loss, grad, values = self.bound.evaluate(
            x if isinstance(self.bound, TiledBound) else x.to(self.net.device)
        )
        return Evaluation(loss.to(x.device), grad.to(x.device), values.to(x.device))

    def begin(self, x: Tensor) -> None:
        """Start at x, without curvature."""
        self.state = self.optimizer.init(x, self.evaluate)
        self.best = Best(self.state.loss, self.state.x, self.state.at.values)
        self.recent = []

    def resume(self, checkpoint: Checkpoint, start: Tensor) -> None:
        """Go on where a checkpoint was made; InputError if it belongs to a run of other terms,
        sizes or another optimizer, or is damaged. Whether the pictures are the same is for the
        caller to know, as the store does by the run's id."""
        data, tensors, device = checkpoint.data, checkpoint.tensors, start.device
        checkpoint.check(
            self.objective, [level.shape for level in self.schedule], self.optimizer, self.net.dtype
        )
        self.index = data["index"]
        self.level = data["level"]
        self.fine = data["fine"]
        self.evaluations = data["evaluations"]
        self.events = tuple(data["events"])
        self.bind(data["weights"])
        self.state = checkpoint.state(device)
        best = tensors["best_x"].to(device) if "best_x" in tensors else self.state.x
        self.best = Best(data["best_loss"], best, tensors["best_values"].to(device))
        self.began -= data["seconds"]
        self.recent = list(data["recent"])

    def advance(self) -> None:
        """Make one step."""
        if self.coarse and (self.state.stalled or self.index >= self.done() - self.finishing):
            self.refine()
        self.state = self.optimizer.step(self.state, self.evaluate)
        self.index += 1
        if self.state.event:
            self.events = (*self.events, f"step {self.index}: {self.state.event}")
        if self.state.loss < self.best.loss:
            self.best = Best(self.state.loss, self.state.x, self.state.at.values)
        self.recent = [*self.recent[-WINDOW:], self.state.loss]

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of evaluations now."""
        return Arithmetic(torch.float32) if self.fine else arithmetic_of(self.net)

    @property
    def coarse(self) -> bool:
        """Whether the last size is computed in 16 bits to save time, so that its last steps are
        still to be done in float32."""
        last = self.level == len(self.schedule) - 1
        return (
            last
            and not self.fine
            and self.net.precision == "auto"
            and self.arithmetic.dtype.itemsize < 4
        )

    @property
    def finishing(self) -> int:
        """How many steps of the last size are done in float32 in any case."""
        return round(FINE.get(self.arithmetic.dtype, 0) * self.schedule[-1].steps)

    def refine(self) -> None:
        """Go on from the best picture in float32; curvature is kept."""
        self.fine = True
        self.bind(self.bound.weights)
        if self.state.stalled:
            self.begin(self.best.x)
        else:
            at = self.evaluate(self.best.x)
            self.state = replace(self.state, x=self.best.x, at=at, loss=float(at.loss))
            self.best = Best(self.state.loss, self.state.x, at.values)
            self.recent = []

    def done(self) -> int:
        """Steps of all sizes up to and including the present one."""
        return sum(level.steps for level in self.schedule[: self.level + 1])

    @property
    def status(self) -> Status:
        """Whether to go on at this size, or why not."""
        last = self.level == len(self.schedule) - 1
        if self.stop_loss is not None and last and self.loss(self.best.loss) <= self.stop_loss:
            return Status.REACHED
        if self.state.stalled and not (self.coarse and self.index < self.done()):
            return Status.STALLED
        if (
            self.stop_change is not None
            and len(self.recent) > WINDOW
            and self.progress() < self.stop_change
        ):
            return Status.CONVERGED
        return Status.FINISHED if self.index >= self.done() else Status.RUNNING

    def progress(self) -> float:
        """The part of the loss by which the recent steps lowered it."""
        return (self.recent[0] - min(self.recent)) / max(abs(self.recent[0]), 1e-300)

    def loss(self, scaled: float) -> float:
        """The weighted total, given that over the scale."""
        return scaled * self.bound.scale

    def report(self) -> Step:
        """The present state as a `Step`."""
        return Step(
            self.index,
            self.loss(self.state.loss),
            self.evaluations,
            time.perf_counter() - self.began,
            self.level,
            self.state.event,
            self.status,
            dict(self.bound.weights),
            self.bound.scale,
            tuple(self.bound.names),
            self.state,
            self.best,
            self.events,
            tuple(self.recent),
            repr(self.optimizer),
            self.fine,
            self.finish,
        )


def minimize(
    objective: Objective,
    net: Network,
    start: Tensor,
    steps: int = STEPS,
    optimizer: Optimizer | None = None,
    levels: int = 1,
    stop_loss: float | None = None,
    stop_change: float | None = None,
    checkpoint: Checkpoint | None = None,
    finish: Finish = unfinished,
    tiling: Tiling | None = None,
) -> Generator[Step, Mapping[str, float] | None, Result]:
    """Yield a Step for the first picture (index 0) and after every step; return the Result.

    Args:
        start: the first picture, (1, 3, H, W) sRGB in [0, 1]; its size is that of the result.
            Coarser sizes reduce it.
        steps: at the full size (see `pyramid`). Sizes that are too small for a layer of the
            objective are left out.
        optimizer: LBFGS() by default.
        levels: how many sizes at most, from coarse to fine.
        stop_loss: stop as soon as the total loss, at full size, is at most this.
        stop_change: leave a size when the last ten steps lowered the loss by less than this part
            of it.
        checkpoint: resume an earlier run of the same objective, network, start and schedule.
        finish: (1, 3, H, W) in [0, 1] -> the same, for the pictures of steps and result; the
            optimizer does not see it.
        tiling: how pictures whose features take too much memory are evaluated in tiles; they
            stay on the device of the start.

    `send(changes)` in place of next() sets weights, by their names in `objective.weights`, before
    the next step. A step that is kept keeps its pictures in memory; see `Step.light`.

    Raises:
        InputError: the start is no picture, weights are not allowed, or a checkpoint does not fit.
        FloatingPointError: the loss of the first picture, or its gradient, is not finite.
    """
    im.check_picture(start, "start")
    start = start.detach().to(net.device if tiling is None else start.device, net.dtype)
    schedule = pyramid(start.shape[-2:], steps, levels, partial(objective.too_small, net))
    run = _Run(
        objective, net, schedule, optimizer or LBFGS(), stop_loss, stop_change, finish, tiling
    )
    if checkpoint is not None:
        run.resume(checkpoint, start)
    else:
        run.bind({})
        run.begin(im.resize(start, run.schedule[0].shape).contiguous())
        _reweight(run, (yield run.report()))
    while True:
        while run.status is Status.RUNNING:
            run.advance()
            _reweight(run, (yield run.report()))
        if run.status is Status.REACHED or run.level == len(run.schedule) - 1:
            return run.report().result()
        _next_level(run, start)


def _reweight(run: _Run, changes: Mapping[str, float] | None) -> None:
    """Change weights, if asked to, and start again from the present picture."""
    if changes:
        run.bound.reweight(changes)
        run.begin(run.state.x)


def _next_level(run: _Run, start: Tensor) -> None:
    """Begin the next size with the best picture of this one enlarged, or with the start plus the
    enlarged change that this size made to it, which keeps the start's details: whichever has the
    lower loss."""
    # A size that was left early counts as done, so that the total number of steps stays the same.
    run.index = run.done()
    run.level += 1
    best = run.best.x
    shape = run.schedule[run.level].shape
    change = interpolate(best - im.resize(start, best.shape[-2:]), shape)
    run.bind(run.bound.weights)
    pictures = im.resize(best, shape), change.add_(im.resize(start, shape)).clamp_(0, 1)
    losses = torch.stack([run.evaluate(x).loss for x in pictures]).nan_to_num(math.inf)
    run.begin(pictures[int(losses.argmin())])


def drained(steps: Generator[Step, Any, Any], watch: Callable[[Step], None] | None = None) -> Any:
    """Run to the end, and return the run's value; `watch` is called with each step."""
    with contextlib.closing(steps):
        try:
            while True:
                step = next(steps)
                if watch is not None:
                    watch(step)
        except StopIteration as end:
            return end.value


def solve(*args: Any, **kwargs: Any) -> Result:
    """Run `minimize` to its end, and return the Result."""
    return drained(minimize(*args, **kwargs))
