"""The Gram matrix's leading eigenvalues: how strong features are in the main directions."""

from __future__ import annotations

import torch
from torch import Tensor

from nstlab.method.crops import Crop, accumulate
from nstlab.method.statistics import gram, positions, widen, write_gradient
from nstlab.method.terms import Style

SHARE = 0.1  # of the eigenvalues: the largest


class Statistic(Style):
    """Style, with Vᵀ G V in place of the Gram matrix G.

    V holds the eigenvectors of the painting's matrix with the largest SHARE of eigenvalues: what
    features do in other directions is left free.
    """

    def target(self, features: Tensor) -> Tensor:
        return self.finalize_target(_gram(features)).to(features.device, widen(features).dtype)

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        return accumulate(total, crop.share * _gram(features))

    def finalize_target(self, total: Tensor) -> Tensor:
        """Gram matrix -> (N + 1, K): K leading eigenvectors, and below them the eigenvalues."""
        values, vectors = torch.linalg.eigh(total)
        count = max(1, round(SHARE * len(values)))
        return torch.cat([vectors[:, -count:], values[None, -count:]])

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        projections = self.project(features, target)
        return projections.T @ projections / len(projections)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        factor = self.convention.style_factor / features.shape[1] ** self.convention.style_power
        return factor * (statistic - target[-1].diag()).square().sum()

    def project(self, features: Tensor, target: Tensor) -> Tensor:
        """(M, K): the features of each position, projected on the painting's eigenvectors."""
        return widen(positions(features)) @ target[:-1]

    def workspace(self, filters: int, positions: int) -> int:
        return 2 * filters * positions

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool
    ) -> None:
        """F V (S + Sᵀ) Vᵀ / M for positions F, where S is the gradient at the matrix."""
        projections = self.project(features, target)
        matrix = (grad_output + grad_output.T) / len(projections)
        write_gradient(projections @ matrix @ target[:-1].T, positions(into), add)


def _gram(features: Tensor) -> Tensor:
    """The Gram matrix in float64, on the processor, since not all devices have that."""
    return gram(features.cpu().double())
