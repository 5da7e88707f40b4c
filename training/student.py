"""The embedded network while it is trained: VGG19's layout, other widths, batch normalization.

The normalization is folded into the convolutions in the end.
Activations are kept in bfloat16 and channels-last, weights in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base.names import CONVOLUTIONS
from nstlab.networks.preprocessing import TORCHVISION, Preprocessing

# conv1_1 to conv3_4, which are trained first, and the others
LOWER, UPPER = CONVOLUTIONS[:8], CONVOLUTIONS[8:]
# half of VGG19's
WIDTHS = {name: (32, 64, 128, 256, 256)[int(name[4]) - 1] for name in CONVOLUTIONS}
_MOMENTUM = 0.02
_EPSILON = 1e-5
TINY = 1e-6  # added to divisors, since a layer or a filter may be silent


class Layer(nn.Module):
    """3×3 convolution, batch normalization, ReLU: (B, I, h, w) -> (B, O, h, w).

    Until it is `settled`, it is normalized by the batch, so no channel can die; from then on by the
    running means, which become a part of the convolution (see `folded`).

    Args:
        weight: (O, I, 3, 3).
        gain, shift: (O,), of the normalization.
        settled: whether it is normalized by the running means.
    """

    def __init__(self, weight: Tensor, gain: Tensor, shift: Tensor, settled: bool = False):
        super().__init__()
        # (O, 9 I): a matrix, as its optimizer wants it
        self.kernel = nn.Parameter(weight.flatten(1))
        self.gain = nn.Parameter(gain)
        self.shift = nn.Parameter(shift)
        self.register_buffer("mean", torch.zeros_like(shift))
        self.register_buffer("variance", torch.ones_like(shift))
        self.settled = settled

    @property
    def weight(self) -> Tensor:
        """The kernel, (O, I, 3, 3)."""
        return self.kernel.view(len(self.kernel), -1, 3, 3)

    def folded(self) -> tuple[Tensor, Tensor]:
        """(weight, bias) of the plain convolution."""
        scale = self.gain * (self.variance + _EPSILON).rsqrt()
        return self.weight * scale.view(-1, 1, 1, 1), self.shift - self.mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, h, w) -> (B, O, h, w), behind the ReLU."""
        if self.settled:
            weight, bias = self.folded()
            return F.relu(F.conv2d(x, fast(weight), bias.to(x.dtype), padding=1))
        x = F.conv2d(x, fast(self.weight), padding=1)
        x = F.batch_norm(
            x, self.mean, self.variance, self.gain, self.shift, True, _MOMENTUM, _EPSILON
        )
        return F.relu(x)


def fast(x: Tensor) -> Tensor:
    """A kernel or activations as convolutions are fast: in bfloat16, channels-last."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _layer_of(tensors: Mapping[str, Tensor], name: str) -> Layer:
    """A layer with these weights, settled; its kernel is as large as a new one's, as a step is."""
    weight = tensors[f"{name}.weight"].clone()
    bias = tensors[f"{name}.bias"].clone()
    size = (weight.flatten(1).norm(dim=1) / 2**0.5).clamp_min(TINY)
    return Layer(weight / size.view(-1, 1, 1, 1), size * (1 + _EPSILON) ** 0.5, bias, True)


class Stack(nn.Module):
    """Convolutions with a pooling between the blocks.

    Args:
        layers: by name, in order.
        preprocessing: of pictures.
        pool: the pooling, a function of activations and a window.
    """

    def __init__(
        self,
        layers: dict[str, Layer],
        preprocessing: Preprocessing = TORCHVISION,
        pool=F.avg_pool2d,
    ):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.preprocessing = preprocessing
        self.pool = pool

    @classmethod
    def frozen(
        cls, tensors: dict[str, Tensor], preprocessing: Preprocessing, last: str, pool=F.avg_pool2d
    ) -> Stack:
        """A stack that is settled and has no gradients.

        Args:
            tensors: its weights.
            preprocessing: of pictures.
            last: its last layer.
            pool: its pooling.
        """
        names = CONVOLUTIONS[: CONVOLUTIONS.index(last) + 1]
        layers = {name: _layer_of(tensors, name) for name in names}
        return cls(layers, preprocessing, pool).requires_grad_(False)

    @classmethod
    def begin(cls, names: Iterable[str], seed: int, tensors: Mapping[str, Tensor]) -> Stack:
        """A stack to be trained.

        Args:
            names: of its layers.
            seed: of those that are initialized, as by He et al. (2015).
            tensors: the weights of the others, which are settled.
        """
        generator = torch.Generator().manual_seed(seed)
        layers = {}
        inputs = 3
        for name in names:
            width = WIDTHS[name]
            if f"{name}.weight" in tensors:
                layers[name] = _layer_of(tensors, name)
            else:
                noise = torch.randn(width, inputs, 3, 3, generator=generator)
                weight = noise * (2 / (9 * inputs)) ** 0.5
                layers[name] = Layer(weight, torch.ones(width), torch.zeros(width))
            inputs = width
        return cls(layers)

    def forward(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Compute activations, no further than the deepest that is asked for.

        Args:
            x: pictures (B, 3, H, W) in [0, 1], or, if the stack begins at a later block, the
                activation before it.
            names: layers.

        Returns:
            {name: activation behind the ReLU}.
        """
        names = set(names)
        activations = {}
        if "conv1_1" in self.layers:
            x = self.preprocessing(x)
        x = fast(x)
        for name, layer in self.layers.items():
            if name.endswith("_1") and name != "conv1_1":
                x = self.pool(x, 2)
            x = layer(x)
            if name in names:
                activations[name] = x
                if len(activations) == len(names):
                    break
        return activations

    def settle(self) -> None:
        """Normalize by the running means from now on."""
        for layer in self.layers.values():
            layer.settled = True

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """{"conv1_1.weight": …} in float32, with the normalization folded in."""
        tensors = {}
        for name, layer in self.layers.items():
            weight, bias = layer.folded()
            tensors[f"{name}.weight"] = weight.clone()
            tensors[f"{name}.bias"] = bias.clone()
        return tensors
