"""Exercises of notebooks 03 to 09: the classic experiments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstlab.base.names import BLOCKS, CONVOLUTIONS
from nstlab.course.checks import choice, close, exercise, hint, random, word
from nstlab.course.lesson import Lesson
from nstlab.networks.vgg import VGG19
from nstlab.recipes.prepare import prepare
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Sweep

# --- 03 alpha and beta, 04 layers -----------------------------------------------------------------


@exercise("03.1")
def common_factor(answer: Any) -> str:
    """What becomes of the picture when α and β are both ten times as large."""
    hint = "what does a common factor of a function do to the place of its minimum?"
    return choice(answer, ("the same", "another"), "the same", hint)


@exercise("03.2")
def beta_between(answer: Any, lesson: Lesson, runs: Sequence[FinishedRun]) -> str:
    """A β whose content error ends between those of the runs with β = 100 and β = 1000.

    The check makes its run.
    """
    beta = float(answer)
    errors = {run.settings.beta: run.terms["content"] for run in runs}
    low, high = sorted((errors[1e2], errors[1e3]))
    value = lesson.run(Sweep(runs[0].settings.replace(beta=beta), {}))[0].terms["content"]
    if low < value < high:
        return ""
    direction = "larger" if value <= low else "smaller"
    return (
        f"with β = {beta:g} the content error ends at {value:.4g}, outside {low:.4g} to "
        f"{high:.4g}; try a {direction} β"
    )


@exercise("04.1")
def eleventh_layer(answer: Any) -> str:
    """The name of the tutorial's layer 11."""
    if word(answer).replace(" ", "").replace("relu", "conv") == CONVOLUTIONS[10]:
        return ""
    return f"count the convolutions of all blocks, {', '.join(map(str, BLOCKS))} of them, from 1"


@exercise("04.2")
def gram_entries(answer: Any, net: VGG19, layers: Sequence[str]) -> str:
    """How many numbers the Gram matrices of some layers of a network hold."""
    widths = [net.channels(layer) for layer in layers]
    half = {
        "they are symmetric, that is true; but here count all their entries": sum(
            n * (n + 1) // 2 for n in widths
        )
    }
    otherwise = (
        "a layer with N channels has a Gram matrix of N × N; `lesson.net.channels(layer)` tells N"
    )
    return hint(answer, sum(n * n for n in widths), half, otherwise, 1e-9)


# --- 05 initialization, 06 stochasticity ----------------------------------------------------------


@exercise("05.1")
def painting_as_start(answer: Any) -> str:
    """What becomes of the painting as the first picture, with style terms alone."""
    hint = "how large is the style loss of the painting itself, and its gradient?"
    return choice(answer, ("stays", "noise", "photo"), "stays", hint)


@exercise("05.2")
def correlation_function(answer: Any) -> str:
    """A function from two arrays of one shape to Pearson's correlation."""
    a = random(8, 8).numpy()
    b = random(8, 8, seed=1).numpy() + random(8, 8).numpy()
    cosine = float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    means = {"subtract the means first, or two bright pictures are always alike": cosine}
    otherwise = (
        "it is the mean of the product of both, each without its mean and divided by its "
        "standard deviation"
    )
    return hint(
        float(answer(a, b)), float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), means, otherwise
    )


@exercise("06.1")
def mean_picture(answer: Any, runs: Sequence[FinishedRun]) -> str:
    """Whether the loss of the mean of the runs' pictures is lower or higher than theirs."""
    pictures = [run.picture for run in runs]
    plan = prepare(runs[0].settings.replace(precision="float32"), "cpu")
    mean, *losses = plan.losses([torch.stack(pictures).mean(0), *pictures])
    right = "higher" if mean > max(losses) else "lower"
    return choice(
        answer,
        ("lower", "higher"),
        right,
        "what does averaging do to strokes that lie at different places?",
    )


@exercise("06.2")
def relative_spread(answer: Any) -> str:
    """A function from losses to how much larger the largest is than the smallest, as its part."""
    value = [float(answer(losses)) for losses in ([2.0, 2.5, 2.2], [7.0, 3.0, 4.0])]
    return hint(
        value,
        [1 / 4, 4 / 3],
        {"that is in percent": [25, 400 / 3]},
        "divide the largest by the smallest, and subtract 1",
    )


# --- 07 pooling, 08 optimizers, 09 other knobs ----------------------------------------------------


@exercise("07.1")
def pooling_function(answer: Any) -> str:
    """A function from a map (H, W) and "max" or "avg" to its 2×2 pooling."""
    values = random(4, 6)
    blocks = values.reshape(2, 2, 3, 2)
    for how, expected in {"max": blocks.amax((1, 3)), "avg": blocks.mean((1, 3))}.items():
        value = torch.as_tensor(answer(values, how))
        if value.shape != expected.shape:
            return f"for {how} the result has shape {tuple(value.shape)}; of 4×6 values 2×3 remain"
        if not close(value, expected):
            return f"the values are not those of {how} pooling"
    return ""


@exercise("07.2")
def gradients_passed(answer: Any) -> str:
    """(max, avg): how many of four values the gradient of their pooling reaches."""
    if np.shape(answer) != (2,):
        return "give two numbers: (max, avg)"
    return (
        ""
        if np.asarray(answer).tolist() == [1, 4]
        else "if one of the four values grew a little, would the result change?"
    )


@exercise("08.1")
def newton_function(answer: Any) -> str:
    """A function from gradient (n,) and Hessian (n, n) to Newton's step."""
    gradient = random(3).numpy()
    root = random(3, 3, seed=1).numpy()
    hessian = root @ root.T + np.eye(3)
    step = -np.linalg.solve(hessian, gradient)
    otherwise = "where is the gradient of the quadratic model, g + H p, zero?"
    return hint(
        answer(gradient, hessian), step, {"the sign is wrong: a step goes down": -step}, otherwise
    )


@exercise("08.2")
def lbfgs_memory(answer: Any, photo: Tensor) -> str:
    """How many numbers L-BFGS keeps, with 50 pairs, for a picture."""
    pixels = photo.numel()
    if close(answer, 100 * pixels + 50, 1e-9):  # with each pair's y · s
        return ""
    mistakes = {
        "a pair is two vectors: the step, and the gradient's change": 50 * pixels,
        "that is the whole inverse Hessian, which it avoids": pixels**2,
    }
    height, width = photo.shape[-2:]
    otherwise = (
        "count its pairs of vectors; each has as many numbers as the picture, 3 × "
        f"{height} × {width}"
    )
    return hint(answer, 100 * pixels, mistakes, otherwise, 1e-9)


@exercise("09.1")
def normalized_features(answer: Any) -> str:
    """What normalizing the activations does to a layer's features."""
    hint = "each filter's output is divided by a number, and the next layer multiplies it back"
    return choice(answer, ("scaled", "other"), "scaled", hint)


@exercise("09.2")
def halving_weights(answer: Any) -> str:
    """Five weights, each half of the one before, that add up to 1."""
    weights = np.asarray(answer, dtype=float)
    if weights.shape != (5,):
        return "give five numbers"
    if not np.allclose(weights[1:], weights[:-1] / 2, rtol=1e-3):
        return "each should be half of the one before"
    return "" if abs(weights.sum() - 1) < 1e-3 else f"they add up to {weights.sum():.4g}, not to 1"
