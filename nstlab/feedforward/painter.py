"""The pictures of a `TransformNetwork` sooner.

- 16 bits where the device multiplies faster in them, and all convolutions in the layout that they
  read.
- A convolution of a picture in which each position is repeated is one of the picture itself, with
  four times as many filters, whose answers lie side by side: nothing is enlarged first.

A picture is computed whole, since means and variances are those of all its positions.
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
from nstlab.base.settings import InputError
from nstlab.feedforward.network import CONTRAST, EPSILON, Layer, Normalization, TransformNetwork
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import native_halves


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """A layer as it is computed: a convolution that sees `around` positions on each side, and what
    follows it.

    Attributes:
        norm: its normalization, if it has one.
    """

    weight: Tensor
    bias: Tensor | None
    around: int
    stride: int
    enlarge: int
    norm: Normalization | None

    @classmethod
    def of(cls, layer: Layer, dtype: torch.dtype) -> PackedLayer:
        """Pack a layer, with convolutions in this type."""
        weight = layer.weight.detach()
        bias = getattr(layer, "bias", None)
        times = layer.enlarge
        if times > 1:
            weight = folded(weight, times)
            bias = None if bias is None else bias.repeat_interleave(times**2)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        bias = None if bias is None else bias.detach().to(dtype)
        return cls(weight, bias, -(-layer.around // times), layer.stride, times, layer.norm)

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution of x, (1, C, h, w)."""
        x = F.pad(x.to(self.weight), (self.around,) * 4, mode="reflect")
        x = F.conv2d(x, self.weight, self.bias, self.stride)
        return x if self.enlarge == 1 else F.pixel_shuffle(x, self.enlarge)

    def normalized(self, y: Tensor, mix: Tensor) -> Tensor:
        """y, (1, C, h, w), by its own mean and variance or by those of the training, as the layer
        has it; scaled and shifted as a mixture, (1, K), has it."""
        if self.norm is None:
            return y
        moments = (None, None) if self.norm.alone else (self.norm.mean, self.norm.variance)
        affine = (vector.flatten() for vector in self.norm.affine(mix))
        return F.batch_norm(y, *moments, *affine, training=self.norm.alone, eps=EPSILON)


def folded(weight: Tensor, times: int) -> Tensor:
    """(O, I, k, k), kernels for a picture whose positions are repeated -> (O times², I, n, n),
    those for the picture itself.

    Filter O times² + a times + b of the result answers at row a and column b of what each position
    is repeated to, in the order of `torch.nn.functional.pixel_shuffle`."""
    outputs, inputs, kernel, _ = weight.shape
    around = kernel // 2
    side = 2 * -(-around // times) + 1
    made = weight.new_zeros(outputs, times, times, inputs, side, side)
    for a, b, u, v in itertools.product(range(times), range(times), range(kernel), range(kernel)):
        down, across = ((at + tap - around) // times + side // 2 for at, tap in ((a, u), (b, v)))
        made[:, a, b, :, down, across] += weight[:, :, u, v]
    return made.flatten(0, 2)


class Painter:
    """Paints photos with a network.

    Args:
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
            (PackedLayer.of(one, self.dtype), PackedLayer.of(two, self.dtype))
            for one, two in network.pairs
        ]

    @torch.no_grad()
    def __call__(self, photo: Tensor, mix: Tensor, alpha: float = 1.0) -> Tensor:
        """(1, 3, H, W) sRGB in [0, 1] -> the same, painted.

        Args:
            mix: (K,) shares of the network's paintings, which add up to 1.
            alpha: from the photo, 0, to the painted picture, 1.

        Raises:
            InputError: if it needs more memory than is free, or is not finite.
        """
        height, width = photo.shape[-2:]
        self.check_memory((height, width))
        mix = mix.to(self.device)[None]

        def apply(layer: PackedLayer, x: Tensor) -> Tensor:
            return layer.normalized(layer.convolve(x), mix).relu_()

        x = apply(self.down, apply(self.first, CONTRAST * (photo.to(self.device) - 0.5)))
        for one, two in self.pairs:
            x = two.normalized(two.convolve(apply(one, x)), mix).add_(x)
        painted = torch.sigmoid(self.last.convolve(apply(self.up, x)).float())[
            :, :, :height, :width
        ].to(photo)
        if not painted.isfinite().all():
            raise InputError("model: its picture is not finite; the model is damaged")
        return torch.lerp(photo, painted, alpha)

    def check_memory(self, shape: Sequence[int]) -> None:
        """Check that a picture of shape (H, W) fits.

        Raises:
            InputError: with the size that would fit, if it needs more memory than is free.
        """
        free = round(memory.SPARE * memory.available(self.device))
        if self.memory_needed(shape) > free:
            raise InputError(memory.too_little(max(shape), self.memory_needed, shape, free))

    def memory_needed(self, shape: Sequence[int]) -> int:
        """Bytes that are held at once for a picture of shape (H, W)."""
        return prod(shape) * (3 * len(self.first.weight) * self.dtype.itemsize // 4 + 32)
