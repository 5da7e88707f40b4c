"""The exercises' checks: each takes the reader's answer and the lesson's material, and returns a hint, or "" if it is right.

No hint gives the answer away. Where a function is asked for, it is tried on random values from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nstlab.course import measurements as measure
from nstlab.course.material import Material
from nstlab.method.names import BLOCKS, CONVOLUTIONS, layer_name
from nstlab.method.statistics import gram
from nstlab.recipes import plan as recipes

Check = Callable[[Any, Material], str]
EXERCISES: dict[str, Check] = {}


def exercise(number: str) -> Callable[[Check], Check]:
    """Put a check into EXERCISES, under a notebook's number and its own: "03.1"."""

    def register(check: Check) -> Check:
        EXERCISES[number] = check
        return check

    return register


# --- how answers are compared -----------------------------------------------------------------------------------


def _close(found: Any, wanted: Any, tolerance: float = 1e-3) -> bool:
    """Whether two numbers, or two arrays of one shape, agree within a part of the largest value."""
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    return found.shape == wanted.shape and bool(np.all(np.abs(found - wanted) <= tolerance * np.abs(wanted).max() + 1e-12))


def _hint(found: Any, wanted: Any, mistakes: dict[str, Any], otherwise: str, tolerance: float = 1e-3) -> str:
    """ "" for the wanted value; the hint of the known mistake that leads to the value found; or else another."""
    if _close(found, wanted, tolerance):
        return ""
    return next((hint for hint, value in mistakes.items() if _close(found, value, tolerance)), otherwise)


def _word(answer: Any) -> str:
    return str(answer).strip().lower()


def _choice(answer: Any, allowed: tuple[str, ...], right: str, hint: str) -> str:
    """ "" for the right one of the words that are allowed, the hint for another of them."""
    if _word(answer) not in allowed:
        *most, last = (f'"{word}"' for word in allowed)
        return f"answer {', '.join(most)} or {last}"
    return "" if _word(answer) == right else hint


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- 01 how it works, 02 reconstructions ------------------------------------------------------------------------


@exercise("01.1")
def gram_function(answer: Any, material: Material) -> str:
    """A function from features (N, M) to their Gram matrix (N, N), a mean over positions."""
    features = _random(4, 10)
    wanted, found = gram(features[None, :, None, :]), torch.as_tensor(answer(features))
    if found.shape == (10, 10):
        return "yours compares positions with positions; the Gram matrix compares channels with channels: F Fᵀ"
    sums = {"that is F Fᵀ; a mean over the M positions is divided by M": 10 * wanted}
    return _hint(found, wanted, sums, "it should be the mean over positions of the products of two channels: F Fᵀ / M")


@exercise("01.2")
def shuffled_positions(answer: Any, material: Material) -> str:
    """The loss that stays 0 when a feature map's positions are shuffled, in all channels alike."""
    hint = "think of F Fᵀ: does a sum over positions depend on their order?"
    return _choice(answer, ("content", "style"), "style", hint)


@exercise("01.3")
def doubled_features(answer: Any, material: Material) -> str:
    """How many times larger the style loss is when the features of both pictures are doubled."""
    square = {"the Gram matrices grow by that; their loss squares them once more": 4}
    return _hint(answer, 16, square, "how does F Fᵀ change when F is doubled, and how does its square?")


@exercise("02.1")
def psnr_function(answer: Any, material: Material) -> str:
    """A function from two pictures with values in [0, 1] to their peak signal-to-noise ratio in dB."""
    a, b = _random(1, 3, 8, 8), _random(1, 3, 8, 8, seed=1)
    wanted, found = measure.psnr(a, b), float(answer(a, b))
    if _close(found, wanted * math.log(10)) or _close(found, wanted * math.log(10) / 10):
        return "decibels are made with the logarithm to base 10"
    sign = {"the sign is wrong: the smaller the error, the larger the ratio": -wanted}
    return _hint(found, wanted, sign, "it is 10 log₁₀(1 / mean square error), since the largest value is 1")


