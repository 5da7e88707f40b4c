"""Where published weights can be downloaded, and the preprocessing with which they were trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError
from nstlab.base.names import DOWNLOADS, RAFT
from nstlab.networks.architectures import ARCHITECTURES, DEFAULT_NETWORK, architecture
from nstlab.networks.downloads import Download
from nstlab.networks.preprocessing import TORCHVISION, Preprocessing, triple

SOURCES = {  # VGG19's
    "imagenet": Download("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548),
    "caffe": Download(
        "https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb", 548
    ),
}


def download(network: str = DEFAULT_NETWORK, name: str = DOWNLOADS[0]) -> Download:
    """Where a network's weights are published.

    Args:
        network: a classifier of torchvision, or RAFT.
        name: of the weights, one of names.DOWNLOADS.

    Raises:
        InputError: if the network has no weights of that name.
    """
    if network == DEFAULT_NETWORK:
        return SOURCES[name]
    if name != DOWNLOADS[0]:
        raise InputError(
            f"weights: '{name}' are {DEFAULT_NETWORK.upper()}'s; for {network} it is {DOWNLOADS[0]}"
        )
    return published(network) if network == RAFT else _imagenet(network)[0]


def published(network: str) -> Download:
    """Where torchvision has a network's weights: a file whose name ends in its hash's beginning."""
    edition = _edition(network)
    sha256 = Path(edition.url).stem.rpartition("-")[2]
    return Download(edition.url, sha256, round(edition.meta["_file_size"]))


def preprocessing_of(network: str) -> Preprocessing:
    """The preprocessing of torchvision's weights."""
    return TORCHVISION if architecture(network).blocks else _imagenet(network)[1]


def fetched() -> tuple[str, ...]:
    """The networks of architectures.ARCHITECTURES whose ImageNet weights are on this machine."""
    return tuple(name for name in ARCHITECTURES if download(name).path.is_file())


def _edition(network: str) -> Any:
    """torchvision's weights of a network: the first edition, whose training was its paper's."""
    from torchvision import models

    editions = models.get_model_weights(network)
    return getattr(editions, "IMAGENET1K_V1", None) or editions.DEFAULT


@cache
def _imagenet(network: str) -> tuple[Download, Preprocessing]:
    """The ImageNet weights of a network and their preprocessing, as torchvision's metadata say."""
    transforms = _edition(network).transforms()
    preprocessing = Preprocessing(mean=triple(transforms.mean), std=triple(transforms.std))
    return published(network), preprocessing
