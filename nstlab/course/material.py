"""What a lesson is about: its pictures, its network, and the finished runs of its experiments."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import ipywidgets as w
from IPython.display import display
from torch import Tensor
from tqdm.auto import tqdm

from nstlab import images as im
from nstlab.course.base import Base, FinishedRun
from nstlab.course.experiments import experiment
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS, SweepSettings
from nstlab.live.studio import static
from nstlab.live.viewer import jpeg
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.recipes.base import RunSettings
from nstlab.runs.sweep import Sweep
from nstlab.settings import RESULTS

PREVIEW = 240  # px: long side of the picture that is shown while it is made


class Material:
    """Some of the classic experiments with one set of parameters (see SweepSettings), and what they are made from.

    Raises InputError for parameters that are not allowed, and for weights that end too early for an experiment."""

    def __init__(
        self,
        *experiments: str,
        budget: str = BUDGET_NAMES[0],
        size: int | None = None,
        seed: int = 0,
        photo: str = "coffee",
        painting: str = "swirl_strokes",
        weights: str = "auto",
        results: str | Path = RESULTS,
    ):
        parameters = {"budget": budget, "size": size, "seed": seed, "photo": photo, "painting": painting}
        parameters |= {"weights": weights, "results": results}
        self.base = Base(SweepSettings(EXPERIMENT_IDS[0], **parameters))
        self.experiments = {name: experiment(SweepSettings(name, **parameters)) for name in experiments}
        self.results = Path(results)
        self.runs: dict[str, list[FinishedRun]] = {}  # of each experiment that has been run

    @cached_property
    def net(self) -> VGG19:
        """The network to look into, in float32 on the CPU."""
        return normalize_activations(VGG19(self.base.weights, precision="float32", seed=self.base.seed))

    @cached_property
    def photo(self) -> Tensor:
        """(1, 3, H, W) in [0, 1]."""
        return im.load(self.base.photo, self.base.size)

    @cached_property
    def painting(self) -> Tensor:
        """(1, 3, H, W) in [0, 1], in the photo's shape."""
        return im.fit(im.load(self.base.painting), self.photo.shape[-2:])

    def widths(self) -> dict[str, int]:
        """The number of channels of each style layer."""
        return {layer: self.net.channels(layer) for layer in self.base.style}

    def stored(self, settings: RunSettings) -> FinishedRun:
        """A single run from the store; computed with a progress bar if it is not there."""
        with Progress("run", 1) as progress:
            (done,) = Sweep(settings, {}).run(self.results, report=progress)
        return FinishedRun(done)


class Progress:
    """A bar, and below it the picture that is being made; nothing where nobody looks. Called as a sweep reports."""

    def __init__(self, name: str, total: int):
        self.bar = tqdm(total=total, unit="run", desc=name, disable=static())
        self.picture = w.Image(format="jpeg", layout={"width": f"{PREVIEW}px"})
        self.shown = 0.0  # when the picture was shown last, seconds

    def __enter__(self) -> Progress:
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
