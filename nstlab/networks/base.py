"""What every loss model is: named layers, exchangeable pooling, and evaluation no deeper than
needed.

The network owns its preprocessing, because that belongs to the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base import devices
from nstlab.base.errors import InputError, one_of
from nstlab.base.names import POOLS, PRECISIONS
from nstlab.networks.architectures import Architecture, architecture
from nstlab.networks.weights import Weights


def pooled(x: Tensor, kind: str, *window: Any, **options: Any) -> Tensor:
    """Pooling of a kind in names.POOLS; further arguments as of torch's functions: kernel size,
    stride, padding, …"""
    if kind == "max":
        return F.max_pool2d(x, *window, **options)
    options |= {"count_include_pad": False} if options else {}
    if kind == "avg":
        return F.avg_pool2d(x, *window, **options)
    # The small constant keeps the root's gradient finite where all values are 0, as is common after
    # a ReLU.
    return (F.avg_pool2d(x * x, *window, **options) + 1e-12).sqrt()


def softened(features: Tensor, temperature: float) -> Tensor:
    """1 + T (N·M softmax(F / T) - 1), the softmax over all N channels and M positions of (B, N, H,
    W); F itself if T is 0.

    Wang, Li, Vasconcelos 2021 ("Rethinking and Improving the Robustness of Image Style Transfer"),
    whose T is 1; here times N·M: to take away the peaks that residual networks' activations have.
    The mean is 1; the higher T, the nearer it comes to F - mean(F) + 1, so that losses keep their
    size."""
    if not temperature:
        return features
    share = features[0].numel() * (features / temperature).flatten(1).softmax(1).view_as(features)
    return 1 + temperature * (share - 1)


class Network(nn.Module):
    """What every loss model is: `net(image, layers)` -> {layer: features}; no parameter ever
    requires a gradient.

    weights: what it has learned. pool: one of names.POOLS. precision: one of names.PRECISIONS, for
    evaluations by the engine, see fast.arithmetic; a direct call computes in the type of the
    weights, float32. temperature: of `softened`; 0 leaves activations as they are. normalized:
    whether they are, see `normalize_activations`. gain: a factor of all poolings."""

    def __init__(self, weights: Weights, pool: str, precision: str, temperature: float):
        super().__init__()
        devices.set_exact_convolutions()
        self.weights, self.temperature = weights, temperature
        self.normalized, self.gain = False, 1.0
        self.pool = one_of("pool", pool, POOLS)
        self.precision = one_of("precision", precision, PRECISIONS)
        if not 0 <= temperature < inf:
            raise InputError(f"temperature: {temperature} is not allowed; allowed is 0 or more")
        if self.uses_autograd and precision not in PRECISIONS[:2]:
            raise InputError(
                f"precision: '{precision}' is for VGGs without a temperature; allowed: "
                f"{', '.join(PRECISIONS[:2])}"
            )

    def __repr__(self) -> str:
        """The network, its weights and how it is evaluated."""
        how = [f"weights={self.weights.source}", f"pool={self.pool}"]
        how += ["normalized"] if self.normalized else []
        how += [f"temperature={self.temperature:g}"] if self.temperature else []
        how += [f"{self.dtype}".removeprefix("torch."), str(self.device)]
        return f"{type(self).__name__}({', '.join(how)})"

    @property
    def uses_autograd(self) -> bool:
        """Whether it is evaluated by autograd, in float32: the fast path knows only VGGs whose
        activations are not smoothed."""
        return True

    @property
    def architecture(self) -> Architecture:
        """The names of its layers."""
        return architecture(self.weights.network)

    @property
    def normalized_layers(self) -> tuple[str, ...]:
        """The layers by whose mean activations, after the ReLU, it is normalized."""
        raise NotImplementedError

    def normalize(self, means: Mapping[str, Tensor]) -> None:
        """Divide each filter's activations by the number given for it: {layer: (C,)} for the layers
        that are `normalized_layers`."""
        raise NotImplementedError

    def forward(self, image: Tensor, layers: Iterable[str | int]) -> dict[str, Tensor]:
        """Compute the features of some layers, and nothing beyond the deepest of them.

        image: (B, 3, H, W) sRGB in [0, 1] -> {name: (B, C, h, w)} in the order of the network, new
        tensors at each call. Raises InputError if the weights lack a layer or the image is too
        small for one."""
        wanted = self.require(layers, image.shape[-2:])
        found = self.unsoftened(image, wanted)
        return {name: softened(f, self.temperature) for name, f in found.items()}

    def unsoftened(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """What `forward` computes, whatever the temperature, for layers that are there."""
        return self.features(
            self.weights.preprocessing(image).contiguous(memory_format=torch.channels_last), layers
        )

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """The features of these layers of a preprocessed image, before they are smoothed."""
        raise NotImplementedError

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        """Check that the weights, and an image of shape (H, W), reach as far as these layers;
        return the layers' names.

        Raises InputError if they do not."""
        raise NotImplementedError

    def reaches(self, layer: str, shape: Sequence[int]) -> bool:
        """Tell whether the weights, and an image of shape (H, W), reach as far as the layer."""
        try:
            self.require([layer], shape)
        except InputError:
            return False
        return True

    def shapes(
        self, layers: Iterable[str], shape: Sequence[int]
    ) -> dict[str, tuple[int, int, int]]:
        """{layer: (C, h, w)} of the features of an image of shape (H, W)."""
        raise NotImplementedError

    def computed(self, layers: Collection[str], shape: Sequence[int]) -> int:
        """How many numbers are computed for these layers of an image of shape (H, W): all of them
        are kept by autograd."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.buffers(), self.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(itertools.chain(self.buffers(), self.parameters())).dtype
