"""The exercises' checks: each takes the reader's answer and the lesson, and returns a hint, or "" if the answer is right.

A check never shows the answer. Where a function is asked for, it is tried on random values with a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from nstlab import images as im
from nstlab.course import demonstrations
from nstlab.course import measurements as measure
from nstlab.course.base import Base, Seen
from nstlab.method.names import BLOCKS, CONVOLUTIONS, layer_name
from nstlab.method.network import VGG19
from nstlab.method.statistics import gram
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings


class Lesson(Protocol):
    """What a check may look at of the lesson that it is in."""

    base: Base
    net: VGG19
    photo: torch.Tensor
    runs: dict[str, list[Seen]]

    def stored(self, settings: RunSettings) -> Seen:
        """A single run from the store."""

    def widths(self) -> dict[str, int]:
        """Channels of the style layers."""


Check = Callable[[Any, Lesson], str]


def _close(found: Any, wanted: Any, part: float = 1e-3) -> bool:
    """Whether two numbers, or arrays of one shape, agree but for a small part."""
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    return found.shape == wanted.shape and bool(np.all(np.abs(found - wanted) <= part * np.abs(wanted).max() + 1e-12))


def _word(answer: Any) -> str:
    """An answer in words, however it is written."""
    return str(answer).strip().lower()


def _chosen(answer: Any, allowed: tuple[str, ...], truth: str, hint: str) -> str:
    """The hint, unless the answer is the true one of those that are allowed."""
    if (answer := _word(answer)) not in allowed:
        *most, last = (f'"{word}"' for word in allowed)
        return f"answer {', '.join(most)} or {last}"
    return "" if answer == truth else hint


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- 01 how it works --------------------------------------------------------------------------------------------


def gram_matrix(answer: Any, lesson: Lesson) -> str:
    """A function from features (N, M) to their Gram matrix (N, N), a mean over positions."""
    features = _random(4, 10)
    wanted, found = gram(features[None, :, None, :]), torch.as_tensor(answer(features))
    if found.shape == (10, 10):
        return "yours compares positions with positions; the Gram matrix compares channels with channels: F Fᵀ"
    if _close(found, 10 * wanted):
        return "that is F Fᵀ; a mean over the M positions is divided by M"
    return "" if _close(found, wanted) else "it should be the mean over positions of the products of two channels: F Fᵀ / M"


def shuffled(answer: Any, lesson: Lesson) -> str:
    """ "content" or "style": whose loss stays 0 when a feature map's positions are shuffled, all channels alike."""
    features = _random(3, 12)
    moved = features[:, torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    still = {"content": _close(moved, features), "style": _close(moved @ moved.T, features @ features.T)}
    (truth,) = (name for name, same in still.items() if same)
    return _chosen(answer, tuple(still), truth, "think of F Fᵀ: does a sum over positions depend on their order?")


def scaled_features(answer: Any, lesson: Lesson) -> str:
    """How many times larger the style loss gets when the features of both pictures are doubled."""
    a, b = _random(3, 12), _random(3, 12, seed=1)
    wanted = float(((2 * a @ (2 * a).T - 2 * b @ (2 * b).T) ** 2).sum() / ((a @ a.T - b @ b.T) ** 2).sum())
    if _close(answer, wanted):
        return ""
    if _close(answer, math.sqrt(wanted)):
        return "the Gram matrices grow by that; their loss squares them once more"
    return "how does F Fᵀ change when F is doubled, and how its square?"


# --- 02 reconstructions -----------------------------------------------------------------------------------------


def signal_to_noise(answer: Any, lesson: Lesson) -> str:
    """A function from two pictures with values in [0, 1] to the peak signal to noise ratio in dB."""
    a, b = _random(1, 3, 8, 8), _random(1, 3, 8, 8, seed=1)
    wanted, found = measure.psnr(a, b), float(answer(a, b))
    if _close(found, wanted):
        return ""
    if _close(-found, wanted):
        return "the sign is wrong: the smaller the error, the larger the ratio"
    if _close(found, wanted / 10 * math.log(10)) or _close(found, wanted * math.log(10)):
        return "decibels are made with the logarithm to base 10"
    return "it is 10 log₁₀(1 / mean square error), since the largest value is 1"


def receptive_field(answer: Any, lesson: Lesson) -> str:
    """Side, in pixels, of what one position of conv4_4 sees."""
    wanted = demonstrations.receptive_field("conv4_4")
    if _close(answer, wanted):
        return ""
    if _close(answer, demonstrations.receptive_field("conv1_1")):
        return "that is one convolution; each further one adds two steps, and a step is twice as long behind each pooling"
    return "walk from the first layer: a convolution adds 2 steps, a pooling adds 1 and doubles the length of a step"


def deepest_clear(answer: Any, lesson: Lesson) -> str:
    """The layer whose reconstruction has the lowest PSNR."""
    runs = lesson.runs.get("E1")
    if runs is None:
        return "run E1 first"
    ratios = {run.settings.layer: measure.psnr(run.picture, run.photo) for run in runs}
    answer = layer_name(answer)
    if answer not in ratios:
        return f"choose one of {', '.join(ratios)}"
    return "" if answer == min(ratios, key=ratios.get) else "another layer's picture is further from the photo"


# --- 03 alpha and beta ------------------------------------------------------------------------------------------


def common_factor(answer: Any, lesson: Lesson) -> str:
    """ "the same" or "another": the picture when α and β are both ten times as large."""
    one, ten = (lesson.base.transfer(alpha=f, beta=f * 1e3, size=48, steps=3, init="content") for f in (1.0, 10.0))
    pictures = [demonstrations.painted(settings) for settings in (one, ten)]
    truth = "the same" if measure.pixel_error(*pictures) < 1e-3 else "another"
    hint = "what does a common factor of a function do to the place of its minimum?"
    return _chosen(answer, ("the same", "another"), truth, hint)


def between(answer: Any, lesson: Lesson) -> str:
    """A β with which the content error ends between those of α/β = 1e-2 and 1e-3."""
    runs = lesson.runs.get("E3")
    if runs is None:
        return "run E3 first"
    ends = {run.settings.beta: run.term("content") for run in runs}
    low, high = sorted((ends[1e2], ends[1e3]))
    settings = lesson.base.transfer(alpha=1.0, beta=float(answer))
    found = lesson.stored(settings).term("content")
    if low < found < high:
        return ""
    way = "larger" if found <= low else "smaller"
    return f"with β = {float(answer):g} the content error ends at {found:.4g}, outside {low:.4g} to {high:.4g}; try a {way} β"


# --- 04 layers --------------------------------------------------------------------------------------------------


def eleventh(answer: Any, lesson: Lesson) -> str:
    """The name of the tutorial's layer 11."""
    if _word(answer).replace(" ", "").replace("relu", "conv") == CONVOLUTIONS[10]:
        return ""
    return f"count the convolutions of all blocks, {', '.join(map(str, BLOCKS))} of them, from 1"


def style_numbers(answer: Any, lesson: Lesson) -> str:
    """How many numbers the Gram matrices of the five style layers hold, in the network that is used."""
    widths = demonstrations.widths(lesson.net, lesson.base.style)
    wanted = sum(n * n for n in widths)
    if _close(answer, wanted, 1e-9):
        return ""
    if _close(answer, sum(n * (n + 1) // 2 for n in widths), 1e-9):
        return "it is symmetric, that is true; but here count all its entries"
    return "a layer with N channels has a Gram matrix of N × N; `lesson.widths()` gives the channels"


# --- 05 initialization ------------------------------------------------------------------------------------------


def from_painting(answer: Any, lesson: Lesson) -> str:
    """ "stays", "noise" or "photo": what becomes of the painting as first picture, with style terms alone."""
    settings = lesson.base.transfer(alpha=0.0, init="style", size=48, steps=3)
    moved = measure.pixel_error(demonstrations.painted(settings), recipes.prepare(settings, "cpu").start)
    truth = "stays" if moved < 0.02 else "noise"
    hint = "how large is the style loss of the painting itself, and its gradient?"
    return _chosen(answer, ("stays", "noise", "photo"), truth, hint)


def correlation(answer: Any, lesson: Lesson) -> str:
    """A function from two arrays of one shape to Pearson's correlation."""
    a, b = _random(8, 8).numpy(), _random(8, 8, seed=1).numpy() + _random(8, 8).numpy()
    wanted, found = float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), float(answer(a, b))
    if _close(found, wanted):
        return ""
    if _close(found, float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))):
        return "take the means off first, else two bright pictures are always alike"
    return "it is the mean of the product of both, each without its mean and divided by its standard deviation"


