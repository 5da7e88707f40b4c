"""Where a network's weights come from.

Files are safetensors files or PyTorch state dicts, with torchvision's names (`features.0.weight`,
with or without the classifier); those of a VGG may have the authors' (`conv1_1.weight`), any
widths, and may end early: the network then has fewer layers.

Nothing is downloaded unless `nstlab fetch` is called.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstlab.base import tensorfiles
from nstlab.base.errors import InputError, nearest
from nstlab.base.names import ANY_NETWORKS, DOWNLOADS, RAFT, RECTIFIED, WEIGHTS
from nstlab.networks.architectures import ARCHITECTURES, DEFAULT_NETWORK, Architecture, architecture
from nstlab.networks.downloads import Download
from nstlab.networks.preprocessing import CAFFE, TORCHVISION, Preprocessing, triple

logger = logging.getLogger("nstlab")

WIDTHS = (64, 128, 256, 512, 512)  # channels of a VGG's five blocks
EMBEDDED = Path(__file__).parents[1] / "embedded" / "embedded.safetensors"
# Sum of the original's conv1_1 biases, by which it is recognized under any names.
CAFFE_BIAS_SUM = 29.9405


@dataclass(frozen=True, eq=False)
class Weights:
    """What a network has learned, and the preprocessing of its input.

    tensors: of a VGG `conv1_1.weight` (O, I, 3, 3), `conv1_1.bias` (O,) and so on; of others by
    torchvision's names. All are float32, on the CPU. source: where they come from."""

    tensors: dict[str, Tensor]
    preprocessing: Preprocessing
    source: str
    metadata: dict[str, str] = field(default_factory=dict)
    network: str = DEFAULT_NETWORK

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of a VGG's convolutions, from conv1_1 on without a gap."""
        return tuple(
            name
            for name in architecture(self.network).convolutions
            if f"{name}.weight" in self.tensors
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all numbers and of the preprocessing, 64 hexadecimal digits."""
        total = hashlib.sha256(str(self.preprocessing).encode())
        for name in sorted(self.tensors):
            total.update(name.encode() + self.tensors[name].contiguous().numpy().tobytes())
        return total.hexdigest()


# --- reading files --------------------------------------------------------------------------------


def load_file(
    path: str | Path, source: str | None = None, network: str = DEFAULT_NETWORK
) -> Weights:
    """Read a network's weights from a file in any of the formats named above.

    Raises: InputError, in one line, if there is no such file, or it is damaged or holds something
    else."""
    path = Path(path)
    known = architecture(network)
    try:
        names, metadata = tensorfiles.read(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; weights are {', '.join(WEIGHTS)}, or a path"
        ) from None
    if known.blocks:
        tensors = _convolutions(names, known)
        _check_chain(path, tensors, known)
    else:
        # Counters, which batch normalization keeps, are no weights; the rest is checked where the
        # network is built.
        tensors = {
            _present_name(name): t.detach() for name, t in names.items() if t.is_floating_point()
        }
    tensorfiles.check_stored(path, tensors)
    tensors = tensorfiles.as_finite(path, tensors)
    try:
        preprocessing = _preprocessing(names, tensors, metadata, known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Weights(tensors, preprocessing, source or str(path), metadata, network)


def _present_name(name: str) -> str:
    """The name of a tensor in torchvision's networks now: DenseNets' files have older ones, norm.1
    for norm1."""
    return re.sub(
        r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name.removeprefix("module.")
    )


def _sequential_names(known: Architecture) -> dict[str, str]:
    """{torchvision's name: a VGG's layer}, {"features.0": "conv1_1", …}; torchvision counts ReLUs
    and poolings too."""
    return {f"features.{index}": name for index, name in enumerate(known.layers)}


def _convolutions(tensors: Mapping[str, Tensor], known: Architecture) -> dict[str, Tensor]:
    """The convolutions of a VGG among the tensors, under our names."""
    ours = _sequential_names(known)
    # Tensors of `vgg19().features` alone have no prefix.
    bare = any(re.fullmatch(r"\d+\.(weight|bias)", name) for name in tensors)
    found = {}
    for name, tensor in tensors.items():
        layer, _, part = name.removeprefix("module.").rpartition(".")
        layer = f"features.{layer}" if bare else layer
        layer = ours.get(layer, layer)
        if layer in RECTIFIED and part in ("weight", "bias"):
            found[f"{layer}.{part}"] = tensor.detach()
    return found


def _check_chain(path: Path, tensors: Mapping[str, Tensor], known: Architecture) -> None:
    """InputError unless the shapes are those of a VGG's chain of 3×3 convolutions, from conv1_1 on
    without a gap."""
    layers = [name for name in known.convolutions if f"{name}.weight" in tensors]
    if not layers or tuple(layers) != known.convolutions[: len(layers)]:
        raise InputError(
            f"{path}: no {known.title} weights found; expected are names like 'conv1_1.weight' or "
            "'features.0.weight', "
            f"from conv1_1 on without a gap"
        )
    if len(tensors) > 2 * len(layers):
        other = next(name for name in tensors if name.rpartition(".")[0] not in layers)
        raise InputError(
            f"{path}: holds {other}, which {known.title} does not have; is it another network's?"
        )
    inputs = 3
    for name in layers:
        weight = tensors[f"{name}.weight"]
        bias = tensors.get(f"{name}.bias")
        fits = weight.ndim == 4 and weight.shape[1:] == (inputs, 3, 3) and len(weight) > 0
        if not fits or bias is None or bias.shape != weight.shape[:1]:
            raise InputError(
                f"{path}: {name} has the shape {tuple(weight.shape)}; expected is (N, {inputs}, "
                "3, 3), and N biases"
            )
        inputs = weight.shape[0]


def _preprocessing(
    names: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    known: Architecture,
) -> Preprocessing:
    """What the metadata state; else the original's, if the names or the biases are the original's;
    else torchvision's."""
    if "input" in metadata:
        return Preprocessing.parse(metadata["input"])
    if not known.blocks:
        return trained_with(known.name)
    original = math.isclose(float(tensors["conv1_1.bias"].sum()), CAFFE_BIAS_SUM, rel_tol=1e-4)
    return CAFFE if original or "conv1_1.weight" in names else TORCHVISION


# --- sources --------------------------------------------------------------------------------------


SOURCES = {  # VGG19's
    "imagenet": Download("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548),
    "caffe": Download(
        "https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb", 548
    ),
}


def _edition(network: str) -> Any:
    """torchvision's weights of a network, with their metadata: of a classifier the first edition,
    whose training was its paper's, if there is one."""
    from torchvision import models

    editions = models.get_model_weights(network)
    return getattr(editions, "IMAGENET1K_V1", None) or editions.DEFAULT


def published(network: str) -> Download:
    """Where torchvision has a network's weights: a file whose name ends in the beginning of its
    hash."""
    chosen = _edition(network)
    sha256 = Path(chosen.url).stem.rpartition("-")[2]
    return Download(chosen.url, sha256, round(chosen.meta["_file_size"]))


@cache
def _published(network: str) -> tuple[Download, Preprocessing]:
    """The ImageNet weights of a network and their preprocessing, as torchvision's metadata say."""
    prepared = _edition(network).transforms()
    return published(network), Preprocessing(mean=triple(prepared.mean), std=triple(prepared.std))


def download(network: str = DEFAULT_NETWORK, name: str = DOWNLOADS[0]) -> Download:
    """Where a network's weights of that name, one of names.DOWNLOADS, can be had. InputError if
    there are none."""
    if network == DEFAULT_NETWORK:
        return SOURCES[name]
    if name != DOWNLOADS[0]:
        raise InputError(
            f"weights: '{name}' are {DEFAULT_NETWORK.upper()}'s; for {network} it is {DOWNLOADS[0]}"
        )
    return published(network) if network == RAFT else _published(network)[0]


def fetched() -> tuple[str, ...]:
    """The networks of architectures.ARCHITECTURES whose ImageNet weights are on this machine."""
    return tuple(name for name in ARCHITECTURES if download(name).path.is_file())


def random_weights(
    seed: int = 0, widths: tuple[int, ...] = WIDTHS, network: str = DEFAULT_NETWORK
) -> Weights:
    """Random weights, of a VGG as in He et al. 2015: normal with variance 2 / (9 · input channels),
    biases 0; of others as torchvision draws them. widths: channels of a VGG's blocks."""
    known = architecture(network)
    source = f"random (seed {seed})"
    if not known.blocks:
        from torchvision import models

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tensors = models.get_model(network, weights=None, **known.options).state_dict()
        tensors = {name: t for name, t in tensors.items() if t.is_floating_point()}
        return Weights(tensors, TORCHVISION, source, network=network)
    generator = torch.Generator().manual_seed(seed)
    inputs = 3
    tensors = {}
    for name in known.convolutions:
        outputs = widths[int(name[4]) - 1]
        tensors[f"{name}.weight"] = (
            torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        )
        tensors[f"{name}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return Weights(tensors, TORCHVISION, source, network=network)


def _downloaded(name: str, network: str) -> Weights:
    """A network's weights of that name; InputError if they have not been fetched."""
    wanted = download(network, name)
    if not wanted.path.is_file():
        of = "" if network == DEFAULT_NETWORK else f" of {network}"
        which = f"--weights {name}" if network == DEFAULT_NETWORK else f"--network {network}"
        raise InputError(
            f"the {name} weights{of} are not on this machine; get them ({wanted.megabytes} MB) "
            f"with: nstlab fetch {which}"
        )
    found = load_file(wanted.path, name, network)
    return (
        replace(found, preprocessing=CAFFE)
        if name == "caffe"
        else replace(found, preprocessing=trained_with(network))
    )


def trained_with(network: str) -> Preprocessing:
    """The preprocessing of torchvision's weights."""
    return TORCHVISION if architecture(network).blocks else _published(network)[1]


def _auto(network: str) -> Weights:
    """The ImageNet weights if they are on this machine, else the embedded ones; logs which. Other
    networks than VGG19 have only the former."""
    if network != DEFAULT_NETWORK:
        return _downloaded(DOWNLOADS[0], network)
    if SOURCES["imagenet"].path.is_file():
        _say("weights: ImageNet VGG19, found on this machine")
        return _downloaded("imagenet", network)
    weights = load_file(EMBEDDED, "embedded")
    _say(
        f"weights: embedded ({weights.metadata.get('title', 'small network')}). The ImageNet "
        "VGG19 remains the reference: "
        f"nstlab fetch --weights imagenet ({SOURCES['imagenet'].megabytes} MB)"
    )
    return weights


@cache
def _say(message: str) -> None:
    """Log a message once in a process: a sweep loads its weights for every run."""
    logger.info("%s", message)


def load(source: str | Path = WEIGHTS[0], seed: int = 0, network: str = DEFAULT_NETWORK) -> Weights:
    """Load a network's weights by name, one of names.WEIGHTS, or from a file.

    source: "auto" takes the ImageNet weights if they are on this machine, else, for VGG19, the
    embedded ones. seed: of random weights. Raises InputError for an unknown name, a missing
    download or an unusable file."""
    name = os.path.expanduser(str(source))
    match name:
        case "auto":
            return _auto(network)
        case "random":
            return random_weights(seed, network=network)
        case "embedded" if network == DEFAULT_NETWORK:
            return load_file(EMBEDDED, "embedded")
        case "embedded":
            raise InputError(
                f"weights: embedded ones are {DEFAULT_NETWORK.upper()}'s; {network} has "
                f"{', '.join(ANY_NETWORKS)}, or a path"
            )
        case "imagenet" | "caffe":
            return _downloaded(name, network)
    if not os.path.exists(name) and not Path(name).suffix:
        raise InputError(
            f"weights: there is no '{name}'{nearest(name, WEIGHTS)} (allowed: "
            f"{', '.join(WEIGHTS)}, or a path)"
        )
    return load_file(name, network=network)
