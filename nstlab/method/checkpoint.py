"""Checkpoints: the state of a run between two steps, in one safetensors file with a checksum."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError
from nstlab.base.settings import user_path
from nstlab.method.objectives import Objective
from nstlab.method.optimizers import Evaluation, Optimizer, State

FORMAT = "nstlab checkpoint 3"
MEMORY = "memory."  # prefix of the names of the optimizer's tensors


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        tensors: picture, gradient, best picture and the optimizer's memory, on the CPU.
        data: the rest, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    data: dict[str, Any]

    def save(self, path: str | os.PathLike) -> Path:
        """Write one safetensors file, completely or not at all.

        Returns:
            Its path.

        Raises:
            InputError: if it cannot be written.
        """
        data = json.dumps(self.data)
        metadata = {"format": FORMAT, "data": data, "checksum": checksum(self.tensors, data)}
        with files.replacing(path) as temporary:
            try:
                safetensors.torch.save_file(self.tensors, temporary, metadata)
            except SafetensorError as error:
                raise InputError(f"{path}: the checkpoint cannot be written ({error})") from None
        return user_path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Checkpoint:
        """Read a file that `save` wrote.

        Raises:
            InputError: if it is missing, damaged or something else.
        """
        try:
            with safe_open(files.regular_file(path), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(f"{path}: is not a checkpoint of this version of nstlab")
                # Copied, because a file's tensors are not aligned in memory, which on some
                # processors changes the last bits of products.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if checksum(tensors, metadata["data"]) != metadata["checksum"]:
                raise ValueError("its checksum is another")
            return cls(tensors, jsonfiles.parse(metadata["data"]))
        except InputError:
            raise
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: is missing or damaged ({error}); without a checkpoint a run cannot "
                "be resumed"
            ) from None

    def check(
        self,
        objective: Objective,
        shapes: Sequence[Sequence[int]],
        optimizer: Optimizer,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Check that a run of this objective can resume from here.

        Args:
            objective: with the terms of the run.
            shapes: the sizes (H, W) of the run's schedule.
            optimizer: with the options of the run.
            dtype: of its pictures.

        Raises:
            InputError: if it cannot.
        """
        level = self.data["level"]
        if level >= len(shapes) or tuple(self.tensors["x"].shape[-2:]) != tuple(shapes[level]):
            raise InputError("the checkpoint belongs to a run with other sizes")
        if self.data["optimizer"] != repr(optimizer):
            raise InputError(
                f"the checkpoint belongs to a run with another optimizer: {self.data['optimizer']}"
            )
        weights = self.data["weights"]
        has_its_weights = weights.keys() == objective.weights.keys()
        if not has_its_weights or len(objective.active_terms(weights)) != len(
            self.tensors["values"]
        ):
            raise InputError("the checkpoint belongs to a run of another objective")
        if self.tensors["x"].dtype != dtype:
            raise InputError("the checkpoint belongs to a run in another type of numbers")

    def state(self, device: torch.device) -> State:
        """The optimizer's state, on a device."""
        tensors = {name: _to_device(tensor, device) for name, tensor in self.tensors.items()}
        return State(
            x=tensors["x"],
            evaluation=Evaluation(tensors["loss"], tensors["grad"], tensors["values"]),
            loss=self.data["loss"],
            tensors={
                name.removeprefix(MEMORY): tensor
                for name, tensor in tensors.items()
                if name.startswith(MEMORY)
            },
            numbers=self.data["numbers"],
            stalled=self.data["stalled"],
        )


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, in float32 where MPS has no float64."""
    is_too_wide = device.type == "mps" and tensor.dtype == torch.float64
    return tensor.to(device, torch.float32 if is_too_wide else tensor.dtype)


def checksum(tensors: dict[str, Tensor], data: str) -> str:
    """CRC-32 of all names, shapes, numbers and data.

    It finds any damage, and costs less than writing the file.
    """
    total = zlib.crc32(data.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
