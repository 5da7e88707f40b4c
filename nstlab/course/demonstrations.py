"""What the notebooks show besides runs: the network's layers, the losses' gradients, optimizers at work in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas
import torch
from torch import Tensor

from nstlab.method.lbfgs import LBFGS
from nstlab.method.names import BLOCKS, rectified
from nstlab.method.network import VGG19
from nstlab.method.optimizers import Adam, Evaluation, GradientDescent, Optimizer

ROSENBROCK_START = (-1.2, 1.0)  # where Rosenbrock begins (1960)


def receptive_field(layer: str) -> int:
    """The width, in pixels, of what one position of a convolution sees.

    A convolution of 3×3 adds two steps, a pooling of 2×2 one, and after each pooling a step is twice as long."""
    block, number = int(layer[4]), int(layer[6])
    width, step = 1, 1
    for convolutions in BLOCKS[: block - 1]:
        width, step = width + 2 * step * convolutions + step, 2 * step
    return width + 2 * step * number


def layers(net: VGG19, names: Sequence[str], photo: Tensor) -> pandas.DataFrame:
    """What each layer makes of a photo: channels, positions, and how much of the photo one position sees."""
    rows = {}
    for name, features in net(photo, names).items():
        channels, height, width = features.shape[-3:]
        rows[name] = {
            "channels N": channels,
            "positions": f"{height}×{width}",
            "numbers in F": channels * height * width,
            "numbers in G": channels * channels,
            "a position sees (px)": receptive_field(name.replace("relu", "conv")),
        }
    return pandas.DataFrame.from_dict(rows, orient="index")


def gradients(net: VGG19, photo: Tensor, painting: Tensor, picture: Tensor, names: Sequence[str]) -> pandas.DataFrame:
    """The losses' gradients at each layer, by the paper's closed forms (equations 2 and 6, with G = F Fᵀ / M) and by autograd:
    the largest difference, as a part of the largest value."""
    rows = {}
    for name in map(rectified, names):
        f, p, s = (net(image, [name])[name][0].flatten(1).double() for image in (picture, photo, painting))  # (N, M)
        n, m = f.shape
        closed = {
            "content: F − P": f - p,
            "style: (G − A) F / (N² M)": (f @ f.T / m - s @ s.T / m) @ f / (n**2 * m),
        }
        leaf = f.clone().requires_grad_(True)
        losses = (0.5 * (leaf - p).square().sum(), ((leaf @ leaf.T / m - s @ s.T / m) ** 2).sum() / (4 * n**2))
        automatic = [torch.autograd.grad(loss, leaf)[0] for loss in losses]
        rows[name] = {
            text: float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300))
            for (text, ours), theirs in zip(closed.items(), automatic, strict=True)
        }
    return pandas.DataFrame.from_dict(rows, orient="index")


# --- optimizers in two dimensions -------------------------------------------------------------------------------


def rosenbrock(x: Tensor) -> Tensor:
    """(..., 2) -> (1 - x)² + 100 (y - x²)², a curved valley with its lowest point at (1, 1)."""
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2


def paths(steps: int = 60) -> dict[str, np.ndarray]:
    """The paths (steps + 1, 2) of the lab's own optimizers through Rosenbrock's valley: two numbers instead of pixels."""
    optimizers: dict[str, Optimizer] = {
        "L-BFGS": LBFGS(bounds=None, smooth=None, first_step=0.05),
        "Adam, 0.05": Adam(rate=0.05, bounds=None),
        "gradient descent, 0.05": GradientDescent(rate=0.05, bounds=None),
    }
    return {name: _path(optimizer, steps) for name, optimizer in optimizers.items()}


def _path(optimizer: Optimizer, steps: int) -> np.ndarray:
    def evaluate(x: Tensor) -> Evaluation:
        leaf = x.detach().requires_grad_(True)
        value = rosenbrock(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        return Evaluation(value.detach(), slope, value.detach()[None])

    state = optimizer.init(torch.tensor(ROSENBROCK_START, dtype=torch.float64), evaluate)
    points = [state.x]
    for _ in range(steps):
        state = optimizer.step(state, evaluate)
        points.append(state.x)
    return torch.stack(points).numpy()
