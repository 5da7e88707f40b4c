"""What the benchmarks have in common: options, rows, and the transfer of both contestants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain import PlainLoop
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS, WEIGHTS
from nstlab.base.options import option
from nstlab.base.settings import DEVICES, Settings
from nstlab.method.factories import content, style
from nstlab.method.fast import tiles as fast
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.objectives import Bound, Objective
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights, random_weights
from nstlab.pictures import images as im

BENCHES = (
    "start", "two", "evaluation", "long", "growth", "memory", "parts", "large", "feedforward",
    "film", "live",
    "first", "precision", "quality",
)  # fmt: skip
PAIRS = (("coffee", "swirl_strokes"), ("astronaut", "mosaic"), ("chelsea", "wave_engraving"))
ALPHA, BETA = 1.0, 1e3


def weights_option(default: str = "embedded") -> Any:
    """The field that names weights."""
    return option(default, "where VGG19's weights come from", choices=WEIGHTS, or_path=True)


def teacher_option() -> Any:
    """The field, without a default, that names the weights of a judge."""
    return option(help="the original VGG19's weights, conv1_1 to conv3_4 or more", paths=True)


def pairs_option(default: Sequence[tuple[str, str]]) -> Any:
    """The field for pairs of a photo and a painting, as one row of words: see `pairs_of`."""
    words = tuple(name for pair in default for name in pair)
    return option(words, "a photo and a painting; may be repeated", pairs=True)


def pairs_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """[(photo, painting)] of a row of words."""
    return list(zip(words[::2], words[1::2], strict=True))


@dataclass(frozen=True, kw_only=True)
class BenchSettings(Settings):
    """Measure speed and memory against public tools' loop, with nothing else running (40 min)."""

    rows: tuple[str, ...] = option(BENCHES, "what to measure", choices=BENCHES)
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    weights: str = option(
        "embedded", "weights for the rows that measure a loss", choices=WEIGHTS, or_path=True
    )
    sizes: tuple[int, ...] = option(
        (128, 256, 512, 1024), "long sides of the timed evaluations", low=64, high=4096, unit="px"
    )
    quality_size: int = option(
        512, "long side for the time to quality", low=64, high=2048, unit="px"
    )
    json: Path | None = option(None, "keep the result in this file")
    against: Path | None = option(None, "print ratios to an earlier result")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the row.
        values: numbers by name.
        target: what is promised.
        met: whether the promise is kept; None if nothing is promised.
    """

    name: str
    values: dict[str, float]
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        """As Markdown."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        kept = {None: "", True: "yes", False: "**no**"}[self.met]
        return f"| {self.name} | {values} | {self.target} | {kept} |"


@dataclass(frozen=True)
class Scene:
    """A transfer with the paper's layers: all that both contestants, lab and plain loop, need."""

    net: VGG19
    photo: Tensor
    painting: Tensor
    content: tuple[str, ...] = CONTENT_LAYERS
    style: tuple[str, ...] = STYLE_LAYERS

    @property
    def objective(self) -> Objective:
        """The transfer's, in the convention of both contestants."""
        return ALPHA * content(self.content, self.photo) + BETA * style(self.style, self.painting)

    @property
    def reads(self) -> list[str]:
        """The layers that are read, those of content first."""
        return self.objective.reads

    def bound(self, dtype: torch.dtype | None = None) -> Bound:
        """The objective in a type, by default in the network's own arithmetic."""
        arithmetic = None if dtype is None else Arithmetic(dtype)
        return fast.bind(self.objective, self.net, self.photo.shape[-2:], arithmetic)

    def loss(self, image: Tensor) -> float:
        """The loss of a picture in float32."""
        bound = self.bound(torch.float32)
        return float(bound.evaluate(image)[0]) * bound.scale

    def plain(self) -> PlainLoop:
        """The loop that public tools run, on the same objective."""
        n = len(self.content)
        return PlainLoop(
            self.net, self.photo, self.painting, self.reads[:n], self.reads[n:], ALPHA, BETA
        )

    def flops(self) -> float:
        """The operations of an evaluation's convolutions, forward and back, two for a product."""
        shapes = self.net.shapes(self.path, self.photo.shape[-2:])
        return 4.0 * sum(
            getattr(self.net, f"{name}_weight").numel() * h * w
            for name, (_, h, w) in shapes.items()
        )

    @property
    def path(self) -> list[str]:
        """The layers that are computed."""
        return self.net.architecture.convolutions_until(self.reads)


def with_precision(net: VGG19, precision: str) -> VGG19:
    """The same network, evaluated in another type."""
    other = VGG19(net.weights, net.pool, precision=precision)
    if net.normalized:
        normalize_activations(other)
    return other.to(net.device)


@cache
def full_width() -> Weights:
    """Random weights of VGG19's size; the time does not depend on their values."""
    return random_weights(0)


def scene(
    weights: Weights | str, size: int, device: torch.device, pair: int = 0, square: bool = True
) -> Scene:
    """A scene, its photo and painting in one shape.

    Args:
        weights: of its network.
        size: px, the long side.
        device: where it is.
        pair: which of PAIRS.
        square: whether the shape is square, else it has the photo's proportions.
    """
    net = normalize_activations(VGG19(weights)).to(device)
    photo = im.sample(PAIRS[pair][0], size)
    painting = im.load(PAIRS[pair][1])
    shape = (size, size) if square else tuple(photo.shape[-2:])
    pictures = [im.fit(picture, shape).to(device) for picture in (photo, painting)]
    if net.weights.layers[-1] < "conv4_2":  # weights of the first three blocks
        return Scene(net, *pictures, ("conv3_3",), STYLE_LAYERS[:3])
    return Scene(net, *pictures)
