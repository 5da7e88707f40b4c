"""What every loss model is: named layers, exchangeable pooling, no evaluation deeper than needed.

The network owns its preprocessing, because that belongs to the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf

import torch
from torch import Tensor, nn

from nstlab.base import devices
from nstlab.base.errors import InputError, one_of
from nstlab.base.names import POOLS, PRECISIONS
from nstlab.networks.architectures import Architecture, architecture
from nstlab.networks.weights import Weights


def soften(features: Tensor, temperature: float) -> Tensor:
    """1 + T (N·M softmax(F / T) - 1), which takes away the peaks of residual networks' activations.

    Wang, Li, Vasconcelos 2021 ("Rethinking and Improving the Robustness of Image Style Transfer"),
    whose T is 1; here times N·M. The mean is 1; the higher T, the nearer the result comes to
    F - mean(F) + 1, so that losses keep their size.

    Args:
        features: F, (B, N, H, W). The softmax is over all N channels and M = H·W positions.
        temperature: T; 0 returns F itself.
    """
    if not temperature:
        return features
    share = features[0].numel() * (features / temperature).flatten(1).softmax(1).view_as(features)
    return 1 + temperature * (share - 1)


class Network(nn.Module):
    """What every loss model is: `net(image, layers)` -> {layer: features}.

    No parameter ever requires a gradient.

    Args:
        weights: what it has learned.
        pool: one of names.POOLS.
        precision: one of names.PRECISIONS, for evaluations by the engine, see fast.arithmetic. A
            direct call computes in the type of the weights, float32.
        temperature: of `soften`; 0 leaves activations as they are.

    Attributes:
        normalized: whether its activations are, see `normalize_activations`.
        gain: a factor of all poolings.

    Raises:
        InputError: for an unknown pooling or precision, a temperature below 0, and a precision that
            only the fast path has for a network that it cannot evaluate.
    """

    def __init__(self, weights: Weights, pool: str, precision: str, temperature: float):
        super().__init__()
        devices.set_exact_convolutions()
        self.weights = weights
        self.temperature = temperature
        self.normalized = False
        self.gain = 1.0
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
        parts = [f"weights={self.weights.source}", f"pool={self.pool}"]
        if self.normalized:
            parts.append("normalized")
        if self.temperature:
            parts.append(f"temperature={self.temperature:g}")
        parts += [f"{self.dtype}".removeprefix("torch."), str(self.device)]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def uses_autograd(self) -> bool:
        """Whether it is evaluated by autograd, in float32.

        The fast path knows only VGGs whose activations are not softened.
        """
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
        """Divide each filter's activations by a number.

        Args:
            means: {layer: (C,)} for the layers that are `normalized_layers`, all more than 0.
        """
        raise NotImplementedError

    def forward(self, image: Tensor, layers: Iterable[str | int]) -> dict[str, Tensor]:
        """Compute the features of some layers, and nothing beyond the deepest of them.

        Args:
            image: (B, 3, H, W), sRGB in [0, 1].
            layers: by name, or for a VGG also by the index that tutorials use.

        Returns:
            {name: (B, C, h, w)} in the order of the network, new tensors at each call.

        Raises:
            InputError: if the weights lack a layer, or the image is too small for one.
        """
        names = self.require(layers, image.shape[-2:])
        features = self.raw_features(image, names)
        return {name: soften(f, self.temperature) for name, f in features.items()}

    def raw_features(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """What `forward` computes without a temperature, for layers that `require` has checked."""
        x = self.weights.preprocessing(image).contiguous(memory_format=torch.channels_last)
        return self.features(x, layers)

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """The features of these layers of a preprocessed image, before they are softened.

        Args:
            x: (B, 3, H, W).
            layers: names that `require` has checked.

        Returns:
            {name: (B, C, h, w)} in the order of the network.
        """
        raise NotImplementedError

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        """Check that the weights, and an image, reach as far as these layers; return their names.

        Args:
            layers: as for `forward`.
            shape: (H, W) of the image; None checks the weights only.

        Raises:
            InputError: if they do not.
        """
        raise NotImplementedError

    def reaches(self, layer: str, shape: Sequence[int]) -> bool:
        """Whether the weights, and an image of shape (H, W), reach as far as the layer."""
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

    def activation_count(self, layers: Collection[str], shape: Sequence[int]) -> int:
        """How many numbers are computed for these layers of an image of shape (H, W).

        Autograd keeps all of them.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.buffers(), self.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(itertools.chain(self.buffers(), self.parameters())).dtype
