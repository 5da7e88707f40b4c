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
    """A window, (H, W), that is moved over a photo, enlarges it and turns, and a disc of another
    picture that moves before it.

    photo, other: (1, 3, h, w), larger than the window. move: pixels a frame. zoom: of a frame over
    the one before. turn: degrees a frame. disc: pixels a frame by which the disc moves in the
    window."""

    photo: Tensor
    other: Tensor
    shape: tuple[int, int]
    move: tuple[float, float] = (4.0, -1.5)
    zoom: float = 1.01
    turn: float = 0.6
    disc: tuple[float, float] = (9.0, -3.0)
    radius: float = 0.2  # of the short side

    def frame(self, t: float) -> Tensor:
        """(1, 3, H, W): the scene at a time in frames."""
        behind, before = (
            read(picture, at[None], "bicubic")
            for picture, at in ((self.photo, self._behind(t)), (self.other, self._before(t)))
        )
        return torch.lerp(behind, before, self.covered(t)).clamp(0, 1)

    def flow(self, t: float) -> Tensor:
        """(1, 2, H, W), in pixels: where what frame t shows is in frame t - 1."""
        last = torch.linalg.inv(self._matrix(t - 1)) @ _homogeneous(self._behind(t))
        moved = torch.tensor(self.disc).view(1, 2, 1, 1)
        return torch.lerp(last[:2].view(1, 2, *self.shape) - self._pixels, -moved, self.covered(t))

    def visible(self, t: float) -> Tensor:
        """(1, 1, H, W): 1 where frame t shows what frame t - 1 shows, too."""
        hidden = warped(self.covered(t - 1), self.flow(t)) > 0
        return (inside(self._pixels + self.flow(t)) & ((self.covered(t) > 0) | ~hidden)).float()

    def covered(self, t: float) -> Tensor:
        """(1, 1, H, W): 1 where the disc is."""
        middle = [
            side / 2 + (t - 5) * by for side, by in zip(self.shape[::-1], self.disc, strict=True)
        ]
        away = self._pixels[0] - torch.tensor(middle).view(2, 1, 1)
        return (away.square().sum(0).sqrt() < self.radius * min(self.shape)).float()[None, None]

    def write(self, folder: Path, count: int) -> Path:
        """So many frames as pictures in a folder, which is a clip."""
        for t in range(count):
            im.save(self.frame(t), files.make_folder(folder) / f"{t:06}.png")
        return folder

    @property
    def _pixels(self) -> Tensor:
        """(1, 2, H, W): x and y."""
        return pixels(torch.empty(self.shape))

    def _matrix(self, t: float) -> Tensor:
        """(3, 3): from the window's pixels, x and y and 1, to the photo's."""
        turn = math.radians(self.turn * t)
        scale = self.zoom**-t
        cos = scale * math.cos(turn)
        sin = scale * math.sin(turn)
        (x, y), (h, w) = (side / 2 for side in self.shape[::-1]), self.photo.shape[-2:]
        right = w / 2 + self.move[0] * t
        down = h / 2 + self.move[1] * t
        return torch.tensor(
            [
                [cos, -sin, right - cos * x + sin * y],
                [sin, cos, down - sin * x - cos * y],
                [0, 0, 1],
            ]
        )

    def _behind(self, t: float) -> Tensor:
        """(2, H, W): where in the photo the window's pixels are."""
        return (self._matrix(t) @ _homogeneous(self._pixels[0]))[:2].view(2, *self.shape)

    def _before(self, t: float) -> Tensor:
        """(2, H, W): where in the other picture they are."""
        return (
            self._pixels[0]
            - t * torch.tensor(self.disc).view(2, 1, 1)
            + 0.25 * min(self.other.shape[-2:])
        )


def _homogeneous(at: Tensor) -> Tensor:
    """(2, H, W) -> (3, H W), with ones."""
    return torch.cat([at.flatten(1), torch.ones(1, at[0].numel())])
