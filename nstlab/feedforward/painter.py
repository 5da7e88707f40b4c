"""The pictures of a `TransformNetwork`, in less time.

- Convolutions are computed in 16 bits where the device multiplies faster in them, and in the memory
  layout that they read.
- A convolution of a picture in which each position is repeated becomes one of the picture itself,
  with four times as many filters, whose results lie side by side: nothing is enlarged first.

A picture is not cut into tiles, since means and variances are those of all its positions.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base import devices
from nstlab.base.errors import InputError
from nstlab.feedforward.network import CONTRAST, EPSILON, Layer, Normalization, TransformNetwork
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import native_halves


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """A layer as it is computed: a convolution, enlarging and a normalization.

    Attributes:
        weight: (O · enlarge², I, k, k), see `fold`.
        bias: (O · enlarge²), or None.
        padding: positions by which the picture is continued on each side.
        stride: of the convolution.
        enlarge: how many positions in each direction come from one.
        norm: the normalization, if there is one.
    """

    weight: Tensor
    bias: Tensor | None
    padding: int
    stride: int
    enlarge: int
    norm: Normalization | None

    @classmethod
    def of(cls, layer: Layer, dtype: torch.dtype) -> PackedLayer:
        """Pack a layer, whose convolution is then computed in `dtype`."""
        enlarge = layer.enlarge
        weight = fold(layer.weight.detach(), enlarge)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias = bias.detach().repeat_interleave(enlarge**2).to(dtype)
        return cls(weight, bias, layer.padding, layer.stride, enlarge, layer.norm)

    def convolve(self, x: Tensor) -> Tensor:
        """(1, I, h, w) -> (1, O, h · enlarge / stride, w · enlarge / stride), rounded up."""
        x = F.pad(x.to(self.weight), (self.padding,) * 4, mode="reflect")
        x = F.conv2d(x, self.weight, self.bias, self.stride)
        return x if self.enlarge == 1 else F.pixel_shuffle(x, self.enlarge)

    def normalize(self, x: Tensor, mix: Tensor) -> Tensor:
        """Normalize x, (1, C, h, w), with the scales and shifts of a mixture, (1, K)."""
        norm = self.norm
        if norm is None:
            return x
        scale, shift = (vector.flatten() for vector in norm.affine(mix))
        if norm.per_picture:
            return F.batch_norm(x, None, None, scale, shift, training=True, eps=EPSILON)
        return F.batch_norm(x, norm.mean, norm.variance, scale, shift, eps=EPSILON)


def fold(weight: Tensor, times: int) -> Tensor:
    """Kernels that need no picture whose positions are repeated, but the picture itself.

    Args:
        weight: (O, I, k, k), kernels for the picture with repeated positions.
        times: how often each position is repeated in both directions.

    Returns:
        (O · times², I, n, n). Filter o · times² + a · times + b gives row a and column b of what
        each position is repeated to, in the order of `torch.nn.functional.pixel_shuffle`.
    """
    outputs, inputs, kernel, _ = weight.shape
    radius = kernel // 2
    side = 2 * -(-radius // times) + 1
    folded = weight.new_zeros(outputs, times, times, inputs, side, side)
    for a, b, u, v in itertools.product(range(times), range(times), range(kernel), range(kernel)):
        row = (a + u - radius) // times + side // 2
        column = (b + v - radius) // times + side // 2
        folded[:, a, b, :, row, column] += weight[:, :, u, v]
    return folded.flatten(0, 2)


class Painter:
    """Paints photos with a network.

    Args:
        network: is copied.
        device: on which the network is.
        dtype: of the convolutions; by default 16 bits where the device is faster in them.
    """

    def __init__(
        self, network: TransformNetwork, device: torch.device, dtype: torch.dtype | None = None
    ):
        devices.set_exact_convolutions()
        halves = native_halves(device)
        self.device = device
        self.dtype = dtype or (halves[0] if halves else torch.float32)
        network = copy.deepcopy(network).to(device)
        self.first, self.down, self.up, self.last = (
            PackedLayer.of(layer, self.dtype)
            for layer in (network.first, network.down, network.up, network.last)
        )
        self.pairs = [
            (PackedLayer.of(first, self.dtype), PackedLayer.of(second, self.dtype))
            for first, second in network.pairs
        ]

    @torch.no_grad()
    def __call__(self, photo: Tensor, mix: Tensor, alpha: float = 1.0) -> Tensor:
        """Paint a photo.

        Args:
            photo: (1, 3, H, W) sRGB in [0, 1].
            mix: (K,) shares of the network's paintings, which add up to 1.
            alpha: from the photo, 0, to the painted picture, 1.

        Returns:
            (1, 3, H, W) sRGB in [0, 1], on the photo's device.

        Raises:
            InputError: if it needs more memory than is free, or is not finite.
        """
        height, width = photo.shape[-2:]
        self.check_memory((height, width))
        mix = mix.to(self.device)[None]

        def apply(layer: PackedLayer, x: Tensor) -> Tensor:
            return layer.normalize(layer.convolve(x), mix).relu_()

        x = apply(self.down, apply(self.first, CONTRAST * (photo.to(self.device) - 0.5)))
        for first, second in self.pairs:
            x = second.normalize(second.convolve(apply(first, x)), mix).add_(x)
        painted = torch.sigmoid(self.last.convolve(apply(self.up, x)).float())
        painted = painted[..., :height, :width].to(photo)
        if not painted.isfinite().all():
            raise InputError("model: its picture is not finite; the model is damaged")
        return torch.lerp(photo, painted, alpha)

    def check_memory(self, shape: Sequence[int]) -> None:
        """Check that a picture fits into the free memory.

        Args:
            shape: (H, W) of the picture.

        Raises:
            InputError: with the size that would fit, if it does not.
        """
        free = round(memory.SPARE * memory.available(self.device))
        if self.memory_needed(shape) > free:
            raise InputError(memory.refusal(max(shape), self.memory_needed, shape, free))

    def memory_needed(self, shape: Sequence[int]) -> int:
        """Bytes that are held at once for a picture of shape (H, W)."""
        return prod(shape) * (3 * len(self.first.weight) * self.dtype.itemsize // 4 + 32)
