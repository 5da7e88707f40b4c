"""The state of a run between two steps, and what may happen to it; `engine` drives it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nstlab.method.checkpoint import Checkpoint
from nstlab.method.fast.arithmetic import FLOAT32_SHARE, Arithmetic, arithmetic_of
from nstlab.method.fast.tiles import TiledBound, bind
from nstlab.method.fast.windows import Tiling
from nstlab.method.objectives import Bound, Objective
from nstlab.method.optimizers import Evaluation, Optimizer, State
from nstlab.method.steps import Best, Finish, Level, Status, Step
from nstlab.networks.base import Network
from nstlab.pictures import images as im
from nstlab.pictures.decoding import interpolate

WINDOW = 10  # steps over which `StopRule.change` measures progress


@dataclass(frozen=True)
class StopRule:
    """When a run ends before its last step, or leaves a size.

    Attributes:
        loss: the run ends as soon as the total loss, at full size, is at most this.
        change: a size is left when its last WINDOW steps lowered the loss by less than this part of
            it.
    """

    loss: float | None = None
    change: float | None = None

    def is_reached(self, loss: float) -> bool:
        """Whether the total loss is low enough."""
        return self.loss is not None and loss <= self.loss

    def has_converged(self, losses: Sequence[float]) -> bool:
        """Whether the recent losses, oldest first, no longer fall."""
        if self.change is None or len(losses) <= WINDOW:
            return False
        return (losses[0] - min(losses)) / max(abs(losses[0]), 1e-300) < self.change


@dataclass
class Precision:
    """The type of numbers in which a run evaluates.

    A network whose precision is "auto" may compute in 16 bits to save time. The last steps of the
    last size are then done in float32.
    """

    net: Network
    in_float32: bool = False  # whether 16 bits have given way to float32

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of evaluations now."""
        return Arithmetic(torch.float32) if self.in_float32 else arithmetic_of(self.net)

    @property
    def saves_time(self) -> bool:
        """Whether evaluations are in 16 bits only to save time."""
        is_narrow = self.arithmetic.dtype.itemsize < 4
        return is_narrow and self.net.precision == "auto" and not self.in_float32

    def float32_steps(self, steps: int) -> int:
        """How many steps of the last size are done in float32 in any case."""
        return round(FLOAT32_SHARE.get(self.arithmetic.dtype, 0) * steps)


@dataclass
class Run:
    """The state of `minimize`: the bound objective, the optimizer's state, the best picture."""

    objective: Objective
    net: Network
    schedule: tuple[Level, ...]
    optimizer: Optimizer
    stop: StopRule
    finish: Finish
    tiling: Tiling | None

    index: int = 0  # steps done
    level: int = 0  # index of the present size in the schedule
    evaluations: int = 0
    events: tuple[str, ...] = ()
    recent_losses: list[float] = field(default_factory=list)
    start_time: float = field(default_factory=time.perf_counter)
    precision: Precision = field(init=False)
    bound: Bound = field(init=False)
    state: State = field(init=False)
    best: Best = field(init=False)

    def __post_init__(self) -> None:
        self.precision = Precision(self.net)

    # --- where the run is

    @property
    def is_last_level(self) -> bool:
        """Whether the present size is the last one."""
        return self.level == len(self.schedule) - 1

    @property
    def end_of_level(self) -> int:
        """The number of steps of all sizes up to and including the present one."""
        return sum(level.steps for level in self.schedule[: self.level + 1])

    @property
    def awaits_float32(self) -> bool:
        """Whether the last steps of this size are still to be done in float32."""
        return self.is_last_level and self.precision.saves_time

    @property
    def status(self) -> Status:
        """Whether to go on at this size, or why not."""
        ended = self.index >= self.end_of_level
        if self.is_last_level and self.stop.is_reached(self.best.loss * self.bound.scale):
            return Status.REACHED
        if self.state.stalled and (ended or not self.awaits_float32):
            return Status.STALLED
        if self.stop.has_converged(self.recent_losses):
            return Status.CONVERGED
        return Status.FINISHED if ended else Status.RUNNING

    def report(self) -> Step:
        """The present state as a `Step`."""
        return Step(
            index=self.index,
            loss=self.state.loss * self.bound.scale,
            evaluations=self.evaluations,
            seconds=time.perf_counter() - self.start_time,
            level=self.level,
            event=self.state.event,
            events=self.events,
            status=self.status,
            weights=dict(self.bound.weights),
            _scale=self.bound.scale,
            _names=tuple(self.bound.names),
            _state=self.state,
            _best=self.best,
            _recent_losses=tuple(self.recent_losses),
            _optimizer=repr(self.optimizer),
            _in_float32=self.precision.in_float32,
            _finish=self.finish,
        )

    # --- what happens to it

    def bind(self, weights: Mapping[str, float]) -> None:
        """Bind the objective at the present size, with these weights."""
        vars(self).pop("bound", None)  # frees its memory before the next one takes its own
        shape = self.schedule[self.level].shape
        self.bound = bind(self.objective, self.net, shape, self.precision.arithmetic, self.tiling)
        self.bound.reweight(weights)

    def evaluate(self, x: Tensor) -> Evaluation:
        """The loss over its scale at x, (1, 3, H, W), as `Bound.evaluate` gives it."""
        self.evaluations += 1
        image = x if isinstance(self.bound, TiledBound) else x.to(self.net.device)
        loss, grad, values = self.bound.evaluate(image)
        return Evaluation(loss.to(x.device), grad.to(x.device), values.to(x.device))

    def begin(self, x: Tensor) -> None:
        """Start at x, without curvature."""
        self.state = self.optimizer.init(x, self.evaluate)
        self.best = Best.of(self.state)
        self.recent_losses = []

    def advance(self) -> None:
        """Make one step."""
        if self.awaits_float32:
            steps = self.precision.float32_steps(self.schedule[-1].steps)
            if self.state.stalled or self.index >= self.end_of_level - steps:
                continue_in_float32(self)
        self.state = self.optimizer.step(self.state, self.evaluate)
        self.index += 1
        if self.state.event:
            self.events = (*self.events, f"step {self.index}: {self.state.event}")
        if self.state.loss < self.best.loss:
            self.best = Best.of(self.state)
        self.recent_losses = [*self.recent_losses[-WINDOW:], self.state.loss]


