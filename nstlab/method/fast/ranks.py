"""One run on several processes, on one machine or many, as torchrun starts them.

The first one, rank 0, runs the engine and writes all files. The others serve it: they evaluate
tiles. Each gets the rows of the picture that its tiles read; statistics are summed over all; and
each sends back its part of the gradient. A rank that is lost ends the run with a checkpoint, from
which any number of ranks can go on.

A process that has died closes its connections, which the others notice at once; of one that is
stopped, or a machine that is cut off, `heartbeats` tells.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from nstlab.base.errors import InputError
from nstlab.base.settings import is_whole_number
from nstlab.method.fast.heartbeats import MEETING, WHY, Heartbeats, RankLost

# Of a wait for an order, while the first rank computes or writes alone.
LONGEST = timedelta(days=30)
NOBODY = 1  # the tag of messages that are never sent


@dataclass(frozen=True)
class Team:
    """The processes of a run, of which this one is `rank` of `size`.

    Attributes:
        heartbeats: which of them are there; None if there is one process.
    """

    rank: int
    size: int
    heartbeats: Heartbeats | None = None

    @classmethod
    @contextlib.contextmanager
    def join(cls) -> Iterator[Team]:
        """Meet the others.

        NCCL connects GPUs, gloo processors.

        Raises:
            InputError: if the environment does not say how.
        """
        size = from_launcher("WORLD_SIZE", 1)
        rank = from_launcher("RANK", 0, size - 1)
        from_launcher("LOCAL_WORLD_SIZE", 1, default=1)
        from_launcher("LOCAL_RANK", default=0)
        from_launcher("MASTER_PORT", 1, 65535)
        if not os.environ.get("MASTER_ADDR"):
            raise InputError("MASTER_ADDR: is not set, though WORLD_SIZE is; torchrun sets both")
        with cls(rank, size)._reported():
            store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=MEETING)))
        heartbeats = Heartbeats(rank, size, store)
        heartbeats.wait_for_all()
        team = cls(rank, size, heartbeats)
        with team._reported():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            with heartbeats.beating(_disconnect):
                yield team
        finally:
            dist.destroy_process_group()

    @property
    def here(self) -> int:
        """How many of the processes are on this machine, as torchrun says."""
        return from_launcher("LOCAL_WORLD_SIZE", 1, default=1) if self.size > 1 else 1

    @property
    def leads(self) -> bool:
        """Whether this process runs the engine."""
        return self.rank == 0

    def device(self, name: str) -> str | torch.device:
        """The device of this process: its own GPU, of those on its machine, if GPUs are meant.

        Raises:
            InputError: if there are too few.
        """
        if name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        count = torch.cuda.device_count()
        if self.here > count:
            raise InputError(
                f"device: {self.here} ranks share {count} GPU here; start one rank for each, or "
                "choose cpu"
            )
        return torch.device("cuda", from_launcher("LOCAL_RANK", 0, count - 1, default=0))

    def share(self, count: int, rank: int | None = None) -> range:
        """Which of so many tiles are those of a rank, by default this one: nearly as many for each,
        next to each other."""
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    # --- messages

    def broadcast(self, **command: Any) -> None:
        """Tell all other ranks what to do next, in plain values."""
        for rank in range(1, self.size):
            self._write(command, rank)

    def receive_broadcast(self) -> dict[str, Any]:
        """Wait for the next order."""
        return self._read(0)

    def gather(self, value: Any) -> list[Any]:
        """What each rank says, in plain values, on the first one; nothing on the others."""
        if self.leads:
            return [value, *(self._read(rank) for rank in range(1, self.size))]
        self._write(value, 0)
        return []

    def _write(self, value: Any, rank: int) -> None:
        """Send plain values to a rank."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._reported():
            dist.send(torch.tensor([len(text)]), rank)
            dist.send(text, rank)

    def _read(self, rank: int) -> Any:
        """Receive plain values from a rank, which may take its time."""
        length = torch.zeros(1, dtype=torch.int64)
        with self._reported():
            _received(length, rank, LONGEST)
            text = torch.zeros(int(length), dtype=torch.uint8)
            dist.recv(text, rank)
        return json.loads(bytes(text.tolist()))

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor the sum over all ranks."""
        with self._reported():
            for tensor in tensors if self.size > 1 else ():
                dist.all_reduce(tensor)

    def send(self, picture: Tensor, rows: slice, rank: int) -> None:
        """Send some rows of a picture to a rank."""
        with self._reported():
            dist.send(picture[..., rows, :].contiguous(), rank)

    def receive(self, picture: Tensor, rows: slice, rank: int, add: bool = False) -> None:
        """Receive some rows of a picture from a rank, or add them to what is there."""
        target = picture[..., rows, :]
        new = torch.empty_like(target, memory_format=torch.contiguous_format)
        with self._reported():
            dist.recv(new, rank)
        target.add_(new) if add else target.copy_(new)

    # --- ranks that are lost

    def fail(self, error: Exception) -> None:
        """End the run of all ranks, since this one cannot go on; the first one says why."""
        if self.heartbeats is not None and not isinstance(error, RankLost):
            self.heartbeats.write(WHY, f"rank {self.rank}: {said(error)}")
        _disconnect(0)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise InputError that another rank is lost, and why."""
        try:
            yield
        except (RuntimeError, ValueError) as error:  # dist.DistError is a RuntimeError
            reason = re.sub(r"^\[[^\]]*\] *", "", str(error).partition("\n")[0])[:120]
            why = self.heartbeats and self.heartbeats.read(WHY)
            why = why or f"another rank is lost ({reason})"
            raise RankLost(f"{why}; the same command, also with fewer ranks, goes on") from None


def _received(tensor: Tensor, rank: int, limit: timedelta, tag: int = 0) -> None:
    """Receive a tensor from a rank through gloo within a time."""
    work = dist.irecv(tensor, rank, tag=tag)
    assert work is not None
    work.wait(limit)


def _disconnect(rank: int) -> None:
    """Close all connections of gloo, so that nobody here or elsewhere goes on waiting.

    A timeout in one thread does that for all of them.
    """
    with contextlib.suppress(RuntimeError, ValueError):
        _received(torch.zeros(1), rank, timedelta(milliseconds=1), NOBODY)


def said(error: Exception) -> str:
    """One line for an error."""
    text = str(error).partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def from_launcher(
    name: str, low: int = 0, high: int | None = None, default: int | None = None
) -> int:
    """A number that torchrun, or whatever has started the ranks, leaves in the environment.

    Empty is not set.

    Raises:
        InputError: if it is not allowed, or if it is not set and there is no default.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        if default is None:
            raise InputError(f"{name}: is not set, though WORLD_SIZE is; torchrun sets both")
        return default
    if not is_whole_number(text) or int(text) < low or (high is not None and int(text) > high):
        allowed = f"from {low} to {high}" if high is not None else f"from {low}"
        raise InputError(
            f"{name}: '{text:.40}' is not allowed; allowed are whole numbers {allowed}"
        )
    return int(text)


def span_of(spans: Sequence[slice]) -> slice:
    """The rows from the first to the last one of some spans; none if there are none."""
    return slice(
        min((span.start for span in spans), default=0),
        max((span.stop for span in spans), default=0),
    )
