"""The pictures of a `TransformNetwork` sooner, and of any size.

- 16 bits where the device multiplies faster in them, and all convolutions in the layout that they read.
- A convolution of a picture in which each position is repeated is one of the picture itself, with four times as many filters,
  whose answers lie side by side: nothing is enlarged first.
- A picture too large for memory is computed a layer at a time, in bands of rows that are read with what lies around them. Means
  and variances are those of the whole picture, so that there are no seams; features lie in files if they must.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab import devices, large
from nstlab.feedforward.network import CONTRAST, EPSILON, Layer, Normalization, TransformNetwork
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import native_halves
from nstlab.settings import InputError

BAND = 1 << 22  # numbers that a layer computes at once where features are in files
SHARE = 0.5  # of the free memory, that features may take


@dataclass(frozen=True, eq=False)
class Step:
    """A layer as it is computed: a convolution that sees `around` positions on each side, and what follows it.

    norm: its normalization, if it has one."""

    weight: Tensor
    bias: Tensor | None
    around: int
    stride: int
    enlarge: int
    norm: Normalization | None

    @classmethod
    def of(cls, layer: Layer, dtype: torch.dtype) -> Step:
        """A layer's step, with convolutions in this type."""
        weight, bias, times = layer.weight.detach(), getattr(layer, "bias", None), layer.enlarge
        if times > 1:
            weight, bias = folded(weight, times), None if bias is None else bias.repeat_interleave(times**2)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        bias = None if bias is None else bias.detach().to(dtype)
        return cls(weight, bias, -(-layer.around // times), layer.stride, times, layer.norm)

    def shape(self, x: Tensor) -> tuple[int, int, int]:
        """(C, h, w) of what it makes of x."""
        height, width = (-(-n // self.stride) * self.enlarge for n in x.shape[-2:])
        return len(self.weight) // self.enlarge**2, height, width

    def rows(self, x: Tensor, first: int, end: int) -> Tensor:
        """The convolution of x, (1, C, h, w): rows `first` to `end` of the result, which begin and end where positions do."""
        height, around = x.shape[-2], self.around
        top, bottom = first // self.enlarge * self.stride - around, (end // self.enlarge - 1) * self.stride + around + 1
        part = x[:, :, max(0, top) : bottom].to(self.weight)  # with what lies around it
        beyond = max(0, -top), max(0, bottom - height)
        part = F.pad(part, (around, around, *beyond), mode="reflect")
        part = F.conv2d(part, self.weight, self.bias, self.stride)
        return part if self.enlarge == 1 else F.pixel_shuffle(part, self.enlarge)

    @property
    def moments(self) -> tuple[Tensor, Tensor] | None:
        """(mean, variance) by which it normalizes, if they are not the picture's."""
        return None if self.norm is None or self.norm.alone else (self.norm.mean, self.norm.variance)

    def normalized(self, y: Tensor, mix: Tensor, moments: tuple[Tensor, Tensor] | None) -> Tensor:
        """y, (1, C, h, w), by these moments, or its own; scaled and shifted as a mixture, (1, K), has it."""
        if self.norm is None:
            return y
        affine = (each.flatten() for each in self.norm.affine(mix))
        return F.batch_norm(y, *(moments or (None, None)), *affine, training=moments is None, eps=EPSILON)


def folded(weight: Tensor, times: int) -> Tensor:
    """(O, I, k, k), kernels for a picture whose positions are repeated -> (O times², I, n, n), those for the picture itself.

    Filter O times² + a times + b of the result answers at row a and column b of what each position is repeated to, in the order
    of `torch.nn.functional.pixel_shuffle`."""
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

    dtype: of the convolutions; by default 16 bits where the device is faster in them. folder: where features of pictures too
    large for memory are kept, by default the system's for temporary files."""

    def __init__(
        self,
        network: TransformNetwork,
        device: torch.device,
        dtype: torch.dtype | None = None,
        folder: str | None = None,
    ):
        devices.set_exact_convolutions()
        halves = native_halves(device)
        self.device, self.dtype = device, dtype or (halves[0] if halves else torch.float32)
        self.folder = folder or tempfile.gettempdir()
        network = copy.deepcopy(network).to(device)
        self.first, self.down, self.up, self.last = (
            Step.of(layer, self.dtype) for layer in (network.first, network.down, network.up, network.last)
        )
        self.pairs = [(Step.of(one, self.dtype), Step.of(two, self.dtype)) for one, two in network.pairs]

    @torch.no_grad()
    def __call__(self, photo: Tensor, mix: Tensor, alpha: float = 1.0) -> Tensor:
        """(1, 3, H, W) sRGB in [0, 1], in a file if it is large -> the same, painted.

        mix: (K,) shares of the network's paintings, which add up to 1. alpha: from the photo, 0, to
        the painted picture, 1.
        Raises: InputError if the picture is not finite, or the disk is full."""
        height, width = photo.shape[-2:]
        pass_ = Pass(self, mix.to(self.device)[None], self.fits((height, width)))
        x = pass_.computed(self.first, large.over(lambda p: CONTRAST * (p - 0.5), photo))
        x = pass_.computed(self.down, x)
        for one, two in self.pairs:
            x = pass_.computed(two, pass_.computed(one, x), onto=x)
        x = pass_.computed(self.up, x)
        made = large.unset(photo, photo.shape, torch.float32)
        for first, end in pass_.bands(self.last, x):
            painted = torch.sigmoid(self.last.rows(x, first, end).float())[:, :, : height - first, :width]
            if not painted.isfinite().all():
                raise InputError("model: its picture is not finite; the model is damaged")
            rows = slice(first, first + painted.shape[-2])
            made[:, :, rows] = torch.lerp(photo[:, :, rows].to(painted), painted, alpha)
            large.release(made, photo)
        return made

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the features of a picture of shape (H, W) are held in memory."""
        each = 3 * len(self.first.weight) * self.dtype.itemsize / 4 + 32  # bytes a pixel
        return each * shape[0] * shape[1] <= SHARE * memory.available(self.device)


@dataclass(frozen=True, eq=False)
class Pass:
    """The network on its way through one picture. mix: (1, K). whole: whether features are held in memory, else in files."""

    painter: Painter
    mix: Tensor
    whole: bool

    def bands(self, step: Step, x: Tensor) -> Iterator[tuple[int, int]]:
        """(first row, end) of the parts of a layer's output that are computed at once."""
        channels, height, width = step.shape(x)
        rows = height if self.whole else max(8, BAND // (channels * width) // 8 * 8)
        return ((first, min(first + rows, height)) for first in range(0, height, rows))

    def computed(self, step: Step, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """A layer's output, with the ReLU; or, in its place, with `onto` added."""
        if self.whole:
            y = step.normalized(step.rows(x, 0, step.shape(x)[1]), self.mix, step.moments)
            return y.relu_() if onto is None else y.add_(onto)
        (channels, height, width), folder = step.shape(x), self.painter.folder
        y = large.blank((1, height, width, channels), folder, self.painter.dtype)
        y, moments = large.view(y, lambda t: t.permute(0, 3, 1, 2)), step.moments
        total = torch.zeros(2, channels, dtype=torch.float64)
        for first, end in self.bands(step, x):
            y[:, :, first:end] = part = step.rows(x, first, end)
            part = part.double()
            total += torch.stack([part.sum((0, 2, 3)), part.square().sum((0, 2, 3))]).cpu()
            large.release(x, y)
        if moments is None:
            mean, square = total.to(self.mix.device) / (height * width)
            moments = mean.float(), (square - mean.square()).float()
        for first, end in self.bands(step, x):
            part = step.normalized(y[:, :, first:end].to(self.mix.device), self.mix, moments)
            y[:, :, first:end] = part.relu_() if onto is None else part.add_(onto[:, :, first:end].to(part))
            large.release(y, onto)
        return y
