"""VGG19 as the loss model: named layers, exchangeable pooling, normalized activations, truncated evaluation.

Simonyan and Zisserman 2014 (the network); Gatys, Ecker, Bethge 2016, section 2 (average pooling, and weights scaled
so that each filter's mean activation over images and positions is 1).

`conv1_1` … `conv5_4` are the convolutions' outputs before their ReLU, `relu1_1` … `relu5_4` behind it, `pool1` …
`pool5` the poolings. The network owns its preprocessing, because that belongs to the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import platformdirs
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from nstlab import files
from nstlab import images as im
from nstlab.method.names import BLOCKS, POOLS, PRECISIONS, WEIGHTS, layer_name, rectified
from nstlab.method.weights import Weights
from nstlab.method.weights import load as load_weights
from nstlab.settings import InputError, nearest

SEQUENCE = tuple(
    name
    for block, count in enumerate(BLOCKS, 1)
    for name in [f"{op}{block}_{i}" for i in range(1, count + 1) for op in ("conv", "relu")] + [f"pool{block}"]
)
# Factors by which average and L2 pooling are smaller than max pooling on a trained VGG19's features, for `rescale_pool`
# (K. Crowson's style-transfer-pytorch uses 2 and 0.78 · 2).
POOL_GAIN = {"avg": 2.0, "max": 1.0, "l2": 1.56}
# The activations are normalized over these photos, each with its colour channels in all six orders: a few photos do
# not show every filter its hue, and a filter that they hardly excite would be enlarged a hundredfold and then rule the
# Gram matrix of the first painting that has the hue. (The paper's authors had all of ImageNet.)
NORMALIZATION_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
NORMALIZATION_SIZE = 192  # px, long side
SMALLEST_MEAN = 0.01  # of the layer's mean: a filter that is (almost) dead even so is not enlarged further


def _choice(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{what}: '{value}' is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    return value


@contextlib.contextmanager
def exact(tf32: bool = False) -> Iterator[None]:
    """Deterministic convolutions in cuDNN: no autotuning, and float32 without TF32, which has 10 bits of mantissa,
    unless it is asked for."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=tf32):
        yield


class VGG19(nn.Module):
    """`net(image, layers)` -> {layer: features}; no parameter ever requires a gradient.

    Args:
        weights: a `Weights`, one of names.WEIGHTS, or a path.
        pool: "avg" (the paper's), "max" (the network's training), "l2" (root of the mean square).
        normalize: scale every filter to mean activation 1 over a fixed set of sample photos, without changing the
            network's function otherwise, so that α/β means the same for every pair and every source of weights.
        rescale_pool: make up for average and L2 pooling's smaller values; off is the paper's plain pooling.
        precision: of evaluations by the engine, one of names.PRECISIONS, see fast.arithmetic. Called directly, the
            network computes in the type of its weights, float32.
        seed: of random weights.
    Raises: InputError for an unknown name and for weights that cannot be used.
    """

    def __init__(
        self,
        weights: Weights | str | Path = WEIGHTS[0],
        pool: str = POOLS[0],
        normalize: bool = True,
        rescale_pool: bool = False,
        precision: str = PRECISIONS[0],
        seed: int = 0,
    ):
        super().__init__()
        self.weights = weights if isinstance(weights, Weights) else load_weights(weights, seed)
        self.pool = _choice("pool", pool, POOLS)
        self.precision = _choice("precision", precision, PRECISIONS)
        self.gain = POOL_GAIN[pool] if rescale_pool else 1.0
        for name, tensor in self.weights.tensors.items():
            layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format  # as the convolutions read it
            self.register_buffer(name.replace(".", "_"), tensor.clone(memory_format=layout))
        self.normalized = normalize
        if normalize:
            _scale_activations(self, _sample_means(self))

    def forward(self, image: Tensor, layers: Iterable[str | int]) -> dict[str, Tensor]:
        """Features of the layers asked for, and nothing computed beyond the deepest of them.

        image: (B, 3, H, W) sRGB in [0, 1] -> {name: (B, C, h, w)} in the order of the network, fresh each call.
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
        """One layer of SEQUENCE on the output of the one before it (of conv1_1, the preprocessed image)."""
        if name.startswith("pool"):
            return self.pooled(x)
        if name.startswith("relu"):
            return F.relu(x)
        return F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1)

    def pooled(self, x: Tensor) -> Tensor:
        """Half the height and width; an odd last row or column is dropped, as in VGG."""
        if self.pool == "max":
            return F.max_pool2d(x, 2)
        if self.pool == "avg":
            return self.gain * F.avg_pool2d(x, 2)
        # The small constant keeps the root's gradient finite where all four are 0, as is common behind a ReLU.
        return self.gain * (F.avg_pool2d(x * x, 2) + 1e-12).sqrt()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.conv1_1_weight.device

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        """The layers' names; InputError if the weights, or an image of shape (H, W), do not reach that far."""
        wanted = {layer_name(layer) for layer in layers}
        missing = [name for name in self.path(wanted) if name not in self.weights.layers]
        if missing:
            raise InputError(
                f"the weights '{self.weights.source}' end at {self.weights.layers[-1]} and lack {', '.join(missing)}; "
                f"choose layers up to {self.weights.layers[-1]}, or other weights"
            )
        poolings = max((int(name[4]) - (not name.startswith("pool")) for name in wanted), default=0)
        if shape is not None and min(shape) < 2**poolings:
            deepest = max(wanted, key=SEQUENCE.index)
            raise InputError(f"a picture of {shape[1]}×{shape[0]} is too small for {deepest}: {2**poolings} px at least")
        return wanted

    def reaches(self, layer: str, shape: Sequence[int]) -> bool:
        """Whether `require` would let it pass."""
        try:
            self.require([layer], shape)
        except InputError:
            return False
        return True

    @staticmethod
    def path(layers: Iterable[str]) -> list[str]:
        """The convolutions that are computed for these layers."""
        deepest = max((SEQUENCE.index(layer) for layer in layers), default=-1)
        return [name for name in SEQUENCE[: deepest + 1] if name.startswith("conv")]

    def shapes(self, nodes: Iterable[str], shape: Sequence[int]) -> dict[str, tuple[int, int, int]]:
        """{node: (C, h, w)} of nodes of SEQUENCE, for images of shape (H, W)."""
        halvings = {node: int(node[4]) - (not node.startswith("pool")) for node in nodes}
        return {node: (self.channels(node), shape[0] >> n, shape[1] >> n) for node, n in halvings.items()}

    def tensors(self) -> dict[str, Tensor]:
        """{conv1_1.weight: …} as they are used: normalized, if the network is."""
        return {name: getattr(self, name.replace(".", "_")).clone() for name in self.weights.tensors}

    def channels(self, layer: str) -> int:
        """Number of feature maps in a layer."""
        return self.weights.tensors[f"{self.path([layer])[-1]}.bias"].numel()


