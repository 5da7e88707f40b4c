"""What the student learns from its teachers, layer by layer (Hinton et al. 2015; Romero et al.
2015).

The student has to take the teacher's place: an optimizer will change a picture until the student's
Gram matrices are those of a painting and its features those of a photo, and then the teacher's
should agree as well. So a linear map of the student's features is compared with the teacher's
features, and so are the Gram matrices, in the way transfers are judged: every channel in units of
its mean over two pictures. Half of every batch are pictures that were optimized through the student
as it was a while ago, where the two disagree most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base.names import CONVOLUTIONS, STYLE_LAYERS
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Evaluation
from training.corpus import Corpus
from training.student import TINY, WIDTHS, Stack
from training.teachers import Teachers

# layers whose features have to tell a picture from its photo
JUDGED = ("conv3_3", "conv4_1", "conv4_2")
# positions from one at which features are compared to the next, by block
STRIDE = {"1": 6, "2": 3, "3": 2, "4": 1, "5": 1}
FLOOR = 0.03  # part of a channel's usual mean: the least that its error is divided by
FOOLING_STEPS = 10, 80  # of a picture that fools the student: at least, and fewer than
# mean square over squared mean; a channel above it answers too rarely for a stable Gram matrix
PEAK = 20.0
# squared mean over mean square; a channel of the fifth block above it is less sparse than VGG19's
DENSE = 0.2
# mean at the border over mean inside; a channel of the upper blocks above it sees the padding, not
# the picture
FRAMED = 1.3
LOSSES = {
    "features": 1.0,
    "gram": 1.0,
    "residual": 2.0,
    "distance": 2.0,
    "peaked": 0.5,
    "dense": 0.2,
    "framed": 0.5,
}
# weights of layers; 1 for the others
LAYERS = {"conv4_1": 2.0, "conv4_2": 2.0, "conv5_2": 0.2, "conv5_3": 0.2, "conv5_4": 0.2}


def rows_of(f: Tensor) -> Tensor:
    """(B, C, h, w) channels-last -> (B, h·w, C), a view."""
    return f.permute(0, 2, 3, 1).flatten(1, 2)


def _thinned(name: str, f: Tensor, offset: int) -> Tensor:
    """A layer's (B, C, h, w) -> (B, n, C): every STRIDE-th row and column, from a place that
    follows the offset."""
    stride = STRIDE[name[4]]
    return rows_of(f[..., offset % stride :: stride, offset // stride % stride :: stride])


def _power(f: Tensor) -> Tensor:
    """(B, n, C) -> (B, C) float32: mean of squares."""
    return f.square().mean(1, dtype=torch.float32)


def _weighed(f: Tensor, unit: Tensor) -> Tensor:
    """(B, n, C) measured in units (B, C) -> (B,): sum over channels of the mean of squares."""
    return (_power(f) * unit.square()).sum(1)


def peaked(f: Tensor) -> Tensor:
    """(B, n, C) -> scalar: how far the channels' mean square in any picture exceeds PEAK times
    their squared mean, as a mean logarithm."""
    peak = _power(f).amax(0) / (f.mean((0, 1), dtype=torch.float32).square() + TINY)
    return (peak / PEAK).clamp(min=1).log().mean()


def dense(f: Tensor) -> Tensor:
    """(B, n, C) -> scalar: how far channels' squared mean exceeds DENSE times their mean square
    (Treves and Rolls 1991), as a mean logarithm."""
    found = f.mean((0, 1), dtype=torch.float32).square() / (_power(f).mean(0) + TINY)
    return (found / DENSE).clamp(min=1).log().mean()


def framed(f: Tensor) -> Tensor:
    """(B, C, h, w) -> scalar: how far channels' mean at the border exceeds FRAMED times that
    inside, as a mean logarithm."""
    whole, inside = (x.sum((0, 2, 3), dtype=torch.float32) for x in (f, f[..., 1:-1, 1:-1]))
    count, within = f[:, 0].numel(), f[:, 0, 1:-1, 1:-1].numel()
    found = ((whole - inside) / (count - within)) / (inside / within + TINY)
    return (found / FRAMED).clamp(min=1).log().mean()


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Features of pictures and of their photos, (2, n, positions, C), in units -> scalar: how
    differently student and teacher see where, and how far, the pictures depart from their photos.

    An optimizer goes by the student's own distances, not by those after a linear map."""
    found = []
    for f in (student, teacher):
        size = f[1].square().sum(-1).mean(1, keepdim=True) + TINY
        found.append(((f[0] - f[1]).square().sum(-1) / size + TINY).sqrt())
    own, wanted = found
    return ((own - wanted).square().mean(1) / wanted.square().mean(1)).log1p().mean()


def _total(x: Tensor) -> Tensor:
    """(B, …) -> (B,) sum of squares."""
    return x.square().flatten(1).sum(1)


def _relative(x: Tensor, target: Tensor) -> Tensor:
    """(B, …) -> (B,): squared error over the target's sum of squares."""
    return _total(x - target) / (_total(target) + TINY)