@exercise("02.2")
def field_of_conv4_4(answer: Any, material: Material) -> str:
    """The width, in pixels, of what one position of conv4_4 sees."""
    first = {"that is one convolution; each further one adds two steps, and a step is twice as long after each pooling": 3}
    otherwise = "walk from the first layer: a convolution adds 2 steps, a pooling adds 1 and doubles the length of a step"
    return _hint(answer, 116, first, otherwise)


@exercise("02.3")
def furthest_layer(answer: Any, material: Material) -> str:
    """The layer whose reconstruction has the lowest PSNR."""
    if "E1" not in material.runs:
        return "run E1 first"
    ratios = {run.settings.layer: measure.psnr(run.picture, run.photo) for run in material.runs["E1"]}
    answer = layer_name(answer)
    if answer not in ratios:
        return f"choose one of {', '.join(ratios)}"
    return "" if answer == min(ratios, key=ratios.get) else "another layer's picture is further from the photo"


# --- 03 alpha and beta, 04 layers -------------------------------------------------------------------------------


@exercise("03.1")
def common_factor(answer: Any, material: Material) -> str:
    """What becomes of the picture when α and β are both ten times as large."""
    hint = "what does a common factor of a function do to the place of its minimum?"
    return _choice(answer, ("the same", "another"), "the same", hint)


@exercise("03.2")
def beta_between(answer: Any, material: Material) -> str:
    """A β whose content error ends between those of α/β = 1e-2 and 1e-3."""
    if "E3" not in material.runs:
        return "run E3 first"
    beta = float(answer)
    ends = {run.settings.beta: run.term("content") for run in material.runs["E3"]}
    low, high = sorted((ends[1e2], ends[1e3]))
    found = material.stored(material.base.transfer(alpha=1.0, beta=beta)).term("content")
    if low < found < high:
        return ""
    way = "larger" if found <= low else "smaller"
    return f"with β = {beta:g} the content error ends at {found:.4g}, outside {low:.4g} to {high:.4g}; try a {way} β"


@exercise("04.1")
def eleventh_layer(answer: Any, material: Material) -> str:
    """The name of the tutorial's layer 11."""
    if _word(answer).replace(" ", "").replace("relu", "conv") == CONVOLUTIONS[10]:
        return ""
    return f"count the convolutions of all blocks, {', '.join(map(str, BLOCKS))} of them, from 1"


