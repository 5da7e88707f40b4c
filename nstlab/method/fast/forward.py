"""Forward through the network by hand: features in memory that is allocated once.

    forward = Forward(net, ["relu1_1", "relu4_2"], (H, W))
    for layer, features in forward.forward(image):
        ...

In 16 bits, the picture and the first weights are each split into what 16 bits hold and the
remainder, so that a small change of a pixel is not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.convolutions import Convolution, fastest_convolution
from nstlab.method.fast.layout import Layout
from nstlab.networks.vgg import VGG


class Forward:
    """Features of some layers of a network, for images of one size.

    Args:
        net: the network.
        layers: those that are read.
        shape: (H, W).
        arithmetic: the network's by default.
        like: one for images of another size, whose packed weights and memory, if it is large
            enough, are shared.
    """

    def __init__(
        self,
        net: VGG,
        layers: Iterable[str],
        shape: Sequence[int],
        arithmetic: Arithmetic | None = None,
        like: Forward | None = None,
    ):
        self.net = net
        self.reads = net.require(layers, shape)
        self.dtype, self.tf32 = arithmetic or arithmetic_of(net)
        self.splits_image = self.dtype.itemsize < 4
        self.layout = Layout.of(net, self.reads, shape, self.dtype)
        self.shapes = self.layout.shapes
        self.nodes = tuple(self.shapes)
        if like is None or len(like.buffer) < self.layout.total:
            self.use(self.allocate())
        else:
            self.use(like.buffer)
        self.convolutions = self._pack_convolutions() if like is None else like.convolutions

    def allocate(self) -> Tensor:
        """New memory of the size that is needed."""
        return torch.empty(self.layout.total, dtype=self.dtype, device=self.net.device)

    def use(self, buffer: Tensor) -> None:
        """Compute in this memory; what it holds is what was computed there."""
        self.buffer = buffer
        self.memory = {
            node: self._view(self.shapes[node], offset)
            for node, offset in self.layout.offsets.items()
        }

    @torch.no_grad()
    def forward(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer, features) in the order of the network.

        Features are (1, C, h, w) in the type of the computation, and valid until the next ones are
        computed.

        Args:
            image: (1, 3, H, W) sRGB in [0, 1].
        """
        self.image = image.detach()
        for node, x in self._outputs(self.nodes):
            if node in self.reads:
                yield node, x

    def _pack_convolutions(self) -> dict[str, Convolution]:
        """Each convolution, with its weights as they are needed."""
        kind = fastest_convolution(self.net.device, self.dtype, self.tf32)
        convolutions = {}
        for name in self.net.architecture.convolutions_until(self.reads):
            weight, bias = self.net.convolution(name)  # (O, I, 3, 3), (O,)
            if name == "conv1_1" and self.splits_image:
                high, low = _split(weight, self.dtype)
                weight = torch.cat([high, high, low], 1)
            _, height, width = self.shapes[name]
            input_shape = (1, weight.shape[1], height, width)
            convolutions[name] = kind(weight.to(self.dtype), bias.to(self.dtype), input_shape)
        return convolutions

    def _view(self, shape: tuple[int, int, int], offset: int = 0) -> Tensor:
        """The memory at an offset, by default scratch, as (1, C, h, w), channels-last."""
        c, h, w = shape
        return self.buffer[offset : offset + c * h * w].view(1, h, w, c).permute(0, 3, 1, 2)

    def _outputs(self, nodes: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (node, its output) for the first nodes of the network."""
        x = self._preprocess(self.image)
        for node in nodes:
            x = self._apply(node, x)
            yield node, x

    def _preprocess(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3 or 9, H, W): the input of the first convolution."""
        x = self.net.weights.preprocessing(image)
        if not self.splits_image:
            return x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        high, low = _split(x, self.dtype)
        height, width = x.shape[-2:]
        return self._view((9, height, width)).copy_(torch.cat([high, low, high], 1))

    def _apply(self, node: str, x: Tensor) -> Tensor:
        """The output of a node, given that of the one before."""
        kind, suffix = node[:4], node[4:]
        is_fused = f"conv{suffix}" not in self.reads  # with its ReLU, whose output alone is kept
        if kind == "conv" and is_fused:
            return self.convolutions[node](x, self.memory[f"relu{suffix}"], rectify=True)
        if kind == "conv":
            return self.memory[node].copy_(self.convolutions[node](x, self.memory[node]))
        if kind == "relu":
            return x if is_fused else torch.clamp_min(x, 0, out=self.memory[node])
        into = self.memory[node] if node in self.reads else self._view(self.shapes[node])
        if self.net.pool == "avg":
            torch.ops.aten.avg_pool2d.out(x, [2, 2], [2, 2], [0, 0], False, True, None, out=into)
            return into if self.net.gain == 1 else into.mul_(self.net.gain)
        return into.copy_(self.net.pool_layer(x))


def _split(t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(t rounded to `dtype`, the remainder in `dtype`)."""
    high = t.to(dtype)
    return high, (t - high.to(t.dtype)).to(dtype)
