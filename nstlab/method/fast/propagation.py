"""Forward and backward through the network by hand: features out, and the gradient at the image
back.

    propagation = Propagation(net, ["relu1_1", "relu4_2"], (H, W))
    for layer, features in propagation.forward(image):
        ...
    gradient = propagation.backward(inject)

The parameters are frozen, so autograd would keep more than is needed, and allocate it anew at every
evaluation, which on a CPU costs as much as the convolutions. Here everything is in one piece of
memory, allocated once, channels-last:

- A convolution writes its rectified output into the layer's memory, and nothing else is kept: the
  ReLU's mask is where its output is positive, and the gradient at the input of a frozen convolution
  does not depend on the input.
- On the way back, the gradient overwrites features that are no longer needed. In between it is in
  scratch memory, which is as large as the largest layer.
- Nearly half of all features are those of the first block. In float32, and above a budget in 16
  bits, later features overwrite them, and they are computed a second time on the way back, which
  costs a twentieth of the time.
- The gradient of a 3 × 3 convolution is a 3 × 3 convolution with its weights turned by 180°; the
  result is added to what the terms of the objective have put there.

In 16 bits, the picture and the first weights are each split into what 16 bits hold and the
remainder, so that a small change of a pixel is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.convolutions import Convolution, CuDNN, OneDNN
from nstlab.networks.vgg import VGG

# (layer, its features, where to write the gradient of the loss there)
Inject = Callable[[str, Tensor, Tensor], None]
# Bytes; if features in 16 bits take more, those of the first block are computed twice.
BUDGET = 1 << 30
ALIGNED = 32  # layers begin at multiples of this many numbers, which suits vector instructions


def _split(t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(t rounded to `dtype`, the remainder in `dtype`)."""
    high = t.to(dtype)
    return high, (t - high.to(t.dtype)).to(dtype)