@exercise("04.2")
def gram_entries(answer: Any, material: Material) -> str:
    """How many numbers the Gram matrices of the style layers hold, in the network that is used."""
    widths = material.widths().values()
    half = {"they are symmetric, that is true; but here count all their entries": sum(n * (n + 1) // 2 for n in widths)}
    otherwise = "a layer with N channels has a Gram matrix of N × N; `lesson.widths()` gives the channels"
    return _hint(answer, sum(n * n for n in widths), half, otherwise, 1e-9)


# --- 05 initialization, 06 stochasticity ------------------------------------------------------------------------


@exercise("05.1")
def painting_as_start(answer: Any, material: Material) -> str:
    """What becomes of the painting as the first picture, with style terms alone."""
    hint = "how large is the style loss of the painting itself, and its gradient?"
    return _choice(answer, ("stays", "noise", "photo"), "stays", hint)


@exercise("05.2")
def correlation_function(answer: Any, material: Material) -> str:
    """A function from two arrays of one shape to Pearson's correlation."""
    a, b = _random(8, 8).numpy(), _random(8, 8, seed=1).numpy() + _random(8, 8).numpy()
    cosine = float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    means = {"subtract the means first, or two bright pictures are always alike": cosine}
    otherwise = "it is the mean of the product of both, each without its mean and divided by its standard deviation"
    return _hint(float(answer(a, b)), float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), means, otherwise)


@exercise("06.1")
def mean_picture(answer: Any, material: Material) -> str:
    """Whether the loss of the four pictures' mean is lower or higher than theirs."""
    if "E8" not in material.runs:
        return "run E8 first"
    pictures = [run.picture for run in material.runs["E8"]]
    plan = recipes.prepare(material.runs["E8"][0].settings.replace(precision="float32"), "cpu")
    mean, *losses = plan.losses([torch.stack(pictures).mean(0), *pictures])
    right = "higher" if mean > max(losses) else "lower"
    return _choice(answer, ("lower", "higher"), right, "what does averaging do to strokes that lie at different places?")


@exercise("06.2")
def relative_spread(answer: Any, material: Material) -> str:
    """A function from a list of losses to how much larger the largest is than the smallest, as a part of it."""
    found = [float(answer(losses)) for losses in ([2.0, 2.5, 2.2], [7.0, 3.0, 4.0])]
    return _hint(
        found, [1 / 4, 4 / 3], {"that is in percent": [25, 400 / 3]}, "divide the largest by the smallest, and subtract 1"
    )


# --- 07 pooling, 08 optimizers, 09 other knobs ------------------------------------------------------------------


@exercise("07.1")
def pooling_function(answer: Any, material: Material) -> str:
    """A function from a map (H, W) and "max" or "avg" to its 2×2 pooling."""
    values = _random(4, 6)
    blocks = values.reshape(2, 2, 3, 2)
    for how, wanted in {"max": blocks.amax((1, 3)), "avg": blocks.mean((1, 3))}.items():
        found = torch.as_tensor(answer(values, how))
        if found.shape != wanted.shape:
            return f"for {how} the result has shape {tuple(found.shape)}; of 4×6 values 2×3 remain"
        if not _close(found, wanted):
            return f"the values are not those of {how} pooling"
    return ""


@exercise("07.2")
def gradients_passed(answer: Any, material: Material) -> str:
    """(max, avg): how many of four values the gradient of their pooling reaches."""
    if np.shape(answer) != (2,):
        return "give two numbers: (max, avg)"
    return "" if np.asarray(answer).tolist() == [1, 4] else "if one of the four values grew a little, would the result change?"


@exercise("08.1")
def newton_function(answer: Any, material: Material) -> str:
    """A function from gradient (n,) and Hessian (n, n) to Newton's step."""
    gradient, root = _random(3).numpy(), _random(3, 3, seed=1).numpy()
    hessian = root @ root.T + np.eye(3)
    step = -np.linalg.solve(hessian, gradient)
    otherwise = "where is the gradient of the quadratic model, g + H p, zero?"
    return _hint(answer(gradient, hessian), step, {"the sign is wrong: a step goes down": -step}, otherwise)


@exercise("08.2")
def lbfgs_memory(answer: Any, material: Material) -> str:
    """How many numbers L-BFGS keeps, with 50 pairs, for the lesson's picture."""
    pixels = material.photo.numel()
    if _close(answer, 100 * pixels + 50, 1e-9):  # with each pair's y · s
        return ""
    mistakes = {
        "a pair is two vectors: the step, and the gradient's change": 50 * pixels,
        "that is the whole inverse Hessian, which it avoids": pixels**2,
    }
    height, width = material.photo.shape[-2:]
    otherwise = f"count its pairs of vectors; each has as many numbers as the picture, 3 × {height} × {width}"
    return _hint(answer, 100 * pixels, mistakes, otherwise, 1e-9)


@exercise("09.1")
def normalized_features(answer: Any, material: Material) -> str:
    """What normalizing the activations does to a layer's features."""
    hint = "each filter's output is divided by a number, and the next layer multiplies it back"
    return _choice(answer, ("scaled", "other"), "scaled", hint)


@exercise("09.2")
def halving_weights(answer: Any, material: Material) -> str:
    """Five weights, each half of the one before, that add up to 1."""
    weights = np.asarray(answer, dtype=float)
    if weights.shape != (5,):
        return "give five numbers"
    if not np.allclose(weights[1:], weights[:-1] / 2, rtol=1e-3):
        return "each should be half of the one before"
    return "" if abs(weights.sum() - 1) < 1e-3 else f"they add up to {weights.sum():.4g}, not to 1"
