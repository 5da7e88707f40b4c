"""Models: a trained `TransformNetwork`, the names of its paintings and its settings, in one file.

The file is a safetensors file, which cannot hold code; its numbers have 16 bits, the averages of
batch normalization 32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor

from nstlab.base import files, jsonfiles, tensorfiles
from nstlab.base.devices import device
from nstlab.base.errors import InputError, nearest
from nstlab.base.settings import DEVICES, user_path
from nstlab.feedforward.network import TransformNetwork
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import (
    LARGEST_WIDTH,
    NORMALIZATIONS,
    SHIPPED,
    compose_name,
    painting_names,
)

FORMAT = "nstlab model 1"
PARAMETER_RANGE = -1e3, 1e3  # the parameters of the shipped network are below 3
AVERAGE_RANGES = {"mean": (-1e6, 1e6), "variance": (0.0, 1e12)}  # of batch normalization
LEAST_WIDTH = 8
SHIPPED_PATH = Path(__file__).parents[1] / "embedded" / "paintings.safetensors"


@dataclass(frozen=True, eq=False)
class StyleModel:
    """A network that paints like some paintings.

    Attributes:
        paintings: their names, in the network's order, see `painting_names`.
        settings: what it was trained with, as plain values.
    """

    network: TransformNetwork
    paintings: tuple[str, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paintings", painting_names(self.paintings))

    @classmethod
    def load(cls, source: str | os.PathLike = SHIPPED) -> Self:
        """Read a model.

        Args:
            source: a file that `save` wrote, or 'shipped', the one that comes with the lab.

        Raises:
            InputError: if there is no such file, or it is damaged or holds something else.
        """
        path = user_path(source)
        if str(source) == SHIPPED and not os.path.exists(SHIPPED):
            path = SHIPPED_PATH
        tensors, metadata = _read(path)
        paintings, normalization, settings = _parse_metadata(path, metadata)
        tensorfiles.check_stored(path, tensors)
        network = TransformNetwork(len(paintings), _width_of(path, tensors), normalization)
        _load_weights(network, path, tensors)
        return cls(network.eval().requires_grad_(False), paintings, settings)

    def save(self, path: str | os.PathLike, **extra: str) -> Path:
        """Write one file, whole or not at all; returns its path.

        Args:
            extra: more entries of the file's metadata.

        Raises:
            InputError: if it cannot be written, or if `load` would refuse its numbers.
        """
        metadata = {
            "format": FORMAT,
            "paintings": json.dumps(self.paintings),
            "normalization": self.network.kind,
            "settings": json.dumps(dict(self.settings)),
        }
        tensors = _stored_tensors(self.network)
        _check_ranges(path, tensors)
        with files.replacing(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(tensors, metadata | extra))
        return user_path(path)

    def mixture(self, paintings: Sequence[str] = (), shares: Sequence[float] = ()) -> Tensor:
        """Mix some of the model's paintings.

        Args:
            paintings: their names; by default the model's first.
            shares: of each painting, 0 or more; by default equal.

        Returns:
            (K,) the share of each of the model's paintings; they add up to 1.

        Raises:
            InputError: for a painting that the model does not have, and for shares that do not fit.
        """
        names = tuple(map(compose_name, paintings)) or self.paintings[:1]
        for name in names:
            if name not in self.paintings:
                raise InputError(
                    f"painting: the model has no '{name}'{nearest(name, self.paintings)} (it has: "
                    f"{', '.join(self.paintings)})"
                )
        shares = _complete_shares(shares, len(names))
        mix = torch.zeros(len(self.paintings))
        for name, share in zip(names, shares, strict=True):
            mix[self.paintings.index(name)] += share / sum(shares)
        return mix

    def painter(self, on: str | torch.device = DEVICES[0]) -> Painter:
        """A painter with this network on a device, which may be a name such as 'cpu'."""
        return Painter(self.network, device(on))

    @property
    def digest(self) -> str:
        """SHA-256 of its weights and of the names of its paintings."""
        digest = sha256(json.dumps(self.paintings).encode())
        for tensor in self.network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _painter(self) -> Painter:
        return self.painter()

    def __call__(
        self,
        photo: Tensor,
        paintings: str | Sequence[str] = (),
        shares: Sequence[float] = (),
        alpha: float = 1.0,
    ) -> Tensor:
        """Paint a photo like a mixture of the model's paintings: (1, 3, H, W) sRGB in [0, 1].

        Args:
            photo: (1, 3, H, W) sRGB in [0, 1].
            paintings, shares: see `mixture`; one name may stand alone.
            alpha: from the photo, 0, to the painted picture, 1.

        Raises:
            InputError: as `mixture`, and if painting needs more memory than is free.
        """
        if isinstance(paintings, str):
            paintings = (paintings,)
        return self._painter(photo, self.mixture(paintings, shares), alpha)


def _complete_shares(shares: Sequence[float], count: int) -> tuple[float, ...]:
    """The shares of `count` paintings, by default equal; InputError for what they cannot be."""
    shares = tuple(shares) or (1.0,) * count
    if len(shares) != count or not sum(shares) > 0 or min(shares) < 0:
        raise InputError(
            f"mix: give a share, 0 or more, for each of {count} paintings; at least one more than 0"
        )
    return shares


# --- files of models ------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file; InputError if there is none, or it is no safetensors file."""
    try:
        return tensorfiles.read(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; a model is a file that `nstlab learn` made, or '{SHIPPED}'"
        ) from None


