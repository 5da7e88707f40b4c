"""How long a sweep will take on this machine."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nstlab.base.settings import DEVICES, NETWORK
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from nstlab.runs.store import Store
from nstlab.runs.sweep import Sweep

# Time of a whole run over that of its first steps: the history grows, and the store writes.
OVERHEAD = 1.15


def estimate(sweep: Sweep, results: str | Path, device: str = DEVICES[0]) -> str:
    """A line that says what a sweep will run, and how long that takes.

    Runs that are in the store take no time.
    """
    store = Store(results)
    plan = None
    missing = 0
    steps, seconds, rates = 0, 0.0, {}
    for case in sweep.cases:
        plan = prepare(case.settings, device, like=plan)
        steps += sum(level.steps for level in plan.schedule)
        if store.find(plan) is not None:
            continue
        missing += 1
        kind = _kind(plan)
        if kind not in rates:
            rates[kind] = seconds_per_step(plan)
        seconds += OVERHEAD * rates[kind] * _full_steps(plan)
    runs = f"{len(sweep.cases)} runs at {sweep.base.size} px, {steps} steps in all"
    if not missing:
        return f"{runs}: kept from before"
    already_there = (
        f" ({len(sweep.cases) - missing} runs are kept from before)"
        if missing < len(sweep.cases)
        else ""
    )
    return f"{runs}: about {max(1, round(seconds))} s on this machine{already_there}"


def _kind(plan: Plan) -> tuple[Any, ...]:
    """What a step's time depends on: size, network, layers that are read, and optimizer."""
    s = plan.settings
    # The statistic is one of these fields.
    network = [getattr(s, name) for name, _, opt in s.options() if opt.group == NETWORK]
    return (
        plan.recipe,
        *plan.start.shape,
        *network,
        *plan.layers,
        *plan.objective.weights,
        s.optimizer,
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
    return sum(
        level.steps * level.shape[0] * level.shape[1] / (height * width) for level in plan.schedule
    )
