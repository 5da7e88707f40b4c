"""Score a picture by the original network: how near it is to a painting's style, a photo's content.

    judge = Judge("vgg19.safetensors")      # VGG19 with its own max pooling and zero padding
    score = judge(picture, photo, painting)
    # Score(style={"conv1_1": 0.004, …}, content={"conv3_3": 0.52, …})

Networks or settings are compared at equal content error: `at_content_error` takes `Score.pair`, or
`Score.deep`, of several pictures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nstlab.base.names import rectified
from nstlab.method.statistics import gram
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from nstlab.pictures import images as im

STYLE = ("conv1_1", "conv2_1", "conv3_1")
CONTENT = "conv3_3"
DEEP = "conv4_1"  # the layer of another style and content error, if the weights reach that far
SILENT = 1e-6  # least mean that a channel is divided by


@dataclass(frozen=True)
class Score:
    """Relative errors, by layer; lower is nearer.

    All features are behind the ReLU, each channel divided by its mean over photo and painting. An
    error that the judge's weights do not reach is nan.

    Attributes:
        style: Σ (G - A)² / Σ A² of the Gram matrices.
        content: Σ (F - P)² / Σ P² of the features.
    """

    style: dict[str, float]
    content: dict[str, float]

    @property
    def style_mean(self) -> float:
        """Over STYLE."""
        return sum(self.style[layer] for layer in STYLE) / len(STYLE)

    @property
    def pair(self) -> tuple[float, float]:
        """(content error, style error) as the first three blocks see them."""
        return self.content[CONTENT], self.style_mean

    @property
    def deep(self) -> tuple[float, float]:
        """(content error, style error) as the fourth block sees them."""
        return self.content.get(DEEP, math.nan), self.style.get(DEEP, math.nan)


class Judge:
    """The original VGG19, or its lower layers.

    Args:
        weights: of its first three blocks at least.

    Raises:
        InputError: for weights that cannot be used, or end before CONTENT.
    """

    def __init__(self, weights: Weights | str | Path):
        self.net = VGG19(weights, pool="max")
        self.net.require([CONTENT])
        deep = (DEEP,) if DEEP in self.net.weights.layers else ()
        self.style = (*STYLE, *deep)
        self.content = (CONTENT, *deep)

    @torch.no_grad()
    def __call__(self, picture: Tensor, photo: Tensor, painting: Tensor) -> Score:
        """Score a picture, (1, 3, H, W) in [0, 1]; photo and painting are brought to its shape."""
        reads = {layer: rectified(layer) for layer in (*self.style, *self.content)}
        features = [
            self.net(im.fit(image, picture.shape[-2:]), reads.values())
            for image in (picture, photo, painting)
        ]
        style, content = {}, {}
        for layer, read in reads.items():
            x, p, a = (maps[read] for maps in features)
            mean = p.mean((0, 2, 3)) / 2 + a.mean((0, 2, 3)) / 2
            x, p, a = (f / mean.clamp(min=SILENT).view(1, -1, 1, 1) for f in (x, p, a))
            if layer in self.style:
                style[layer] = _relative(gram(x), gram(a))
            if layer in self.content:
                content[layer] = _relative(x, p)
        return Score(style, content)


def _relative(x: Tensor, target: Tensor) -> float:
    return float((x - target).square().sum() / target.square().sum())


def at_content_error(points: Iterable[tuple[float, float]], error: float) -> float | None:
    """The style error at a content error, interpolated in its logarithm.

    Args:
        points: (content error, style error) of pictures.
        error: the content error.

    Returns:
        The style error; None if all points lie on one side.
    """
    for (c0, s0), (c1, s1) in itertools.pairwise(sorted(points)):
        if c0 <= error <= c1 and c1 > c0:
            t = (error - c0) / (c1 - c0)
            return math.exp((1 - t) * math.log(max(s0, 1e-9)) + t * math.log(max(s1, 1e-9)))
    return None