def gram(f: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, C) float32: mean over positions of the products of channels."""
    rows = rows_of(f)
    return (rows.transpose(1, 2) @ rows).float() / rows.shape[1]


def units(mean: Tensor, triples: int) -> Tensor:
    """Means (B, C) -> factors (B, C): 2 / (sum of two pictures' means), as the judge has them.

    The two are each picture and the one before it. But the batch begins with triples, first all
    their optimized pictures, then all their paintings, then all their photos: for these the two are
    the painting and the photo."""
    first, second = mean, mean.roll(1, 0)
    if triples:
        painting, photo = (
            mean[triples : 2 * triples].repeat(3, 1),
            mean[2 * triples : 3 * triples].repeat(3, 1),
        )
        first, second = (
            torch.cat([painting, mean[3 * triples :]]),
            torch.cat([photo, second[3 * triples :]]),
        )
    return 2 / (first + second + 2 * FLOOR)


def compared(
    name: str,
    student: Tensor,
    teacher: Tensor,
    projection: Tensor,
    mean: Tensor,
    triples: int,
    offset: int,
) -> dict[str, Tensor]:
    """{kind: scalar}: how badly a layer of the student stands for a teacher's, as means of log(1 +
    relative error). So a picture that fools the student completely does not dominate the batch, but
    is not given up either.

    student: (B, S, h, w), with channels of usual mean `mean` (S,). teacher: (B, T, h, w), with
    channels of usual mean 1. projection: (T, S). triples, offset: see `units` and `_thinned`."""
    s, t = _thinned(name, student, offset), _thinned(name, teacher, offset)
    unit = units(t.mean(1, dtype=torch.float32), triples)  # (B, T)
    off = s @ projection.T.to(s.dtype) - t  # (B, n, T)
    size = _weighed(t, unit) + TINY  # (B,)
    found = {"features": (_weighed(off, unit) / size).log1p().mean()}
    if name in STYLE_LAYERS:
        gs, gt = (
            g * (unit[:, :, None] * unit[:, None])
            for g in (projection @ gram(student) @ projection.T, gram(teacher))
        )
        whole, n = _total(gt) + TINY, triples
        found["gram"] = (_total(gs - gt) / whole).log1p().mean()
        if n:
            missed = _total((gs - gt)[:n] - (gs - gt)[n : 2 * n]) / (whole[:n] + whole[n : 2 * n])
            found["residual"] = missed.log1p().mean()
    if name in JUDGED and triples:
        pictures, photos = slice(triples), slice(2 * triples, 3 * triples)
        missed = _weighed(off[pictures] - off[photos], unit[photos])
        found["residual"] = (missed / size[photos]).log1p().mean()
        own, seen = s / mean.clamp(min=FLOOR).to(s.dtype), t * unit[:, None].to(t.dtype)
        both = [torch.stack([f[pictures], f[photos]]).float() for f in (own, seen)]
        found["distance"] = distance(*both)
    return found


def unhealthy(name: str, student: Tensor, offset: int) -> dict[str, Tensor]:
    """{kind: scalar}: how far a layer of the student, (B, S, h, w), answers in ways that no
    teacher's does."""
    s = _thinned(name, student, offset)
    found = {"peaked": peaked(s)}
    if name >= "conv4":
        found["framed"] = framed(student)
    if name.startswith("conv5"):
        found["dense"] = dense(s)
    return found


