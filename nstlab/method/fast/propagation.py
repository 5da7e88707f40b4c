"""Loss and gradient's way through the network and back, by hand: features forward, gradients backward.

    there_and_back = Propagation(net, ["relu1_1", "relu4_2"], (H, W))
    for layer, features in there_and_back.forward(image):
        ...
    gradient = there_and_back.backward(inject)

The parameters are frozen, so autograd would keep more than is needed, and allocate it anew at every evaluation, which
on a CPU costs as much as the convolutions. Here everything lies in one piece of memory, allocated once, channels-last:

- a convolution writes its rectified output into the layer's own memory; nothing else is kept (the ReLU's mask is
  where its output is positive, and a frozen convolution's gradient needs no input);
- on the way back the gradient takes the place of the features that it no longer needs, and scratch memory, as
  large as the largest layer, holds it in between;
- nearly half of all features are the first block's. In float32, and above a budget in 16 bits, they give way to those
  behind and are computed a second time on the way back, which costs a twentieth of the time;
- the gradient of a 3 x 3 convolution is a 3 x 3 convolution with turned weights, and adds itself to what the terms of
  the objective have put there.

On a CPU convolutions are oneDNN's, with weights packed in advance. In 16 bits the picture is split into what 16 bits
hold and the rest (and so are the first weights), so that a small step of a pixel is not lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.network import SEQUENCE, VGG19, exact

Inject = Callable[[str, Tensor, Tensor], None]  # (layer, its features, where to write the loss' gradient there)
ONE = [1, 1]  # stride, padding and dilation of every convolution
BUDGET = 1 << 30  # bytes of features in 16 bits; above, the first block's are computed twice
ALIGNED = 32  # places begin at multiples of this many numbers, as vector instructions like it


class Convolution:
    """A 3 x 3 convolution with fixed weights, by PyTorch's own operator."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Sequence[int]):
        """weight (O, I, 3, 3); bias (O,); shape of the input, (1, I, h, w)."""
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias

    def __call__(self, x: Tensor, into: Tensor, rectify: bool = False, add: bool = False) -> Tensor:
        """(1, I, h, w) -> (1, O, h, w), behind a ReLU or not, added to what is in `into` or not. The result may, but
        need not, take the memory of `into`."""
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        if add:
            y = into.add_(y)
        return torch.clamp_min(y, 0, out=into) if rectify else y


class OneDNN(Convolution):
    """The same by oneDNN on a CPU, in place: weights are packed once, and the ReLU costs nothing."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Sequence[int]):
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.weight, self.bias = pack(weight.contiguous(), ONE, ONE, ONE, 1, list(shape)), bias
        _give_back()

    @staticmethod
    def can(device: torch.device, dtype: torch.dtype) -> bool:
        """Whether oneDNN computes in this type on this device."""
        if device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        here = torch.ops.mkldnn
        wide = {torch.bfloat16: here._is_mkldnn_bf16_supported, torch.float16: here._is_mkldnn_fp16_supported}
        return dtype == torch.float32 or (dtype in wide and wide[dtype]())

    def __call__(self, x: Tensor, into: Tensor, rectify: bool = False, add: bool = False) -> Tensor:
        if not add:
            into.zero_()
        then = "relu" if rectify else None
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            into, x, self.weight, self.bias, ONE, ONE, ONE, 1, "add", 1.0, then, [], None
        )


def _give_back() -> None:
    """To the system, what packing left free: glibc would keep as much again as the packed weights take, in pieces that
    nothing else fits."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _split(t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `dtype` holds of t, and the rest of it."""
    high = t.to(dtype)
    return high, (t - high.to(t.dtype)).to(dtype)


