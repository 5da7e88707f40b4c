"""Score a picture by the original network, whatever made it: how near it is to a painting's style and a photo's content.

    judge = Judge("vgg19.safetensors")              # VGG19 with its own max pooling and zero padding
    score = judge(picture, photo, painting)         # Score(style={"conv1_1": 0.004, …}, content=0.52)

Two networks, or two settings, are compared at equal content error: `at_content_error`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nstlab import images as im
from nstlab.network import VGG19
from nstlab.settings import rectified
from nstlab.statistics import gram
from nstlab.weights import Weights

STYLE = ("conv1_1", "conv2_1", "conv3_1")
CONTENT = "conv3_3"
SILENT = 1e-6  # a channel that answers less to both pictures is not enlarged further


@dataclass(frozen=True)
class Score:
    """Relative errors; lower is nearer.

    style: Σ (G - A)² / Σ A² of the Gram matrices, by layer. content: Σ (F - P)² / Σ P² of the features at CONTENT.
    All features are behind the ReLU, each channel divided by its mean over photo and painting."""

    style: dict[str, float]
    content: float

    @cached_property
    def style_mean(self) -> float:
        return sum(self.style.values()) / len(self.style)


class Judge:
    """The original VGG19, or its first three blocks."""

    def __init__(self, weights: Weights | str | Path):
        self.net = VGG19(weights, pool="max", normalize=False)

    @torch.no_grad()
    def __call__(self, picture: Tensor, photo: Tensor, painting: Tensor) -> Score:
        """Score of a picture (1, 3, H, W) in [0, 1]; photo and painting are brought to its shape."""
        read = list(map(rectified, (*STYLE, CONTENT)))
        x, p, a = (self.net(im.fit(image, picture.shape[-2:]), read) for image in (picture, photo, painting))
        unit = {}
        for layer in read:
            mean = p[layer].mean((0, 2, 3)) / 2 + a[layer].mean((0, 2, 3)) / 2
            unit[layer] = 1 / mean.clamp(min=SILENT).view(1, -1, 1, 1)
        style = {}
        for layer in STYLE:
            read_layer = rectified(layer)
            got, wanted = (gram(f[read_layer] * unit[read_layer]) for f in (x, a))
            style[layer] = float((got - wanted).square().sum() / wanted.square().sum())
        layer = rectified(CONTENT)
        error, size = ((v * unit[layer]).square().sum() for v in (x[layer] - p[layer], p[layer]))
        return Score(style, float(error / size))


def at_content_error(scores: Sequence[Score], wanted: float) -> float | None:
    """Style error at a content error, between the two scores around it (log style error, linear content error);
    None if they all lie on one side."""
    points = sorted((score.content, score.style_mean) for score in scores)
    for (c0, s0), (c1, s1) in itertools.pairwise(points):
        if c0 <= wanted <= c1 and c1 > c0:
            t = (wanted - c0) / (c1 - c0)
            return math.exp((1 - t) * math.log(max(s0, 1e-9)) + t * math.log(max(s1, 1e-9)))
    return None
