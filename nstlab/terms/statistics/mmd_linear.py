"""The maximum mean discrepancy with a linear kernel: the distance of the mean features."""

from __future__ import annotations

from torch import Tensor

from nstlab.method.statistics import mean, positions, write_gradient
from nstlab.method.terms import Style


class Statistic(Style):
    """f/N |m - m'|² with the mean features m of N filters, and the convention's factor f.

    Li et al. 2017.
    """

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return mean(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        factor = self.convention.style_factor / features.shape[1]
        return factor * (statistic - target).square().sum()

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """The gradient at the mean over M, the same at each position."""
        out = positions(into)
        grad = (grad_output / len(out)).to(out.dtype).expand_as(out)
        write_gradient(grad, out, add)
