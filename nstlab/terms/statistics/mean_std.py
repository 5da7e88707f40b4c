"""Mean and standard deviation of each filter: the statistics of batch normalization."""

from __future__ import annotations

import torch
from torch import Tensor

from nstlab.method.fast.evaluation import VJPS, put
from nstlab.method.statistics import positions, widened
from nstlab.method.terms import Style

FLAT = 1e-6  # added to variances, so that the deviation of a filter that is constant can be differentiated


class Statistic(Style):
    """f/N Σ_i ((m_i - m'_i)² + (s_i - s'_i)²) over the N filters, with means m and deviations s, and the convention's factor f
    (Li, Wang, Liu, Hou 2017, "Demystifying Neural Style Transfer", equation 12)."""

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        rows = widened(positions(features))
        return torch.stack([rows.mean(0), (rows.var(0, correction=0) + FLAT).sqrt()])

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return self.convention.style_factor / features.shape[1] * (statistic - target).square().sum()

    def working(self, filters: int, positions: int) -> int:
        return 6 * filters * positions


def vjp(term: Statistic, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
    """a / M + b (F - m) / (s M), where a and b are the gradients at the means and at the deviations."""
    rows, out = positions(features), positions(into)
    mean, deviation = term.statistic(features, None)
    at_mean, at_deviation = slope / rows.shape[0]
    change = (rows - mean) * (at_deviation / deviation) + at_mean
    put(change, out, add)


VJPS[Statistic] = vjp
