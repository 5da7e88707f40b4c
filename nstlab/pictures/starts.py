"""First pictures that are made from nothing, all in the shape, dtype and device of another."""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTH = 0.15  # cycles per pixel; at this frequency noise has 0.6 of its amplitude
DEVIATION = 0.2  # standard deviation of noise, where black is 0 and white is 1


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """Smooth noise in the shape, dtype and device of `like`.

    It is normally distributed about middle grey with DEVIATION, and clipped to [0, 1]. Its
    amplitudes fall as exp(-½ (f / SMOOTH)²) with the spatial frequency f.

    A network with poolings hardly sees anything finer than two or three pixels, so from white noise
    an optimizer leaves a mesh over the whole picture. This noise has nothing so fine to begin with.
    It is drawn on the CPU, so that a seed gives the same picture on every device.
    """
    height, width = like.shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    amplitude = torch.exp(-((frequency / SMOOTH) ** 2) / 2)
    white = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    return (0.5 + DEVIATION * smooth / smooth.std()).clamp(0, 1).to(like)


def white_noise(like: Tensor, seed: int = 0) -> Tensor:
    """White noise, the paper's first picture, in the shape, dtype and device of `like`.

    The values are independent and uniform in [0, 1], and drawn on the CPU as well.
    """
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def grey(like: Tensor) -> Tensor:
    """A blank canvas of middle grey, 0.5, in the shape, dtype and device of `like`."""
    return torch.full_like(like, 0.5)


def rings(like: Tensor) -> Tensor:
    """Black and white rings, eight to the short side, in the shape, dtype and device of `like`.

    It is a first picture with a strong structure of its own.
    """
    height, width = like.shape[-2:]
    down = torch.arange(height, dtype=like.dtype, device=like.device)[:, None] - (height - 1) / 2
    across = torch.arange(width, dtype=like.dtype, device=like.device)[None] - (width - 1) / 2
    radius = torch.hypot(down, across)  # (H, W), px
    waves = 0.5 + 0.5 * torch.cos(2 * torch.pi * radius * 8 / min(height, width))
    return waves.expand_as(like).contiguous()
