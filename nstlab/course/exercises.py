"""The exercises' checks: each takes the reader's answer, and what else it needs, and returns a hint, or "" for a right answer.

No hint gives the answer away. Where a function is asked for, it is tried on random values from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstlab import colour
from nstlab.course import measurements as measure
from nstlab.course.checks import EXERCISES as EXERCISES
from nstlab.course.checks import check as check  # as nst.check, once all exercises are registered
from nstlab.course.checks import choice, close, exercise, hint, random, word
from nstlab.course.lesson import Lesson
from nstlab.method.network import VGG19
from nstlab.method.statistics import gram
from nstlab.names import BLOCKS, CONVOLUTIONS, layer_name
from nstlab.recipes import plan as recipes
from nstlab.runs.finished import FinishedRun
from nstlab.runs.sweep import Sweep

# --- 01 how it works, 02 reconstructions ------------------------------------------------------------------------


@exercise("01.1")
def gram_function(answer: Any) -> str:
    """A function from features (N, M) to their Gram matrix (N, N), a mean over positions."""
    features = random(4, 10)
    wanted, found = gram(features[None, :, None, :]), torch.as_tensor(answer(features))
    if found.shape == (10, 10):
        return "yours compares positions with positions; the Gram matrix compares filters with filters: F Fᵀ"
    sums = {"that is F Fᵀ; a mean over the M positions is divided by M": 10 * wanted}
    return hint(found, wanted, sums, "it should be the mean over positions of the products of two filters: F Fᵀ / M")


@exercise("01.2")
def style_loss_function(answer: Any) -> str:
    """A function from features F (N, M) of a picture and the painting's Gram matrix A (N, N) to the style loss of one layer."""
    features, target = random(5, 12), gram(random(1, 5, 1, 12, seed=1))
    difference = features @ features.T / 12 - target
    wanted = float(difference.square().sum() / (4 * 5**2))
    mistakes = {
        "that is the sum of squares; the factor 1 / (4 N²) is missing": wanted * 100,
        "that is the mean of squares; a quarter of it is the loss": wanted * 4,
        "square the differences before you add them up": float(difference.sum() / 100),
        "N is squared in the factor 1 / (4 N²)": wanted * 5,
        "M does not belong into the factor: G is a mean already": wanted / 144,
    }
    return hint(float(answer(features, target)), wanted, mistakes, "G = F Fᵀ / M first; then 1 / (4 N²) Σ (G − A)²")


@exercise("01.3")
def gram_change(answer: Any) -> str:
    """A function from two feature maps (N, H, W) to the relative change of their Gram matrices: |G − H| / |G| (Frobenius)."""
    a, b = random(4, 3, 5), random(4, 3, 5, seed=1)
    g, h = (each.flatten(1) @ each.flatten(1).T for each in (a, b))
    found = [float(answer(a, b)), float(answer(a, a.flip(2)))]
    mistakes = {
        "divide by the norm of the first matrix": [float((g - h).norm() / 15), 0.0],
        "divide by the norm of the first matrix, not of the second": [float((g - h).norm() / h.norm()), 0.0],
        "compare the Gram matrices, not the features": [
            float((a - b).norm() / a.norm()),
            float((a - a.flip(2)).norm() / a.norm()),
        ],
        "that is the square of it": [float((g - h).norm() / g.norm()) ** 2, 0.0],
    }
    otherwise = "flatten the positions, make both Gram matrices, and divide the norm of their difference by that of the first"
    return hint(found, [float((g - h).norm() / g.norm()), 0.0], mistakes, otherwise)


@exercise("01.4")
def doubled_features(answer: Any) -> str:
    """How many times larger the style loss is when the features of both pictures are doubled."""
    square = {"the Gram matrices grow by that; their loss squares them once more": 4}
    return hint(answer, 16, square, "how does F Fᵀ change when F is doubled, and how does its square?")


@exercise("01.5")
def step_function(answer: Any) -> str:
    """A function from a picture and a loss, a function of it, to the picture after a step of gradient descent of a length: the
    root mean square change of a pixel."""
    start, goal = random(1, 3, 4, 4), random(1, 3, 4, 4, seed=1)
    length, gradient = 0.05, start - goal
    found = torch.as_tensor(answer(start.clone(), lambda image: 0.5 * (image - goal).square().sum(), length)).detach()
    step = length * gradient / gradient.square().mean().sqrt()
    mistakes = {
        "that step goes up: descent goes against the gradient": start + step,
        "the gradient's own length is still in the step; divide by its root mean square": start - length * gradient,
        "that is the direction, or the step; subtract it from the picture": step,
        "that is the norm's length; the root mean square divides the sum by the number of values": (
            start - length * gradient / gradient.norm()
        ),
    }
    return hint(
        found,
        start - step,
        mistakes,
        "take the gradient, make its root mean square the length that is asked for, and subtract it from the picture",
    )


