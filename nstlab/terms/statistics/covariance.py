"""The covariance of the features: a Gram matrix that does not see each filter's mean."""

from __future__ import annotations

from torch import Tensor

from nstlab.method.statistics import covariance_of_moments, moments, moments_vjp
from nstlab.method.terms import Style


class Statistic(Style):
    """Style, with the covariance C_ij = 1/M Σ_k (F_ik - m_i) (F_jk - m_j) = G_ij - m_i m_j."""

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(C, C + 1): the Gram matrix G and the mean m."""
        return moments(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return super().score(
            covariance_of_moments(statistic), covariance_of_moments(target), features
        )

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        moments_vjp(grad_output, features, into, add)
