"""A lesson: the experiments of one notebook, in the order of its cells.

    lesson = Lesson("E3", budget="quick")
    lesson.begin()            # the pictures, and how long the runs will take
    lesson.predict("E3")      # the reader's guess
    lesson.run("E3")          # with a progress bar; the sheet
    lesson.curves("E3")
    lesson.claims("E3")       # the guess against the runs, and the table of claims
    lesson.check("03.1", 42)  # an exercise
    lesson.explore("transfer", ["alpha", "beta"])

All results come from the store, so a second time costs nothing. Without a browser (see studio.static), pictures and text stand
where widgets would, and nothing waits for anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w
from IPython.display import Markdown

from nstlab import figures
from nstlab.course.base import FinishedRun
from nstlab.course.estimates import estimate
from nstlab.course.exercises import EXERCISES
from nstlab.course.experiment import Experiment
from nstlab.course.material import Material, Progress
from nstlab.course.report import table
from nstlab.live.studio import Studio, static
from nstlab.settings import InputError, nearest

EXPLORED = 256  # px: long side of what is explored live, at most
LIVELY = 5  # times as many steps as the experiments have


class Lesson(Material):
    """What the cells of a notebook call."""

    def __init__(self, *experiments: str, **parameters: Any):
        """The names of experiments, and parameters: budget, size, seed, photo, painting, weights, results (see Material)."""
        super().__init__(*experiments, **parameters)
        self.guesses: dict[str, w.RadioButtons] = {}

    def begin(self) -> figures.Shown:
        """Say how long the runs will take, and show the pictures."""
        for experiment in self.experiments.values():
            print(estimate(experiment))
        names = [Path(name).stem for name in (self.base.photo, self.base.painting)]
        return figures.contact_sheet([[self.photo, self.painting]], [""], names)

    def predict(self, name: str) -> Any:
        """Ask for the reader's guess before the run; without a browser, show only the question."""
        experiment = self._experiment(name)
        if static():
            return Markdown(f"**{experiment.prediction}**\n\n" + "\n".join(f"- {choice}" for choice in experiment.choices))
        self.guesses[name] = w.RadioButtons(options=experiment.choices, value=None, layout={"width": "max-content"})
        return w.VBox([w.HTML(f"<b>{experiment.prediction}</b>"), self.guesses[name]])

    def run(self, name: str) -> figures.Shown:
        """Carry out an experiment, with a progress bar and the picture that is being made; returns its sheet."""
        experiment = self._experiment(name)
        with Progress(name, len(experiment.cases)) as progress:
            self.runs[name] = experiment.run(progress)
        return experiment.sheet(self.runs[name])

    def curves(self, name: str) -> figures.Shown | None:
        """The losses of its runs by evaluations."""
        return self._experiment(name).curves(self._finished(name))

    def claims(self, name: str) -> Markdown:
        """What the runs say of the reader's guess and of each claim."""
        experiment, runs = self._experiment(name), self._finished(name)
        truth = experiment.answer(runs)
        guess = self.guesses[name].value if name in self.guesses else None
        guessed = "" if guess is None else f"You predicted: *{guess}*. " + ("That is it. " if guess == truth else "")
        verdict = f"**{experiment.prediction}** {guessed}The runs say: **{truth}**."
        return Markdown(f"{verdict}\n\n{table(list(experiment.claims(runs)))}")

    def check(self, name: str, answer: Any, solution: bool = False) -> Markdown:
        """Whether an exercise is solved; a hint if not. solution: whether the answer is the notebook's own."""
        if name not in EXERCISES:
            raise InputError(f"there is no exercise '{name}'{nearest(name, list(EXERCISES))}")
        try:
            hint = EXERCISES[name](_given(answer), self)
        except Unanswered:
            nothing = " (your function returns nothing)" if callable(answer) else ""
            return Markdown(f"*Exercise {name}: put your answer in place of the dots{nothing}, and run the cell again.*")
        except Exception as error:  # in the reader's own function, say
            hint = f"it ends in {type(error).__name__}: {error}"
        if hint:
            end = "" if hint.endswith(("?", ".")) else "."
            return Markdown(f"✗ **Exercise {name}: not yet.** {hint[0].upper()}{hint[1:]}{end}")
        return Markdown(f"The solution of exercise {name}: ✓" if solution else f"✓ **Exercise {name}: right.**")

    def explore(self, recipe: str, fields: Sequence[str], **changes: Any) -> Studio:
        """A small studio with the named controls; it begins when its button is pressed."""
        make = {"transfer": self.base.transfer, "reconstruct": self.base.reconstruct, "texture": self.base.texture}[recipe]
        live = {"size": min(self.base.size, EXPLORED), "steps": LIVELY * self.base.steps}
        return Studio(make(**(live | changes)), fields, self.results, start=False)

    def _experiment(self, name: str) -> Experiment:
        if name not in self.experiments:
            raise InputError(f"this lesson has no experiment '{name}' (it has: {', '.join(self.experiments)})")
        return self.experiments[name]

    def _finished(self, name: str) -> list[FinishedRun]:
        if name not in self.runs:
            raise InputError(f'{name} has not been run yet: run the cell with lesson.run("{name}")')
        return self.runs[name]


class Unanswered(Exception):
    """There is no answer yet."""


def _given(answer: Any) -> Any:
    """The answer, if there is one. A function is wrapped, so that it too counts as unanswered if it returns nothing."""
    if answer is None or answer is ...:
        raise Unanswered
    if not callable(answer):
        return answer
    return lambda *values: _given(answer(*values))
