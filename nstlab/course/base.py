"""What an experiment is made of: budgets, the settings it starts from, what a finished run shows, and claims."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pandas
from torch import Tensor

from nstlab import images as im
from nstlab.course.settings import SweepSettings
from nstlab.method import weights
from nstlab.method.names import CONTENT_LAYERS, LAYERS, STYLE_LAYERS
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import INITS, RunSettings
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.sweep import Case, Done, Sweep


@dataclass(frozen=True)
class Budget:
    """How much an experiment may cost. `longer` is for those that ask what more steps change."""

    size: int
    steps: int
    longer: int


BUDGETS = {
    "quick": Budget(256, 200, 500),  # a laptop's minutes
    "paper": Budget(512, 3000, 10_000),  # as published; meant for a GPU
    "smoke": Budget(48, 4, 8),  # only shows that all runs
}


@cache
def reach(source: str) -> tuple[str, ...]:
    """The convolutions of some weights; read once, since a report asks often and a file may have half a gigabyte."""
    return tuple(weights.load(source).layers)


@dataclass(frozen=True)
class Base:
    """What all runs of an experiment share. Layers are the paper's, as far as the weights reach."""

    photo: str
    painting: str
    size: int
    steps: int
    longer: int
    seed: int
    weights: str
    content: tuple[str, ...]
    style: tuple[str, ...]

    @classmethod
    def of(cls, options: SweepSettings) -> Base:
        budget, there = BUDGETS[options.budget], reach(options.weights)
        steps = options.steps or budget.steps
        return cls(
            options.photo, options.painting, options.size or budget.size, steps, steps * budget.longer // budget.steps,
            options.seed, options.weights, tuple(layer for layer in CONTENT_LAYERS if layer in there) or (there[-2:][0],),
            tuple(layer for layer in STYLE_LAYERS if layer in there),
        )  # fmt: skip

    def reached(self, *layers: str) -> list[str]:
        """Those of the layers that lie no deeper than the deepest one in use."""
        deepest = max(map(LAYERS.index, (*self.content, *self.style)))
        return [layer for layer in layers if LAYERS.index(layer) <= deepest]

    def _common(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("size", "steps", "seed", "weights")} | {"levels": 1}

    def transfer(self, **changes: Any) -> TransferSettings:
        own = {"content_layers": self.content, "style_layers": self.style, "init": INITS[0]}
        return TransferSettings(self.photo, self.painting, **(self._common() | own | changes))

    def reconstruct(self, **changes: Any) -> ReconstructSettings:
        return ReconstructSettings(self.photo, **(self._common() | changes))

    def texture(self, **changes: Any) -> TextureSettings:
        return TextureSettings(self.painting, **(self._common() | {"style_layers": self.style} | changes))


@dataclass(frozen=True, eq=False)
class Seen:
    """A finished run, as the claims look at it; everything is read from the store when it is first asked for."""

    done: Done

    @property
    def case(self) -> Case:
        return self.done.case

    @property
    def settings(self) -> RunSettings:
        return self.done.case.settings

    @cached_property
    def picture(self) -> Tensor:
        return im.reopen(self.done.run.picture)

    @cached_property
    def history(self) -> pandas.DataFrame:
        return self.done.run.history()

    @cached_property
    def result(self) -> dict[str, Any]:
        return self.done.run.manifest["result"]

    def term(self, name: str) -> float:
        """A term's unweighted value at the end."""
        return float(self.result["terms"][name])

    def fallen(self, name: str) -> float:
        """A term's value at the end over that of the first picture."""
        return self.term(name) / float(self.history[name].iloc[0])

    @cached_property
    def photo(self) -> Tensor:
        """In the picture's shape."""
        return im.resize(im.load(self.settings.photo), self.picture.shape[-2:])

    @cached_property
    def painting(self) -> Tensor:
        """In the picture's shape."""
        return im.fit(im.load(self.settings.painting), self.picture.shape[-2:])

    @cached_property
    def start(self) -> Tensor:
        """The first picture."""
        return recipes.prepare(self.settings, "cpu").start


@dataclass(frozen=True)
class Claim:
    """A sentence that a number confirms or refutes."""

    text: str
    number: str
    holds: bool


@dataclass(frozen=True)
class Experiment:
    """One of the classic experiments.

    sweep: its runs; None if it needs none. claims: from the finished runs, in the order of the sweep's cases, and the base.
    curves: terms whose loss curves belong to its picture."""

    id: str
    title: str
    question: str
    claims: Callable[[Sequence[Seen], Base], list[Claim]]
    sweep: Callable[[Base], Sweep] | None = None
    curves: tuple[str, ...] = ()


def claim(text: str, numbers: Sequence[float] | Mapping[str, float], holds: bool, unit: str = "") -> Claim:
    """A claim with its numbers as text: "0.123, 4.56 px", "noise 0.1, grey 0.2"."""
    named = numbers.items() if isinstance(numbers, Mapping) else [("", value) for value in numbers]
    shown = ", ".join(f"{name} {value:.3g}".strip() for name, value in named)
    return Claim(text, f"{shown} {unit}".strip(), bool(holds))


def label_of(run: Seen) -> str:
    """What distinguishes a run: its case's labels."""
    return ", ".join(run.case.labels.values())


def rises(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before; of fewer than two that cannot be said."""
    return len(values) > 1 and all(a < b for a, b in itertools.pairwise(values))
