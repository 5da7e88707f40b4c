"""Normalized activations: each filter scaled so that its mean activation is 1.

The mean is over images and positions (Gatys, Ecker, Bethge 2016, section 2). With it, a ratio α/β
means about the same for every pair of pictures and for weights from any source.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import platformdirs
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.networks.base import Network
from nstlab.pictures import images as im

# The sample photos over which activations are normalized, each with its colour channels in all six
# orders. A few photos do not show every filter the hue it looks for; such a filter would be
# enlarged a hundredfold, and would then dominate the Gram matrix of the first painting that has the
# hue. (The paper's authors had all of ImageNet.)
NORMALIZATION_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
NORMALIZATION_SIZE = 192  # px, long side of the photos
# A filter whose mean is less than this part of its layer's is scaled as if it had this: it is
# almost dead on the photos.
SMALLEST_MEAN = 0.01


@torch.no_grad()
def normalize_activations(net: Network, images: Iterable[Tensor] | None = None) -> Network:
    """Scale each filter, in place, so that its mean activation is 1; return the network.

    In networks that `uses_autograd`, only each layer's mean is made 1: many of their filters hardly
    answer to any photo, would be enlarged, and would then be most of what is seen (with SqueezeNet,
    pictures become noise).

    Args:
        net: the network.
        images: (1, 3, H, W), sRGB in [0, 1]. By default `normalization_images`; the means over
            these are computed once for each network and kept in the user's cache, and a network
            that is normalized already stays as it is.

    Raises:
        InputError: if the activations are not finite.
    """
    if images is None and net.normalized:
        return net
    means = _cached_means(net) if images is None else _finite_means(net, images)
    if net.uses_autograd:
        means = {layer: mean.mean().expand_as(mean) for layer, mean in means.items()}
    net.normalize({layer: _scale(mean) for layer, mean in means.items()})
    return net


@torch.no_grad()
def mean_activations(net: Network, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean activations after the ReLU over images and positions.

    Args:
        net: the network.
        images: (1, 3, H, W), sRGB in [0, 1].

    Returns:
        {layer: (C,)} for the layers that are `normalized_layers`.

    Raises:
        InputError: if an image is too small for a layer.
    """
    totals: dict[str, Tensor] = {}
    positions: dict[str, int] = {}
    for image in images:
        net.require(net.normalized_layers, image.shape[-2:])
        image = image.to(net.device, net.dtype)
        for layer, features in net.raw_features(image, net.normalized_layers).items():
            totals[layer] = totals.get(layer, 0) + features.clamp_min(0).sum((0, 2, 3))
            positions[layer] = positions.get(layer, 0) + features[:, 0].numel()
    return {layer: total / positions[layer] for layer, total in totals.items()}


def normalization_images() -> Iterator[Tensor]:
    """Yield NORMALIZATION_PHOTOS in all orders of their channels: (1, 3, H, W), sRGB in [0, 1]."""
    for name in NORMALIZATION_PHOTOS:
        photo = im.sample(name, NORMALIZATION_SIZE)
        for order in itertools.permutations(range(3)):
            yield photo[:, list(order)]


def _scale(mean: Tensor) -> Tensor:
    """(C,) -> (C,) what to divide by: the means, but none much smaller than the others."""
    alive = mean[mean > 0]
    return mean.clamp_min(SMALLEST_MEAN * alive.mean() if alive.numel() else 1.0)


def _finite_means(net: Network, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean activations over the images; InputError if they are not finite."""
    means = mean_activations(net, images)
    if not all(mean.isfinite().all() for mean in means.values()):
        raise InputError(f"the weights '{net.weights.source}' give activations that are not finite")
    return means


def _cached_means(net: Network) -> dict[str, Tensor]:
    """Mean activations over `normalization_images`, from the user's cache if it has them."""
    key = (
        f"3 {net.weights.digest} {net.pool} {net.gain} {NORMALIZATION_PHOTOS} {NORMALIZATION_SIZE}"
    )
    name = f"means-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    path = Path(platformdirs.user_cache_dir("nstlab")) / name
    with contextlib.suppress(OSError, SafetensorError):
        means = safetensors.torch.load_file(path)
        if set(means) == set(net.normalized_layers):
            return means
    means = _finite_means(net, normalization_images())
    # Without a cache they are computed again next time.
    with contextlib.suppress(OSError, InputError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            safetensors.torch.save_file(means, temporary)
    return means
