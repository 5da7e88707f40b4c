"""Models: a learnt `TransformNetwork`, the names of its paintings, and the settings that it was
learnt with, in one file.

The file is a safetensors file, which cannot hold code; its numbers have 16 bits, the averages of
batch normalization 32.
"""

from __future__ import annotations

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
from nstlab.base.settings import DEVICES, InputError, nearest, user_path
from nstlab.feedforward.network import TransformNetwork
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import (
    LARGEST_WIDTH,
    NORMALIZATIONS,
    SHIPPED,
    composed,
    painting_names,
)

FORMAT = "nstlab model 1"
ALLOWED = -1e3, 1e3  # numbers of a network; those of the shipped one are below 3
ALLOWED_AVERAGES = {"mean": (-1e6, 1e6), "variance": (0.0, 1e12)}  # which batch normalization has
PLACE = Path(__file__).parents[1] / "embedded" / "paintings.safetensors"


@dataclass(frozen=True, eq=False)
class StyleModel:
    """A network that paints like some paintings.

    paintings: their names, in the network's order, see `painting_names`. settings: what it was
    learnt with, as plain values."""

    network: TransformNetwork
    paintings: tuple[str, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paintings", painting_names(self.paintings))

    @classmethod
    def load(cls, source: str | os.PathLike = SHIPPED) -> Self:
        """Read a model: a file that `save` wrote, or the one that comes with the lab, 'shipped'.

        Raises: InputError, in one line, if there is no such file, or it is damaged or holds
        something else."""
        path = (
            PLACE if str(source) == SHIPPED and not os.path.exists(SHIPPED) else user_path(source)
        )
        try:
            tensors, metadata = tensorfiles.read(path)
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; a model is a file that `nstlab learn` made, or '{SHIPPED}'"
            ) from None
        about = _about(path, metadata)
        tensorfiles.check_stored(path, tensors)
        width = (
            len(tensors["down.kernel"])
            if "down.kernel" in tensors and tensors["down.kernel"].ndim
            else 0
        )
        if not 8 <= width <= LARGEST_WIDTH:
            raise InputError(
                f"{path}: is not a model of nstlab, or is damaged (its network has no width)"
            )
        network = TransformNetwork(len(about["paintings"]), width, about["normalization"])
        shapes = {name: t.shape for name, t in network.state_dict().items()}
        if shapes != {name: t.shape for name, t in tensors.items()}:
            raise InputError(
                f"{path}: is not a model of nstlab, or is damaged (its tensors are not those of "
                "its network)"
            )
        tensors = tensorfiles.as_finite(path, tensors)
        _check_numbers(path, tensors)
        network.load_state_dict(tensors, assign=True)
        return cls(
            network.eval().requires_grad_(False), tuple(about["paintings"]), about["settings"]
        )

    def save(self, path: str | os.PathLike, **about: str) -> Path:
        """Write one file, whole or not at all, with more `about` it in its metadata.

        Raises: InputError if it cannot be written, or if `load` would refuse its numbers."""
        metadata = {
            "format": FORMAT,
            "paintings": json.dumps(self.paintings),
            "normalization": self.network.kind,
            "settings": json.dumps(dict(self.settings)),
        }
        tensors = {name: t.detach().half() for name, t in self.network.named_parameters()}
        tensors |= dict(self.network.named_buffers())  # variances may be too large for 16 bits
        tensors = {name: t.cpu().contiguous() for name, t in tensors.items()}
        _check_numbers(path, tensors)
        with files.replacing(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(tensors, metadata | about))
        return user_path(path)

    def mixture(self, paintings: Sequence[str] = (), shares: Sequence[float] = ()) -> Tensor:
        """(K,) shares, which add up to 1, of these paintings, by default the first one, in equal
        parts unless `shares` says how. InputError for a painting that the model does not have, and
        for shares that do not fit."""
        paintings = tuple(map(composed, paintings)) or self.paintings[:1]
        for name in paintings:
            if name not in self.paintings:
                raise InputError(
                    f"painting: the model has no '{name}'{nearest(name, self.paintings)} (it has: "
                    f"{', '.join(self.paintings)})"
                )
        shares = tuple(shares) or (1.0,) * len(paintings)
        if len(shares) != len(paintings) or not sum(shares) > 0 or min(shares) < 0:
            raise InputError(
                f"mix: give a share, 0 or more, for each of {len(paintings)} paintings; at least "
                "one more than 0"
            )
        mix = torch.zeros(len(self.paintings))
        for name, share in zip(paintings, shares, strict=True):
            mix[self.paintings.index(name)] += share / sum(shares)
        return mix

    def painter(self, on: str | torch.device = DEVICES[0]) -> Painter:
        """What paints photos with it, on a device."""
        return Painter(self.network, device(on))

    @property
    def digest(self) -> str:
        """SHA-256 of its weights and of the names of its paintings."""
        tensors = self.network.state_dict().values()
        return sha256(
            json.dumps(self.paintings).encode() + b"".join(t.numpy().tobytes() for t in tensors)
        ).hexdigest()

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
        """The photo, (1, 3, H, W) sRGB in [0, 1], painted like a mixture of its paintings (see
        `mixture`).

        alpha: from the photo, 0, to the painted picture, 1."""
        paintings = (paintings,) if isinstance(paintings, str) else paintings
        return self._painter(photo, self.mixture(paintings, shares), alpha)


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file's metadata say; InputError if they are not a model's."""
    try:
        about = {name: jsonfiles.parse(metadata[name]) for name in ("paintings", "settings")}
        names = about["paintings"]
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        known = metadata["format"] == FORMAT and metadata["normalization"] in NORMALIZATIONS
        if named and known and painting_names(names) and isinstance(about["settings"], dict):
            return about | {"normalization": metadata["normalization"]}
    except (KeyError, ValueError):  # InputError is one
        pass
    raise InputError(f"{path}: is not a model of nstlab, or is damaged")


def _check_numbers(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """InputError for numbers that no learning gives: too large, negative variances, none at all."""
    for name, t in tensors.items():
        low, high = ALLOWED_AVERAGES.get(name.rpartition(".")[2], ALLOWED)
        if not (low <= t.min() and t.max() <= high):
            what = f"{path}: {name} has numbers outside {low:g} … {high:g}"
            raise InputError(f"{what}; the model is damaged, or its learning diverged")


@cache
def shipped() -> StyleModel:
    """The model that comes with the lab."""
    return StyleModel.load(SHIPPED)
