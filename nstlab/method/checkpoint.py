"""Checkpoints: a run's state between two steps, in one safetensors file, and the checks without which none is taken up."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nstlab import files
from nstlab.files import NUMBER, TEXT, WHOLE, dict_of, list_of, object_with
from nstlab.method.objectives import Objective
from nstlab.method.optimizers import Evaluation, Optimizer, State
from nstlab.settings import InputError

FORMAT = "nstlab checkpoint 2"
PICTURES = ("x", "grad", "best_x")  # (1, 3, H, W)
TERMS = ("values", "best_values")  # a number for each term that is evaluated
MEMORY = "memory."  # how the names of the optimizer's tensors begin
DATA = object_with(
    index=WHOLE, evaluations=WHOLE, seconds=NUMBER, level=WHOLE, weights=dict_of(NUMBER),
    loss=NUMBER, best_loss=NUMBER, numbers={"type": "object"}, stalled={"type": "boolean"}, events=list_of(TEXT),
    recent=list_of(NUMBER), optimizer=TEXT, fine={"type": "boolean"},
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run's state as tensors on the CPU and plain JSON data."""

    tensors: dict[str, Tensor]
    data: dict[str, Any]

    def save(self, path: str | os.PathLike) -> Path:
        """Write it as one safetensors file, whole or not at all."""
        metadata = {"format": FORMAT, "data": json.dumps(self.data)}
        with files.replacing(path) as temporary:
            try:
                safetensors.torch.save_file(self.tensors, temporary, metadata)
            except SafetensorError as error:
                raise InputError(f"{path}: the checkpoint cannot be written ({error})") from None
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Checkpoint:
        """Read it back; InputError if it is missing, damaged or something else."""
        try:
            with safe_open(files.regular(path), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(f"{path}: is no checkpoint of this version of nstlab")
                # Copies, since the file's are not aligned in memory, which on some processors changes products' last bits.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                found = cls(tensors, files.parse_json(metadata["data"]))
            if found.problem:
                raise ValueError(found.problem)
        except InputError:
            raise
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{path}: is missing or damaged ({error}); without a checkpoint a run cannot be resumed") from None
        return found

    @cached_property
    def problem(self) -> str:
        """What is missing or wrong in itself, "" if nothing; looked for once, since a history may have gigabytes."""
        try:
            self._check()
        except ValueError as error:
            return str(error)
        return ""

    def _check(self) -> None:
        files.check_json(self.data, DATA)
        numbers = [self.data["loss"], self.data["best_loss"], *self.data["recent"], *self.data["weights"].values()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("it holds losses or weights that are not finite")
        missing = [name for name in (*PICTURES, *TERMS, "loss") if name not in self.tensors]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for name, tensor in self.tensors.items():
            if not (tensor.is_floating_point() and tensor.isfinite().all()):
                raise ValueError(f"{name} holds numbers that are not finite")
        shapes = {name: tuple(self.tensors[name].shape) for name in (*PICTURES, *TERMS, "loss")}
        alike = len({shapes[name] for name in PICTURES}) == len({shapes[name] for name in TERMS}) == 1
        if not alike or shapes["x"][:2] != (1, 3) or len(shapes["x"]) != 4 or len(shapes["values"]) != 1 or shapes["loss"]:
            raise ValueError("its pictures and numbers have shapes that do not belong together")

    def check(
        self, objective: Objective, shapes: Sequence[Sequence[int]], optimizer: Optimizer, dtype: torch.dtype = torch.float32
    ) -> None:
        """InputError unless a run of this objective, with these sizes (H, W) one after the other and this optimizer, can go
        on from here. dtype: of its pictures."""
        if self.problem:
            raise InputError(f"the checkpoint is damaged: {self.problem}")
        level = self.data["level"]
        if level >= len(shapes) or tuple(self.tensors["x"].shape[-2:]) != tuple(shapes[level]):
            raise InputError("the checkpoint belongs to a run with other sizes")
        if self.data["optimizer"] != repr(optimizer):
            raise InputError(f"the checkpoint belongs to a run with another optimizer: {self.data['optimizer']}")
        if len(objective.counting(self.data["weights"])) != len(self.tensors["values"]):
            raise InputError("the checkpoint belongs to a run of another objective")
        if {self.tensors[name].dtype for name in PICTURES} != {dtype}:
            raise InputError("the checkpoint belongs to a run in another type of numbers")
        if not optimizer.fits(self.state(self.tensors["x"])):
            raise InputError("the checkpoint is damaged: what the optimizer remembers is not whole")

    def state(self, like: Tensor) -> State:
        """The optimizer's state, on the device of `like`."""
        narrow = {torch.float64: torch.float32} if like.device.type == "mps" else {}  # which has no float64
        tensors = {name: t.to(like.device, narrow.get(t.dtype, t.dtype)) for name, t in self.tensors.items()}
        memory = {name.removeprefix(MEMORY): t for name, t in tensors.items() if name.startswith(MEMORY)}
        at = Evaluation(tensors["loss"], tensors["grad"], tensors["values"])
        return State(tensors["x"], at, self.data["loss"], memory, self.data["numbers"], stalled=self.data["stalled"])
