"""Lines: keep the dark strokes of a drawing where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.pixel_terms import PixelTerm
from nstlab.pictures import images as im
from nstlab.pictures.colour import luminance

PAPER = 1 / 12  # of the long side: the reach within which the brightest tone is taken for paper
# How much darker than the paper around it a pixel may be and still be white: paper's grain, a
# scanner's noise.
GRAIN = 0.15


def on_white(drawing: Tensor) -> Tensor:
    """A drawing in grey on white paper, (1, 3, H, W) -> the same.

    Each pixel becomes its luminance over that of the paper around it, and white where it is only
    darker by GRAIN or less.
    """
    light = luminance(drawing)[:, :1]
    width = 2 * (max(2, round(PAPER * max(light.shape[-2:]))) // 2) + 1  # odd
    blurred = F.avg_pool2d(light, 3, 1, 1, count_include_pad=False)
    brightest = F.max_pool2d(blurred, width, 1, width // 2)
    paper = F.avg_pool2d(brightest, width, 1, width // 2, count_include_pad=False)
    grey = (light / paper.clamp_min(0.05) / (1 - GRAIN)).clamp(0, 1)
    return grey.expand_as(drawing).contiguous()


@dataclass(frozen=True, eq=False, kw_only=True)
class Lines(PixelTerm):
    """Σ d (Y - D)² / Σ d over the pixels, for the luminance Y and that of a drawing, D.

    It counts where the drawing is dark, d = 1 - D.

    Attributes:
        drawing: (1, 3, H, W) in grey, on white.
    """

    drawing: Tensor

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return self.part(features, None, Crop.all_of(features))

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        key = features.device, features.dtype, crop.whole
        drawing, darkness = self.cached(key, lambda: self._at_shape(features, crop.whole))
        strokes = crop.of(drawing)
        difference = luminance(features)[:, :1] - strokes
        return crop.share * ((1 - strokes) * difference.square()).mean() / darkness

    def _at_shape(self, features: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(the drawing at a size, (1, 1, H, W); how dark it is on average, and not 0)."""
        drawing = im.resize(self.drawing, shape)[:, :1].to(features)
        return drawing, (1 - drawing).mean().clamp_min(1e-6)
