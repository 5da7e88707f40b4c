"""The upper blocks: conv4_1 … conv5_4 on top of the finished lower ones, without a teacher and without labels.

Every layer learns three things of its own accord: to describe what the layers below see in each of its cells, so that
a photo is kept by it as well; to tell a place of a picture, seen in two colourings and under noise, from all other
places (NT-Xent: Chen et al. 2020, equation 1); and to do so with channels that differ (as in Zbontar et al. 2021) and
are awake everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.embedded.distillation import peaked, rows_of
from nstlab.embedded.student import LOWER, UPPER, WIDTHS, Stack

SEEN = "conv3_3"  # what is described
KEY, DIRECTIONS, PLACES = 64, 64, 384
TEMPERATURE = 0.15
LOSSES = {"describe": 1.0, "contrast": 0.15, "alike": 1.0, "peaked": 0.1}


def local_statistics(f: Tensor, directions: Tensor, details: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, size², C + 2 D): of every cell of a size × size grid the means, the mean powers along
    directions (D, C), and how its four quarters differ, by kernels (D, C, 2, 2); standardized over the batch."""
    f, cell = f.float(), f.shape[-1] // size
    power = torch.einsum("rc,bchw->brhw", directions, f - f.mean((0, 2, 3), keepdim=True)).square()
    quarters = F.avg_pool2d(f, cell // 2)
    found = [F.avg_pool2d(f, cell), F.avg_pool2d(power, cell).log1p(), F.conv2d(quarters, details, stride=2)]
    found = torch.cat(found, 1)
    found = (found - found.mean((0, 2, 3), keepdim=True)) / (found.std((0, 2, 3), keepdim=True) + 1e-4)
    return found.flatten(2).transpose(1, 2)


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
        quarters = torch.randn(len(turn), width, 2, 2, generator=generator)
        self.register_buffer("details", quarters - quarters.mean((2, 3), keepdim=True))
        heads = {"key": KEY, "describe": width + 2 * len(turn)}
        shapes = {f"{n} {head}": (rows, WIDTHS[n]) for n in UPPER for head, rows in heads.items()}
        self.heads = nn.ParameterDict({n: torch.randn(s, generator=generator) / s[1] for n, s in shapes.items()})

    def losses(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            below = self.lower(x, (SEEN, LOWER[-1]))
            sizes = {x.shape[-1] // 8, x.shape[-1] // 16}
            statistics = {n: local_statistics(below[SEEN], self.directions, self.details, n) for n in sizes}
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
