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

import torch
from torch import Tensor

from nstlab.base import tensorfiles
from nstlab.base.errors import InputError, nearest
from nstlab.base.names import ANY_NETWORKS, DOWNLOADS, RECTIFIED, WEIGHTS
from nstlab.networks import sources
from nstlab.networks.architectures import DEFAULT_NETWORK, Architecture, architecture
from nstlab.networks.preprocessing import CAFFE, TORCHVISION, Preprocessing

logger = logging.getLogger("nstlab")

WIDTHS = (64, 128, 256, 512, 512)  # channels of a VGG's five blocks
EMBEDDED = Path(__file__).parents[1] / "embedded" / "embedded.safetensors"
# Sum of the original's conv1_1 biases, by which it is recognized under any names.
CAFFE_BIAS_SUM = 29.9405


@dataclass(frozen=True, eq=False)
class Weights:
    """What a network has learned, and the preprocessing of its input.

    Attributes:
        tensors: float32, on the CPU. Of a VGG `conv1_1.weight` (O, I, 3, 3), `conv1_1.bias` (O,)
            and so on; of others by torchvision's names.
        preprocessing: of its input.
        source: where they come from: a name of names.WEIGHTS, a path or "random (seed 0)".
        metadata: of the file.
        network: whose they are.
    """

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

    Args:
        path: of the file.
        source: what they are called; by default the path.
        network: whose they are.

    Raises:
        InputError: if there is no such file, or it is damaged or holds something else.
    """
    path = Path(path)
    spec = architecture(network)
    try:
        stored, metadata = tensorfiles.read(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; weights are {', '.join(WEIGHTS)}, or a path"
        ) from None
    if spec.blocks:
        tensors = _convolutions(stored, spec)
        _check_chain(path, tensors, spec)
    else:
        # Counters, which batch normalization keeps, are no weights; the rest is checked where the
        # network is built.
        tensors = {
            _current_name(name): t.detach() for name, t in stored.items() if t.is_floating_point()
        }
    tensorfiles.check_stored(path, tensors)
    tensors = tensorfiles.as_finite(path, tensors)
    try:
        preprocessing = _preprocessing(stored, tensors, metadata, spec)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Weights(tensors, preprocessing, source or str(path), metadata, network)


def _current_name(name: str) -> str:
    """The name of a tensor in torchvision now; DenseNets' files have norm.1 for norm1."""
    name = name.removeprefix("module.")
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name)


def _convolutions(tensors: Mapping[str, Tensor], vgg: Architecture) -> dict[str, Tensor]:
    """The convolutions of a VGG among the tensors, under our names."""
    # In torchvision, which counts ReLUs and poolings too, features.0 is conv1_1.
    our_names = {f"features.{index}": name for index, name in enumerate(vgg.layers)}
    # Tensors of `vgg19().features` alone have no prefix.
    has_no_prefix = any(re.fullmatch(r"\d+\.(weight|bias)", name) for name in tensors)
    convolutions = {}
    for name, tensor in tensors.items():
        layer, _, part = name.removeprefix("module.").rpartition(".")
        layer = f"features.{layer}" if has_no_prefix else layer
        layer = our_names.get(layer, layer)
        if layer in RECTIFIED and part in ("weight", "bias"):
            convolutions[f"{layer}.{part}"] = tensor.detach()
    return convolutions


