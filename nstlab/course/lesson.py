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
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import ipywidgets as w
from IPython.display import display
from torch import Tensor
from tqdm.auto import tqdm

from nstlab import figures
from nstlab.base import files
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.base.settings import InputError
from nstlab.course import estimates
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS, SweepSettings
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.learned import train
from nstlab.feedforward.learning import LearningStep
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import LearnSettings
from nstlab.live.static import static
from nstlab.live.viewer import jpeg
from nstlab.networks import weights
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Report, Sweep, dask
from nstlab.video.filmed import Film, FrameDone, paint_film
from nstlab.video.settings import VideoSettings, words

PREVIEW = 240  # px: long side of the picture that is shown while it is made


@dataclass(frozen=True)
class Budget:
    """How much an experiment may cost: long side in pixels, steps, and `longer` where it asks what
    more steps change."""

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
    """The convolutions that some weights have; read once, since a file may have half a gigabyte."""
    return tuple(weights.load(source).layers)


class Lesson:
    """Sizes, steps and layers for a notebook's experiments, its pictures and its network.

    size, steps, longer: the budget's, unless parameters say otherwise. common: settings of all its
    runs, {name: value}. layers: the paper's content and style layers, {name: value}, as far as the
    weights reach. Raises InputError for parameters that are not allowed."""

    def __init__(
        self,
        budget: str = BUDGET_NAMES[0],
        photo: str = SweepSettings.photo,
        painting: str = SweepSettings.painting,
        report: Report | None = None,
        **parameters: Any,
    ):
        """parameters: more of the fields of SweepSettings. report: called as a sweep's; by default
        progress is shown."""
        self.options = SweepSettings(
            EXPERIMENT_IDS[0], budget=budget, photo=photo, painting=painting, **parameters
        )
        self.report = report
        budgeted = BUDGETS[budget]
        there = reached_layers(self.options.weights)
        self.size = self.options.size or budgeted.size
        self.steps = self.options.steps or budgeted.steps
        self.longer = self.steps * budgeted.longer // budgeted.steps
        shared = {"seed": self.options.seed, "weights": self.options.weights, "levels": 1}
        self.common: dict[str, Any] = {"size": self.size, "steps": self.steps} | shared
        self.content_layers = (
            tuple(layer for layer in CONTENT_LAYERS if layer in there) or there[-2:][:1]
        )
        self.style_layers = tuple(layer for layer in STYLE_LAYERS if layer in there)
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
        """Print how long a sweep will take on this machine; runs that are kept from before take no
        time."""
        if self.report is None:
            print(estimates.estimate(sweep, self.options.results, self.options.device))

    def run(self, sweep: Sweep) -> list[FinishedRun]:
        """`sweep.run(results)`: find or compute all runs, and show the progress and the picture
        that is being made.

        Raises InputError if settings that should differ are the same, as with weights that end too
        early."""
        if len({case.settings for case in sweep.cases}) < len(sweep.cases) or 1 in map(
            len, sweep.axes.values()
        ):
            last = reached_layers(self.options.weights)[-1]
            raise InputError(
                f"the weights '{self.options.weights}' end at {last}, too early for what is "
                "compared"
            )
        address = self.options.dask
        with (
            contextlib.nullcontext()
            if address is None
            else dask(address, self.options.device) as executor,
            Progress(len(sweep.cases))
            if self.report is None
            else contextlib.nullcontext(self.report) as report,
        ):
            return sweep.run(self.options.results, executor, self.options.device, report)

    def learn(self, settings: LearnSettings) -> StyleModel:
        """Learn to paint in one pass, or find what was learnt before. Meanwhile, show the held-out
        photo as it is painted."""
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
        """Paint a clip, or find it painted; meanwhile, show the newest frame. changes: fields of
        VideoSettings."""
        own = {**self.layers, **self.common}
        own.pop("size")
        results = self.options.results
        given = {
            "size": self.size,
            "steps": max(2, self.steps // 4),
            "parameters": words(own),
            "results": results,
        }
        where = {
            "out": files.make_folder(results / "films") / f"{clip.name}.mp4",
            "device": self.options.device,
        }
        settings = VideoSettings(str(clip), self.options.painting, **where | given | changes)
        with Progress(0, "frame", quiet=self.report is not None) as progress:

            def show(frame: FrameDone) -> None:
                progress.bar.total = frame.count
                progress.bar.update()
                progress.show(lambda: im.load(frame.path), str(frame.path))

            return paint_film(settings, show, wait=True)


class Progress:
    """A bar, and below it the picture being made; nothing if `quiet`, or where nobody looks. Called
    as sweeps report."""

    def __init__(self, total: int, unit: str = "run", quiet: bool = False):
        self.quiet = quiet or bool(static())
        self.bar = tqdm(total=total, unit=unit, disable=self.quiet)
        self.picture = w.Image(format="jpeg", layout={"width": f"{PREVIEW}px"})
        self.shown = 0.0  # when the picture was shown last, seconds

    def __enter__(self) -> Progress:
        if not self.quiet:
            display(self.picture)
        return self

    def __call__(self, case: Any, step: Any, done: Any) -> None:
        if done is not None:
            self.bar.update()
        else:
            self.show(
                lambda: step.preview()(), f"{case} step {step.index}, loss {step.loss:.3g}".strip()
            )

    def show(self, make: Callable[[], Tensor], text: str) -> None:
        """Show what `make` makes, and a text, unless others have just been shown."""
        if not self.quiet and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            self.picture.value = jpeg(make(), PREVIEW)
            self.bar.set_postfix_str(text)

    def __exit__(self, *_: Any) -> None:
        self.picture.close()
        self.bar.set_postfix_str("")
        self.bar.close()
