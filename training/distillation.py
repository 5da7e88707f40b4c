"""What the student learns from its teachers, layer by layer.

See Hinton et al. 2015 and Romero et al. 2015. The student has to take the teacher's place: an
optimizer will change a picture until the student's Gram matrices are those of a painting and its
features those of a photo, and then the teacher's should agree as well. Half of every batch are
pictures that were optimized through the student as it was a while ago (see `fooling`), where the
two disagree most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base.names import CONVOLUTIONS, STYLE_LAYERS
from training.losses import JUDGED, LAYERS, LOSSES, compare, rows_of, unhealthy
from training.student import WIDTHS, Stack
from training.teachers import Teachers


class Distillation(nn.Module):
    """Student, teachers, and linear maps from the student's layers to theirs.

    Its losses are named "kind layer", or "kind layer teacher layer" where a layer of the student is
    compared with one of a teacher.

    Args:
        teachers: what the student learns from.
        learnt: the layers that are trained.
        seed: of random weights.
        weights: that layers begin with; the others begin with random ones.
    """

    def __init__(
        self, teachers: Teachers, learnt: Sequence[str], seed: int, weights: Mapping[str, Tensor]
    ):
        super().__init__()
        self.teachers = teachers
        self.learnt = tuple(learnt)
        self.names = CONVOLUTIONS[: CONVOLUTIONS.index(learnt[-1]) + 1]
        self.student = Stack.begin(self.names, seed, weights)
        for name, layer in self.student.layers.items():
            layer.requires_grad_(name in learnt)
        self.pairs = [(name, target) for name in learnt for target in teachers.targets(name)]
        generator = torch.Generator().manual_seed(seed)
        widths = teachers.widths(target for _, target in self.pairs)
        shapes = {_key(name, target): (widths[target], WIDTHS[name]) for name, target in self.pairs}
        self.projections = nn.ParameterDict(
            {
                key: torch.randn(shape, generator=generator) / shape[1]
                for key, shape in shapes.items()
            }
        )
        self.means = nn.ParameterDict(
            {
                name: nn.Parameter(torch.ones(WIDTHS[name]), requires_grad=False)
                for name in self.names
            }
        )

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the means, and the linear maps by least squares, where layers are given.

        Args:
            batches: of pictures, (B, 3, H, W).
        """
        sums = dict.fromkeys(self.projections, 0.0)  # of products of channels
        for count, x in enumerate(batches, 1):
            features, pairs = self._activations(x)
            self._follow(features, 1 / count)
            for key, (student, teacher) in pairs.items():
                s, t = (rows_of(f).flatten(0, 1).float() for f in (student, teacher))
                sums[key] = sums[key] + s.T @ torch.cat([s, t], 1)
        for key, products in sums.items():
            width = len(products)
            student = products[:, :width].double()
            shared = products[:, width:].double()
            ridge = 1e-4 * student.diagonal().mean() * torch.eye(width)
            self.projections[key].data.copy_(torch.linalg.solve(student + ridge, shared).T)

    def _activations(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """({layer: the student's}, {key: the student's and the teacher's of a pair})."""
        targets = self.teachers(x, (target for _, target in self.pairs))
        features = self.student(x, self.names)
        pairs = {}
        for name, target in self.pairs:
            teacher = targets[target]
            if teacher.shape[-1] > features[name].shape[-1]:  # a layer of the block before
                teacher = F.avg_pool2d(teacher, 2)
            pairs[_key(name, target)] = features[name], teacher
        return features, pairs

    def _follow(self, features: Mapping[str, Tensor], rate: float) -> None:
        """Move the means towards those of a batch."""
        for name, f in features.items():
            self.means[name].data.lerp_(f.detach()[..., ::4, ::4].float().mean((0, 2, 3)), rate)

    def losses(self, x: Tensor, triples: int, offset: int) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            x: pictures (B, 3, H, W), the first 3 · triples of which are triples (see `units`).
            triples: how many there are.
            offset: decides at which positions features are compared.

        Returns:
            {name: scalar}.
        """
        features, pairs = self._activations(x)
        losses = {}
        for name, target in self.pairs:
            key = _key(name, target)
            kinds = compare(
                name, *pairs[key], self.projections[key], self.means[name], triples, offset
            )
            for kind, value in kinds.items():
                losses[f"{kind} {name} {target[0]} {target[1]}"] = value
        for name in self.learnt:
            for kind, value in unhealthy(name, features[name], offset).items():
                losses[f"{kind} {name}"] = value
        self._follow(features, 0.02)
        return losses

    @staticmethod
    def weight(loss: str) -> float:
        """The weight of a loss, by its name."""
        kind, name, *_ = loss.split()
        is_read = kind != "features" or name in (*STYLE_LAYERS, *JUDGED)
        return LOSSES[kind] * LAYERS.get(name, 1.0) * (1.0 if is_read else 0.5)


def _key(name: str, target: tuple[str, str]) -> str:
    """The name of a projection."""
    return f"{name} by {target[0]} {target[1]}"
