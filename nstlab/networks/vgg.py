"""VGG19 and VGG16 (Simonyan, Zisserman 2014), the paper's loss model; average pooling: Gatys,
Ecker, Bethge 2016, section 2.

`conv1_1` … `conv5_4` are the outputs of the convolutions before their ReLU, `relu1_1` … `relu5_4`
after it, and `pool1` … `pool5` the outputs of the poolings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import ClassVar, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.base.names import POOL, POOLS, PRECISIONS, WEIGHTS
from nstlab.networks.architectures import ARCHITECTURES
from nstlab.networks.base import Network, pooled
from nstlab.networks.weights import Weights
from nstlab.networks.weights import load as load_weights

# Average and L2 pooling of a trained VGG19's features give smaller values than max pooling, by
# these factors (K. Crowson's style-transfer-pytorch uses 2 and 0.78 · 2). `rescale_pool` multiplies
# by them.
POOL_GAIN = {"avg": 2.0, "max": 1.0, "l2": 1.56}


class VGG(Network):
    """A VGG.

    Args:
        weights: a `Weights`, one of names.WEIGHTS, or a path.
        pool: "avg" (the paper's), "max" (as the network was trained), "l2" (root of the mean
        square).
        rescale_pool: make up for the smaller values of average and L2 pooling; off is the paper's
        plain pooling.
        precision, temperature: see `Network`.
        seed: of random weights.
    The activations are those of the weights as they are; `normalize_activations` scales them as the
    paper does. Raises: InputError for an unknown name and for weights that cannot be used.
    """

    NAME: ClassVar[str]

    def __init__(
        self,
        weights: Weights | str | Path = WEIGHTS[0],
        pool: str = POOLS[0],
        rescale_pool: bool = False,
        precision: str = PRECISIONS[0],
        seed: int = 0,
        temperature: float = 0.0,
    ):
        weights = (
            weights if isinstance(weights, Weights) else load_weights(weights, seed, self.NAME)
        )
        if weights.network != self.NAME:
            raise InputError(
                f"{self.NAME}: the weights '{weights.source}' are those of {weights.network}"
            )
        super().__init__(weights, pool, precision, temperature)
        self.gain = POOL_GAIN[pool] if rescale_pool else 1.0
        for name, tensor in weights.tensors.items():
            # As the convolutions read it.
            layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            self.register_buffer(name.replace(".", "_"), tensor.clone(memory_format=layout))

    @property
    def uses_autograd(self) -> bool:
        return self.temperature > 0

    @property
    def sequence(self) -> tuple[str, ...]:
        """All layers that a VGG of this depth has, in order, whether or not the weights reach
        them."""
        return ARCHITECTURES[self.NAME].layers

    @property
    def normalized_layers(self) -> tuple[str, ...]:
        return self.weights.layers

    def normalize(self, means: Mapping[str, Tensor]) -> None:
        """Scale the weights of each convolution, and those of the next one back, so that the
        network computes the same function up to the scale of each channel: ReLU and the three
        poolings commute with positive scales (Gatys et al. 2016, section 2)."""
        back: Tensor | float = 1.0  # scale of the layer's inputs, to be multiplied back
        for layer in self.weights.layers:
            weight, bias = self.convolution(layer)
            scale = means[layer].to(weight)
            weight.mul_(back).div_(scale.view(-1, 1, 1, 1))  # (O, I, 3, 3)
            bias.div_(scale)
            back = scale.view(1, -1, 1, 1)
        self.normalized = True

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in self.sequence:
            if len(found) == len(layers):
                break
            x = self.layer(name, x)  # (B, C, h, w)
            if name in layers:
                found[name] = x
        return found

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Compute one layer of `sequence` from the output of the one before (conv1_1: from the
        preprocessed image)."""
        if name.startswith(POOL):
            return self.pooled(x)
        if name.startswith("relu"):
            return F.relu(x)
        return F.conv2d(x, *self.convolution(name), padding=1)

    def pooled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2); an odd last row or column is dropped, as in
        VGG."""
        small = pooled(x, self.pool, 2)
        return small if self.gain == 1 else self.gain * small

    def convolution(self, name: str) -> tuple[Tensor, Tensor]:
        """(weight (O, I, 3, 3), bias (O,)) of a convolution, as they are used."""
        return getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all weights and biases as they are used, by name: {"conv1_1.weight": (O, I, 3,
        3), …}."""
        return {
            name: getattr(self, name.replace(".", "_")).clone() for name in self.weights.tensors
        }

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        wanted = {self.architecture.layer(layer) for layer in layers}
        missing = [name for name in self.path(wanted) if name not in self.weights.layers]
        if missing:
            raise InputError(
                f"the weights '{self.weights.source}' end at {self.weights.layers[-1]} and lack "
                f"{', '.join(missing)}; "
                f"choose layers up to {self.weights.layers[-1]}, or other weights"
            )
        smallest = 2 ** max(map(halvings, wanted), default=0)
        if shape is not None and min(shape) < smallest:
            deepest = max(wanted, key=self.sequence.index)
            raise InputError(
                f"a picture of {shape[1]}×{shape[0]} is too small for {deepest}: {smallest} px "
                "at least"
            )
        return wanted

    def path(self, layers: Iterable[str]) -> list[str]:
        """The convolutions that have to be computed for these layers."""
        return [name for name in self.until(layers) if name in self.architecture.convolutions]

    def until(self, layers: Iterable[str]) -> tuple[str, ...]:
        """All layers that have to be computed for these layers."""
        return self.sequence[
            : max((self.sequence.index(layer) for layer in layers), default=-1) + 1
        ]

    def channels(self, layer: str) -> int:
        """The number of feature maps in a layer."""
        return self.weights.tensors[f"{self.path([layer])[-1]}.bias"].numel()

    def shapes(
        self, layers: Iterable[str], shape: Sequence[int]
    ) -> dict[str, tuple[int, int, int]]:
        return {
            name: (self.channels(name), shape[0] >> halvings(name), shape[1] >> halvings(name))
            for name in layers
        }

    def computed(self, layers: Collection[str], shape: Sequence[int]) -> int:
        return sum(map(prod, self.shapes(self.until(layers), shape).values()))


def is_fast(net: Network) -> TypeGuard[VGG]:
    """Whether the fast path can evaluate the network."""
    return not net.uses_autograd


class VGG19(VGG):
    """VGG with 16 convolutions: 2, 2, 4, 4, 4."""

    __doc__ = f"{__doc__}\n\n{VGG.__doc__}"
    NAME = "vgg19"


class VGG16(VGG):
    """VGG with 13 convolutions: 2, 2, 3, 3, 3."""

    __doc__ = f"{__doc__}\n\n{VGG.__doc__}"
    NAME = "vgg16"


def halvings(layer: str) -> int:
    """How many poolings there are in a VGG up to and including a layer."""
    block = int(layer[4])
    return block if layer.startswith(POOL) else block - 1
