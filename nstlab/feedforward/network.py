"""The image transformation network: photo in, painted picture out, for several paintings at once.

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
        if not self.per_picture:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    @property
    def per_picture(self) -> bool:
        """Whether each picture is normalized by its own mean and variance."""
        return self.kind == NORMALIZATIONS[0]

    def affine(self, mix: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the paintings' scales and shifts.

        Args:
            mix: (B, K) shares, which add up to 1.

        Returns:
            (scales, shifts), each (B, C).
        """
        return mix @ self.scale, mix @ self.shift

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        """Normalize x, (B, C, h, w), for mixtures of the paintings, (B, K)."""
        mean, variance = self.moments(x)
        scale, shift = (vector[..., None, None] for vector in self.affine(mix))
        scale = scale * (variance + EPSILON).rsqrt()
        return x * scale + (shift - mean * scale)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, variance) by which x is normalized, each (B or 1, C, 1, 1).

        In training, "batch" updates its averages.
        """
        if self.per_picture:
            variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
            return mean, variance
        if not self.training:
            return self.mean.view(1, -1, 1, 1), self.variance.view(1, -1, 1, 1)
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        with torch.no_grad():
            self.mean.lerp_(mean.flatten().to(self.mean), MOMENTUM)
            self.variance.lerp_(variance.flatten().to(self.mean), MOMENTUM)
        return mean, variance


class Layer(nn.Module):
    """A convolution of a picture that is continued by reflection, then a normalization.

    Args:
        channels: (I, O), of the input and of the output.
        kernel: side of the kernels, odd.
        norm: the normalization; without one, the convolution has a bias.
        stride: of the convolution.
        enlarge: how often each position is repeated in both directions before the convolution.
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
        self.radius = kernel // 2
        self.shape = (*reversed(channels), kernel, kernel)  # (O, I, k, k)
        self.kernel = nn.Parameter(torch.empty(self.shape).flatten(1))  # a matrix, as Muon takes it
        if norm is None:  # a normalization would take a bias away
            self.bias = nn.Parameter(torch.zeros(channels[1]))

    @property
    def weight(self) -> Tensor:
        """The kernels, (O, I, k, k)."""
        return self.kernel.view(self.shape)

    @property
    def padding(self) -> int:
        """Positions by which the picture is continued on each side, before it is enlarged."""
        return -(-self.radius // self.enlarge)

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        """(B, I, h, w), (B, K) -> (B, O, ⌈h · enlarge / stride⌉, ⌈w · enlarge / stride⌉)."""
        x = F.pad(x, (self.padding,) * 4, mode="reflect")
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=float(self.enlarge))
            excess = self.padding * self.enlarge - self.radius
            x = x[..., excess : x.shape[-2] - excess, excess : x.shape[-1] - excess]
        x = F.conv2d(x, self.weight, getattr(self, "bias", None), self.stride)
        return x if self.norm is None else self.norm(x, mix)


class TransformNetwork(nn.Module):
    """Paints photos like mixtures of several paintings.

    Kernels are not set before they are `randomize`d or loaded.

    Args:
        paintings: K, how many.
        width: filters of the residual blocks.
        kind: of `Normalization`: "instance" or "batch".
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

    def randomize(self, seed: int) -> Self:
        """Draw normal kernels of variance 2 / (k² · inputs), as He et al. 2015; returns itself."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, kernel in self.named_parameters():
                if name.endswith("kernel"):
                    kernel.normal_(0, (2 / kernel.shape[1]) ** 0.5, generator=generator)
        return self

    def forward(self, photo: Tensor, mix: Tensor) -> Tensor:
        """(B, 3, H, W) sRGB in [0, 1], (B, K) shares -> (B, 3, H, W) sRGB in (0, 1)."""
        x = F.relu(self.first(CONTRAST * (photo - 0.5), mix))
        x = F.relu(self.down(x, mix))
        for first, second in self.pairs:
            x = x + second(F.relu(first(x, mix)), mix)  # (B, width, H / 4, W / 4)
        x = self.last(F.relu(self.up(x, mix)), mix)
        return torch.sigmoid(x[..., : photo.shape[-2], : photo.shape[-1]])
