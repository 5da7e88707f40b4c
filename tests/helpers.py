"""What tests import by name."""

import os
import shutil
import time
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import nstlab as nst
from nstlab.feedforward.network import TransformNetwork

CHROMIUM = os.environ.get("NSTLAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def smooth(height: int, width: int, seed: int) -> torch.Tensor:
    """A smooth random picture, (1, 3, H, W) float32 in [0, 1]: a few random colours, interpolated."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)


def local_cluster(workers):
    """A cluster of processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )


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
        made = TransformNetwork(3, width, kind).drawn(0).eval().requires_grad_(False)
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
