"""The maximum mean discrepancy with a quadratic kernel: the Gram loss, and the distance of the means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nstlab.method.fast.evaluation import VJPS, style_vjp
from nstlab.method.statistics import gram, mean, positions
from nstlab.method.terms import Style


@dataclass(frozen=True, eq=False)
class Statistic(Style):
    """The squared discrepancy with k(x, y) = (xᵀy + c)², times the convention's factor of the style.

    The kernel is a scalar product of (x xᵀ, √(2c) x, c), so the discrepancy is Σ (G - A)² + 2c |m - m'|² with Gram matrices and
    mean features. With c = 0 it is the Gram loss (Li, Wang, Liu, Hou 2017, equation 9)."""

    offset: float = 1.0

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(C, C + 1): the Gram matrix, and √(2c) times the mean."""
        return torch.cat([gram(features), (2 * self.offset) ** 0.5 * mean(features)[:, None]], 1)


def vjp(term: Statistic, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
    """Those of the Gram matrix and of the mean."""
    style_vjp(term, slope[:, :-1], features, target, into, add)
    out = positions(into)
    out.add_(((2 * term.offset) ** 0.5 / len(out) * slope[:, -1]).to(out.dtype))


VJPS[Statistic] = vjp
