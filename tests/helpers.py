"""What tests import by name."""

import os
import queue
import shutil
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import nstlab as nst
from nstlab.feedforward.network import TransformNetwork
from nstlab.method.fast.heartbeats import RankLost
from nstlab.method.fast.ranks import Team
from nstlab.networks.preprocessing import TORCHVISION

PATIENCE = 300  # seconds: a rank that is a thread may get little of a loaded machine
CHROMIUM = (
    os.environ.get("NSTLAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)


def smooth(height: int, width: int, seed: int) -> torch.Tensor:
    """A smooth random picture, (1, 3, H, W) float32 in [0, 1]: a few random colours,
    interpolated."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)


def local_cluster(workers):
    """A cluster of processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
    )


def weights_file(weights, folder):
    """A file of weights that names its preprocessing, tiny.safetensors in a folder."""
    path = folder / "tiny.safetensors"
    safetensors.torch.save_file(weights.tensors, path, {"input": str(TORCHVISION)})
    return path


def until(wanted, seconds=60.0):
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


def transform_network(kind="instance", width=16):
    """A random network, in evaluation, of three paintings."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = TransformNetwork(3, width, kind).randomize(0).eval().requires_grad_(False)
        for name, t in made.state_dict().items():
            if name.endswith(("scale", "shift", "mean")):
                t.add_(0.3 * torch.randn(t.shape))
        made.train()
        if kind == "batch":
            for _ in range(40):
                made(torch.rand(2, 3, 32, 32), torch.eye(3)[:2])
    return made.eval()


@dataclass(frozen=True, eq=False)
class Means(nst.Term):
    """Mean activations, a term that is defined outside the package."""

    def statistic(self, features, target):
        return features.mean((0, 2, 3))

    def score(self, statistic, target, features):
        return (statistic - target).square().mean()


class Table:
    """Where ranks that are threads pass things to each other."""

    def __init__(self, size):
        self.queues, self.barrier, self.sums = (
            defaultdict(queue.Queue),
            threading.Barrier(size, timeout=PATIENCE),
            [],
        )


@dataclass(frozen=True)
class ThreadTeam(Team):
    """A team whose ranks are threads of this process."""

    table: Any = None

    def _write(self, what, rank):
        self.table.queues[self.rank, rank].put(what)

    def _read(self, rank):
        return self._received(rank)

    def sum(self, tensors):
        for tensor in tensors if self.size > 1 else ():
            assert tensor.is_contiguous()  # as gloo demands
            self.table.sums.append(tensor.clone())
            self.table.barrier.wait()
            tensor.copy_(sum(self.table.sums[-self.size :]))
            if self.table.barrier.wait() == 0:
                self.table.sums.clear()
            self.table.barrier.wait()

    def send(self, picture, rows, rank):
        self.table.queues[self.rank, rank].put(picture[..., rows, :].clone())

    def receive(self, picture, rows, rank, add=False):
        place, new = picture[..., rows, :], self._received(rank)
        assert new.shape == place.shape
        place.add_(new) if add else place.copy_(new)

    def _received(self, rank):
        found = self.table.queues[rank, self.rank].get(timeout=PATIENCE)
        if isinstance(found, BaseException):
            raise RankLost(f"rank {rank}: {found}")
        return found


def as_ranks(size, work):
    """What `work` returns, or the error that it raises, as each rank of a team; what one raises
    ends the others, too."""
    table, results = Table(size), [None] * size

    def run(rank):
        try:
            results[rank] = work(ThreadTeam(rank, size, table=table))
        except BaseException as error:
            results[rank] = error
            table.barrier.abort()
            for other in range(size):
                table.queues[rank, other].put(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return results