def _check_chain(path: Path, tensors: Mapping[str, Tensor], vgg: Architecture) -> None:
    """Raise InputError unless these are 3×3 convolutions from conv1_1 on, without a gap."""
    layers = [name for name in vgg.convolutions if f"{name}.weight" in tensors]
    if not layers or tuple(layers) != vgg.convolutions[: len(layers)]:
        raise InputError(
            f"{path}: no {vgg.title} weights found; expected are names like 'conv1_1.weight' or "
            "'features.0.weight', from conv1_1 on without a gap"
        )
    if len(tensors) > 2 * len(layers):
        other = next(name for name in tensors if name.rpartition(".")[0] not in layers)
        raise InputError(
            f"{path}: holds {other}, which {vgg.title} does not have; is it another network's?"
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
    stored: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    spec: Architecture,
) -> Preprocessing:
    """What the metadata state; else the original's, told by names or biases; else torchvision's."""
    if "input" in metadata:
        return Preprocessing.parse(metadata["input"])
    if not spec.blocks:
        return sources.preprocessing_of(spec.name)
    has_original_names = "conv1_1.weight" in stored
    bias_sum = float(tensors["conv1_1.bias"].sum())
    is_original = has_original_names or math.isclose(bias_sum, CAFFE_BIAS_SUM, rel_tol=1e-4)
    return CAFFE if is_original else TORCHVISION


# --- loading --------------------------------------------------------------------------------------


def random_weights(
    seed: int = 0, widths: tuple[int, ...] = WIDTHS, network: str = DEFAULT_NETWORK
) -> Weights:
    """Random weights, of a VGG as in He et al. 2015, of other networks as torchvision draws them.

    A VGG's are normally distributed with variance 2 / (9 · input channels); its biases are 0.

    Args:
        seed: of the random numbers.
        widths: channels of a VGG's five blocks.
        network: whose they are.
    """
    spec = architecture(network)
    tensors = _random_vgg(spec, widths, seed) if spec.blocks else _random_tensors(spec, seed)
    return Weights(tensors, TORCHVISION, f"random (seed {seed})", network=network)


def _random_vgg(vgg: Architecture, widths: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = 3
    tensors = {}
    for name in vgg.convolutions:
        outputs = widths[int(name[4]) - 1]
        deviation = (2 / (9 * inputs)) ** 0.5
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * deviation
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return tensors


def _random_tensors(spec: Architecture, seed: int) -> dict[str, Tensor]:
    """What torchvision draws, without counters."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = models.get_model(spec.name, weights=None, **spec.options).state_dict()
    return {name: t for name, t in state.items() if t.is_floating_point()}


def _downloaded(name: str, network: str) -> Weights:
    """A network's weights of that name; InputError if they have not been fetched."""
    download = sources.download(network, name)
    if not download.path.is_file():
        owner = "" if network == DEFAULT_NETWORK else f" of {network}"
        option = f"--weights {name}" if network == DEFAULT_NETWORK else f"--network {network}"
        raise InputError(
            f"the {name} weights{owner} are not on this machine; get them "
            f"({download.megabytes} MB) with: nstlab fetch {option}"
        )
    weights = load_file(download.path, name, network)
    preprocessing = CAFFE if name == "caffe" else sources.preprocessing_of(network)
    return replace(weights, preprocessing=preprocessing)


def _auto(network: str) -> Weights:
    """The ImageNet weights; for VGG19, if they are not on this machine, the embedded ones."""
    if network != DEFAULT_NETWORK:
        return _downloaded(DOWNLOADS[0], network)
    imagenet = sources.download()
    if imagenet.path.is_file():
        _log_once("weights: ImageNet VGG19, found on this machine")
        return _downloaded("imagenet", network)
    weights = load_file(EMBEDDED, "embedded")
    title = weights.metadata.get("title", "small network")
    _log_once(
        f"weights: embedded ({title}). The ImageNet VGG19 remains the reference: "
        f"nstlab fetch --weights imagenet ({imagenet.megabytes} MB)"
    )
    return weights


@cache
def _log_once(message: str) -> None:
    """Log a message once in a process: a sweep loads its weights for every run."""
    logger.info("%s", message)


def load(source: str | Path = WEIGHTS[0], seed: int = 0, network: str = DEFAULT_NETWORK) -> Weights:
    """Load a network's weights by name or from a file.

    Args:
        source: one of names.WEIGHTS, or a path. "auto" takes the ImageNet weights if they are on
            this machine, else, for VGG19, the embedded ones, and logs which.
        seed: of random weights.
        network: whose they are.

    Raises:
        InputError: for an unknown name, a missing download or an unusable file.
    """
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
