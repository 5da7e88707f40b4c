"""What a network learns from: parts of photos, which their numbers and a seed determine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nstlab.base.errors import InputError
from nstlab.feedforward import drawing
from nstlab.pictures import images as im
from nstlab.pictures import samples

HELD_OUT = "rocket"  # the sample photo that models are judged by, which no network learns from
PHOTOS = tuple(name for name in samples.PHOTOS if name != HELD_OUT)
# Procedural pictures beside the sample photos: how many, their share of crops, their side.
DRAWN, DRAWN_SHARE, DRAWN_SIDE = 36, 0.3, 288
# The least and largest area of a crop in a photo, relative to the area at the size that is
# learnt: smaller ones are enlarged.
AREA = 0.45, 2.0
CACHED = 300  # photos that are held decoded

logger = logging.getLogger("nstlab")


def photos_in(folders: Sequence[Path]) -> list[Path]:
    """All pictures in some folders and the folders in them, by name.

    Args:
        folders: paths of folders.

    Raises:
        InputError: for a path that is no folder, and for a folder without pictures.
    """
    paths = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"photos: {folder} is not a folder")
        pictures = samples.pictures_in(folder, nested=True)
        if not pictures:
            raise InputError(f"photos: there is no picture in {folder}")
        paths += pictures
    return paths


def usable(photos: Sequence[Path], size: int) -> list[Path]:
    """The photos that can be used, as far as their headers say.

    Warnings name the others, and say why.

    Args:
        photos: files.
        size: long side at which they are taken, in pixels.
    """
    readable = []
    for photo in photos:
        try:
            im.shape_of(photo, size)
            readable.append(photo)
        except InputError as error:
            logger.warning("%s; it is left out", error)
    return readable


@lru_cache(DRAWN)
def procedural(i: int) -> Tensor:
    """The i-th procedural picture, (3, n, n) uint8."""
    return torch.from_numpy(drawing.draw(i, DRAWN_SIDE)).permute(2, 0, 1)


class Crops(Dataset):
    """Square parts of photos, resized, mirrored, in other colours and contrasts.

    Each is (3, side, side) sRGB in [0, 1]. Damaged photos are left out, with a warning.

    Args:
        photos: files; if there are none, the sample photos, and with them procedural pictures (see
            `drawing`), since these are few.
        size: long side in pixels at which photos are taken.
        side: of the crops, in pixels.
        seed: determines all crops, together with their numbers.
        count: how many crops there are.

    Raises:
        InputError: if none of the photos can be used.
    """

    def __init__(self, photos: Sequence[Path], size: int, side: int, seed: int, count: int):
        from torchvision.transforms import v2

        self.seed = seed
        self.size = size
        self.count = count
        if photos:
            self.drawn = 0
            self.photos = usable(photos, size)
        else:
            self.drawn = DRAWN
            self.photos = [samples.path_of(name) for name in PHOTOS]
        part = side * side / (0.75 * size * size)  # of a photo whose sides are 4:3
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(
                    side,
                    (min(1.0, part * AREA[0]), min(1.0, part * AREA[1])),
                    (0.9, 1.1),
                    antialias=True,
                ),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            ]
        )
        self._photos: dict[int, Tensor | None] = {}  # decoded; None: damaged
        self.check_photos()

    def check_photos(self) -> None:
        """Raise InputError unless one of the photos can be decoded."""
        if all(self._photo(i) is None for i in range(len(self.photos))):
            raise InputError("photos: none of them can be used")

    def __getstate__(self) -> dict[str, Any]:
        """What processes that are not forked get: no decoded photos, but which are damaged."""
        damaged = {i: None for i, photo in self._photos.items() if photo is None}
        return self.__dict__ | {"_photos": damaged}

    def _photo(self, i: int) -> Tensor | None:
        """A photo, (3, H, W) uint8, or None if it is damaged; CACHED of them are held."""
        if i in self._photos:
            return self._photos[i]
        try:
            photo = (255 * im.load(self.photos[i], self.size)[0]).round().byte()
        except InputError as error:
            logger.warning("%s; it is left out", error)
            photo = None
        if photo is None or len(self._photos) < CACHED:
            self._photos[i] = photo
        return photo

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the photos, by their files' content."""
        digests = []
        for path in self.photos:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def prepare(self) -> None:
        """Decode and draw what is held, before other processes, which may share it, start."""
        for i in range(min(CACHED, len(self.photos))):
            self._photo(i)
        for i in range(self.drawn):
            procedural(i)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            (seed,) = np.random.SeedSequence([self.seed, index]).generate_state(1)
            torch.manual_seed(int(seed))  # which makes use of 32 bits
            if torch.rand(()) < DRAWN_SHARE and self.drawn:
                picture = procedural(int(torch.randint(self.drawn, ())))
            else:
                picture = self._random_photo()
            return self.augment(picture).float() / 255

    def _random_photo(self) -> Tensor:
        """One of the photos that are not damaged, chosen by the global generator."""
        while True:
            photo = self._photo(int(torch.randint(len(self.photos), ())))
            if photo is not None:
                return photo
            self.check_photos()
