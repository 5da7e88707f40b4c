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

from nstlab.base.errors import InputError
from nstlab.feedforward import drawing
from nstlab.feedforward.crops import HELD_OUT as HELD_OUT  # the photo that judges may use
from nstlab.feedforward.crops import PHOTOS  # from scikit-image
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from training.augmentation import disturb, put_before_even_ground, recolour

SCIKIT_LEARN = ("china.jpg", "flower.jpg")
DRAWN = 540  # procedural pictures
PHOTO_SHARE = 0.6  # of the crops
LONGEST = 960  # px, long side of a photo


def photos() -> list[Tensor]:
    """The photos, each (3, H, W), sRGB in [0, 1].

    Raises InputError if scikit-learn is not installed, which only the training needs."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise InputError(
            "two of the photos come with scikit-learn; install it: pip install 'nstlab[train]'"
        ) from None
    pictures = [im.sample(name) for name in PHOTOS]
    for name in SCIKIT_LEARN:
        array = load_sample_image(name).copy()
        pictures.append(torch.from_numpy(array).permute(2, 0, 1)[None] / 255)
    resized = []
    for picture in pictures:
        shape = picture.shape[-2:]
        resized.append(im.resize(picture, sizes.fit_size(shape, min(LONGEST, max(shape))))[0])
    return resized


def draw_pictures(count: int) -> list[Tensor]:
    """Draw procedural pictures, (3, n, n) in [0, 1], on all cores; the same ones each time."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        arrays = list(workers.map(drawing.draw, range(count), chunksize=16))
    return [torch.from_numpy(array).permute(2, 0, 1) / 255 for array in arrays]


class Corpus:
    """Batches of augmented crops by number: (B, 3, side, side) float32, nominally in [0, 1]."""

    def __init__(self, seed: int, count: int = DRAWN):
        self.seed = seed
        self.photos = photos()
        self.drawn = draw_pictures(count)
        self._reduced = cache(self._reduced)  # type: ignore[method-assign]

    def batch(self, index: int, count: int, side: int, noisy: bool = True) -> Tensor:
        """Make a batch of recoloured crops.

        Args:
            index: number of the batch.
            count: of crops.
            side: px, of each crop.
            noisy: whether a third of them look as they do to an optimizer on its way.

        Returns:
            (count, 3, side, side).
        """
        rng = self.generator(index)
        crops = [
            put_before_even_ground(rng, recolour(rng, self.crop(rng, side))) for _ in range(count)
        ]
        return torch.stack([disturb(rng, x) if noisy else x for x in crops])

    def generator(self, *numbers: int) -> np.random.Generator:
        """Random numbers that depend on the corpus's seed and these numbers alone."""
        return np.random.default_rng([self.seed, *numbers])

    def _reduced(self, photo: bool, i: int, halvings: int) -> Tensor:
        """Picture i at 1 / 2^halvings of its size."""
        if not halvings:
            return (self.photos if photo else self.drawn)[i]
        return F.avg_pool2d(self._reduced(photo, i, halvings - 1)[None], 2)[0]

    def crop(self, rng: np.random.Generator, side: int) -> Tensor:
        """A square part of a picture, turned, flipped and scaled, (3, side, side).

        It is scaled so that the whole picture would be 110 to 670 px high or wide.
        """
        photo = bool(rng.random() < PHOTO_SHARE)
        i = int(rng.integers(len(self.photos if photo else self.drawn)))
        picture_side = 224 * math.exp(rng.uniform(math.log(0.5), math.log(3)))
        # pixels of the picture for one pixel of the crop
        zoom = min(self._reduced(photo, i, 0).shape[-2:]) / picture_side
        halvings = min(4, max(0, math.floor(math.log2(max(zoom, 1)) + 0.3)))
        x = self._reduced(photo, i, halvings)
        step = zoom / 2**halvings
        height, width = x.shape[-2:]
        turn = (
            rng.choice([0, rng.uniform(-0.4, 0.4), rng.uniform(-math.pi, math.pi)])
            + rng.integers(4) * math.pi / 2
        )
        flip = rng.choice([-1, 1])
        cos = math.cos(turn) * step * side
        sin = math.sin(turn) * step * side
        right = rng.uniform(-1, 1) * max(0.0, 1 - side * step / width)
        down = rng.uniform(-1, 1) * max(0.0, 1 - side * step / height)
        matrix = torch.tensor(
            [[[flip * cos / width, -sin / width, right], [flip * sin / height, cos / height, down]]]
        )
        grid = F.affine_grid(matrix.float(), [1, 3, side, side], align_corners=False)
        return F.grid_sample(x[None], grid, "bilinear", "reflection", align_corners=False)[0]
