"""One run on several processes, on one machine or many, as torchrun starts them.

The first one, rank 0, runs the engine and writes all files. The others serve it: they evaluate tiles. Each gets the rows of the
picture that its tiles read; statistics are summed over all; and each sends back its part of the gradient. A rank that is lost
ends the run with a checkpoint, from which any number of ranks can go on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nstlab import large
from nstlab.settings import InputError

PIECE = 1 << 24  # numbers that are sent at a time


@dataclass(frozen=True)
class Team:
    """The processes of a run, of which this one is `rank` of `size`."""

    rank: int
    size: int

    @classmethod
    @contextlib.contextmanager
    def joined(cls) -> Iterator[Team]:
        """Meet the others; NCCL connects GPUs, gloo processors."""
        with _one_line():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield cls(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()

    @property
    def here(self) -> int:
        """How many of the processes are on this machine, as torchrun says."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1

    @property
    def leads(self) -> bool:
        """Whether this process runs the engine."""
        return self.rank == 0

    def device(self, name: str) -> str | torch.device:
        """The device of this process: its own GPU, of those on its machine, if GPUs are meant. InputError if there are too
        few."""
        if name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        if self.here > torch.cuda.device_count():
            raise InputError(
                f"device: {self.here} ranks share {torch.cuda.device_count()} GPU here; start one rank for each, or choose cpu"
            )
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def share(self, count: int, rank: int | None = None) -> range:
        """Which of so many tiles are those of a rank, by default this one: nearly as many for each, next to each other."""
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def order(self, **what: Any) -> None:
        """Tell all other ranks what to do next, in plain values."""
        if self.size == 1:
            return
        text = torch.frombuffer(bytearray(json.dumps(what).encode()), dtype=torch.uint8)
        with _one_line():
            dist.broadcast(torch.tensor([len(text)]), 0)
            dist.broadcast(text, 0)

    def ordered(self) -> dict[str, Any]:
        """Wait for the next order."""
        length = torch.zeros(1, dtype=torch.int64)
        with _one_line():
            dist.broadcast(length, 0)
            text = torch.zeros(int(length), dtype=torch.uint8)
            dist.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor the sum over all ranks."""
        with _one_line():
            for tensor in tensors if self.size > 1 else ():
                dist.all_reduce(tensor)

    def give(self, picture: Tensor, rows: slice, rank: int) -> None:
        """Send some rows of a picture to a rank."""
        for band in _bands(picture, rows):
            with _one_line():
                dist.send(picture[..., band, :].contiguous(), rank)
            large.release(picture)

    def take(self, picture: Tensor, rows: slice, rank: int, add: bool = False) -> None:
        """Receive some rows of a picture from a rank, or add them to what is there."""
        for band in _bands(picture, rows):
            place = picture[..., band, :]
            new = torch.empty_like(place, memory_format=torch.contiguous_format)
            with _one_line():
                dist.recv(new, rank)
            place.add_(new) if add else place.copy_(new)
            large.release(picture)


def _bands(picture: Tensor, rows: slice) -> Iterator[slice]:
    """Rows of a picture, some at a time; the same ones on both sides."""
    each = max(1, PIECE * picture.shape[-2] // picture.numel())
    for first in range(rows.start, rows.stop, each):
        yield slice(first, min(first + each, rows.stop))


def spanned(spans: Sequence[slice]) -> slice:
    """The rows from the first to the last one of some spans; none if there are none."""
    return slice(min((each.start for each in spans), default=0), max((each.stop for each in spans), default=0))


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Tell in one line that another rank is lost, which any call that waits for it notices."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # dist.DistError is a RuntimeError
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"another rank is lost ({reason}); the same command, also with fewer ranks, goes on") from None