@exercise("02.1")
def furthest_layer(answer: Any, runs: Sequence[FinishedRun]) -> str:
    """The layer whose reconstruction, among the runs, has the lowest PSNR."""
    ratios = {run.settings.layer: measure.psnr(run.picture, run.photo) for run in runs}
    answer = layer_name(answer)
    if answer not in ratios:
        return f"choose one of {', '.join(ratios)}"
    return "" if answer == min(ratios, key=ratios.get) else "another layer's picture is further from the photo"


@exercise("02.2")
def psnr_function(answer: Any) -> str:
    """A function from two pictures with values in [0, 1] to their peak signal-to-noise ratio in dB."""
    a, b = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=1)
    wanted, found = measure.psnr(a, b), float(answer(a, b))
    if close(found, wanted * math.log(10)) or close(found, wanted * math.log(10) / 10):
        return "decibels are made with the logarithm to base 10"
    sign = {"the sign is wrong: the smaller the error, the larger the ratio": -wanted}
    return hint(found, wanted, sign, "it is 10 log₁₀(1 / mean square error), since the largest value is 1")


@exercise("02.3")
def field_of_conv4_4(answer: Any) -> str:
    """The width, in pixels, of what one position of conv4_4 sees."""
    first = {"that is one convolution; each further one adds two steps, and a step is twice as long after each pooling": 3}
    otherwise = "walk from the first layer: a convolution adds 2 steps, a pooling adds 1 and doubles the length of a step"
    return hint(answer, 116, first, otherwise)


# --- 03 alpha and beta, 04 layers -------------------------------------------------------------------------------


@exercise("03.1")
def common_factor(answer: Any) -> str:
    """What becomes of the picture when α and β are both ten times as large."""
    hint = "what does a common factor of a function do to the place of its minimum?"
    return choice(answer, ("the same", "another"), "the same", hint)


