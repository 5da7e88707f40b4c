"""A lesson: the experiments of one notebook, in the order of its cells.

    lesson = Lesson("E3", budget="quick")
    lesson.begin()            # the pictures, and how long it will take
    lesson.predict("E3")      # the reader's guess
    lesson.run("E3")          # with a progress bar; the sheet
    lesson.curves("E3")
    lesson.claims("E3")       # the guess against the numbers, and the table
    lesson.check("03.1", 42)  # an exercise
    lesson.explore("transfer", ["alpha", "beta"])

All results come from the store, so that a second time costs nothing. Without a browser (`static`) widgets are pictures and
text, and nothing waits for anybody.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ipywidgets as w
import torch
from IPython.display import Markdown, display

from nstlab import figures
from nstlab import images as im
from nstlab.course import demonstrations, report
from nstlab.course.base import Base, Seen
from nstlab.course.exercises import EXERCISES
from nstlab.course.experiments import EXPERIMENTS
from nstlab.course.predictions import PREDICTIONS
from nstlab.course.settings import BUDGETS, SweepSettings
from nstlab.live.studio import Studio, static
from nstlab.live.viewer import jpeg
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings
from nstlab.runs.store import Store
from nstlab.runs.sweep import Case, Done
from nstlab.settings import RESULTS, InputError, nearest

EXPLORED = 256  # px: long side of what is explored live, at most
LIVELY = 5  # times as many steps as the experiments have
PREVIEW = 240  # px: of the picture while it is being made
OWN = 1.25  # time of a run over that of its first steps: the history grows, and the store writes


class Lesson:
    """Some of the classic experiments, with one set of parameters; see SweepSettings for what these may be."""

    def __init__(
        self,
        *experiments: str,
        budget: str = BUDGETS[0],
        size: int | None = None,
        seed: int = 0,
        photo: str = "coffee",
        painting: str = "swirl_strokes",
        weights: str = "auto",
        results: str | Path = RESULTS,
    ):
        common = {"budget": budget, "size": size, "seed": seed, "photo": photo, "painting": painting}
        common |= {"weights": weights, "results": results}
        self.options = {name: SweepSettings(name, **common) for name in experiments}
        self.base = Base.of(SweepSettings(next(iter(experiments), "E3"), **common))
        self.results = Path(results)
        self.runs: dict[str, list[Seen]] = {}
        self.guesses: dict[str, w.RadioButtons] = {}
        for options in self.options.values():
            report.check(options)

    # --- what the lesson is about

    @cached_property
    def net(self) -> VGG19:
        """The network, in float32 on the CPU, to look into."""
        return normalize_activations(VGG19(self.base.weights, precision="float32", seed=self.base.seed))

    @cached_property
    def photo(self) -> torch.Tensor:
        """(1, 3, H, W) in [0, 1]."""
        return im.load(self.base.photo, self.base.size)

    @cached_property
    def painting(self) -> torch.Tensor:
        """(1, 3, H, W) in [0, 1], in the photo's shape."""
        return im.fit(im.load(self.base.painting), self.photo.shape[-2:])

    def begin(self) -> figures.Shown:
        """Say how long the runs will take; the pictures."""
        for line in self.estimates():
            print(line)
        pictures, names = [[self.photo, self.painting]], [self.base.photo, self.base.painting]
        return figures.contact_sheet(pictures, [""], [Path(name).stem for name in names])

    def estimates(self) -> list[str]:
        """A line for each experiment: its runs, and how long those will take that are not kept yet."""
        return [self._estimate(name) for name in self.options]

    def _estimate(self, name: str) -> str:
        experiment = EXPERIMENTS[name]
        if experiment.sweep is None:
            return f"{name}: nothing to optimize, a few seconds"
        cases, store, rates = experiment.sweep(self.base).cases, Store(self.results), {}
        plan, seconds, missing = None, 0.0, 0
        for case in cases:
            plan = recipes.prepare(case.settings, known=plan)
            if store.find(plan) is None:
                missing += 1
                kind = (*plan.layers, plan.settings.pool, plan.settings.normalize)
                if kind not in rates:
                    rates[kind] = _seconds_each(plan)
                seconds += OWN * rates[kind] * _whole_steps(plan)
        runs = f"{name}: {len(cases)} runs of {self.base.steps} steps (unless varied) at {self.base.size} px"
        if not missing:
            return f"{runs}, all of them kept from before"
        found = f", {len(cases) - missing} kept from before" if missing < len(cases) else ""
        return f"{runs}{found}: about {max(1, round(seconds))} s on this machine"

    def widths(self) -> dict[str, int]:
        """Channels of the style layers."""
        return dict(zip(self.base.style, demonstrations.widths(self.net, self.base.style), strict=True))

    # --- predict, run, look

    def predict(self, name: str) -> Any:
        """Take the reader's guess before the run; without a browser, only the question."""
        prediction = PREDICTIONS[name]
        if static():
            return Markdown(f"**{prediction.question}**\n\n" + "\n".join(f"- {choice}" for choice in prediction.choices))
        buttons = w.RadioButtons(options=prediction.choices, value=None, layout={"width": "max-content"})
        self.guesses[name] = buttons
        return w.VBox([w.HTML(f"<b>{prediction.question}</b>"), buttons])

    def run(self, name: str) -> figures.Shown:
        """Carry an experiment out, with a progress bar and the picture that is being made; its sheet."""
        with _Progress(name, report.check(self._of(name))) as progress:
            self.runs[name] = report.carry_out(self._of(name), progress)
        return report.sheet(self._of(name), self.runs[name])

    def stored(self, settings: RunSettings) -> Seen:
        """A single run from the store, computed with a progress bar if it is not there."""
        case = Case({}, settings)
        with _Progress("run", 1) as progress:
            plan = recipes.prepare(settings)
            done = Done(case, *Store(self.results).obtain(plan, lambda step: progress(case, step, None)))
            progress(case, None, done)
        return Seen(done)

    def curves(self, name: str) -> figures.Shown:
        """Its losses by evaluations."""
        return report.curves(self._of(name), self._done(name))

    def claims(self, name: str) -> Markdown:
        """What the runs say of the reader's guess, and of each claim."""
        runs = self._done(name)
        found = report.table(report.claims(self._of(name), runs))
        return Markdown(f"{self._verdict(name, runs)}\n\n{found}")

    def _verdict(self, name: str, runs: Sequence[Seen]) -> str:
        prediction = PREDICTIONS[name]
        truth = prediction.answer(runs, self.base)
        guess = self.guesses[name].value if name in self.guesses else None
        guessed = "" if guess is None else f"You predicted: *{guess}*. " + ("That is it. " if guess == truth else "")
        return f"**{prediction.question}** {guessed}The runs say: **{truth}**."

    # --- exercises, and one's own trials

    def check(self, name: str, answer: Any, solution: bool = False) -> Markdown:
        """Whether an exercise is solved; a hint if not. solution: that the answer is the notebook's own."""
        if name not in EXERCISES:
            raise InputError(f"there is no exercise '{name}'{nearest(name, list(EXERCISES))}")
        try:
            hint = EXERCISES[name](_given(answer), self)
        except Unanswered:
            nothing = " (your function returns nothing)" if callable(answer) else ""
            return Markdown(f"*Exercise {name}: put your answer in place of the dots{nothing}, and run the cell again.*")
        except Exception as error:  # of the reader's own function, say
            hint = f"it ends in {type(error).__name__}: {error}"
        if hint:
            end = "" if hint.endswith(("?", ".")) else "."
            return Markdown(f"✗ **Exercise {name}: not yet.** {hint[0].upper()}{hint[1:]}{end}")
        return Markdown(f"The solution of exercise {name}: ✓" if solution else f"✓ **Exercise {name}: right.**")

    def explore(self, recipe: str, fields: Sequence[str], **changes: Any) -> Studio:
        """A small studio with the named controls; it begins when its button is pressed."""
        make = {"transfer": self.base.transfer, "reconstruct": self.base.reconstruct, "texture": self.base.texture}[recipe]
        live = {"size": min(self.base.size, EXPLORED), "steps": LIVELY * self.base.steps}
        settings: RunSettings = make(**(live | changes))
        return Studio(settings, fields, self.results, start=False)

    def _of(self, name: str) -> SweepSettings:
        if name not in self.options:
            raise InputError(f"this lesson has no experiment '{name}' (it has: {', '.join(self.options)})")
        return self.options[name]

    def _done(self, name: str) -> list[Seen]:
        """The finished runs."""
        self._of(name)
        if name not in self.runs:
            raise InputError(f'{name} has not been run yet: run the cell with lesson.run("{name}")')
        return self.runs[name]


