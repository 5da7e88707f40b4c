"""How crops are changed before the embedded network is trained on them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nstlab.feedforward import drawing

_GREY = np.full((3, 3), 1 / 3)
# cross product with the grey axis
_TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)


def recolour(rng: np.random.Generator, x: Tensor) -> Tensor:
    """Change a crop's hue, saturation, contrast and brightness, or make it a negative.

    Args:
        rng: decides what; a third of crops stay as they are.
        x: (3, n, n) in [0, 1].

    Returns:
        (3, n, n) in [0, 1].
    """
    if rng.random() < 0.3:
        return x
    angle = rng.uniform(-math.pi, math.pi) if rng.random() < 0.2 else rng.normal(0, 0.15)
    hue = np.eye(3) * math.cos(angle) + _TURN * math.sin(angle) + _GREY * (1 - math.cos(angle))
    saturation = math.exp(rng.normal(-0.15, 0.4)) if rng.random() < 0.9 else 0.0
    matrix = (_GREY + saturation * (np.eye(3) - _GREY)) @ hue
    x = torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix).float(), x).clamp(0, 1)
    if rng.random() < 0.1:
        x = 1 - x
    x = x ** math.exp(rng.normal(0, 0.3))
    return ((x - 0.5) * math.exp(rng.normal(0, 0.25)) + 0.5 + rng.normal(0, 0.08)).clamp(0, 1)


def put_before_even_ground(rng: np.random.Generator, x: Tensor) -> Tensor:
    """Put a part of a crop before an even ground of any colour, like a sky.

    Args:
        rng: decides about it; three quarters of crops stay as they are.
        x: (3, n, n) in [0, 1].

    Returns:
        (3, n, n).
    """
    if rng.random() > 0.25:
        return x
    n = x.shape[-1]
    height = drawing.coloured_noise(rng, n, rng.uniform(1.2, 2.5), 1)[..., 0]
    slope = np.add.outer(np.linspace(-1, 1, n) * rng.normal(), np.linspace(-1, 1, n) * rng.normal())
    height = height + 2 * slope - np.quantile(height + 2 * slope, rng.uniform(0.3, 0.9))
    # (n, n), from 0 to 1: where the crop is seen
    mask = 1 / (1 + np.exp(-height.clip(-1, 1) * n * rng.uniform(0.1, 1)))
    dark = math.exp(rng.uniform(math.log(0.01), math.log(0.3))) * (
        1 + 0.3 * rng.normal(size=(3, 1, 1))
    )
    ground = dark if rng.random() < 0.5 else rng.uniform(0, 1, (3, 1, 1))
    ground = ground + rng.choice([0, 0.3]) * ground.mean() * slope[None]
    return torch.lerp(
        torch.from_numpy(ground.clip(0, 1)).float(), x, torch.from_numpy(mask).float()
    )


def disturb(rng: np.random.Generator, x: Tensor) -> Tensor:
    """Put noise of many strengths and spectra over a crop, or in its place.

    Args:
        rng: decides about it; two thirds of crops stay as they are.
        x: (3, n, n) in [0, 1].

    Returns:
        (3, n, n), clipped to [0, 1].
    """
    draw = rng.random()
    if draw < 0.65:
        return x
    n = x.shape[-1]
    if draw > 0.85:
        noise = drawing.coloured_noise(rng, n, rng.uniform(0.2, 1.2))
    else:
        noise = rng.normal(size=(n, n, 3))
    ground = 0.5 if rng.random() < 0.08 else x
    strength = math.exp(rng.uniform(math.log(0.01), math.log(0.4)))
    return (ground + strength * torch.from_numpy(noise).permute(2, 0, 1).float()).clamp(0, 1)
