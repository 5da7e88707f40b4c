"""Where VGG19's weights come from: their formats, preprocessing and integrity.

A file's format is detected from its content. Read are safetensors files and PyTorch state dicts (`weights_only`, so
no code in a file is ever run) with torchvision's names (`features.0.weight`, with or without the classifier) or the
authors' (`conv1_1.weight`). Any widths are allowed, and a file may end early: a network then has fewer layers.

Preprocessing belongs to the weights. Two are in use: torchvision's (RGB in [0, 1], ImageNet's mean and standard
deviation) and the original's (BGR in [0, 255], mean subtracted: Simonyan and Zisserman's Caffe model). A safetensors
file may name its own in its metadata, as `input`: "BGR, 0-255, mean 103.939/116.779/123.68 subtracted, std 1".

Nothing is downloaded unless `nstlab fetch` is called.
"""

from __future__ import annotations

import hashlib
import logging
import math
import mmap
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from nstlab import files
from nstlab.downloads import Download
from nstlab.method.names import BLOCKS, CONVOLUTIONS, WEIGHTS
from nstlab.settings import InputError, nearest

log = logging.getLogger("nstlab")

WIDTHS = (64, 128, 256, 512, 512)  # VGG19's channels by block
EMBEDDED = Path(__file__).parent / "embedded" / "embedded.safetensors"


@dataclass(frozen=True)
class Preprocessing:
    """From sRGB in [0, 1] to the network's input: (image[order] · scale - mean) / std, channels in `order`."""

    order: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) sRGB in [0, 1] -> (B, 3, H, W) as the weights expect it."""
        if image.shape[1] != 3:
            raise InputError(f"a picture of {image.shape[1]} channels cannot be looked at; expected are 3: (1, 3, H, W)")
        if self.order == "BGR":
            image = image.flip(1)
        channels = zip(image.unbind(1), self.mean, self.std, strict=True)  # plain numbers: nothing is sent to a device
        return torch.stack([x * (self.scale / std) - mean / std for x, mean, std in channels], 1)

    def __str__(self) -> str:
        mean, std = ("/".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"{self.order}, 0-{self.scale:g}, mean {mean} subtracted, std {std if len(set(self.std)) > 1 else self.std[0]}"

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """The inverse of str()."""
        one = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
        number = rf"({one}(?:/{one}/{one})?)"
        match = re.fullmatch(rf"(RGB|BGR), 0-(1|255), mean {number} subtracted, std {number}", text.strip())
        if match is None:
            raise InputError(f"input '{text}' is not of the form 'BGR, 0-255, mean 1/2/3 subtracted, std 1'")
        values = [tuple(map(float, part.split("/"))) for part in match.groups()[2:]]
        mean, std = (v * 3 if len(v) == 1 else v for v in values)
        if not (1e-9 <= min(std) <= max(std) <= 1e9 and max(map(abs, mean)) <= 1e9):
            raise InputError(f"input '{text}': allowed are a std from 1e-9 to 1e9, and a mean from -1e9 to 1e9")
        return cls(match[1], float(match[2]), mean, std)


TORCHVISION = Preprocessing()
CAFFE = Preprocessing("BGR", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
# The original's conv1_1 biases add up to this; no other training is likely to come as near.
_CAFFE_BIAS_SUM = 29.9405


@dataclass(frozen=True, eq=False)
class Weights:
    """Convolutions by name (`conv1_1.weight` (O, I, 3, 3), `conv1_1.bias` (O,)), float32 on the CPU, and how to feed them.

    `layers` are the convolutions there are, from conv1_1 on without a gap. `digest` identifies the numbers."""

    tensors: dict[str, Tensor]
    preprocessing: Preprocessing
    source: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(name for name in CONVOLUTIONS if f"{name}.weight" in self.tensors)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all numbers and of the preprocessing, as 64 hexadecimal digits."""
        total = hashlib.sha256(str(self.preprocessing).encode())
        for name in sorted(self.tensors):
            total.update(name.encode() + self.tensors[name].contiguous().numpy().tobytes())
        return total.hexdigest()


# --- reading files ----------------------------------------------------------------------------------------------


def _sequential_names() -> dict[str, str]:
    """torchvision's `features.N` -> our names; N counts convolutions, ReLUs and poolings alike."""
    names, index = {}, 0
    for block, count in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            names[f"features.{index}"] = f"conv{block}_{i}"
            index += 2
        index += 1
    return names


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) as they stand in the file."""
    with files.regular(path).open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # a safetensors file: eight bytes of length, then JSON
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    _check_pickle(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles that will be refused
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return {name: t for name, t in state.items() if isinstance(t, Tensor)}, {}


def _check_pickle(path: Path) -> None:
    """InputError for a pickle that would take more memory than its size: a packed archive, which PyTorch never writes, or one
    that asks for an array of bytes, which no weights need."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > path.stat().st_size:
            raise InputError(f"{path}: would unpack to {unpacked / 1e9:.2f} GB; weights are stored as they are")
    if path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"bytearray") >= 0:
                raise InputError(f"{path}: holds more than tensors")


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions among the tensors, under our names."""
    known = _sequential_names()
    if any(re.fullmatch(r"\d+\.(weight|bias)", name) for name in tensors):  # vgg19().features alone
        tensors = {f"features.{name}": t for name, t in tensors.items()}
    found = {}
    for name, tensor in tensors.items():
        layer, _, part = name.removeprefix("module.").rpartition(".")
        layer = known.get(layer, layer)
        if layer in CONVOLUTIONS and part in ("weight", "bias"):
            found[f"{layer}.{part}"] = tensor.detach()
    return found


def _check(path: Path, tensors: dict[str, Tensor]) -> None:
    """VGG19's chain of 3×3 convolutions, from conv1_1 on without a gap; looks at sizes only."""
    layers = [name for name in CONVOLUTIONS if f"{name}.weight" in tensors]
    if not layers or tuple(layers) != CONVOLUTIONS[: len(layers)]:
        raise InputError(
            f"{path}: no VGG19 weights found; expected are names like 'conv1_1.weight' or 'features.0.weight', "
            f"from conv1_1 on without a gap"
        )
    inputs = 3
    for name in layers:
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        fits = weight.ndim == 4 and weight.shape[1:] == (inputs, 3, 3) and len(weight) > 0
        if not fits or bias is None or bias.shape != weight.shape[:1]:
            raise InputError(
                f"{path}: {name} has the shape {tuple(weight.shape)}; expected is (N, {inputs}, 3, 3), and N biases"
            )
        if not (_is_stored(weight) and _is_stored(bias)):
            raise InputError(f"{path}: {name} does not consist of stored numbers; expected are plain tensors of floats")
        inputs = weight.shape[0]
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise InputError(f"{path}: its tensors share their numbers; expected are weights of which each is stored")


