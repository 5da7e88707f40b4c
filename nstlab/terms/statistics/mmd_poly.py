"""The maximum mean discrepancy with a quadratic kernel: the Gram loss, and that of the means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nstlab.method.statistics import moments, moments_vjp
from nstlab.method.terms import Style


@dataclass(frozen=True, eq=False)
class Statistic(Style):
    """The squared discrepancy with k(x, y) = (xᵀy + c)², times the convention's factor of style.

    The kernel is a scalar product of (x xᵀ, √(2c) x, c), so the discrepancy is Σ (G - A)² + 2c |m -
    m'|² with Gram matrices and mean features. With c = 0 it is the Gram loss (Li, Wang, Liu, Hou
    2017, equation 9).

    Attributes:
        offset: c.
    """

    offset: float = 1.0

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(C, C + 1): the Gram matrix and the mean."""
        return moments(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        weight = torch.ones_like(statistic)
        weight[:, -1] = 2 * self.offset
        factor = self.convention.style_factor / features.shape[1] ** self.convention.style_power
        return factor * (weight * (statistic - target).square()).sum()

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        moments_vjp(grad_output, features, into, add)