class _Progress:
    """A bar, and below it the picture of the moment; nothing where nobody looks."""

    def __init__(self, name: str, total: int):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, unit="run", desc=name, disable=static())
        self.picture = w.Image(format="jpeg", layout={"width": f"{PREVIEW}px"})
        self.shown = 0.0

    def __enter__(self) -> _Progress:
        if not static():
            display(self.picture)
        return self

    def __call__(self, case: Any, step: Any, done: Any) -> None:
        if done is not None:
            self.bar.update()
        elif not static() and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            self.picture.value = jpeg(step.preview()(), PREVIEW)
            self.bar.set_postfix_str(f"{case} step {step.index}, loss {step.loss:.3g}".strip())

    def __exit__(self, *_: Any) -> None:
        self.picture.close()
        self.bar.set_postfix_str("")
        self.bar.close()


class Unanswered(Exception):
    """There is no answer yet."""


def _given(answer: Any) -> Any:
    """The answer, if there is one; of a function, one that says so when it gives nothing back."""
    if answer is None or answer is ...:
        raise Unanswered
    if not callable(answer):
        return answer
    return lambda *values: _given(answer(*values))


def _whole_steps(plan: recipes.Plan) -> float:
    """Steps, those at smaller sizes counted by their part of the pixels."""
    whole = plan.start.shape[-2] * plan.start.shape[-1]
    return sum(level.steps * level.shape[0] * level.shape[1] / whole for level in plan.schedule)


def _seconds_each(plan: recipes.Plan) -> float:
    """Of a step, as the mean of four, after two that are not counted."""
    run = plan.steps()
    for step in itertools.islice(run, 3):
        float(step.loss)
    began = time.perf_counter()
    for step in itertools.islice(run, 4):
        float(step.loss)
    run.close()
    return (time.perf_counter() - began) / 4
