"""What the notebooks show besides runs: the network's layers, the losses' gradients, the optimizers' paths in two dimensions.
Pure functions from pictures, networks and settings to numbers and tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas
import torch
from torch import Tensor

from nstlab.method.lbfgs import LBFGS
from nstlab.method.names import BLOCKS, rectified
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.method.objectives import content, style
from nstlab.method.optimizers import Adam, Evaluation, GradientDescent, Optimizer
from nstlab.method.statistics import gram
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings

START = (-1.2, 1.0)  # where Rosenbrock begins (1960)

# --- the network ------------------------------------------------------------------------------------------------


def receptive_field(layer: str) -> int:
    """Side, in pixels, of what one position of a convolution sees. A convolution of 3×3 adds two steps, a pooling of 2×2 one,
    and behind each pooling a step is twice as long."""
    block, number = int(layer[4]), int(layer[6])
    side, step = 1, 1
    for before, count in enumerate(BLOCKS, 1):
        last = number if before == block else count
        side += 2 * step * last
        if before == block:
            break
        side, step = side + step, 2 * step
    return side


def widths(net: VGG19, layers: Sequence[str]) -> list[int]:
    """Channels of these layers."""
    return [getattr(net, f"{layer}_weight").shape[0] for layer in layers]


def layers(net: VGG19, names: Sequence[str], photo: Tensor) -> pandas.DataFrame:
    """What each layer makes of a photo: channels, positions, and how much of the photo a position sees."""
    features = net(photo, names)
    shapes = {name: f.shape[-3:] for name, f in features.items()}
    rows = {
        name: {
            "channels N": c,
            "positions": f"{h}×{w}",
            "numbers in F": c * h * w,
            "numbers in G": c * c,
            "a position sees (px)": receptive_field(name.replace("relu", "conv")),
        }
        for name, (c, h, w) in shapes.items()
    }
    return pandas.DataFrame.from_dict(rows, orient="index")


def normalization(weights: str, layer: str, image: Tensor) -> float:
    """How far, as a part, normalized activations of a layer are from being the plain ones, each channel divided by a number."""
    name = rectified(layer)
    with torch.no_grad():
        plain = VGG19(weights)(image, [name])[name][0]
        ours = normalize_activations(VGG19(weights))(image, [name])[name][0]
    scale = (plain * ours).sum((1, 2)) / plain.square().sum((1, 2)).clamp_min(1e-12)
    return float((ours - scale[:, None, None] * plain).norm() / ours.norm())


# --- the losses -------------------------------------------------------------------------------------------------


def gradients(net: VGG19, photo: Tensor, painting: Tensor, picture: Tensor, names: Sequence[str]) -> pandas.DataFrame:
    """The losses' gradients at each layer, by the paper's closed forms (equations 2 and 6, with G = F Fᵀ / M) and by autograd:
    the largest difference, as a part of the largest value."""
    rows = {}
    for name in map(rectified, names):
        f, p, s = (net(image, [name])[name][0].flatten(1).double() for image in (picture, photo, painting))  # (N, M)
        n, m = f.shape
        closed = {
            "content: F − P": (f - p),
            "style: (G − A) F / (N² M)": (f @ f.T / m - s @ s.T / m) @ f / (n**2 * m),
        }
        leaf = f.clone().requires_grad_(True)
        losses = (0.5 * (leaf - p).square().sum(), ((leaf @ leaf.T / m - s @ s.T / m) ** 2).sum() / (4 * n**2))
        found = [torch.autograd.grad(loss, leaf)[0] for loss in losses]
        rows[name] = {
            text: float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300))
            for (text, ours), theirs in zip(closed.items(), found, strict=True)
        }
    return pandas.DataFrame.from_dict(rows, orient="index")


def losses(net: VGG19, photo: Tensor, painting: Tensor, pictures: dict[str, Tensor], layer: str, names: Sequence[str]):
    """Content and style loss of some pictures (convention `mean`), as a table."""
    objective = content(layer, photo) + style(names, painting)
    bound = objective.bind(net, photo.shape[-2:])
    with torch.no_grad():
        rows = {name: {term: float(v) for term, v in bound(picture)[1].items()} for name, picture in pictures.items()}
    return pandas.DataFrame.from_dict(rows, orient="index")


def grams(net: VGG19, pictures: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """The Gram matrices (N, N) of one layer, G = F Fᵀ / M, by picture."""
    name = rectified(layer)
    with torch.no_grad():
        return {title: gram(net(picture, [name])[name]) for title, picture in pictures.items()}


# --- runs that exercises need -----------------------------------------------------------------------------------


@cache
def painted(settings: RunSettings) -> Tensor:
    """The picture of a short run, which is not kept."""
    return recipes.prepare(settings, "cpu").solve().image


# --- optimizers in two dimensions -------------------------------------------------------------------------------


def rosenbrock(x: Tensor) -> Tensor:
    """(..., 2) -> (1 - x)² + 100 (y - x²)², a curved valley with its lowest point at (1, 1)."""
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2


def paths(steps: int = 60) -> dict[str, np.ndarray]:
    """The ways (steps + 1, 2) of the lab's own optimizers through Rosenbrock's valley, at two numbers instead of pixels."""
    ways: dict[str, Optimizer] = {
        "L-BFGS": LBFGS(bounds=None, smooth=None, first_step=0.05),
        "Adam, 0.05": Adam(rate=0.05, bounds=None),
        "gradient descent, 0.05": GradientDescent(rate=0.05, bounds=None),
    }
    return {name: _path(way, steps) for name, way in ways.items()}


def _path(optimizer: Optimizer, steps: int) -> np.ndarray:
    def evaluate(x: Tensor) -> Evaluation:
        leaf = x.detach().requires_grad_(True)
        value = rosenbrock(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        return Evaluation(value.detach(), slope, value.detach()[None])

    state = optimizer.init(torch.tensor(START, dtype=torch.float64), evaluate)
    points = [state.x]
    for _ in range(steps):
        state = optimizer.step(state, evaluate)
        points.append(state.x)
    return torch.stack(points).numpy()
