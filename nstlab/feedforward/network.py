"""The image transformation network: photo in, painted picture out, one set of convolutions for
several paintings.

Its plan is that of Johnson, Alahi and Fei-Fei 2016 ("Perceptual Losses for Real-Time Style
Transfer"): two convolutions that halve the picture, residual blocks, two that double it. What makes
it paint like one painting or another are the scales and shifts of its normalizations alone
(Dumoulin, Shlens, Kudlur 2017, "A Learned Representation for Artistic Style"), which can be mixed.
Three things differ from Johnson's: pictures are continued by reflection, so that no frame appears;
they are enlarged by repeating positions before a convolution, which leaves no checkerboard (Odena
et al. 2016); and nothing but the last convolution is computed at the full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.feedforward.settings import NORMALIZATIONS, WIDTH

BLOCKS = 5  # residual blocks
EPSILON = 1e-5  # added to variances
MOMENTUM = 0.05  # of the averages that batch normalization uses after training
CONTRAST = 4.0  # pixels from 0 to 1 become numbers from -2 to 2


class Normalization(nn.Module):
    """Normalization of each channel, then a scale and a shift, of which each painting has its own.

    Args:
        kind: "instance", by the mean and variance over the positions of one picture (Ulyanov et al.
            2016), or "batch", over those of all pictures of a batch, and after training over those
            of all training.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, paintings: int, channels: int, kind: str):
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.ones(paintings, channels))
        self.shift = nn.Parameter(torch.zeros(paintings, channels))
        if not self.alone:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    @property
    def alone(self) -> bool:
        """Whether each picture is normalized by itself."""
        return self.kind == NORMALIZATIONS[0]

    def affine(self, mix: Tensor) -> tuple[Tensor, Tensor]:
        """(scales, shifts), (B, C) each, of mixtures (B, K) whose shares add up to 1."""
        return mix @ self.scale, mix @ self.shift

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        """(B, C, h, w), (B, K) -> (B, C, h, w)."""
        mean, variance = self.moments(x)
        scale, shift = (vector[..., None, None] for vector in self.affine(mix))
        scale = scale * (variance + EPSILON).rsqrt()
        return x * scale + (shift - mean * scale)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, variance) by which x is normalized, each (B or 1, C, 1, 1)."""
        if not (self.alone or self.training):
            return self.mean.view(1, -1, 1, 1), self.variance.view(1, -1, 1, 1)
        variance, mean = torch.var_mean(
            x, (2, 3) if self.alone else (0, 2, 3), correction=0, keepdim=True
        )
        if not self.alone:
            with torch.no_grad():
                self.mean.lerp_(mean.flatten().to(self.mean), MOMENTUM)
                self.variance.lerp_(variance.flatten().to(self.mean), MOMENTUM)
        return mean, variance


class Layer(nn.Module):
    """A convolution of a picture that is continued by reflection, and, if there is a `norm`, that
    after it.

    Args:
        enlarge: each position is first repeated so many times in both directions.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        norm: Normalization | None,
        stride: int = 1,
        enlarge: int = 1,
    ):
        super().__init__()
        self.stride = stride
        self.enlarge = enlarge
        self.norm = norm
        self.around = kernel // 2
        self.shape = (*reversed(channels), kernel, kernel)  # (O, I, k, k)
        self.kernel = nn.Parameter(torch.empty(self.shape).flatten(1))  # a matrix, as Muon takes it
        if norm is None:  # a normalization would take a bias away
            self.bias = nn.Parameter(torch.zeros(channels[1]))

    @property
    def weight(self) -> Tensor:
        """The kernels, (O, I, k, k)."""
        return self.kernel.view(self.shape)

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        """(B, C, h, w), (B, K) -> (B, D, ⌈h · enlarge / stride⌉, ⌈w · enlarge / stride⌉)."""
        x = F.pad(x, (-(-self.around // self.enlarge),) * 4, mode="reflect")
        more = -self.around % self.enlarge
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=float(self.enlarge))
            x = x[..., more : x.shape[-2] - more, more : x.shape[-1] - more]
        x = F.conv2d(x, self.weight, getattr(self, "bias", None), self.stride)
        return x if self.norm is None else self.norm(x, mix)


class TransformNetwork(nn.Module):
    """Paint photos: (B, 3, H, W) sRGB in [0, 1] and mixtures (B, K) of the K paintings -> (B, 3, H,
    W) sRGB in (0, 1).

    Kernels are not set before they are `drawn` or loaded.

    Args:
        width: filters of the residual blocks.
        kind: of `Normalization`.
    """

    def __init__(self, paintings: int, width: int = WIDTH, kind: str = NORMALIZATIONS[0]):
        super().__init__()
        half = width // 2
        self.kind = kind

        def norm(channels: int) -> Normalization:
            return Normalization(paintings, channels, kind)

        self.first = Layer((3, half), 5, norm(half), stride=2)
        self.down = Layer((half, width), 3, norm(width), stride=2)
        self.blocks = nn.ModuleList(
            Layer((width, width), 3, norm(width)) for _ in range(2 * BLOCKS)
        )
        self.up = Layer((width, half), 3, norm(half), enlarge=2)
        self.last = Layer((half, 3), 5, None, enlarge=2)

    @property
    def pairs(self) -> Iterator[tuple[Layer, Layer]]:
        """The layers of each residual block."""
        return zip(self.blocks[::2], self.blocks[1::2], strict=True)  # type: ignore[arg-type]

    def drawn(self, seed: int) -> Self:
        """This network with random kernels of variance 2 / (k² · inputs), as He et al. 2015."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, kernel in self.named_parameters():
                if name.endswith("kernel"):
                    kernel.normal_(0, (2 / kernel.shape[1]) ** 0.5, generator=generator)
        return self

    def forward(self, photo: Tensor, mix: Tensor) -> Tensor:
        x = F.relu(self.first(CONTRAST * (photo - 0.5), mix))
        x = F.relu(self.down(x, mix))
        for one, two in self.pairs:
            x = x + two(F.relu(one(x, mix)), mix)  # (B, width, H / 4, W / 4)
        x = self.last(F.relu(self.up(x, mix)), mix)
        return torch.sigmoid(x[..., : photo.shape[-2], : photo.shape[-1]])
