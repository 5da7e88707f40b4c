"""What tests import by name: smooth pictures and Dask clusters."""

import pytest
import torch
import torch.nn.functional as F


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
