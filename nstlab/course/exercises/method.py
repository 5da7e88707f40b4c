"""Exercises of notebooks 01 and 02: the method, and what layers know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nstlab.course import measurements as measure
from nstlab.course.checks import close, exercise, hint, random
from nstlab.method.statistics import gram
from nstlab.networks.architectures import DEFAULT_NETWORK, architecture
from nstlab.runs.finished import FinishedRun


@exercise("01.1")
def gram_function(answer: Any) -> str:
    """A function from features (N, M) to their Gram matrix (N, N), a mean over positions."""
    features = random(4, 10)
    expected = gram(features[None, :, None, :])
    value = torch.as_tensor(answer(features))
    if value.shape == (10, 10):
        return (
            "yours compares positions with positions; the Gram matrix compares filters with "
            "filters: F Fᵀ"
        )
    sums = {"that is F Fᵀ; a mean over the M positions is divided by M": 10 * expected}
    return hint(
        value,
        expected,
        sums,
        "it should be the mean over positions of the products of two filters: F Fᵀ / M",
    )


@exercise("01.2")
def style_loss_function(answer: Any) -> str:
    """A function from features F (N, M) and a target A (N, N) to one layer's style loss."""
    features = random(5, 12)
    target = gram(random(1, 5, 1, 12, seed=1))
    difference = features @ features.T / 12 - target
    expected = float(difference.square().sum() / (4 * 5**2))
    mistakes = {
        "that is the sum of squares; the factor 1 / (4 N²) is missing": expected * 100,
        "that is the mean of squares; a quarter of it is the loss": expected * 4,
        "square the differences before you add them up": float(difference.sum() / 100),
        "N is squared in the factor 1 / (4 N²)": expected * 5,
        "M does not belong into the factor: G is a mean already": expected / 144,
    }
    return hint(
        float(answer(features, target)),
        expected,
        mistakes,
        "G = F Fᵀ / M first; then 1 / (4 N²) Σ (G − A)²",
    )


@exercise("01.3")
def gram_change(answer: Any) -> str:
    """A function from two feature maps to the relative change of their Gram matrices.

    The maps are (N, H, W); the change is |G − H| / |G|, with Frobenius norms.
    """
    a = random(4, 3, 5)
    b = random(4, 3, 5, seed=1)
    g = a.flatten(1) @ a.flatten(1).T
    h = b.flatten(1) @ b.flatten(1).T
    value = [float(answer(a, b)), float(answer(a, a.flip(2)))]
    mistakes = {
        "divide by the norm of the first matrix": [float((g - h).norm() / 15), 0.0],
        "divide by the norm of the first matrix, not of the second": [
            float((g - h).norm() / h.norm()),
            0.0,
        ],
        "compare the Gram matrices, not the features": [
            float((a - b).norm() / a.norm()),
            float((a - a.flip(2)).norm() / a.norm()),
        ],
        "that is the square of it": [float((g - h).norm() / g.norm()) ** 2, 0.0],
    }
    otherwise = (
        "flatten the positions, make both Gram matrices, and divide the norm of their "
        "difference by that of the first"
    )
    return hint(value, [float((g - h).norm() / g.norm()), 0.0], mistakes, otherwise)


@exercise("01.4")
def doubled_features(answer: Any) -> str:
    """How many times larger the style loss is when the features of both pictures are doubled."""
    square = {"the Gram matrices grow by that; their loss squares them once more": 4}
    return hint(
        answer, 16, square, "how does F Fᵀ change when F is doubled, and how does its square?"
    )


@exercise("01.5")
def step_function(answer: Any) -> str:
    """A function from a picture, a loss and a length to the picture after a step of that length.

    The step goes against the gradient; its length is the root mean square change of a pixel.
    """
    start = random(1, 3, 4, 4)
    goal = random(1, 3, 4, 4, seed=1)
    length = 0.05
    gradient = start - goal
    value = torch.as_tensor(
        answer(start.clone(), lambda image: 0.5 * (image - goal).square().sum(), length)
    ).detach()
    step = length * gradient / gradient.square().mean().sqrt()
    mistakes = {
        "that step goes up: descent goes against the gradient": start + step,
        "the gradient's own length is still in the step; divide by its root mean square": start
        - length * gradient,
        "that is the direction, or the step; subtract it from the picture": step,
        "that is the norm's length; the root mean square divides the sum by the number of values": (
            start - length * gradient / gradient.norm()
        ),
    }
    return hint(
        value,
        start - step,
        mistakes,
        "take the gradient, make its root mean square the length that is asked for, and subtract "
        "it from the picture",
    )


@exercise("02.1")
def furthest_layer(answer: Any, runs: Sequence[FinishedRun]) -> str:
    """The layer whose reconstruction, among the runs, has the lowest PSNR."""
    ratios = {run.settings.layer: measure.psnr(run.picture, run.photo) for run in runs}
    answer = architecture(DEFAULT_NETWORK).layer(answer)
    if answer not in ratios:
        return f"choose one of {', '.join(ratios)}"
    return (
        ""
        if answer == min(ratios, key=ratios.get)
        else "another layer's picture is further from the photo"
    )


@exercise("02.2")
def psnr_function(answer: Any) -> str:
    """A function from two pictures in [0, 1] to their peak signal-to-noise ratio in dB."""
    a = random(1, 3, 8, 8)
    b = random(1, 3, 8, 8, seed=1)
    expected = measure.psnr(a, b)
    value = float(answer(a, b))
    if close(value, expected * math.log(10)) or close(value, expected * math.log(10) / 10):
        return "decibels are made with the logarithm to base 10"
    sign = {"the sign is wrong: the smaller the error, the larger the ratio": -expected}
    return hint(
        value, expected, sign, "it is 10 log₁₀(1 / mean square error), since the largest value is 1"
    )


@exercise("02.3")
def field_of_conv4_4(answer: Any) -> str:
    """The width, in pixels, of what one position of conv4_4 sees."""
    first = {
        "that is one convolution; each further one adds two steps, and a step is twice as long "
        "after each pooling": 3
    }
    otherwise = (
        "walk from the first layer: a convolution adds 2 steps, a pooling adds 1 and "
        "doubles the length of a step"
    )
    return hint(answer, 116, first, otherwise)
