"""What training makes of the student at its end: reliable filters, and the file that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from nstlab.base.names import LAYERS
from nstlab.networks.normalization import normalization_images, normalize_activations
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from nstlab.pictures import images as im
from nstlab.pictures import starts
from training.corpus import PHOTOS
from training.losses import PEAK

QUIET = 0.1  # part of the layer's mean; a filter that answers less is switched off


def finish(tensors: dict[str, Tensor]) -> Weights:
    """Switch off unreliable filters, normalize activations, and round to float16.

    Args:
        tensors: the student's.
    """
    weights = Weights(without_peaks(tensors), TORCHVISION, "embedded")
    normalized = normalize_activations(VGG19(weights)).tensors()
    return replace(weights, tensors={name: t.half().float() for name, t in normalized.items()})


@torch.no_grad()
def without_peaks(tensors: dict[str, Tensor], limit: float = 2 * PEAK) -> dict[str, Tensor]:
    """Switch off filters that hardly answer, or that answer in rare peaks.

    An optimizer would match the Gram matrix of such a filter with a few glaring spots. Layer by
    layer, a filter is switched off if its mean activation is less than QUIET times the layer's, or
    if it is too peaked on any photo of the training or on noise.

    Args:
        tensors: the network's, which are not changed.
        limit: mean square over squared mean; a filter above it is too peaked.
    """
    tensors = {name: t.clone() for name, t in tensors.items()}
    net = VGG19(Weights(tensors, TORCHVISION, "student"))
    usual = list(normalization_images())
    photos = [im.sample(name, 192) for name in PHOTOS]
    pictures = [*usual, *photos, starts.noise(torch.empty(1, 3, 128, 128))]
    features = [TORCHVISION(picture) for picture in pictures]
    for name in LAYERS[: LAYERS.index(net.weights.layers[-1]) + 2]:
        features = [net.layer(name, x) for x in features]
        if name.startswith("relu"):
            layer = name.replace("relu", "conv")
            off = unreliable(features, len(usual), limit)
            tensors[f"{layer}.weight"][off] = 0
            tensors[f"{layer}.bias"][off] = 0
            features = [x * ~off.view(1, -1, 1, 1) for x in features]
    return tensors


def unreliable(features: Sequence[Tensor], usual: int, limit: float) -> Tensor:
    """Find channels that are too quiet, or too peaked.

    Args:
        features: activations behind the ReLU, (1, C, h, w), of several pictures.
        usual: of how many of them, from the first, the mean counts.
        limit: mean square over squared mean; a channel above it on any picture is too peaked.

    Returns:
        (C,) truth values.
    """
    mean = torch.stack([f.mean((0, 2, 3)) for f in features[:usual]]).mean(0)
    power = torch.stack([f.square().mean((0, 2, 3)) for f in features]).amax(0)
    return (mean < QUIET * mean.mean()) | (power > limit * mean.square())


def write_weights(weights: Weights, path: Path, metadata: dict[str, str]) -> Path:
    """Write float16 safetensors, completely or not at all.

    Args:
        weights: what is written, with their own metadata.
        path: the file.
        metadata: more of them.
    """
    versions = f"nstlab {version('nstlab')}: python -m training.embedded; torch {torch.__version__}"
    metadata = {
        "input": str(weights.preprocessing),
        **weights.metadata,
        **metadata,
        "sha256": weights.digest,
        "made by": versions,
    }
    part = path.with_suffix(".part")
    tensors = {name: t.half().contiguous() for name, t in weights.tensors.items()}
    safetensors.torch.save_file(tensors, part, metadata)
    return part.replace(path)