@exercise("03.2")
def beta_between(answer: Any, lesson: Lesson, runs: Sequence[FinishedRun]) -> str:
    """A β whose content error ends between those of the runs with β = 100 and β = 1000. The check makes its run."""
    beta = float(answer)
    ends = {run.settings.beta: run.terms["content"] for run in runs}
    low, high = sorted((ends[1e2], ends[1e3]))
    found = lesson.run(Sweep(runs[0].settings.replace(beta=beta), {}))[0].terms["content"]
    if low < found < high:
        return ""
    way = "larger" if found <= low else "smaller"
    return f"with β = {beta:g} the content error ends at {found:.4g}, outside {low:.4g} to {high:.4g}; try a {way} β"


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
    half = {"they are symmetric, that is true; but here count all their entries": sum(n * (n + 1) // 2 for n in widths)}
    otherwise = "a layer with N channels has a Gram matrix of N × N; `lesson.net.channels(layer)` tells N"
    return hint(answer, sum(n * n for n in widths), half, otherwise, 1e-9)


# --- 05 initialization, 06 stochasticity ------------------------------------------------------------------------


@exercise("05.1")
def painting_as_start(answer: Any) -> str:
    """What becomes of the painting as the first picture, with style terms alone."""
    hint = "how large is the style loss of the painting itself, and its gradient?"
    return choice(answer, ("stays", "noise", "photo"), "stays", hint)


@exercise("05.2")
def correlation_function(answer: Any) -> str:
    """A function from two arrays of one shape to Pearson's correlation."""
    a, b = random(8, 8).numpy(), random(8, 8, seed=1).numpy() + random(8, 8).numpy()
    cosine = float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    means = {"subtract the means first, or two bright pictures are always alike": cosine}
    otherwise = "it is the mean of the product of both, each without its mean and divided by its standard deviation"
    return hint(float(answer(a, b)), float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), means, otherwise)


@exercise("06.1")
def mean_picture(answer: Any, runs: Sequence[FinishedRun]) -> str:
    """Whether the loss of the mean of the runs' pictures is lower or higher than theirs."""
    pictures = [run.picture for run in runs]
    plan = recipes.prepare(runs[0].settings.replace(precision="float32"), "cpu")
    mean, *losses = plan.losses([torch.stack(pictures).mean(0), *pictures])
    right = "higher" if mean > max(losses) else "lower"
    return choice(answer, ("lower", "higher"), right, "what does averaging do to strokes that lie at different places?")


@exercise("06.2")
def relative_spread(answer: Any) -> str:
    """A function from a list of losses to how much larger the largest is than the smallest, as a part of it."""
    found = [float(answer(losses)) for losses in ([2.0, 2.5, 2.2], [7.0, 3.0, 4.0])]
    return hint(
        found, [1 / 4, 4 / 3], {"that is in percent": [25, 400 / 3]}, "divide the largest by the smallest, and subtract 1"
    )


# --- 07 pooling, 08 optimizers, 09 other knobs ------------------------------------------------------------------


@exercise("07.1")
def pooling_function(answer: Any) -> str:
    """A function from a map (H, W) and "max" or "avg" to its 2×2 pooling."""
    values = random(4, 6)
    blocks = values.reshape(2, 2, 3, 2)
    for how, wanted in {"max": blocks.amax((1, 3)), "avg": blocks.mean((1, 3))}.items():
        found = torch.as_tensor(answer(values, how))
        if found.shape != wanted.shape:
            return f"for {how} the result has shape {tuple(found.shape)}; of 4×6 values 2×3 remain"
        if not close(found, wanted):
            return f"the values are not those of {how} pooling"
    return ""


@exercise("07.2")
def gradients_passed(answer: Any) -> str:
    """(max, avg): how many of four values the gradient of their pooling reaches."""
    if np.shape(answer) != (2,):
        return "give two numbers: (max, avg)"
    return "" if np.asarray(answer).tolist() == [1, 4] else "if one of the four values grew a little, would the result change?"


@exercise("08.1")
def newton_function(answer: Any) -> str:
    """A function from gradient (n,) and Hessian (n, n) to Newton's step."""
    gradient, root = random(3).numpy(), random(3, 3, seed=1).numpy()
    hessian = root @ root.T + np.eye(3)
    step = -np.linalg.solve(hessian, gradient)
    otherwise = "where is the gradient of the quadratic model, g + H p, zero?"
    return hint(answer(gradient, hessian), step, {"the sign is wrong: a step goes down": -step}, otherwise)


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
    otherwise = f"count its pairs of vectors; each has as many numbers as the picture, 3 × {height} × {width}"
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


# --- 10 colour --------------------------------------------------------------------------------------------------


@exercise("10.1")
def luminance_function(answer: Any) -> str:
    """A function from two pictures to the first one with the second one's luminance."""
    image, other = random(1, 3, 4, 5), random(1, 3, 4, 5, seed=1)
    own, wanted = colour.luminance(image), colour.luminance(other)
    mistakes = {
        "that is the other one's luminance; the colours are gone": wanted,
        "take the first one's own luminance away before": image + wanted,
        "that is the other one, with the colours of neither changed": other,
    }
    otherwise = "add the same to all three channels: the difference of the two luminances"
    return hint(answer(image, other), image + wanted - own, mistakes, otherwise)


@exercise("10.2")
def grey_photo(answer: Any) -> str:
    """What matched colours make of a painting if the photo is grey."""
    return choice(answer, ("grey", "coloured"), "grey", "what does the covariance of a grey picture's pixels say of colour?")


# --- 11 regions -------------------------------------------------------------------------------------------------


@exercise("11.1")
def guided_gram(answer: Any) -> str:
    """A function from features (N, M) and a mask (M,) to the guided Gram matrix."""
    features, mask = random(4, 10), random(10, seed=1)
    wanted = (features * mask) @ features.T / mask.sum()
    mistakes = {
        "divide by what the mask adds up to, not by M": (features * mask) @ features.T / 10,
        "the mask is in both factors, and so it is squared": (features * mask) @ (features * mask).T / mask.sum(),
        "that is the whole picture's; the mask is missing": features @ features.T / 10,
    }
    return hint(answer(features, mask), wanted, mistakes, "a weighted mean over positions, with the mask as weights")


@exercise("11.2")
def mask_at_conv4_1(answer: Any) -> str:
    """The height of a mask of 171 px after three poolings."""
    rounded = {"an odd last row is dropped, not kept": 22}
    return hint(answer, 21, rounded, "halve it three times, each time without the rest", 1e-9)
