"""What experiments are made of: budgets, the settings their runs share, and finished runs as the claims see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pandas
from torch import Tensor

from nstlab import images as im
from nstlab.course.settings import SweepSettings
from nstlab.method import weights
from nstlab.method.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import INITS
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.sweep import Done


@dataclass(frozen=True)
class Budget:
    """How much an experiment may cost: long side in pixels, steps, and `longer` where it asks what more steps change."""

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


class Base:
    """What all runs of an experiment share, and the settings made from it.

    content, style: the paper's layers, as far as the weights reach. longer: the steps of an experiment that asks what more
    steps change."""

    def __init__(self, options: SweepSettings):
        budget, there = BUDGETS[options.budget], reached_layers(options.weights)
        self.photo, self.painting, self.seed, self.weights = options.photo, options.painting, options.seed, options.weights
        self.size, self.steps = options.size or budget.size, options.steps or budget.steps
        self.longer = self.steps * budget.longer // budget.steps
        self.content = tuple(layer for layer in CONTENT_LAYERS if layer in there) or there[-2:][:1]
        self.style = tuple(layer for layer in STYLE_LAYERS if layer in there)

    @property
    def _common(self) -> dict[str, Any]:
        return {"size": self.size, "steps": self.steps, "seed": self.seed, "weights": self.weights, "levels": 1}

    def transfer(self, **changes: Any) -> TransferSettings:
        own = {"content_layers": self.content, "style_layers": self.style, "init": INITS[0]}
        return TransferSettings(self.photo, self.painting, **(self._common | own | changes))

    def reconstruct(self, **changes: Any) -> ReconstructSettings:
        return ReconstructSettings(self.photo, **(self._common | changes))

    def texture(self, **changes: Any) -> TextureSettings:
        return TextureSettings(self.painting, **(self._common | {"style_layers": self.style} | changes))


class FinishedRun:
    """A finished run as the claims see it. Pictures are (1, 3, H, W) in [0, 1], all of one shape.

    labels: what is special about it, by the axes of its sweep. result: how it ended, with loss, terms, evaluations, seconds
    and events. history: a row for each step."""

    def __init__(self, done: Done):
        self.settings, self.labels, self.stored = done.case.settings, done.case.labels, done.run
        self.label = ", ".join(self.labels.values())
        self.result: dict[str, Any] = done.run.manifest["result"]
        self.picture = im.reopen(done.run.picture)

    @cached_property
    def history(self) -> pandas.DataFrame:
        return self.stored.history()

    def term(self, name: str) -> float:
        """A term's unweighted value at the end."""
        return float(self.result["terms"][name])

    def remaining(self, name: str) -> float:
        """A term's value at the end, as a part of that of the first picture."""
        return self.term(name) / float(self.history[name].iloc[0])

    @cached_property
    def photo(self) -> Tensor:
        return im.resize(im.load(self.settings.photo), self.picture.shape[-2:])

    @cached_property
    def painting(self) -> Tensor:
        return im.fit(im.load(self.settings.painting), self.picture.shape[-2:])

    @cached_property
    def start(self) -> Tensor:
        """The first picture."""
        return recipes.prepare(self.settings, "cpu").start


Runs = Sequence[FinishedRun]