# --- 06 stochasticity -------------------------------------------------------------------------------------------


def mean_picture(answer: Any, lesson: Lesson) -> str:
    """ "lower" or "higher": the loss of the four pictures' mean, against theirs."""
    runs = lesson.runs.get("E8")
    if runs is None:
        return "run E8 first"
    plan, pictures = recipes.prepare(runs[0].settings.replace(precision="float32"), "cpu"), [run.picture for run in runs]
    mean, *losses = plan.losses([torch.stack(pictures).mean(0), *pictures])
    truth = "higher" if mean > max(losses) else "lower"
    return _chosen(answer, ("lower", "higher"), truth, "what does averaging do to strokes that lie at different places?")


def relative_spread(answer: Any, lesson: Lesson) -> str:
    """A function from a list of losses to how much larger the largest is than the smallest, as a part."""
    found = [float(answer(losses)) for losses in ([2.0, 2.5, 2.2], [7.0, 3.0, 4.0])]
    if _close(found, [1 / 4, 4 / 3]):
        return ""
    return "that is in percent" if _close(found, [25, 400 / 3]) else "divide the largest by the smallest, and take 1 off"


# --- 07 pooling -------------------------------------------------------------------------------------------------


def pooled(answer: Any, lesson: Lesson) -> str:
    """A function from a map (H, W) and "max" or "avg" to its 2×2 pooling."""
    values = _random(4, 6)
    blocks = values.reshape(2, 2, 3, 2)
    for how, wanted in (("max", blocks.amax((1, 3))), ("avg", blocks.mean((1, 3)))):
        found = torch.as_tensor(answer(values, how))
        if found.shape != wanted.shape:
            return f"for {how} the result has shape {tuple(found.shape)}; of 4×6 values 2×3 remain"
        if not _close(found, wanted):
            return f"the values are not those of {how} pooling"
    return ""


