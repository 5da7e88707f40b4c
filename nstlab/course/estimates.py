"""How long an experiment will take on this machine."""

from __future__ import annotations

import itertools
import time

from nstlab.course.experiment import Experiment
from nstlab.recipes import plan as recipes
from nstlab.runs.store import Store

OVERHEAD = 1.25  # time of a whole run over that of its first steps: the history grows, and the store writes


def estimate(experiment: Experiment) -> str:
    """A line that says what the experiment will run, and how long that takes; runs that are stored take no time."""
    cases, base = experiment.cases, experiment.base
    if not cases:
        return f"{experiment.id}: nothing to optimize, a few seconds"
    store, plan, missing = Store(experiment.options.results), None, 0
    seconds, rates = 0.0, {}
    for case in cases:
        plan = recipes.prepare(case.settings, known=plan)
        if store.find(plan) is not None:
            continue
        missing += 1
        network = (*plan.layers, plan.settings.pool, plan.settings.normalize)  # what a step's time depends on
        if network not in rates:
            rates[network] = seconds_per_step(plan)
        seconds += OVERHEAD * rates[network] * _full_steps(plan)
    runs = f"{experiment.id}: {len(cases)} runs of {base.steps} steps (unless varied) at {base.size} px"
    if not missing:
        return f"{runs}, all of them kept from before"
    found = f", {len(cases) - missing} kept from before" if missing < len(cases) else ""
    return f"{runs}{found}: about {max(1, round(seconds))} s on this machine"


def seconds_per_step(plan: recipes.Plan) -> float:
    """Mean time of four steps, after three that are not counted."""
    steps = plan.steps()
    for step in itertools.islice(steps, 3):
        float(step.loss)  # waits until the device has computed it
    began = time.perf_counter()
    for step in itertools.islice(steps, 4):
        float(step.loss)
    steps.close()
    return (time.perf_counter() - began) / 4


def _full_steps(plan: recipes.Plan) -> float:
    """Steps of a run, those at smaller sizes counted by their share of the pixels."""
    height, width = plan.start.shape[-2:]
    return sum(level.steps * level.shape[0] * level.shape[1] / (height * width) for level in plan.schedule)