def _pixels(t: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, w, C), a view."""
    return t[0].permute(1, 2, 0)


@dataclass(frozen=True)
class Layout:
    """Where the outputs of layers are in one piece of memory: offsets counted in numbers; scratch
    memory begins at 0.

    twice: layers whose outputs are overwritten by later ones, and computed again on the way
    back."""

    shapes: dict[str, tuple[int, int, int]]
    offsets: dict[str, int]
    total: int
    twice: tuple[str, ...]

    @classmethod
    def of(cls, net: VGG, reads: Iterable[str], shape: Sequence[int], dtype: torch.dtype) -> Layout:
        """Lay out memory for the layers that are read and the outputs of all ReLUs before them, for
        images of shape (H, W)."""
        reads = set(reads)
        nodes = net.architecture.layers_until(reads)
        shapes = net.shapes(nodes, shape)
        sizes = {node: -(-prod(each) // ALIGNED) * ALIGNED for node, each in shapes.items()}
        kept = [node for node in nodes if node in reads or node.startswith("relu")]
        first = (
            tuple(nodes[: nodes.index("pool1")])
            if "pool1" in nodes and "pool1" not in reads
            else ()
        )
        wide = dtype.itemsize > 2 or sum(sizes[node] for node in kept) * dtype.itemsize > BUDGET
        twice = first if wide else ()
        offsets, ends = {}, []
        # Each after the scratch memory that it needs.
        for group in (twice, [node for node in nodes if node not in twice]):
            end = max((sizes[node] for node in group), default=0)
            if "conv1_1" in group:
                end = max(end, _entry_size(shape, dtype))
            for node in group:
                if node in kept:
                    offsets[node], end = end, end + sizes[node]
            ends.append(end)
        return cls(shapes, offsets, max(ends), twice)


def _entry_size(shape: Sequence[int], dtype: torch.dtype) -> int:
    """How many numbers the split image has, which goes through the scratch memory."""
    return -(-9 * prod(shape) // ALIGNED) * ALIGNED if dtype.itemsize < 4 else 0


class Propagation:
    """Features of some layers of a network, and the gradient at the image, for images of one size.

    layers: those that are read, and where `backward` takes gradients. shape: (H, W). arithmetic:
    the network's by default. like: one for images of another size, whose packed weights and memory,
    if they are large enough, it shares."""

    def __init__(
        self,
        net: VGG,
        layers: Iterable[str],
        shape: Sequence[int],
        arithmetic: Arithmetic | None = None,
        like: Propagation | None = None,
    ):
        self.net = net
        self.reads = net.require(layers, shape)
        self.dtype, self.tf32 = arithmetic or arithmetic_of(net)
        self.split = self.dtype.itemsize < 4
        self.layout = Layout.of(net, self.reads, shape, self.dtype)
        self.shapes = self.layout.shapes
        self.nodes = tuple(self.shapes)
        self.use(self.blank() if like is None or len(like.all) < self.layout.total else like.all)
        self.convolutions, self.vjps = (
            self._convolutions() if like is None else (like.convolutions, like.vjps)
        )

    def blank(self) -> Tensor:
        """New memory."""
        return torch.empty(self.layout.total, dtype=self.dtype, device=self.net.device)

    def use(self, memory: Tensor) -> None:
        """Compute in this memory; what it holds is what was computed there."""
        self.all = memory
        self.memory = {
            node: self._view(self.shapes[node], offset)
            for node, offset in self.layout.offsets.items()
        }

    def _convolutions(self) -> tuple[dict[str, Convolution], dict[str, Convolution]]:
        """Each convolution forward, and its vjp, a convolution with turned weights."""
        plain = partial(Convolution, tf32=self.tf32)
        kind = next(
            (kind for kind in (OneDNN, CuDNN) if kind.can(self.net.device, self.dtype)), plain
        )
        forward, backward = {}, {}
        for name in self.net.architecture.convolutions_until(self.reads):
            weight, bias = self.net.convolution(name)  # (O, I, 3, 3), (O,)
            turned = weight.flip(2, 3).transpose(0, 1).to(self.dtype)
            if name == "conv1_1" and self.split:
                high, low = _split(weight, self.dtype)
                weight = torch.cat([high, high, low], 1)
            c, h, w = self.shapes[name]
            forward[name] = kind(
                weight.to(self.dtype), bias.to(self.dtype), (1, weight.shape[1], h, w)
            )
            backward[name] = kind(turned, None, (1, c, h, w))
        return forward, backward

    def _view(self, shape: tuple[int, int, int], offset: int = 0) -> Tensor:
        """The memory at an offset, by default the scratch memory, as (1, C, h, w),
        channels-last."""
        c, h, w = shape
        return self.all[offset : offset + c * h * w].view(1, h, w, c).permute(0, 3, 1, 2)

    # --- forward

    @torch.no_grad()
    def forward(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer, features) in the order of the network.

        image: (1, 3, H, W) sRGB in [0, 1]. Features are (1, C, h, w) in the type of the
        computation, and valid until the next ones are computed."""
        self.image = image.detach()
        for node, x in self._through(self.nodes):
            if node in self.reads:
                yield node, x

    def _through(self, nodes: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (node, its output) for the first nodes of the network."""
        x = self._entry(self.image)
        for node in nodes:
            x = self._next(node, x)
            yield node, x

    def _entry(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3 or 9, H, W): the input of the first convolution, preprocessed."""
        x = self.net.weights.preprocessing(image)
        if not self.split:
            return x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        high, low = _split(x, self.dtype)
        height, width = x.shape[-2:]
        return self._view((9, height, width)).copy_(torch.cat([high, low, high], 1))

    def _fused(self, conv: str) -> bool:
        """Whether only the rectified output of a convolution is kept."""
        return conv not in self.reads

    def _next(self, node: str, x: Tensor) -> Tensor:
        kind = node[:4]
        place = node[4:]
        if kind == "conv" and self._fused(node):
            return self.convolutions[node](x, self.memory[f"relu{place}"], rectify=True)
        if kind == "conv":
            return self.memory[node].copy_(self.convolutions[node](x, self.memory[node]))
        if kind == "relu":
            return (
                x if self._fused(f"conv{place}") else torch.clamp_min(x, 0, out=self.memory[node])
            )
        into = self.memory[node] if node in self.reads else self._view(self.shapes[node])
        if self.net.pool == "avg":
            torch.ops.aten.avg_pool2d.out(x, [2, 2], [2, 2], [0, 0], False, True, None, out=into)
            return into if self.net.gain == 1 else into.mul_(self.net.gain)
        return into.copy_(self.net.pool_layer(x))

    # --- backward

    @torch.no_grad()
    def backward(self, inject: Inject) -> Tensor:
        """The gradient at the image, (1, 3, H, W). To be called once, after `forward` has been
        drained.

        inject(layer, features, into) writes the gradient of the loss at a layer that is read into
        `into`, which has the shape of the features."""
        last = self.nodes[-1]
        g = (
            torch.empty_like(self.memory[last])
            if last.startswith("conv")
            else self._view(self.shapes[last])
        )
        inject(last, self.memory[last], g)
        # g is the gradient at the node's output; or, if true, still at that of the pooling after it
        pooled = False
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            if node == "pool1" and self.layout.twice:
                g = self._again(g)
            if node.startswith("pool"):
                g, pooled = self._before_pooling(g, self.memory[self.nodes[i - 1]])
            elif node.startswith("relu"):
                g = self._before_relu(node, g, pooled, inject)
                pooled = False
            else:
                g = self._before_convolution(node, g, self.nodes[i - 1] if i else "", inject)
        return g

    def _again(self, g: Tensor) -> Tensor:
        """Compute the features of the first block a second time; return the gradient, which is in
        the scratch memory."""
        g = g.clone() if self.split else g  # the split image goes through the scratch memory
        for _ in self._through(self.layout.twice):
            pass
        return g

    def _before_pooling(self, g: Tensor, features: Tensor) -> tuple[Tensor, bool]:
        """(gradient at the pooling's input, False); for average pooling, (the gradient of each of
        its four inputs, True)."""
        if self.net.pool == "avg":
            return g.mul_(self.net.gain / 4), True
        with torch.enable_grad():
            leaf = features.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(self.net.pool_layer(leaf), leaf, g)
        return g, False

    def _before_relu(self, node: str, g: Tensor, pooled: bool, inject: Inject) -> Tensor:
        """The gradient before a ReLU: that after it where its output is positive. It overwrites the
        features."""
        y = self.memory[node]
        layers = self.net.architecture.layers
        following = layers[layers.index(node) + 1]
        if following.startswith("pool") and following in self.nodes and node in self.reads:
            total = torch.empty_like(y)
            inject(node, y, total)
            _quads(total, g).add_(_spread(g)) if pooled else total.add_(g)
            g, pooled = total, False
        if pooled:
            _masked(_spread(g), _quads(y, g))
            for rest in (_pixels(y)[2 * g.shape[2] :], _pixels(y)[:, 2 * g.shape[3] :]):
                rest.zero_()  # an odd last row or column, which pooling drops
        else:
            _masked(g, y)
        return y

    def _before_convolution(self, node: str, g: Tensor, before: str, inject: Inject) -> Tensor:
        """The gradient at the input of a convolution, the output of the node before, with what is
        injected there."""
        if node in self.reads and node != self.nodes[-1]:
            own = torch.empty_like(g)
            inject(node, self.memory[node], own)
            g = g.add_(own)
        if not before:
            return self._exit(g)
        into = self._view(self.shapes[before])
        read = before in self.reads
        if read:
            inject(before, self.memory[before], into)
        return self.vjps[node](g, into, add=read)

    def _exit(self, g: Tensor) -> Tensor:
        """The gradient at the image, given that at the output of the first convolution."""
        height, width = self.shapes["conv1_1"][1:]
        g = self.vjps["conv1_1"](g, self._view((3, height, width)))
        image = torch.zeros(1, 3, height, width, dtype=self.net.dtype, device=self.net.device)
        with torch.enable_grad():
            image.requires_grad_(True)
            return torch.autograd.grad(
                self.net.weights.preprocessing(image), image, g.to(image.dtype)
            )[0]


def _spread(g: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, 2, w, 2, C): a view that repeats each position four times."""
    c, h, w = g.shape[1:]
    return _pixels(g)[:, None, :, None].expand(h, 2, w, 2, c)


def _quads(y: Tensor, g: Tensor) -> Tensor:
    """(1, C, H, W) -> (h, 2, w, 2, C): a view of the positions that are averaged by pooling to the
    (h, w) of g."""
    h, w = g.shape[2:]
    return _pixels(y)[: 2 * h, : 2 * w].unflatten(0, (h, 2)).unflatten(2, (w, 2))


def _masked(g: Tensor, y: Tensor) -> None:
    """Set y to g where y is positive, and to 0 elsewhere."""
    if y.device.type == "cpu" and y.dtype.itemsize == 2:
        # The bits of positive numbers are positive: six times faster.
        g = g.view(torch.int16)
        y = y.view(torch.int16)
    torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=y)