# --- greater changes ------------------------------------------------------------------------------


def resume(run: Run, checkpoint: Checkpoint, start: Tensor) -> None:
    """Go on where a checkpoint was made.

    Whether the pictures are the same is for the caller to know, as the store does by the run's id.

    Args:
        run: a new one.
        start: its first picture, on whose device it goes on.

    Raises:
        InputError: if the checkpoint belongs to a run of other terms, sizes or another optimizer,
            or is damaged.
    """
    data, tensors, device = checkpoint.data, checkpoint.tensors, start.device
    shapes = [level.shape for level in run.schedule]
    checkpoint.check(run.objective, shapes, run.optimizer, run.net.dtype)
    run.index = data["index"]
    run.level = data["level"]
    run.precision.in_float32 = data["fine"]
    run.evaluations = data["evaluations"]
    run.events = tuple(data["events"])
    run.bind(data["weights"])
    run.state = checkpoint.state(device)
    best = tensors["best_x"].to(device) if "best_x" in tensors else run.state.x
    run.best = Best(data["best_loss"], best, tensors["best_values"].to(device))
    run.start_time -= data["seconds"]
    run.recent_losses = list(data["recent"])


def reweight(run: Run, changes: Mapping[str, float] | None) -> None:
    """Change weights, if asked to, and start again from the present picture.

    Raises:
        InputError: for a weight that is unknown or not allowed.
    """
    if changes:
        run.bound.reweight(changes)
        run.begin(run.state.x)


def continue_in_float32(run: Run) -> None:
    """Go on from the best picture in float32; curvature is kept."""
    run.precision.in_float32 = True
    run.bind(run.bound.weights)
    if run.state.stalled:
        run.begin(run.best.x)
        return
    evaluation = run.evaluate(run.best.x)
    run.state = replace(run.state, x=run.best.x, evaluation=evaluation, loss=float(evaluation.loss))
    run.best = Best.of(run.state)
    run.recent_losses = []


def enter_next_level(run: Run, start: Tensor) -> None:
    """Begin the next size with the better of two pictures, by their losses.

    One is the best picture of this size, enlarged. The other is the start plus the enlarged change
    that this size made to it, which keeps the start's details.

    Args:
        start: the first picture of the run, at full size.
    """
    # A size that was left early counts as done, so that the total number of steps stays the same.
    run.index = run.end_of_level
    run.level += 1
    best = run.best.x
    shape = run.schedule[run.level].shape
    change = interpolate(best - im.resize(start, best.shape[-2:]), shape)
    run.bind(run.bound.weights)
    pictures = [
        im.resize(best, shape),
        change.add_(im.resize(start, shape)).clamp_(0, 1),
    ]
    losses = torch.stack([run.evaluate(x).loss for x in pictures]).nan_to_num(math.inf)
    run.begin(pictures[int(losses.argmin())])
