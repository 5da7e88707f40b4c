"""The upper blocks: conv4_1 … conv5_4 on top of the finished lower ones, without a teacher and without labels.

Every layer learns three things of its own accord: to tell a place of a picture, seen in two colourings and under
noise, from all other places (NT-Xent: Chen et al. 2020, equation 1), to describe what the statistics of the neighbourhood
below have in common in both, and to do so with channels that differ (as in Zbontar et al. 2021) and are awake everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.embedded.distillation import peaked, rows_of
from nstlab.embedded.student import LOWER, UPPER, WIDTHS, Stack

SEEN = "conv3_3"  # whose local statistics are described
KEY, DIRECTIONS, PLACES = 64, 64, 384
TEMPERATURE = 0.15
LOSSES = {"describe": 1.0, "contrast": 0.3, "alike": 1.0, "peaked": 0.1}


def local_statistics(f: Tensor, directions: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, size², C + D): local means, and local powers along directions (D, C), of
    about a cell of the size × size grid and its neighbours; standardized over the batch."""
    f = f.float()
    power = torch.einsum("rc,bchw->brhw", directions, f - f.mean((0, 2, 3), keepdim=True)).square()
    both = torch.cat([f, (power + 1e-6).log1p()], 1)
    both = F.avg_pool2d(F.adaptive_avg_pool2d(both, size), 3, 1, 1, count_include_pad=False)
    both = (both - both.mean((0, 2, 3), keepdim=True)) / (both.std((0, 2, 3), keepdim=True) + 1e-4)
    return both.flatten(2).transpose(1, 2)


def common(statistics: Tensor) -> Tensor:
    """(2 n, …) -> the same shape: of the two colourings of a crop, the mean. So colours, which a content layer should
    leave to the style, are not worth describing."""
    return ((statistics[: len(statistics) // 2] + statistics[len(statistics) // 2 :]) / 2).repeat(2, 1, 1)


def contrast(a: Tensor, b: Tensor) -> Tensor:
    """NT-Xent of rows (n, KEY): row i of a and of b are the same place, all others are not."""
    a, b, same = F.normalize(a, dim=1), F.normalize(b, dim=1), torch.arange(len(a))
    logits = a @ b.T / TEMPERATURE
    return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def alike(f: Tensor) -> Tensor:
    """Mean squared correlation of channels (n, C) with each other, times the root of C."""
    z = (f - f.mean(0)) / (f.std(0) + 1e-3)
    correlation = z.T @ z / len(z)
    return (correlation - torch.diag(correlation.diagonal())).square().mean() * len(correlation) ** 0.5


class SelfSupervision(nn.Module):
    """The upper blocks on frozen lower ones: `losses(x, generator)` -> {"kind layer": scalar}, x from Corpus.twins."""

    def __init__(self, lower: dict[str, Tensor], preprocessing, seed: int):
        super().__init__()
        self.lower = Stack.frozen(lower, preprocessing, LOWER[-1])
        self.student = Stack.fresh(UPPER, WIDTHS[LOWER[-1]], seed)
        generator, width = torch.Generator().manual_seed(seed), WIDTHS[SEEN]
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:DIRECTIONS]
        self.register_buffer("directions", turn)
        shapes = {
            f"{n} {head}": (rows, WIDTHS[n]) for n in UPPER for head, rows in (("key", KEY), ("describe", width + len(turn)))
        }
        self.heads = nn.ParameterDict({n: torch.randn(s, generator=generator) / s[1] for n, s in shapes.items()})

    def losses(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            below = self.lower(x, (SEEN, LOWER[-1]))
            sizes = {x.shape[-1] // 8, x.shape[-1] // 16}
            statistics = {n: common(local_statistics(below[SEEN], self.directions, n)) for n in sizes}
        found = {}
        for name, f in self.student(below[LOWER[-1]], UPPER).items():
            parts = self._layer(name, rows_of(f).float(), statistics[f.shape[-1]], generator)
            found.update({f"{kind} {name}": value for kind, value in parts.items()})
        return found

    def _layer(self, name: str, f: Tensor, statistics: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """f (2 n, positions, C): n crops in one colouring, then in another."""
        n, flat = len(f) // 2, f.flatten(0, 1)
        keys = (f - f.mean((0, 1))) @ self.heads[f"{name} key"].T
        pick = torch.randperm(n * f.shape[1], generator=generator)[:PLACES]
        return {
            "describe": (f @ self.heads[f"{name} describe"].T - statistics).square().mean(),
            "contrast": contrast(keys[:n].flatten(0, 1)[pick], keys[n:].flatten(0, 1)[pick]),
            "alike": alike(flat),
            "peaked": peaked(f),
        }

    @staticmethod
    def weight(loss: str) -> float:
        return LOSSES[loss.split()[0]]
