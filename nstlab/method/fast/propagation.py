"""Forward and backward through the network by hand: features, then the gradient at the image.

    propagation = Propagation(net, ["relu1_1", "relu4_2"], (H, W))
    for layer, features in propagation.forward(image):
        ...
    gradient = propagation.backward(inject)

The parameters are frozen, so autograd would keep more than is needed, and allocate it anew at every
evaluation, which on a CPU costs as much as the convolutions. Here everything is in one piece of
memory; see `Layout`. The gradient of a 3 × 3 convolution is a 3 × 3 convolution with its weights
turned by 180°; the result is added to what the terms of the objective have put there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.convolutions import Convolution, fastest_convolution
from nstlab.method.fast.forward import Forward
from nstlab.networks.vgg import VGG

# (layer, its features, where to write the gradient of the loss there)
Inject = Callable[[str, Tensor, Tensor], None]


class Propagation(Forward):
    """Features of some layers of a network, and the gradient at the image, for images of one size.

    `backward` takes gradients at the layers that are read. For arguments see `Forward`.
    """

    def __init__(
        self,
        net: VGG,
        layers: Iterable[str],
        shape: Sequence[int],
        arithmetic: Arithmetic | None = None,
        like: Propagation | None = None,
    ):
        super().__init__(net, layers, shape, arithmetic, like)
        self.vjps = self._pack_vjps() if like is None else like.vjps

    def _pack_vjps(self) -> dict[str, Convolution]:
        """The vjp of each convolution, a convolution with turned weights."""
        kind = fastest_convolution(self.net.device, self.dtype, self.tf32)
        vjps = {}
        for name in self.net.architecture.convolutions_until(self.reads):
            weight, _ = self.net.convolution(name)  # (O, I, 3, 3)
            turned = weight.flip(2, 3).transpose(0, 1)
            vjps[name] = kind(turned.to(self.dtype), None, (1, *self.shapes[name]))
        return vjps

    @torch.no_grad()
    def backward(self, inject: Inject) -> Tensor:
        """The gradient at the image, (1, 3, H, W).

        To be called once, after `forward` has been drained.

        Args:
            inject: inject(layer, features, into) writes the gradient of the loss at a layer that is
                read into `into`, which has the shape of the features.
        """
        last = self.nodes[-1]
        if last.startswith("conv"):
            g = torch.empty_like(self.memory[last])
        else:
            g = self._view(self.shapes[last])
        inject(last, self.memory[last], g)
        # Whether g is not the gradient at the node's output but at that of the pooling after it.
        is_pooled = False
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            before = self.nodes[i - 1] if i else ""
            if node == "pool1" and self.layout.recomputed:
                g = self._recompute(g)
            if node.startswith("pool"):
                g, is_pooled = _before_pooling(self.net, g, self.memory[before])
            elif node.startswith("relu"):
                g = self._before_relu(node, g, is_pooled, inject)
                is_pooled = False
            else:
                g = self._before_convolution(node, g, before, inject)
        return g

    def _recompute(self, g: Tensor) -> Tensor:
        """Compute the features of the first block again; return the gradient."""
        if self.splits_image:
            g = g.clone()  # the split image goes through the scratch memory, where g is
        for _ in self._outputs(self.layout.recomputed):
            pass
        return g

    def _before_relu(self, node: str, g: Tensor, is_pooled: bool, inject: Inject) -> Tensor:
        """The gradient before a ReLU: that after it where its output is positive.

        It overwrites the features.
        """
        y = self.memory[node]
        layers = self.net.architecture.layers
        following = layers[layers.index(node) + 1]
        if following.startswith("pool") and following in self.nodes and node in self.reads:
            total = torch.empty_like(y)
            inject(node, y, total)
            if is_pooled:
                _quads(total, g).add_(_repeated(g))
            else:
                total.add_(g)
            g = total
            is_pooled = False
        if not is_pooled:
            _mask_gradient(g, y)
            return y
        _mask_gradient(_repeated(g), _quads(y, g))
        # An odd last row or column, which pooling drops.
        height, width = g.shape[2:]
        _pixels(y)[2 * height :].zero_()
        _pixels(y)[:, 2 * width :].zero_()
        return y

    def _before_convolution(self, node: str, g: Tensor, before: str, inject: Inject) -> Tensor:
        """The gradient at the input of a convolution, with what is injected there."""
        if node in self.reads and node != self.nodes[-1]:
            injected = torch.empty_like(g)
            inject(node, self.memory[node], injected)
            g = g.add_(injected)
        if not before:
            return self._before_preprocessing(g)
        into = self._view(self.shapes[before])
        is_read = before in self.reads
        if is_read:
            inject(before, self.memory[before], into)
        return self.vjps[node](g, into, add=is_read)

    def _before_preprocessing(self, g: Tensor) -> Tensor:
        """The gradient at the image, given that at the output of the first convolution."""
        height, width = self.shapes["conv1_1"][1:]
        g = self.vjps["conv1_1"](g, self._view((3, height, width)))
        image = torch.zeros(1, 3, height, width, dtype=self.net.dtype, device=self.net.device)
        with torch.enable_grad():
            image.requires_grad_(True)
            preprocessed = self.net.weights.preprocessing(image)
            return torch.autograd.grad(preprocessed, image, g.to(image.dtype))[0]


def _before_pooling(net: VGG, g: Tensor, features: Tensor) -> tuple[Tensor, bool]:
    """(gradient at the pooling's input, False).

    For average pooling, (the gradient of each of its four inputs, True).
    """
    if net.pool == "avg":
        return g.mul_(net.gain / 4), True
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(net.pool_layer(leaf), leaf, g)
    return g, False


def _pixels(t: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, w, C), a view."""
    return t[0].permute(1, 2, 0)


def _repeated(g: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, 2, w, 2, C): a view that repeats each position four times."""
    c, h, w = g.shape[1:]
    return _pixels(g)[:, None, :, None].expand(h, 2, w, 2, c)


def _quads(y: Tensor, g: Tensor) -> Tensor:
    """(1, C, H, W) -> (h, 2, w, 2, C): a view of the positions that pooling averages to g's."""
    h, w = g.shape[2:]
    return _pixels(y)[: 2 * h, : 2 * w].unflatten(0, (h, 2)).unflatten(2, (w, 2))


def _mask_gradient(g: Tensor, y: Tensor) -> None:
    """Set y to g where y is positive, and to 0 elsewhere."""
    if y.device.type == "cpu" and y.dtype.itemsize == 2:
        # The bits of positive numbers are positive: six times faster.
        g = g.view(torch.int16)
        y = y.view(torch.int16)
    torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=y)
