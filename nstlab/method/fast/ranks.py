"""One run on several processes, on one machine or many, as torchrun starts them.

The first one, rank 0, runs the engine and writes all files. The others serve it: they evaluate
tiles. Each gets the rows of the picture that its tiles read; statistics are summed over all; and
each sends back its part of the gradient. A rank that is lost ends the run with a checkpoint, from
which any number of ranks can go on.

A process that has died closes its connections, which the others notice at once. One that is
stopped, or a machine that is cut off, does not: so each rank counts its heartbeats in the
launcher's store, and whoever misses those of another closes all connections. However long a rank
computes or writes, its heart beats.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
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

BEAT = 5.0  # seconds between two heartbeats of a rank
# Heartbeats, three minutes: a library that writes a large file may hold the interpreter for a
# while.
MISSED = 36
MEETING = 600.0  # seconds within which all ranks have to be there
LINGER = 2.0  # seconds that the first rank waits, at its end, for those that may not answer
# Of a wait for an order, while the first rank computes or writes alone.
LONGEST = timedelta(days=30)
NOBODY = 1  # the tag of messages that are never sent


class RankLost(InputError):
    """Another rank has ended, is stopped, or cannot be reached."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, of which this one is `rank` of `size`.

    Attributes:
        store: where they leave word for each other.
    """

    rank: int
    size: int
    store: Any = None

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
        team = cls(rank, size, store)
        ended = threading.Event()
        team._meet()
        with team._reported():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        threading.Thread(target=team._watch, args=(ended,), daemon=True).start()
        try:
            yield team
        finally:
            ended.set()
            team._note(f"nstlab ended {rank}", "in order")
            team._linger()
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
        if not isinstance(error, RankLost):
            self._note("nstlab why", f"rank {self.rank}: {said(error)}")
        self._disconnect(0)

    def outlives_first(self) -> bool:
        """Wait for the first rank to end, as long as its heart beats.

        Tell whether it has ended in order.
        """
        beats = -1
        waited = 0.0
        pause = 0.1
        while waited <= MISSED * BEAT:
            if self._word("nstlab ended 0"):
                return True
            before = beats
            beats = self._beats(0)
            if beats < 0:
                break
            waited = waited + pause if beats == before else 0.0
            time.sleep(pause)
        return False

    def _meet(self) -> None:
        """Wait until all ranks are there."""
        self._note(f"nstlab here {self.rank}", "yes")
        end = time.monotonic() + MEETING
        while missing := [
            str(rank) for rank in range(self.size) if not self._word(f"nstlab here {rank}")
        ]:
            if time.monotonic() > end:
                raise RankLost(
                    f"rank {', '.join(missing)} of {self.size}: not there after {MEETING:.0f} s"
                )
            time.sleep(0.05)

    def _linger(self) -> None:
        """Let the others see that the first rank, which may keep the store, has ended."""
        end = time.monotonic() + LINGER
        others = range(1, self.size) if self.leads else ()
        while time.monotonic() < end and not all(
            self._word(f"nstlab ended {rank}") for rank in others
        ):
            time.sleep(0.05)

    def _watch(self, ended: threading.Event) -> None:
        """Count heartbeats, and watch those of the ranks that this one waits for.

        Own ones measure the time, so that nobody is missed if all processes were stopped together.
        """
        others = range(1, self.size) if self.leads else range(1)
        seen = dict.fromkeys(others, 0)
        missed = dict.fromkeys(others, 0)
        while not ended.wait(BEAT) and self._beats(self.rank, 1) > 0:
            for rank in others:
                before, seen[rank] = seen[rank], self._beats(rank)
                missed[rank] = missed[rank] + 1 if seen[rank] == before else 0
                if missed[rank] > MISSED:
                    self._note(
                        "nstlab why",
                        f"rank {rank} is stopped or cut off: no heartbeat for "
                        f"{MISSED * BEAT:.0f} s",
                    )
                    self._disconnect(rank)
                    return

    def _disconnect(self, rank: int) -> None:
        """Close all connections of gloo, so that nobody here or elsewhere goes on waiting: a
        timeout in one thread does that for all of them."""
        with contextlib.suppress(RuntimeError, ValueError):
            _received(torch.zeros(1), rank, timedelta(milliseconds=1), NOBODY)

    def _note(self, key: str, text: str) -> None:
        """Leave word for the others, unless somebody has done so already, or the store is lost."""
        with contextlib.suppress(RuntimeError):
            self.store.compare_set(key, "", text)

    def _word(self, key: str) -> str:
        """What was left; nothing, if the store is lost."""
        with contextlib.suppress(RuntimeError):
            if self.store is not None and self.store.check([key]):
                return self.store.get(key).decode()
        return ""

    def _beats(self, rank: int, more: int = 0) -> int:
        """The number of a rank's heartbeats, after so many more; -1 if the store is lost."""
        with contextlib.suppress(RuntimeError):
            return self.store.add(f"nstlab beats {rank}", more)
        return -1

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise InputError that another rank is lost, and why."""
        try:
            yield
        except (RuntimeError, ValueError) as error:  # dist.DistError is a RuntimeError
            reason = re.sub(r"^\[[^\]]*\] *", "", str(error).partition("\n")[0])[:120]
            why = self._word("nstlab why") or f"another rank is lost ({reason})"
            raise RankLost(f"{why}; the same command, also with fewer ranks, goes on") from None


def _received(tensor: Tensor, rank: int, limit: timedelta, tag: int = 0) -> None:
    """Receive a tensor from a rank through gloo within a time."""
    work = dist.irecv(tensor, rank, tag=tag)
    assert work is not None
    work.wait(limit)


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
