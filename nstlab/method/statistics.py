"""Statistics of feature maps: pure functions, each a mean over positions; and gradients of some.

Because they are means over positions, the statistic of an image is the weighted mean of the
statistics of its tiles; of other statistics, such as the covariance, it is a function of means that
has to be taken last. Shapes: features are (B, C, H, W), read as M = B·H·W positions of N = C
channels. Features in 16 bits give float32 statistics that are practically those of the same
features in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = (8, 32)  # fewest and most parts into which the positions of 16-bit features are divided


def positions(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (M, N): one row for each position, a view if memory is channels-last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): the Gram matrix G_ij = 1/M Σ_k F_ik F_jk.

    Gatys et al. 2016, equation 3, divided by the number of positions M, so that it does not grow
    with the image.
    """
    return _mean_outer_product(positions(features))


def mean(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C,): mean activation of each channel."""
    rows = positions(features)
    return rows.mean(0, dtype=_at_least_float32(rows))


def moments(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C + 1): the Gram matrix G and the mean m."""
    return torch.cat([gram(features), mean(features)[:, None]], 1)


def covariance_of_moments(moments: Tensor) -> Tensor:
    """(C, C + 1) of `moments` -> (C, C): the covariance G - m mᵀ."""
    return moments[:, :-1] - moments[:, -1:] * moments[:, -1]


def covariance(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, C): the Gram matrix of the centred features."""
    return covariance_of_moments(moments(features))


def _mean_outer_product(rows: Tensor) -> Tensor:
    """(M, N) -> (N, N): mean over the rows of each row's outer product with itself."""
    m, n = rows.shape
    parts = min(PARTS[1], m // n)
    if rows.dtype.itemsize > 2 or parts < PARTS[0]:
        rows = widen(rows)
        return rows.T @ rows / m
    # A matrix product in 16 bits is rounded to 16 bits. Summing the products of several parts in
    # float32 averages the rounding errors out.
    length = m // parts
    split = rows[: parts * length].view(parts, length, n)
    rest = rows[parts * length :].to(torch.float32)
    zero = rows.new_zeros(())
    means = torch.baddbmm(zero, split.transpose(1, 2), split, beta=0, alpha=1 / length)
    return (means.sum(0, dtype=torch.float32) * length + rest.T @ rest) / m  # means: (parts, N, N)


def widen(t: Tensor) -> Tensor:
    """The same numbers, in float32 at least."""
    return t.to(_at_least_float32(t))


def _at_least_float32(t: Tensor) -> torch.dtype:
    """The type in which the elements of t are summed."""
    return torch.promote_types(t.dtype, torch.float32)


def mean_square_error(features: Tensor, target: Tensor) -> Tensor:
    """Two feature maps of the same shape -> scalar: 1/(N M) Σ (F - P)²."""
    difference = features - target
    return widen(difference).square().mean()


def total_variation(image: Tensor) -> Tensor:
    """(B, C, H, W) -> scalar: mean squared difference of vertical plus of horizontal neighbours.

    A checkerboard of zeros and ones has exactly 2.0. (Rudin, Osher, Fatemi 1992; squared as in
    Mahendran and Vedaldi 2015 with β = 2.)
    """
    down = image.diff(dim=-2)
    across = image.diff(dim=-1)
    return down.square().mean() + across.square().mean()


# --- vector-Jacobian products: the gradient at the features, given that at the statistic ----------


def gram_vjp(grad_output: Tensor, features: Tensor, into: Tensor, add: bool) -> None:
    """Write the vjp of `gram`: (S + Sᵀ) F / M, where S is the gradient at the matrix.

    Args:
        grad_output: S, (N, N).
        features: F, (B, N, H, W).
        into: of the features' shape and type, channels-last, where to write.
        add: whether the gradient is added to what is there.
    """
    rows = positions(features)
    out = positions(into)
    matrix = ((grad_output + grad_output.T) / rows.shape[0]).to(rows.dtype)
    torch.addmm(out, rows, matrix, beta=int(add), out=out)


def moments_vjp(grad_output: Tensor, features: Tensor, into: Tensor, add: bool) -> None:
    """Write the vjp of `moments`, that of the Gram matrix plus that of the mean; see `gram_vjp`."""
    gram_vjp(grad_output[:, :-1], features, into, add)
    out = positions(into)
    out.add_((grad_output[:, -1] / len(out)).to(out.dtype))


def write_gradient(grad: Tensor, into: Tensor, add: bool) -> None:
    """Write a gradient into `into`, or add it to what is there."""
    if add:
        into.add_(grad)
    else:
        into.copy_(grad)
