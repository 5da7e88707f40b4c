"""The pictures that the embedded network is trained on, as batches of augmented crops.

They are the colour photos that ship with scikit-image and scikit-learn, and procedural pictures.
The lab's own paintings and one photo, HELD_OUT, are left out, so that the network can be judged by
pictures that no training has seen. Each batch is drawn from a seed of its own, so an interrupted
training goes on with the same pictures.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base.settings import InputError
from nstlab.feedforward import drawing
from nstlab.feedforward.crops import HELD_OUT as HELD_OUT  # the photo that judges may use
from nstlab.feedforward.crops import PHOTOS  # from scikit-image
from nstlab.pictures import images as im
from nstlab.pictures import sizes

SCIKIT_LEARN = ("china.jpg", "flower.jpg")
DRAWN = 540  # procedural pictures
PHOTO_SHARE = 0.6  # of the crops
LONGEST = 960  # px, long side of a photo
_GREY = np.full((3, 3), 1 / 3)
# cross product with the grey axis
_TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)


def photos() -> list[Tensor]:
    """The photos, each (3, H, W), sRGB in [0, 1].

    Raises InputError if scikit-learn is not installed, which only the training needs."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise InputError(
            "two of the photos come with scikit-learn; install it: pip install 'nstlab[train]'"
        ) from None
    found = [im.sample(name) for name in PHOTOS]
    found += [
        torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None] / 255
        for name in SCIKIT_LEARN
    ]
    return [
        im.resize(x, sizes.fit_size(x.shape[-2:], min(LONGEST, max(x.shape[-2:]))))[0]
        for x in found
    ]


def drawn(count: int) -> list[Tensor]:
    """The first `count` procedural pictures, (3, n, n) in [0, 1], drawn on all cores."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        arrays = list(workers.map(drawing.draw, range(count), chunksize=16))
    return [torch.from_numpy(array).permute(2, 0, 1) / 255 for array in arrays]


class Corpus:
    """Batches of augmented crops by number: (B, 3, side, side) float32, nominally in [0, 1]."""

    def __init__(self, seed: int, count: int = DRAWN):
        self.seed, self.photos, self.drawn = seed, photos(), drawn(count)
        self._reduced = cache(self._reduced)  # type: ignore[method-assign]

    def batch(self, index: int, count: int, side: int, noisy: bool = True) -> Tensor:
        """Batch number `index`: recoloured crops; if `noisy`, a third of them look as they do to an
        optimizer on its way."""
        rng = self.generator(index)
        crops = [
            self.before_even_ground(rng, self.recoloured(rng, self.crop(rng, side)))
            for _ in range(count)
        ]
        return torch.stack([self.disturbed(rng, x) if noisy else x for x in crops])

    def generator(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])

    def _reduced(self, photo: bool, i: int, halvings: int) -> Tensor:
        """Picture i at 1 / 2^halvings of its size."""
        if not halvings:
            return (self.photos if photo else self.drawn)[i]
        return F.avg_pool2d(self._reduced(photo, i, halvings - 1)[None], 2)[0]

    def crop(self, rng: np.random.Generator, side: int) -> Tensor:
        """A square part of a picture, turned, flipped and scaled: the whole picture would be 110 to
        670 px high or wide."""
        photo = bool(rng.random() < PHOTO_SHARE)
        i = int(rng.integers(len(self.photos if photo else self.drawn)))
        whole = 224 * math.exp(rng.uniform(math.log(0.5), math.log(3)))
        # pixels of the picture for one pixel of the crop
        zoom = min(self._reduced(photo, i, 0).shape[-2:]) / whole
        halvings = min(4, max(0, math.floor(math.log2(max(zoom, 1)) + 0.3)))
        x, step = self._reduced(photo, i, halvings), zoom / 2**halvings
        height, width = x.shape[-2:]
        turn = (
            rng.choice([0, rng.uniform(-0.4, 0.4), rng.uniform(-math.pi, math.pi)])
            + rng.integers(4) * math.pi / 2
        )
        flip, c, s = rng.choice([-1, 1]), math.cos(turn) * step * side, math.sin(turn) * step * side
        right, down = (
            rng.uniform(-1, 1) * max(0.0, 1 - side * step / length) for length in (width, height)
        )
        matrix = torch.tensor(
            [[[flip * c / width, -s / width, right], [flip * s / height, c / height, down]]]
        )
        grid = F.affine_grid(matrix.float(), [1, 3, side, side], align_corners=False)
        return F.grid_sample(x[None], grid, "bilinear", "reflection", align_corners=False)[0]

    def recoloured(self, rng: np.random.Generator, x: Tensor) -> Tensor:
        """A crop (3, n, n), in most cases with another hue, saturation, contrast and brightness, in
        a few as a negative."""
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

    def before_even_ground(self, rng: np.random.Generator, x: Tensor) -> Tensor:
        """A crop (3, n, n); in a quarter of the cases only a part of it, before an even ground of
        any colour, like a sky."""
        if rng.random() > 0.25:
            return x
        n = x.shape[-1]
        height = drawing.coloured_noise(rng, n, rng.uniform(1.2, 2.5), 1)[..., 0]
        slope = np.add.outer(
            np.linspace(-1, 1, n) * rng.normal(), np.linspace(-1, 1, n) * rng.normal()
        )
        height = height + 2 * slope - np.quantile(height + 2 * slope, rng.uniform(0.3, 0.9))
        # (n, n), from 0 to 1
        there = 1 / (1 + np.exp(-height.clip(-1, 1) * n * rng.uniform(0.1, 1)))
        dark = math.exp(rng.uniform(math.log(0.01), math.log(0.3))) * (
            1 + 0.3 * rng.normal(size=(3, 1, 1))
        )
        ground = dark if rng.random() < 0.5 else rng.uniform(0, 1, (3, 1, 1))
        ground = ground + rng.choice([0, 0.3]) * ground.mean() * slope[None]
        return torch.lerp(
            torch.from_numpy(ground.clip(0, 1)).float(), x, torch.from_numpy(there).float()
        )

    def disturbed(self, rng: np.random.Generator, x: Tensor) -> Tensor:
        """A crop (3, n, n), in a third of the cases under noise of many strengths and spectra, in a
        few nothing but noise; clipped to [0, 1]."""
        draw = rng.random()
        if draw < 0.65:
            return x
        n = x.shape[-1]
        noise = (
            drawing.coloured_noise(rng, n, rng.uniform(0.2, 1.2))
            if draw > 0.85
            else rng.normal(size=(n, n, 3))
        )
        ground = 0.5 if rng.random() < 0.08 else x
        strength = math.exp(rng.uniform(math.log(0.01), math.log(0.4)))
        return (ground + strength * torch.from_numpy(noise).permute(2, 0, 1).float()).clamp(0, 1)
