"""The covariance of the features: a Gram matrix that does not see how strong each filter answers on average."""

from __future__ import annotations

import torch
from torch import Tensor

from nstlab.method.fast.evaluation import VJPS
from nstlab.method.statistics import covariance, positions
from nstlab.method.terms import Style


class Statistic(Style):
    """Style, with C_ij = 1/M Σ_k (F_ik - m_i) (F_jk - m_j) in place of the Gram matrix."""

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return covariance(features)

    def working(self, filters: int, positions: int) -> int:
        return filters * positions


def vjp(term: Statistic, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
    """(S + Sᵀ) (F - m) / M, where S is the gradient at the matrix."""
    rows, out = positions(features), positions(into)
    matrix = ((slope + slope.T) / rows.shape[0]).to(rows.dtype)
    torch.addmm(out, rows - rows.mean(0), matrix, beta=int(add), out=out)


VJPS[Statistic] = vjp
