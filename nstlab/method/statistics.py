"""Statistics of feature maps: pure functions, each a mean over positions.

Because they are means over positions, an image's statistic is the position-weighted mean of its tiles' statistics.
Shapes: features (B, C, H, W), read as M = B·H·W positions of N = C channels. Of features in 16 bits the statistics
are float32, as near to those of the same features in float32 as makes no difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = (8, 32)  # fewest and most into which positions in 16 bits are divided


def positions(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (M, N): one row a position; no copy if the features are channels-last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): G_ij = 1/M Σ_k F_ik F_jk.

    Gatys et al. 2016, equation 3, divided by the number of positions M, so that it does not grow with the image."""
    return _moments(positions(features))


def mean(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C,): mean activation of each channel."""
    rows = positions(features)
    return rows.mean(0, dtype=_wide(rows))


def covariance(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): the Gram matrix of the features less their means, i.e. G - m mᵀ."""
    rows = positions(features)
    return _moments(rows - mean(features).to(rows.dtype))


def _moments(rows: Tensor) -> Tensor:
    """(M, N) -> (N, N): mean over the rows of their outer products."""
    m, n = rows.shape
    parts = min(PARTS[1], m // n)
    if rows.dtype.itemsize > 2 or parts < PARTS[0]:
        rows = rows.to(_wide(rows))
        return rows.T @ rows / m
    # A product of matrices in 16 bits is rounded to 16 bits: it is made in parts, whose float32 sum evens that out.
    each = m // parts
    split, rest = rows[: parts * each].view(parts, each, n), rows[parts * each :].to(torch.float32)
    means = torch.baddbmm(rows.new_zeros(()), split.transpose(1, 2), split, beta=0, alpha=1 / each)  # (parts, N, N)
    return (means.sum(0, dtype=torch.float32) * each + rest.T @ rest) / m


def _wide(t: Tensor) -> torch.dtype:
    """The type in which t is summed."""
    return torch.promote_types(t.dtype, torch.float32)


def mean_square_error(features: Tensor, target: Tensor) -> Tensor:
    """Two maps of one shape -> scalar: 1/(N M) Σ (F - P)²."""
    off = features - target
    return off.to(_wide(off)).square().mean()


def total_variation(image: Tensor) -> Tensor:
    """(B, C, H, W) -> scalar: mean of squared vertical plus mean of squared horizontal differences.

    A checkerboard of zeros and ones has exactly 2.0. (Rudin, Osher, Fatemi 1992; squared as in Mahendran and Vedaldi
    2015 with β = 2.)"""
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.square().mean() + across.square().mean()