def gradients_passed(answer: Any, lesson: Lesson) -> str:
    """(max, avg): to how many of four values the gradient of their pooling goes."""
    values, found = _random(1, 1, 2, 2).requires_grad_(True), []
    for pool in (torch.nn.functional.max_pool2d, torch.nn.functional.avg_pool2d):
        (slope,) = torch.autograd.grad(pool(values, 2).sum(), values)
        found.append(int((slope != 0).sum()))
    answer = np.asarray(answer)
    if answer.shape != (2,):
        return "give two numbers: (max, avg)"
    return "" if answer.tolist() == found else "if one of the four values grew a little, would the result change?"


# --- 08 optimizers ----------------------------------------------------------------------------------------------


def newton(answer: Any, lesson: Lesson) -> str:
    """A function from gradient (n,) and Hessian (n, n) to Newton's step."""
    slope, root = _random(3).numpy(), _random(3, 3, seed=1).numpy()
    hessian = root @ root.T + np.eye(3)
    wanted, found = -np.linalg.solve(hessian, slope), np.asarray(answer(slope, hessian))
    if _close(-found, wanted):
        return "the sign is wrong: a step goes down"
    return "" if _close(found, wanted) else "where is the gradient of the quadratic model, g + H p, zero?"


def memory(answer: Any, lesson: Lesson) -> str:
    """How many numbers L-BFGS keeps, with 50 pairs, for the lesson's picture."""
    pixels = lesson.photo.numel()
    if _close(answer, 100 * pixels, 1e-9) or _close(answer, 100 * pixels + 50, 1e-9):  # with each pair's y · s
        return ""
    if _close(answer, 50 * pixels, 1e-9):
        return "a pair is two vectors: the step, and the gradient's change"
    if _close(answer, pixels**2, 1e-9):
        return "that is the whole inverse Hessian, which it avoids"
    return f"count its pairs of vectors; each has as many numbers as the picture, 3 × {_sides(lesson)}"


def _sides(lesson: Lesson) -> str:
    """Height × width of the lesson's picture."""
    return " × ".join(map(str, lesson.photo.shape[-2:]))


# --- 09 other knobs ---------------------------------------------------------------------------------------------


def same_function(answer: Any, lesson: Lesson) -> str:
    """ "scaled" or "other": what normalizing activations does to the features of conv4_1 (or the deepest there is)."""
    ratios = demonstrations.normalization(lesson.base.weights, lesson.base.style[-1], im.resize(lesson.photo, (64, 64)))
    truth = "scaled" if ratios < 1e-3 else "other"
    hint = "each filter's output is divided by a number, and the next layer multiplies it back"
    return _chosen(answer, ("scaled", "other"), truth, hint)


def halving(answer: Any, lesson: Lesson) -> str:
    """Five weights, each half of the one before, that add up to 1."""
    weights = np.asarray(answer, dtype=float)
    if weights.shape != (5,):
        return "give five numbers"
    if not np.allclose(weights[1:], weights[:-1] / 2, rtol=1e-3):
        return "each should be half of the one before"
    return "" if abs(weights.sum() - 1) < 1e-3 else f"they add up to {weights.sum():.4g}, not to 1"


EXERCISES: dict[str, Check] = {
    "01.1": gram_matrix,
    "01.2": shuffled,
    "01.3": scaled_features,
    "02.1": signal_to_noise,
    "02.2": receptive_field,
    "02.3": deepest_clear,
    "03.1": common_factor,
    "03.2": between,
    "04.1": eleventh,
    "04.2": style_numbers,
    "05.1": from_painting,
    "05.2": correlation,
    "06.1": mean_picture,
    "06.2": relative_spread,
    "07.1": pooled,
    "07.2": gradients_passed,
    "08.1": newton,
    "08.2": memory,
    "09.1": same_function,
    "09.2": halving,
}
