"""Pooling of all kinds, in any windows."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def pool2d(x: Tensor, kind: str, *window: Any, **options: Any) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w), the maximum, mean or root mean square in each window.

    Args:
        kind: one of names.POOLS.
        window: kernel size and stride, as of torch's functions.
        options: padding and others, as of torch's functions. Padding does not count in means.
    """
    if kind == "max":
        return F.max_pool2d(x, *window, **options)
    options |= {"count_include_pad": False} if options else {}
    if kind == "avg":
        return F.avg_pool2d(x, *window, **options)
    # The small constant keeps the root's gradient finite where all values are 0, as is common after
    # a ReLU.
    return (F.avg_pool2d(x * x, *window, **options) + 1e-12).sqrt()
