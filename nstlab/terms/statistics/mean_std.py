"""Mean and standard deviation of each filter: the statistics of batch normalization."""

from __future__ import annotations

import torch
from torch import Tensor

from nstlab.method.statistics import positions, widen, write_gradient
from nstlab.method.terms import Style

# Added to variances, so that the deviation of a filter that is constant can be differentiated.
FLAT = 1e-6


class Statistic(Style):
    """f/N Σ_i ((m_i - m'_i)² + (s_i - s'_i)²) over the N filters, with means m and deviations s.

    f is the convention's factor (Li, Wang, Liu, Hou 2017, "Demystifying Neural Style Transfer",
    equation 12).
    """

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(2, C): the means of F and of F²."""
        rows = widen(positions(features))
        return torch.stack([rows.mean(0), rows.square().mean(0)])

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        squares = (_mean_and_deviation(statistic) - _mean_and_deviation(target)).square()
        return self.convention.style_factor / features.shape[1] * squares.sum()

    def workspace(self, filters: int, positions: int) -> int:
        return 3 * filters * positions

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """(a + 2 b F) / M, where a and b are the gradients at the means of F and of F²."""
        rows = positions(features)
        grad_mean, grad_square = grad_output / rows.shape[0]
        write_gradient(rows * (2 * grad_square) + grad_mean, positions(into), add)


def _mean_and_deviation(moments: Tensor) -> Tensor:
    """(2, C), the means of F and of F² -> (2, C)."""
    mean, square = moments
    variance = (square - mean.square()).clamp_min(0)
    return torch.stack([mean, (variance + FLAT).sqrt()])
