"""A lesson: what a notebook's cells have in common, made from its parameters.

    lesson = nst.Lesson("quick", "coffee", "swirl_strokes")
    common = lesson.layers | lesson.common
    base = nst.TransferSettings("coffee", "swirl_strokes", init="noise", **common)
    sweep = nst.Sweep(base, vary={"beta": [1e2, 1e3]})
    lesson.estimate(sweep)    # how long it will take on this machine
    runs = lesson.run(sweep)  # with a progress bar

Without a browser (see live.static), nothing is shown while runs are made.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from nstlab import figures
from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.course import estimates
from nstlab.course.progress import PREVIEW, Progress
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS, SweepSettings
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.learning import LearningStep
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import LearnSettings
from nstlab.feedforward.training import train
from nstlab.networks import weights
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Report, Sweep, dask
from nstlab.video.films import Film, FrameDone, paint_film
from nstlab.video.settings import VideoSettings, words


@dataclass(frozen=True)
class Budget:
    """How much an experiment may cost.

    Attributes:
        size: px, the long side.
        steps: of a run.
        longer: steps of a run where an experiment asks what more steps change.
    """

    size: int
    steps: int
    longer: int


BUDGETS = {
    "quick": Budget(256, 200, 500),  # a laptop's minutes
    "paper": Budget(512, 3000, 10_000),  # as published; meant for a GPU
    "smoke": Budget(48, 4, 8),  # only shows that everything runs
}


@cache
def reached_layers(source: str) -> tuple[str, ...]:
    """The convolutions that weights reach; read once, since a file may have half a gigabyte."""
    return tuple(weights.load(source).layers)


class Lesson:
    """Sizes, steps and layers for a notebook's experiments, its pictures and its network.

    Args:
        budget: name of one of BUDGETS.
        photo, painting: names of samples, or paths.
        report: called as a sweep's; by default progress is shown.
        parameters: more of the fields of SweepSettings.

    Attributes:
        size, steps, longer: the budget's, unless parameters say otherwise.
        common: settings of all its runs, {name: value}.
        layers: the paper's content and style layers that the weights reach, {name: value}.

    Raises:
        InputError: for parameters that are not allowed.
    """

    def __init__(
        self,
        budget: str = BUDGET_NAMES[0],
        photo: str = SweepSettings.photo,
        painting: str = SweepSettings.painting,
        report: Report | None = None,
        **parameters: Any,
    ):
        self.options = SweepSettings(
            EXPERIMENT_IDS[0], budget=budget, photo=photo, painting=painting, **parameters
        )
        self.report = report
        defaults = BUDGETS[budget]
        self.size = self.options.size or defaults.size
        self.steps = self.options.steps or defaults.steps
        self.longer = self.steps * defaults.longer // defaults.steps
        self.common: dict[str, Any] = {
            "size": self.size,
            "steps": self.steps,
            "seed": self.options.seed,
            "weights": self.options.weights,
            "levels": 1,
        }
        reached = reached_layers(self.options.weights)
        content_layers = tuple(layer for layer in CONTENT_LAYERS if layer in reached)
        self.content_layers = content_layers or reached[-2:][:1]
        self.style_layers = tuple(layer for layer in STYLE_LAYERS if layer in reached)
        self.layers = {"content_layers": self.content_layers, "style_layers": self.style_layers}

    @cached_property
    def net(self) -> VGG19:
        """The network to look into, normalized, in float32 on the CPU."""
        return normalize_activations(
            VGG19(self.options.weights, precision="float32", seed=self.options.seed)
        )

    @cached_property
    def photo(self) -> Tensor:
        """(1, 3, H, W) in [0, 1]."""
        return im.load(self.options.photo, self.size)

    @cached_property
    def painting(self) -> Tensor:
        """(1, 3, H, W) in [0, 1], in the photo's shape."""
        return im.fit(im.load(self.options.painting), self.photo.shape[-2:])

    def pictures(self) -> figures.Shown:
        """The photo and the painting."""
        return figures.contact_sheet([[self.photo, self.painting]], [""], ["photo", "painting"])

    def estimate(self, sweep: Sweep) -> None:
        """Print how long a sweep will take on this machine; runs in the store take no time."""
        if self.report is None:
            print(estimates.estimate(sweep, self.options.results, self.options.device))

    def run(self, sweep: Sweep) -> list[FinishedRun]:
        """Find or compute all runs of a sweep, and show progress.

        Raises:
            InputError: if settings that should differ are the same, as with weights that end too
                early.
        """
        _check_cases_differ(sweep, self.options.weights)
        options = self.options
        with contextlib.ExitStack() as stack:
            executor = None
            if options.dask is not None:
                executor = stack.enter_context(dask(options.dask, options.device))
            report = self.report
            if report is None:
                report = stack.enter_context(Progress(len(sweep.cases)))
            return sweep.run(options.results, executor, options.device, report)

    def learn(self, settings: LearnSettings) -> StyleModel:
        """Learn to paint in one pass, or find the model that was learnt before.

        Meanwhile, show the held-out photo as it is painted.
        """
        photo = im.sample(HELD_OUT, PREVIEW)
        report = self.report
        files.make_folder(self.options.results)
        with Progress(settings.steps, "batch", quiet=report is not None) as progress:

            def show(step: LearningStep) -> None:
                if report is not None:
                    report(settings.out.stem, step, None)
                progress.bar.update(step.index - progress.bar.n)
                progress.show(lambda: step.model()(photo), f"loss {step.loss:.3g}")

            train(settings, show, wait=True)
        return StyleModel.load(settings.out)

    def film(self, clip: Path, **changes: Any) -> Film:
        """Paint a clip, or find it painted; meanwhile, show the newest frame.

        Args:
            clip: its file.
            changes: fields of VideoSettings.
        """
        settings = _film_settings(self, clip, changes)
        with Progress(0, "frame", quiet=self.report is not None) as progress:

            def show(frame: FrameDone) -> None:
                progress.bar.total = frame.count
                progress.bar.update()
                progress.show(lambda: im.load(frame.path), str(frame.path))

            return paint_film(settings, show, wait=True)


def _check_cases_differ(sweep: Sweep, weights: str) -> None:
    """Raise InputError if two cases are the same, or an axis has one value."""
    differ = len({case.settings for case in sweep.cases}) == len(sweep.cases)
    if not differ or any(len(values) == 1 for values in sweep.axes.values()):
        raise InputError(
            f"the weights '{weights}' end at {reached_layers(weights)[-1]}, too early for what is "
            "compared"
        )


def _film_settings(lesson: Lesson, clip: Path, changes: dict[str, Any]) -> VideoSettings:
    """The settings of a film: its frames are painted as the lesson's runs are, in fewer steps."""
    frame = {**lesson.layers, **lesson.common}
    del frame["size"]
    results = lesson.options.results
    defaults: dict[str, Any] = {
        "out": files.make_folder(results / "films") / f"{clip.name}.mp4",
        "size": lesson.size,
        "steps": max(2, lesson.steps // 4),
        "parameters": words(frame),
        "device": lesson.options.device,
        "results": results,
    }
    return VideoSettings(str(clip), lesson.options.painting, **defaults | changes)
