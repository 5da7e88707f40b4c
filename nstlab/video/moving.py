"""Scenes whose motion is known exactly: to measure flows and films by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nstlab.base import files
from nstlab.pictures import images as im
from nstlab.video.flow import inside, pixels, read, warped


@dataclass(frozen=True, eq=False)
class MovingScene:
    """A window that moves over a photo, zooms and turns, and a moving disc in front of it.

    Attributes:
        photo: (1, 3, h, w) sRGB in [0, 1], the background, larger than the window.
        other: (1, 3, h, w) sRGB in [0, 1], the disc, larger than the window.
        shape: (H, W) of the window.
        move: (x, y) by which the window moves, in pixels a frame.
        zoom: of a frame over the one before.
        turn: degrees a frame.
        disc: (x, y) by which the disc moves in the window, in pixels a frame.
        radius: of the disc, relative to the window's short side.
    """

    photo: Tensor
    other: Tensor
    shape: tuple[int, int]
    move: tuple[float, float] = (4.0, -1.5)
    zoom: float = 1.01
    turn: float = 0.6
    disc: tuple[float, float] = (9.0, -3.0)
    radius: float = 0.2

    def frame(self, t: float) -> Tensor:
        """The scene at a time in frames: (1, 3, H, W) sRGB in [0, 1]."""
        background = read(self.photo, self._photo_positions(t)[None], "bicubic")
        disc = read(self.other, self._disc_positions(t)[None], "bicubic")
        return torch.lerp(background, disc, self.covered(t)).clamp(0, 1)

    def flow(self, t: float) -> Tensor:
        """(1, 2, H, W), in pixels: where what frame t shows is in frame t - 1."""
        to_window = torch.linalg.inv(self._matrix(t - 1))
        last = (to_window @ _homogeneous(self._photo_positions(t)))[:2].view(1, 2, *self.shape)
        disc_flow = -torch.tensor(self.disc).view(1, 2, 1, 1)
        return torch.lerp(last - self._pixels, disc_flow, self.covered(t))

    def visible(self, t: float) -> Tensor:
        """(1, 1, H, W): 1 where frame t shows what frame t - 1 shows, too."""
        flow = self.flow(t)
        was_covered = warped(self.covered(t - 1), flow) > 0
        is_covered = self.covered(t) > 0
        return (inside(self._pixels + flow) & (is_covered | ~was_covered)).float()

    def covered(self, t: float) -> Tensor:
        """(1, 1, H, W): 1 where the disc is."""
        height, width = self.shape
        centre = width / 2 + (t - 5) * self.disc[0], height / 2 + (t - 5) * self.disc[1]
        distance = (self._pixels[0] - torch.tensor(centre).view(2, 1, 1)).square().sum(0).sqrt()
        return (distance < self.radius * min(self.shape)).float()[None, None]

    def write(self, folder: Path, count: int) -> Path:
        """Write frames as pictures into a folder, which is a clip.

        Args:
            folder: is made if it does not exist.
            count: how many frames, from time 0 on.

        Returns:
            The folder.
        """
        for t in range(count):
            im.save(self.frame(t), files.make_folder(folder) / f"{t:06}.png")
        return folder

    @property
    def _pixels(self) -> Tensor:
        """(1, 2, H, W): x and y of the window's pixels."""
        return pixels(torch.empty(self.shape))

    def _matrix(self, t: float) -> Tensor:
        """(3, 3): from the window's pixels, x and y and 1, to the photo's."""
        turn = math.radians(self.turn * t)
        scale = self.zoom**-t
        cos = scale * math.cos(turn)
        sin = scale * math.sin(turn)
        y, x = (side / 2 for side in self.shape)
        h, w = self.photo.shape[-2:]
        right = w / 2 + self.move[0] * t
        down = h / 2 + self.move[1] * t
        return torch.tensor(
            [
                [cos, -sin, right - cos * x + sin * y],
                [sin, cos, down - sin * x - cos * y],
                [0, 0, 1],
            ]
        )

    def _photo_positions(self, t: float) -> Tensor:
        """(2, H, W): where in the photo the window's pixels are."""
        return (self._matrix(t) @ _homogeneous(self._pixels[0]))[:2].view(2, *self.shape)

    def _disc_positions(self, t: float) -> Tensor:
        """(2, H, W): where in the other picture they are."""
        shift = t * torch.tensor(self.disc).view(2, 1, 1)
        return self._pixels[0] - shift + 0.25 * min(self.other.shape[-2:])


def _homogeneous(positions: Tensor) -> Tensor:
    """(2, H, W) -> (3, H W), with ones."""
    return torch.cat([positions.flatten(1), torch.ones(1, positions[0].numel())])
