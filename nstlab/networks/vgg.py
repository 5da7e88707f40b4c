"""VGG19 and VGG16 (Simonyan, Zisserman 2014), the paper's loss model.

Average pooling: Gatys, Ecker, Bethge 2016, section 2.

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
from nstlab.networks.base import Network
from nstlab.networks.pooling import pool2d
from nstlab.networks.weights import Weights
from nstlab.networks.weights import load as load_weights

# Average and L2 pooling of a trained VGG19's features give smaller values than max pooling, by
# these factors (K. Crowson's style-transfer-pytorch uses 2 and 0.78 · 2). `rescale_pool` multiplies
# by them.
POOL_GAIN = {"avg": 2.0, "max": 1.0, "l2": 1.56}


class VGG(Network):
    """A VGG.

    The activations are those of the weights as they are; `normalize_activations` scales them as the
    paper does.

    Args:
        weights: a `Weights`, one of names.WEIGHTS, or a path.
        pool: "avg" (the paper's), "max" (as the network was trained), "l2" (root of the mean
            square).
        rescale_pool: make up for the smaller values of average and L2 pooling; the paper does not.
        precision: see `Network`.
        seed: of random weights.
        temperature: see `Network`.

    Raises:
        InputError: for an unknown name, and for weights that cannot be used.
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
        if not isinstance(weights, Weights):
            weights = load_weights(weights, seed, self.NAME)
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
    def normalized_layers(self) -> tuple[str, ...]:
        return self.weights.layers

    def normalize(self, means: Mapping[str, Tensor]) -> None:
        """Scale the weights of each convolution, and those of the next one back.

        The network computes the same function up to the scale of each channel, since ReLU and the
        three poolings commute with positive scales (Gatys et al. 2016, section 2).

        Args:
            means: {convolution: (C,)}, what each channel is divided by.
        """
        back: Tensor | float = 1.0  # scale of the layer's inputs, to be multiplied back
        for layer in self.weights.layers:
            weight, bias = self.convolution(layer)
            scale = means[layer].to(weight)
            weight.mul_(back).div_(scale.view(-1, 1, 1, 1))  # (O, I, 3, 3)
            bias.div_(scale)
            back = scale.view(1, -1, 1, 1)
        self.normalized = True

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for name in self.architecture.layers_until(layers):
            x = self.layer(name, x)  # (B, C, h, w)
            if name in layers:
                features[name] = x
        return features

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Compute one layer from the output of the one before, conv1_1 from a preprocessed image.

        Args:
            name: of the layer.
            x: (B, C, H, W).

        Returns:
            (B, C, H, W), of a pooling as `pool_layer`.
        """
        if name.startswith(POOL):
            return self.pool_layer(x)
        if name.startswith("relu"):
            return F.relu(x)
        return F.conv2d(x, *self.convolution(name), padding=1)

    def pool_layer(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2); an odd last row or column is dropped."""
        pooled = pool2d(x, self.pool, 2)
        return pooled if self.gain == 1 else self.gain * pooled

    def convolution(self, name: str) -> tuple[Tensor, Tensor]:
        """(weight (O, I, 3, 3), bias (O,)) of a convolution, as they are used."""
        return getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")

    def tensors(self) -> dict[str, Tensor]:
        """Copies of weights and biases as they are used: {"conv1_1.weight": (O, I, 3, 3), …}."""
        return {
            name: getattr(self, name.replace(".", "_")).clone() for name in self.weights.tensors
        }

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        names = {self.architecture.layer(layer) for layer in layers}
        needed = self.architecture.convolutions_until(names)
        available = self.weights.layers
        missing = [name for name in needed if name not in available]
        if missing:
            raise InputError(
                f"the weights '{self.weights.source}' end at {available[-1]} and lack "
                f"{', '.join(missing)}; choose layers up to {available[-1]}, or other weights"
            )
        smallest = 2 ** max(map(halvings, names), default=0)
        if shape is not None and min(shape) < smallest:
            deepest = max(names, key=self.architecture.layers.index)
            raise InputError(
                f"a picture of {shape[1]}×{shape[0]} is too small for {deepest}: {smallest} px "
                "at least"
            )
        return names

    def channels(self, layer: str) -> int:
        """The number of feature maps in a layer."""
        last = self.architecture.convolutions_until([layer])[-1]
        return self.weights.tensors[f"{last}.bias"].numel()

    def shapes(
        self, layers: Iterable[str], shape: Sequence[int]
    ) -> dict[str, tuple[int, int, int]]:
        return {
            name: (self.channels(name), shape[0] >> halvings(name), shape[1] >> halvings(name))
            for name in layers
        }

    def activation_count(self, layers: Collection[str], shape: Sequence[int]) -> int:
        computed = self.architecture.layers_until(layers)
        return sum(map(prod, self.shapes(computed, shape).values()))


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
