"""How long a sweep will take on this machine."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nstlab.base.options import NETWORK
from nstlab.base.settings import DEVICES
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from nstlab.runs.store import Store
from nstlab.runs.sweep import Sweep

# Time of a whole run over that of its first steps: the history grows, and the store writes.
OVERHEAD = 1.15


def estimate(sweep: Sweep, results: str | Path, device: str = DEVICES[0]) -> str:
    """A line that says what a sweep will run, and how long that takes on this machine.

    Args:
        sweep: whose runs take no time if they are in the store.
        results: folder of the store.
        device: where to compute.
    """
    store = Store(results)
    plan = None
    kept = 0
    steps = 0
    seconds = 0.0
    rates: dict[tuple[Any, ...], float] = {}  # seconds of a step, by what they depend on
    for case in sweep.cases:
        plan = prepare(case.settings, device, like=plan)
        steps += sum(level.steps for level in plan.schedule)
        if store.find(plan) is not None:
            kept += 1
            continue
        kind = _kind(plan)
        if kind not in rates:
            rates[kind] = seconds_per_step(plan)
        seconds += OVERHEAD * rates[kind] * _full_steps(plan)
    runs = f"{len(sweep.cases)} runs at {sweep.base.size} px, {steps} steps in all"
    if kept == len(sweep.cases):
        return f"{runs}: kept from before"
    suffix = f" ({kept} runs are kept from before)" if kept else ""
    return f"{runs}: about {max(1, round(seconds))} s on this machine{suffix}"


def _kind(plan: Plan) -> tuple[Any, ...]:
    """What a step's time depends on: the size, the network, what is read of it, the optimizer."""
    settings = plan.settings
    # The statistic is one of these fields.
    network = [
        getattr(settings, name) for name, _, opt in settings.options() if opt.group == NETWORK
    ]
    return (
        plan.recipe,
        *plan.start.shape,
        *network,
        *plan.layers,
        *plan.objective.weights,
        settings.optimizer,
    )


def seconds_per_step(plan: Plan) -> float:
    """Mean time of four steps at the full size, after three that are not counted."""
    steps = replace(plan, settings=plan.settings.replace(levels=1)).steps()
    for step in itertools.islice(steps, 3):
        float(step.loss)  # waits until the device has computed it
    began = time.perf_counter()
    for step in itertools.islice(steps, 4):
        float(step.loss)
    steps.close()
    return (time.perf_counter() - began) / 4


def _full_steps(plan: Plan) -> float:
    """Steps of a run, those at smaller sizes counted by their share of the pixels."""
    height, width = plan.start.shape[-2:]
    pixel_steps = sum(level.steps * level.shape[0] * level.shape[1] for level in plan.schedule)
    return pixel_steps / (height * width)
