"""Pictures that fool the student: short transfers through it as it is now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from nstlab.base.names import STYLE_LAYERS
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Evaluation
from training.corpus import Corpus
from training.distillation import Distillation
from training.losses import JUDGED, gram, relative_error
from training.student import Stack

STEPS = 10, 80  # of a picture: at least, and fewer than


def fool(
    module: Distillation, corpus: Corpus, rng: np.random.Generator, count: int, side: int
) -> Tensor:
    """Make short transfers of random pairs through the student.

    Args:
        module: whose student it is.
        corpus: where photos and paintings come from.
        rng: decides about pairs, objectives and first pictures.
        count: how many.
        side: px, of each picture.

    Returns:
        (count, 3, 3, side, side), each a picture, its painting and its photo.
    """
    start = int(rng.integers(1 << 30))
    photo = corpus.batch(start, count, side, noisy=False)
    painting = corpus.batch(start + 1, count, side, noisy=False)
    loss = _transfer_loss(module, rng, photo, painting)
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
    for _ in range(int(rng.integers(*STEPS))):
        state = optimizer.step(state, evaluate)
    return torch.stack([state.x, painting, photo], 1)


def _transfer_loss(
    module: Distillation, rng: np.random.Generator, photo: Tensor, painting: Tensor
) -> Callable[[Tensor], Tensor]:
    """Gatys' objective with a random style weight for each pair, in relative errors."""
    style, content = _random_layers(module.names, rng)
    exponents = rng.uniform(math.log(0.02), math.log(200), len(photo))
    beta = torch.from_numpy(np.exp(exponents)).float()
    student = module.student
    frozen = Stack.frozen(student.tensors(), student.preprocessing, max((*style, content)))

    def features(x: Tensor, names: list[str]) -> Mapping[str, Tensor]:
        return {
            name: f / module.means[name].clamp(min=0.01).view(1, -1, 1, 1).to(f.dtype)
            for name, f in frozen(x, names).items()
        }

    with torch.no_grad():
        grams = {name: gram(f) for name, f in features(painting, style).items()}
        target = features(photo, [content])[content].float()

    def loss(x: Tensor) -> Tensor:
        f = features(x, [*style, content])
        style_loss = sum(relative_error(gram(f[name]), grams[name]) for name in style) / len(style)
        return (beta * style_loss + relative_error(f[content].float(), target)).sum()

    return loss


def _random_layers(names: tuple[str, ...], rng: np.random.Generator) -> tuple[list[str], str]:
    """(style layers, content layer) of a transfer.

    Style is mostly taken from the first three or more of the paper's layers that the student has,
    content from one of JUDGED.
    """
    papers = [name for name in STYLE_LAYERS if name in names]
    style = papers[: int(rng.integers(min(3, len(papers)), len(papers) + 1))]
    if rng.random() < 0.25:
        style = sorted(rng.choice(names, 2, replace=False))
    content = str(rng.choice([name for name in JUDGED if name in names]))
    if rng.random() < 0.2:
        content = str(rng.choice(names))
    return style, content
