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
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from nstlab.base.names import STEPS
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.fast.windows import Tiling
from nstlab.method.lbfgs import LBFGS
from nstlab.method.objectives import Objective
from nstlab.method.optimizers import Optimizer
from nstlab.method.run import Run, StopRule, enter_next_level, resume, reweight
from nstlab.method.steps import Finish, Result, Status, Step, identity, pyramid
from nstlab.networks.base import Network
from nstlab.pictures import images as im


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
    finish: Finish = identity,
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
    stop = StopRule(stop_loss, stop_change)
    run = Run(objective, net, schedule, optimizer or LBFGS(), stop, finish, tiling)
    if checkpoint is not None:
        resume(run, checkpoint, start)
    else:
        run.bind({})
        run.begin(im.resize(start, schedule[0].shape).contiguous())
        reweight(run, (yield run.report()))
    while True:
        while run.status is Status.RUNNING:
            run.advance()
            reweight(run, (yield run.report()))
        if run.status is Status.REACHED or run.is_last_level:
            return run.report().result()
        enter_next_level(run, start)


def run_to_end(
    steps: Generator[Step, Any, Any], watch: Callable[[Step], None] | None = None
) -> Any:
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
    return run_to_end(minimize(*args, **kwargs))
