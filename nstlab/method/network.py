"""VGG19 as the loss model: named layers, exchangeable pooling, evaluation no deeper than needed.

Simonyan and Zisserman 2014 (the network); Gatys, Ecker, Bethge 2016, section 2 (average pooling).

`conv1_1` … `conv5_4` are the outputs of the convolutions before their ReLU, `relu1_1` … `relu5_4` after it, and `pool1` …
`pool5` the outputs of the poolings. The network owns its preprocessing, because that belongs to the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.names import BLOCKS, POOLS, PRECISIONS, WEIGHTS, layer_name
from nstlab.settings import InputError, one_of
from nstlab.weights import Weights
from nstlab.weights import load as load_weights

SEQUENCE = tuple(
    name
    for block, count in enumerate(BLOCKS, 1)
    for name in [f"{op}{block}_{i}" for i in range(1, count + 1) for op in ("conv", "relu")] + [f"pool{block}"]
)
# Average and L2 pooling of a trained VGG19's features give smaller values than max pooling, by these factors
# (K. Crowson's style-transfer-pytorch uses 2 and 0.78 · 2). `rescale_pool` multiplies by them.
POOL_GAIN = {"avg": 2.0, "max": 1.0, "l2": 1.56}


@contextlib.contextmanager
def exact(tf32: bool = False) -> Iterator[None]:
    """Make cuDNN's convolutions deterministic, and keep float32 exact: TF32 has a mantissa of only 10 bits."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=tf32):
        yield


class VGG19(nn.Module):
    """`net(image, layers)` -> {layer: features}; no parameter ever requires a gradient.

    Args:
        weights: a `Weights`, one of names.WEIGHTS, or a path.
        pool: "avg" (the paper's), "max" (as the network was trained), "l2" (root of the mean square).
        rescale_pool: make up for the smaller values of average and L2 pooling; off is the paper's plain pooling.
        precision: one of names.PRECISIONS, for evaluations by the engine, see fast.arithmetic. A direct call computes in
            the type of the weights, float32.
        seed: of random weights.
    The activations are those of the weights as they are; `normalize_activations` scales them as the paper does.
    Raises: InputError for an unknown name and for weights that cannot be used.
    """

    def __init__(
        self,
        weights: Weights | str | Path = WEIGHTS[0],
        pool: str = POOLS[0],
        rescale_pool: bool = False,
        precision: str = PRECISIONS[0],
        seed: int = 0,
    ):
        super().__init__()
        self.weights = weights if isinstance(weights, Weights) else load_weights(weights, seed)
        self.pool = one_of("pool", pool, POOLS)
        self.precision = one_of("precision", precision, PRECISIONS)
        self.gain = POOL_GAIN[pool] if rescale_pool else 1.0
        self.normalized = False  # until normalize_activations is called
        for name, tensor in self.weights.tensors.items():
            layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format  # as the convolutions read it
            self.register_buffer(name.replace(".", "_"), tensor.clone(memory_format=layout))

    def forward(self, image: Tensor, layers: Iterable[str | int]) -> dict[str, Tensor]:
        """Compute the features of some layers, and nothing beyond the deepest of them.

        image: (B, 3, H, W) sRGB in [0, 1] -> {name: (B, C, h, w)} in the order of the network, new tensors at each call.
        Raises InputError if the weights lack a layer or the image is too small for one."""
        wanted = self.require(layers, image.shape[-2:])
        found: dict[str, Tensor] = {}
        x = self.weights.preprocessing(image).contiguous(memory_format=torch.channels_last)
        with exact():
            for name in SEQUENCE:
                if len(found) == len(wanted):
                    break
                x = self.layer(name, x)  # (B, C, h, w)
                if name in wanted:
                    found[name] = x
        return found

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Compute one layer of SEQUENCE from the output of the one before (conv1_1: from the preprocessed image)."""
        if name.startswith("pool"):
            return self.pooled(x)
        if name.startswith("relu"):
            return F.relu(x)
        return F.conv2d(x, *self.convolution(name), padding=1)

    def pooled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2); an odd last row or column is dropped, as in VGG."""
        if self.pool == "max":
            return F.max_pool2d(x, 2)
        if self.pool == "avg":
            return self.gain * F.avg_pool2d(x, 2)
        # The small constant keeps the root's gradient finite where all four values are 0, as is common after a ReLU.
        return self.gain * (F.avg_pool2d(x * x, 2) + 1e-12).sqrt()

    def convolution(self, name: str) -> tuple[Tensor, Tensor]:
        """(weight (O, I, 3, 3), bias (O,)) of a convolution, as they are used."""
        return getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all weights and biases as they are used, by name: {"conv1_1.weight": (O, I, 3, 3), …}."""
        return {name: getattr(self, name.replace(".", "_")).clone() for name in self.weights.tensors}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.convolution("conv1_1")[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.convolution("conv1_1")[0].dtype

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        """Check that the weights, and an image of shape (H, W), reach as far as these layers; return the layers' names.

        Raises InputError if they do not."""
        wanted = {layer_name(layer) for layer in layers}
        missing = [name for name in self.path(wanted) if name not in self.weights.layers]
        if missing:
            raise InputError(
                f"the weights '{self.weights.source}' end at {self.weights.layers[-1]} and lack {', '.join(missing)}; "
                f"choose layers up to {self.weights.layers[-1]}, or other weights"
            )
        smallest = 2 ** max(map(halvings, wanted), default=0)
        if shape is not None and min(shape) < smallest:
            deepest = max(wanted, key=SEQUENCE.index)
            raise InputError(f"a picture of {shape[1]}×{shape[0]} is too small for {deepest}: {smallest} px at least")
        return wanted

    def reaches(self, layer: str, shape: Sequence[int]) -> bool:
        """Tell whether the weights, and an image of shape (H, W), reach as far as the layer."""
        try:
            self.require([layer], shape)
        except InputError:
            return False
        return True

    @staticmethod
    def path(layers: Iterable[str]) -> list[str]:
        """The convolutions that have to be computed for these layers."""
        deepest = max((SEQUENCE.index(layer) for layer in layers), default=-1)
        return [name for name in SEQUENCE[: deepest + 1] if name.startswith("conv")]

    def channels(self, layer: str) -> int:
        """The number of feature maps in a layer."""
        return self.weights.tensors[f"{self.path([layer])[-1]}.bias"].numel()

    def shapes(self, layers: Iterable[str], shape: Sequence[int]) -> dict[str, tuple[int, int, int]]:
        """{layer: (C, h, w)} of the features of an image of shape (H, W)."""
        return {name: (self.channels(name), shape[0] >> halvings(name), shape[1] >> halvings(name)) for name in layers}


def halvings(layer: str) -> int:
    """How many poolings there are up to and including a layer."""
    block = int(layer[4])
    return block if layer.startswith("pool") else block - 1