def _stored_tensors(network: TransformNetwork) -> dict[str, Tensor]:
    """A network's tensors as a file has them, by name."""
    parameters = dict(network.named_parameters())
    tensors = {name: parameter.detach().half() for name, parameter in parameters.items()}
    tensors |= dict(network.named_buffers())  # variances may be too large for 16 bits
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _parse_metadata(
    path: Path, metadata: Mapping[str, str]
) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    """(paintings, normalization, settings) of a file; InputError if it is not a model's."""
    with contextlib.suppress(KeyError, ValueError):  # InputError is a ValueError
        paintings = jsonfiles.parse(metadata["paintings"])
        settings = jsonfiles.parse(metadata["settings"])
        normalization = metadata["normalization"]
        if (
            metadata["format"] == FORMAT
            and normalization in NORMALIZATIONS
            and isinstance(settings, dict)
            and isinstance(paintings, list)
            and all(isinstance(name, str) for name in paintings)
        ):
            painting_names(paintings)
            return tuple(paintings), normalization, settings
    raise InputError(f"{path}: is not a model of nstlab, or is damaged")


def _width_of(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """The width of the network whose parameters these are; InputError if it has none."""
    kernel = tensors.get("down.kernel")
    width = 0 if kernel is None or kernel.ndim == 0 else len(kernel)
    if not LEAST_WIDTH <= width <= LARGEST_WIDTH:
        raise InputError(
            f"{path}: is not a model of nstlab, or is damaged (its network has no width)"
        )
    return width


def _load_weights(network: TransformNetwork, path: Path, tensors: dict[str, Tensor]) -> None:
    """Give a network the tensors of a file; InputError unless they are those of such a network."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise InputError(
            f"{path}: is not a model of nstlab, or is damaged (its tensors are not those of "
            "its network)"
        )
    tensors = tensorfiles.as_finite(path, tensors)
    _check_ranges(path, tensors)
    network.load_state_dict(tensors, assign=True)


def _check_ranges(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """InputError for numbers that no training gives: too large, negative variances, or none."""
    for name, tensor in tensors.items():
        low, high = AVERAGE_RANGES.get(name.rpartition(".")[2], PARAMETER_RANGE)
        if not (low <= tensor.min() and tensor.max() <= high):
            problem = f"{path}: {name} has numbers outside {low:g} … {high:g}"
            raise InputError(f"{problem}; the model is damaged, or its learning diverged")


@cache
def shipped() -> StyleModel:
    """The model that comes with the lab."""
    return StyleModel.load(SHIPPED)
