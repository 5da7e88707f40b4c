"""The maximum mean discrepancy with a Gaussian kernel.

It is computed with random Fourier features, so that the statistic is a mean over positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nstlab.method.statistics import positions, widen, write_gradient
from nstlab.method.terms import Style

WAVES = 512  # random features; the error of the kernel is about 1/√WAVES


class Statistic(Style):
    """The squared discrepancy with k(x, y) = exp(-|x - y|² / 2N) for features of N filters.

    Li et al. 2017. The kernel is about φ(x)ᵀφ(y) with φ(x) = √(2/D) cos(W x + b) for D random W and
    phases b (Rahimi and Recht 2007), and the statistic is the mean of φ. The directions are the
    same in every run.
    """

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return (2 / WAVES) ** 0.5 * self.angles(features).cos().mean(0)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        return (statistic - target).square().sum()

    def angles(self, features: Tensor) -> Tensor:
        """(1, C, h, w) -> (M, D): W x + b at each position."""
        rows = widen(positions(features))
        return torch.addmm(self._phases(rows), rows, self.directions(rows))

    def directions(self, rows: Tensor) -> Tensor:
        """W, (C, D), for rows of C filters."""
        filters = rows.shape[1]

        def draw() -> Tensor:
            generator = torch.Generator().manual_seed(filters)
            return (torch.randn(filters, WAVES, generator=generator) / filters**0.5).to(rows)

        return self.cached(("W", rows.device, rows.dtype, filters), draw)

    def _phases(self, rows: Tensor) -> Tensor:
        """b, (D,), of the rows' kind."""

        def draw() -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return (2 * math.pi * torch.rand(WAVES, generator=generator)).to(rows)

        return self.cached(("b", rows.device, rows.dtype), draw)

    def workspace(self, filters: int, positions: int) -> int:
        return (5 * WAVES // 2 + filters) * positions

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """-√(2/D) / M (s ∘ sin(W x + b)) Wᵀ, where s is the gradient at the mean."""
        angles = self.angles(features)
        factor = -((2 / WAVES) ** 0.5) / len(angles)
        waves = angles.sin().mul_(grad_output * factor)
        directions = self.directions(angles.new_empty(1, features.shape[1]))
        write_gradient(waves @ directions.T, positions(into), add)
