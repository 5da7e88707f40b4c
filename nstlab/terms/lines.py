"""Lines: the dark strokes of a drawing, which shall stay where they are."""

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
    """A drawing in grey, (1, 3, H, W), on white paper: each pixel's luminance over that of the
    paper around it, and white where it is only darker by GRAIN or less."""
    light = luminance(drawing)[:, :1]
    reach = 2 * (max(2, round(PAPER * max(light.shape[-2:]))) // 2) + 1
    paper = F.max_pool2d(
        F.avg_pool2d(light, 3, 1, 1, count_include_pad=False), reach, 1, reach // 2
    )
    paper = F.avg_pool2d(paper, reach, 1, reach // 2, count_include_pad=False)
    return (light / paper.clamp_min(0.05) / (1 - GRAIN)).clamp(0, 1).expand_as(drawing).contiguous()


@dataclass(frozen=True, eq=False, kw_only=True)
class Lines(PixelTerm):
    """Σ d (Y - D)² / Σ d over the pixels: how far the luminance Y is from that of a drawing, D,
    where that is dark, d = 1 - D.

    Attributes:
        drawing: (1, 3, H, W) in grey, on white.
    """

    drawing: Tensor

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return self.part(features, None, Crop.all_of(features))

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        key = features.device, features.dtype, crop.whole
        drawn, darkness = self.cached(key, lambda: self._drawn(features, crop.whole))
        inner = crop.of(drawn)
        return (
            crop.share
            * ((1 - inner) * (luminance(features)[:, :1] - inner).square()).mean()
            / darkness
        )

    def _drawn(self, features: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(the drawing at a size, (1, 1, H, W); how dark it is on average, and not 0)."""
        drawn = im.resize(self.drawing, shape)[:, :1].to(features)
        return drawn, (1 - drawn).mean().clamp_min(1e-6)
