"""Statistics of feature maps: pure functions, each a mean over positions.

Because they are means over positions, an image's statistic is the position-weighted mean of its tiles' statistics.
Shapes: features (B, C, H, W), read as M = B·H·W positions of N = C channels.
"""

from __future__ import annotations

from torch import Tensor


def positions(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (M, N): one row a position; no copy if the features are channels-last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): G_ij = 1/M Σ_k F_ik F_jk.

    Gatys et al. 2016, equation 3, divided by the number of positions M, so that it does not grow with the image."""
    rows = positions(features)
    return rows.T @ rows / rows.shape[0]


def mean(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C,): mean activation of each channel."""
    return positions(features).mean(0)


def covariance(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): the Gram matrix of the features less their means, i.e. G - m mᵀ."""
    rows = positions(features)
    rows = rows - rows.mean(0)
    return rows.T @ rows / rows.shape[0]


def mean_square_error(features: Tensor, target: Tensor) -> Tensor:
    """Two maps of one shape -> scalar: 1/(N M) Σ (F - P)²."""
    return (features - target).square().mean()


def total_variation(image: Tensor) -> Tensor:
    """(B, C, H, W) -> scalar: mean of squared vertical plus mean of squared horizontal differences.

    A checkerboard of zeros and ones has exactly 2.0. (Rudin, Osher, Fatemi 1992; squared as in Mahendran and Vedaldi
    2015 with β = 2.)"""
    down, across = image.diff(dim=-2), image.diff(dim=-1)
    return down.square().mean() + across.square().mean()