def _is_stored(tensor: Tensor) -> bool:
    """Whether each of its numbers is in the file: no view that repeats a few of them a thousand times, nothing sparse."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def _finite(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As float32, all numbers finite."""
    found = {name: tensor.resolve_neg().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name.partition('.')[0]} holds numbers that are not finite; the file is damaged")
    return found


def _preprocessing(names: dict[str, Tensor], tensors: dict[str, Tensor], metadata: dict[str, str]) -> Preprocessing:
    """As the metadata say; else the original's for its authors' names or for its biases; else torchvision's."""
    if "input" in metadata:
        return Preprocessing.parse(metadata["input"])
    original = math.isclose(float(tensors["conv1_1.bias"].sum()), _CAFFE_BIAS_SUM, rel_tol=1e-4)
    return CAFFE if original or "conv1_1.weight" in names else TORCHVISION


def load_file(path: str | Path, source: str | None = None) -> Weights:
    """Weights from a file of any of the formats named above.

    Raises: InputError, in one line, if there is no such file, or it is damaged, or holds something else."""
    path = Path(path)
    try:
        names, metadata = _read(path)
        tensors = _named(names)
        _check(path, tensors)
        tensors = _finite(path, tensors)
        return Weights(tensors, _preprocessing(names, tensors, metadata), source or str(path), metadata)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; weights are {', '.join(WEIGHTS)}, or a path") from None
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except pickle.UnpicklingError:
        raise InputError(f"{path}: is not a file of weights, is damaged, or holds more than tensors") from None
    except Exception as error:  # a damaged file can make its reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: is not a file of weights, or is damaged ({reason})") from None


# --- sources ----------------------------------------------------------------------------------------------------


DOWNLOADS = {
    "imagenet": Download("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d", 548),
    "caffe": Download("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb", 548),
}


def random_weights(seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> Weights:
    """He-initialized weights (He et al. 2015): normal, variance 2 / (9 · input channels), biases 0."""
    generator, inputs, tensors = torch.Generator().manual_seed(seed), 3, {}
    for name in CONVOLUTIONS:
        outputs = widths[int(name[4]) - 1]
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        tensors[f"{name}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return Weights(tensors, TORCHVISION, f"random (seed {seed})")


def _downloaded(name: str) -> Weights:
    download = DOWNLOADS[name]
    if not download.path.is_file():
        raise InputError(
            f"the {name} weights are not on this machine; get them ({download.megabytes} MB) with: "
            f"nstlab fetch --weights {name}"
        )
    weights = load_file(download.path, name)
    return Weights(weights.tensors, CAFFE if name == "caffe" else TORCHVISION, name)


def _auto() -> Weights:
    if DOWNLOADS["imagenet"].path.is_file():
        _say("weights: ImageNet VGG19, found on this machine")
        return _downloaded("imagenet")
    weights = load_file(EMBEDDED, "embedded")
    _say(
        f"weights: embedded ({weights.metadata.get('title', 'small network')}). The ImageNet VGG19 remains the reference: "
        f"nstlab fetch --weights imagenet ({DOWNLOADS['imagenet'].megabytes} MB)"
    )
    return weights


@cache
def _say(message: str) -> None:
    """Once in a process: a sweep loads its weights for every run."""
    log.info("%s", message)


def load(source: str | Path = WEIGHTS[0], seed: int = 0) -> Weights:
    """Weights from one of names.WEIGHTS, or from a file.

    auto takes the ImageNet weights if they are on this machine, else the embedded ones, and logs which. `seed` is
    that of the random ones. Raises InputError for an unknown name, a missing download or an unusable file."""
    sources: dict[str, Callable[[], Weights]] = {
        "auto": _auto,
        "embedded": lambda: load_file(EMBEDDED, "embedded"),
        "random": lambda: random_weights(seed),
        **{name: lambda name=name: _downloaded(name) for name in DOWNLOADS},
    }
    name = str(source)
    if name in sources:
        return sources[name]()
    if not os.path.exists(name) and not Path(name).suffix:
        raise InputError(f"weights: there is no '{name}'{nearest(name, WEIGHTS)} (allowed: {', '.join(WEIGHTS)}, or a path)")
    return load_file(name)