class Distillation(nn.Module):
    """Student, teachers, and linear maps from the student's layers to theirs.

    Its losses are named "kind layer", or "kind layer teacher layer" where a layer of the student is
    compared with one of a teacher.

    The student begins with the layers that are `given`, the others with random weights; only those
    in `learnt` are trained.
    """

    def __init__(
        self, teachers: Teachers, learnt: Sequence[str], seed: int, given: Mapping[str, Tensor]
    ):
        super().__init__()
        self.teachers, self.learnt = teachers, tuple(learnt)
        self.names = CONVOLUTIONS[: CONVOLUTIONS.index(learnt[-1]) + 1]
        self.student = Stack.begun(self.names, seed, given)
        for name, layer in self.student.layers.items():
            layer.requires_grad_(name in learnt)
        self.pairs = [(name, target) for name in learnt for target in teachers.targets(name)]
        generator, widths = (
            torch.Generator().manual_seed(seed),
            teachers.widths(target for _, target in self.pairs),
        )
        shapes = {_key(name, target): (widths[target], WIDTHS[name]) for name, target in self.pairs}
        self.projections = nn.ParameterDict(
            {k: torch.randn(s, generator=generator) / s[1] for k, s in shapes.items()}
        )
        self.means = nn.ParameterDict(
            {n: nn.Parameter(torch.ones(WIDTHS[n]), requires_grad=False) for n in self.names}
        )

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the means, and the linear maps by least squares, to what batches of pictures show:
        where layers are given."""
        sums = dict.fromkeys(self.projections, 0.0)
        for count, x in enumerate(batches, 1):
            features, pairs = self._seen(x)
            self._follow(features, 1 / count)
            for key, (student, teacher) in pairs.items():
                s, t = (rows_of(f).flatten(0, 1).float() for f in (student, teacher))
                sums[key] = sums[key] + s.T @ torch.cat([s, t], 1)
        for key, both in sums.items():
            own, shared = both[:, : len(both)].double(), both[:, len(both) :].double()
            ridge = 1e-4 * own.diagonal().mean() * torch.eye(len(own))
            self.projections[key].data.copy_(torch.linalg.solve(own + ridge, shared).T)

    def _seen(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """The student's activations by layer, and the (student's, teacher's) activations of each
        pair, by key."""
        teacher, found = self.teachers(x, (target for _, target in self.pairs)), {}
        features = self.student(x, self.names)
        for name, target in self.pairs:
            wanted = teacher[target]
            if wanted.shape[-1] > features[name].shape[-1]:  # a layer of the block before
                wanted = F.avg_pool2d(wanted, 2)
            found[_key(name, target)] = features[name], wanted
        return features, found

    def _follow(self, features: Mapping[str, Tensor], rate: float) -> None:
        """Move the means towards those of a batch."""
        for name, f in features.items():
            self.means[name].data.lerp_(f.detach()[..., ::4, ::4].float().mean((0, 2, 3)), rate)

    def losses(self, x: Tensor, triples: int, offset: int) -> dict[str, Tensor]:
        """{name: scalar} for pictures (B, 3, H, W), the first 3 · triples of which are triples (see
        `units`)."""
        features, pairs = self._seen(x)
        found = {}
        for name, target in self.pairs:
            key = _key(name, target)
            parts = compared(
                name, *pairs[key], self.projections[key], self.means[name], triples, offset
            )
            found |= {
                f"{kind} {name} {target[0]} {target[1]}": value for kind, value in parts.items()
            }
        for name in self.learnt:
            found |= {
                f"{kind} {name}": value
                for kind, value in unhealthy(name, features[name], offset).items()
            }
        self._follow(features, 0.02)
        return found

    @staticmethod
    def weight(loss: str) -> float:
        """The weight of a loss, by its name."""
        kind, name, *_ = loss.split()
        important = kind != "features" or name in (*STYLE_LAYERS, *JUDGED)
        return LOSSES[kind] * LAYERS.get(name, 1.0) * (1.0 if important else 0.5)

    # --- pictures that fool the student

    def fooling(self, corpus: Corpus, rng: np.random.Generator, count: int, side: int) -> Tensor:
        """Short transfers of random pairs through the student: (count, 3, 3, side, side), each a
        picture, its painting and its photo."""
        start = int(rng.integers(1 << 30))
        photo, painting = (corpus.batch(start + i, count, side, noisy=False) for i in range(2))
        loss = self._transfer_loss(rng, photo, painting)
        mix = torch.from_numpy(rng.choice([0.0, 0.0, 0.3, 1.0], count)).float().view(-1, 1, 1, 1)
        noise = 0.5 + 0.15 * torch.from_numpy(rng.normal(size=tuple(photo.shape))).float()

        def evaluate(x: Tensor) -> Evaluation:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = loss(x)
                (gradient,) = torch.autograd.grad(value, x)
            return Evaluation(value.detach(), gradient.contiguous(), value.detach()[None])

        optimizer = LBFGS(history=10)
        state = optimizer.init(torch.lerp(photo, noise, mix), evaluate)
        for _ in range(int(rng.integers(*FOOLING_STEPS))):
            state = optimizer.step(state, evaluate)
        return torch.stack([state.x, painting, photo], 1)

    def _transfer_loss(self, rng: np.random.Generator, photo: Tensor, painting: Tensor):
        """Gatys' objective with a random style weight for each pair, in relative errors.

        Style is mostly taken from the first three or more of the paper's layers that the student
        has, content from one of JUDGED.
        """
        there = [name for name in STYLE_LAYERS if name in self.names]
        style = there[: int(rng.integers(min(3, len(there)), len(there) + 1))]
        if rng.random() < 0.25:
            style = sorted(rng.choice(self.names, 2, replace=False))
        content = str(rng.choice([name for name in JUDGED if name in self.names]))
        if rng.random() < 0.2:
            content = str(rng.choice(self.names))
        beta = torch.from_numpy(
            np.exp(rng.uniform(math.log(0.02), math.log(200), len(photo)))
        ).float()
        deepest = max((*style, content))
        folded = Stack.frozen(self.student.tensors(), self.student.preprocessing, deepest)

        def seen(x: Tensor, names: list[str]) -> Mapping[str, Tensor]:
            return {
                n: f / self.means[n].clamp(min=0.01).view(1, -1, 1, 1).to(f.dtype)
                for n, f in folded(x, names).items()
            }

        with torch.no_grad():
            grams = {n: gram(f) for n, f in seen(painting, style).items()}
            features = seen(photo, [content])[content].float()

        def loss(x: Tensor) -> Tensor:
            f = seen(x, [*style, content])
            far = sum(_relative(gram(f[n]), grams[n]) for n in style) / len(style)
            return (beta * far + _relative(f[content].float(), features)).sum()

        return loss


def _key(name: str, target: tuple[str, str]) -> str:
    """The name of a projection."""
    return f"{name} by {target[0]} {target[1]}"