# --- normalized activations -------------------------------------------------------------------------------------


@torch.no_grad()
def mean_activations(net: VGG19, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """{convolution: (C,)} mean behind the ReLU over images and positions; images (1, 3, H, W) in [0, 1]."""
    totals: dict[str, Tensor] = {}
    positions: dict[str, int] = {}
    relus = [rectified(name) for name in net.weights.layers]
    for image in images:
        for name, features in net(image, relus).items():
            layer = name.replace("relu", "conv")
            totals[layer] = totals.get(layer, 0) + features.sum((0, 2, 3))
            positions[layer] = positions.get(layer, 0) + features[:, 0].numel()
    return {layer: total / positions[layer] for layer, total in totals.items()}


def normalization_images() -> Iterator[Tensor]:
    """The sample photos that activations are normalized over, (1, 3, H, W) in [0, 1], in all orders of their channels."""
    for name in NORMALIZATION_PHOTOS:
        photo = im.sample(name, NORMALIZATION_SIZE)
        yield from (photo[:, list(order)] for order in itertools.permutations(range(3)))


def normalize_activations(net: VGG19, images: Iterable[Tensor]) -> VGG19:
    """Scale each filter, in place, so that its mean activation over the images and all positions is 1.

    The next layer's input weights are multiplied back, so the network computes the same function up to each
    channel's scale; ReLU and the three poolings commute with positive scales (Gatys et al. 2016, section 2).
    Filters that are (almost) dead on the images are enlarged only up to a limit, see SMALLEST_MEAN."""
    _scale_activations(net, mean_activations(net, images))
    net.normalized = True
    return net


def _scale_activations(net: VGG19, means: dict[str, Tensor]) -> None:
    back: Tensor | float = 1.0  # scale of the inputs, to be multiplied back
    for layer in net.weights.layers:
        weight, bias, mean = getattr(net, f"{layer}_weight"), getattr(net, f"{layer}_bias"), means[layer]
        alive = mean[mean > 0]
        floor = SMALLEST_MEAN * alive.mean() if alive.numel() else 1.0
        scale = mean.clamp_min(floor).to(weight)
        weight.mul_(back).div_(scale.view(-1, 1, 1, 1))  # (O, I, 3, 3)
        bias.div_(scale)
        back = scale.view(1, -1, 1, 1)


def _sample_means(net: VGG19) -> dict[str, Tensor]:
    """Mean activations over the fixed sample photos, computed once for each network and then kept on disk."""
    key = f"3 {net.weights.digest} {net.pool} {net.gain} {NORMALIZATION_PHOTOS} {NORMALIZATION_SIZE}"
    path = Path(platformdirs.user_cache_dir("nstlab")) / f"means-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    with contextlib.suppress(OSError, SafetensorError):
        means = safetensors.torch.load_file(path)
        if set(means) == set(net.weights.layers):
            return means
    means = mean_activations(net, normalization_images())
    if not all(mean.isfinite().all() for mean in means.values()):
        raise InputError(f"the weights '{net.weights.source}' give activations that are not finite")
    with contextlib.suppress(OSError, InputError, SafetensorError):  # a home that cannot be written only costs the time again
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            safetensors.torch.save_file(means, temporary)
    return means