def _pixels(t: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, w, C), a view."""
    return t[0].permute(1, 2, 0)


@dataclass(frozen=True)
class Layout:
    """Where the outputs of layers lie in one piece of memory, counted in numbers; scratch memory begins at 0.

    twice: nodes whose outputs the later ones overwrite, and which are computed again on the way back."""

    shapes: dict[str, tuple[int, int, int]]
    offsets: dict[str, int]
    total: int
    twice: tuple[str, ...]

    @classmethod
    def of(cls, net: VGG19, reads: Iterable[str], shape: Sequence[int], dtype: torch.dtype) -> Layout:
        """For the layers that are read, images of shape (H, W) and numbers of a type. Besides what is read, each
        ReLU's output is kept."""
        reads = set(reads)
        nodes = SEQUENCE[: max(SEQUENCE.index(layer) for layer in reads) + 1]
        shapes = net.shapes(nodes, shape)
        sizes = {node: -(-prod(each) // ALIGNED) * ALIGNED for node, each in shapes.items()}
        kept = [node for node in nodes if node in reads or node.startswith("relu")]
        first = tuple(nodes[: nodes.index("pool1")]) if "pool1" in nodes and "pool1" not in reads else ()
        wide = dtype.itemsize > 2 or sum(sizes[node] for node in kept) * dtype.itemsize > BUDGET
        twice = first if wide else ()
        offsets, ends = {}, []
        for group in (twice, [node for node in nodes if node not in twice]):  # each behind the scratch memory that it needs
            end = max([sizes[node] for node in group] + [_entry_size(shape, dtype)] * ("conv1_1" in group), default=0)
            for node in group:
                if node in kept:
                    offsets[node], end = end, end + sizes[node]
            ends.append(end)
        return cls(shapes, offsets, max(ends), twice)


def _entry_size(shape: Sequence[int], dtype: torch.dtype) -> int:
    """Numbers of the split image, which goes through the scratch memory."""
    return -(-9 * prod(shape) // ALIGNED) * ALIGNED if dtype.itemsize < 4 else 0


class Propagation:
    """Features of some layers of a network, and the image's gradient, for images of one size.

    layers: names; a gradient may be put in at each of them. shape: (H, W). arithmetic: the network's by default."""

    def __init__(self, net: VGG19, layers: Iterable[str], shape: Sequence[int], arithmetic: Arithmetic | None = None):
        self.net, self.reads = net, net.require(layers, shape)
        self.dtype, self.tf32 = arithmetic or arithmetic_of(net)
        self.split = self.dtype.itemsize < 4
        self.layout = Layout.of(net, self.reads, shape, self.dtype)
        self.shapes = self.layout.shapes
        self.nodes = tuple(self.shapes)
        self._all = torch.empty(self.layout.total, dtype=self.dtype, device=net.device)
        self.memory = {node: self._view(self.shapes[node], offset) for node, offset in self.layout.offsets.items()}
        self.forth, self.back = self._convolutions()

    def _convolutions(self) -> tuple[dict[str, Convolution], dict[str, Convolution]]:
        """Of each convolution, the way forth and the way back."""
        kind = OneDNN if OneDNN.can(self.net.device, self.dtype) else Convolution
        forth, back = {}, {}
        for name in self.net.path(self.reads):
            weight = getattr(self.net, f"{name}_weight")  # (O, I, 3, 3)
            bias = getattr(self.net, f"{name}_bias").to(self.dtype)
            turned = weight.flip(2, 3).transpose(0, 1).to(self.dtype)
            if name == "conv1_1" and self.split:
                high, low = _split(weight, self.dtype)
                weight = torch.cat([high, high, low], 1)
            c, h, w = self.shapes[name]
            forth[name] = kind(weight.to(self.dtype), bias, (1, weight.shape[1], h, w))
            back[name] = kind(turned, None, (1, c, h, w))
        return forth, back

    def _view(self, shape: tuple[int, int, int], offset: int = 0) -> Tensor:
        """A place, by default in the scratch memory, as (1, C, h, w), channels-last."""
        c, h, w = shape
        return self._all[offset : offset + c * h * w].view(1, h, w, c).permute(0, 3, 1, 2)

    # --- forth

    @torch.no_grad()
    def forward(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer, features) in the network's order. image: (1, 3, H, W) in [0, 1]. Features: (1, C, h, w) in the
        type of the computation, valid until the next ones are asked for."""
        self.image = image.detach()
        with exact(self.tf32):
            for node, x in self._through(self.nodes):
                if node in self.reads:
                    yield node, x

    def _through(self, nodes: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The first nodes, and the output of each."""
        x = self._entry(self.image)
        for node in nodes:
            x = self._forth(node, x)
            yield node, x

    def _entry(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3 or 9, H, W), preprocessed, input of the first convolution."""
        x = self.net.weights.preprocessing(image)
        if not self.split:
            return x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        high, low = _split(x, self.dtype)
        return self._view((9, *x.shape[-2:])).copy_(torch.cat([high, low, high], 1))

    def _fused(self, conv: str) -> bool:
        """Whether a convolution's output is kept only as its ReLU leaves it."""
        return conv not in self.reads

    def _forth(self, node: str, x: Tensor) -> Tensor:
        kind, place = node[:4], node[4:]
        if kind == "conv" and self._fused(node):
            return self.forth[node](x, self.memory[f"relu{place}"], rectify=True)
        if kind == "conv":
            return self.memory[node].copy_(self.forth[node](x, self.memory[node]))
        if kind == "relu":
            return x if self._fused(f"conv{place}") else torch.clamp_min(x, 0, out=self.memory[node])
        into = self.memory[node] if node in self.reads else self._view(self.shapes[node])
        if self.net.pool == "avg":
            torch.ops.aten.avg_pool2d.out(x, [2, 2], [2, 2], [0, 0], False, True, None, out=into)
            return into if self.net.gain == 1 else into.mul_(self.net.gain)
        return into.copy_(self.net.pooled(x))

    # --- and back

    @torch.no_grad()
    def backward(self, inject: Inject) -> Tensor:
        """The image's gradient, (1, 3, H, W), given the gradients at the layers that are read; called after `forward`
        has been drained, and once.

        inject(layer, features, into) writes the loss' gradient at the layer into `into`, of the features' shape."""
        with exact(self.tf32):
            g, pooled = None, False  # gradient at the node's output, or still at that of the pooling behind it
            for i in reversed(range(len(self.nodes))):
                node = self.nodes[i]
                if g is None:
                    g = torch.empty_like(self.memory[node]) if node.startswith("conv") else self._view(self.shapes[node])
                    inject(node, self.memory[node], g)
                if node == "pool1" and self.layout.twice:
                    g = self._again(g)
                if node.startswith("pool"):
                    g, pooled = self._unpooled(g, self.memory[self.nodes[i - 1]])
                elif node.startswith("relu"):
                    g, pooled = self._rectified(node, g, pooled, inject), False
                else:
                    g = self._back(node, g, self.nodes[i - 1] if i else "", inject)
            return g

    def _again(self, g: Tensor) -> Tensor:
        """Compute the first block's features a second time; the gradient, in the scratch memory, stays."""
        g = g.clone() if self.split else g  # the split image goes through the scratch memory
        for _ in self._through(self.layout.twice):
            pass
        return g

    def _unpooled(self, g: Tensor, features: Tensor) -> tuple[Tensor, bool]:
        """(gradient at the pooling's input, False); or, of average pooling, (what each of its four inputs gets, True)."""
        if self.net.pool == "avg":
            return g.mul_(self.net.gain / 4), True
        with torch.enable_grad():
            leaf = features.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(self.net.pooled(leaf), leaf, g)
        return g, False

    def _rectified(self, node: str, g: Tensor, pooled: bool, inject: Inject) -> Tensor:
        """Gradient before a ReLU: that behind it where its output is positive. Takes the features' place."""
        y, following = self.memory[node], SEQUENCE[SEQUENCE.index(node) + 1]
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

    def _back(self, node: str, g: Tensor, before: str, inject: Inject) -> Tensor:
        """Gradient at the input of a convolution, the node before, with what the objective puts in there."""
        if node in self.reads and node != self.nodes[-1]:
            own = torch.empty_like(g)
            inject(node, self.memory[node], own)
            g = g.add_(own)
        if not before:
            return self._exit(g)
        into, read = self._view(self.shapes[before]), before in self.reads
        if read:
            inject(before, self.memory[before], into)
        return self.back[node](g, into, add=read)

    def _exit(self, g: Tensor) -> Tensor:
        """Gradient at the image from that at the output of the first convolution."""
        height, width = self.shapes["conv1_1"][1:]
        g = self.back["conv1_1"](g, self._view((3, height, width)))
        image = torch.zeros(1, 3, height, width, dtype=self.net.conv1_1_weight.dtype, device=self.net.device)
        with torch.enable_grad():
            image.requires_grad_(True)
            return torch.autograd.grad(self.net.weights.preprocessing(image), image, g.to(image.dtype))[0]


def _spread(g: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, 2, w, 2, C), a view that repeats each position four times."""
    c, h, w = g.shape[1:]
    return _pixels(g)[:, None, :, None].expand(h, 2, w, 2, c)


def _quads(y: Tensor, g: Tensor) -> Tensor:
    """(1, C, H, W) -> (h, 2, w, 2, C), a view of the positions that pooling to g's (h, w) averages."""
    h, w = g.shape[2:]
    return _pixels(y)[: 2 * h, : 2 * w].unflatten(0, (h, 2)).unflatten(2, (w, 2))


def _masked(g: Tensor, y: Tensor) -> None:
    """y becomes g where y is positive, and 0 elsewhere."""
    if y.device.type == "cpu" and y.dtype.itemsize == 2:
        g, y = g.view(torch.int16), y.view(torch.int16)  # the bits of positive numbers are positive: six times faster
    torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=y)
