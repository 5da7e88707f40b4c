"""An objective's loss and gradient, as `objectives.Bound` defines them, without autograd's memory and in any arithmetic.

Features go forward once. At each layer that is read, only a statistic is kept, and autograd sees statistics and scores alone;
what their gradients are at the features is a vector-Jacobian product, written out for the terms of the method, and left to
autograd for others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nstlab.method import statistics
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.propagation import Propagation
from nstlab.method.network import VGG19
from nstlab.method.objectives import PIXELS, Active, Bound, Content, Objective, Style, Term

# --- vector-Jacobian products of terms' statistics --------------------------------------------------------------
# (term, gradient at its statistic, features, target, where the gradient at the features goes, whether it is added there)
Vjp = Callable[[Term, Tensor, Tensor, Tensor | None, Tensor, bool], None]


def vjp_by_autograd(term: Term, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool) -> None:
    """Of any statistic."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(term.statistic(leaf, target), leaf, slope)
    into.add_(grad) if add else into.copy_(grad)


def content_vjp(term: Term, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
    """Of the mean of (F - P)²: 2 (F - P) / (N M)."""
    factor = 2 / features.numel() * slope
    if add:
        into.add_((features - target).mul_(factor))
    else:
        torch.sub(features, target, out=into).mul_(factor)


def style_vjp(term: Term, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
    """Of the Gram matrix F Fᵀ / M: (S + Sᵀ) F / M, for the gradient S at the matrix."""
    rows, out = statistics.positions(features), statistics.positions(into)
    matrix = ((slope + slope.T) / rows.shape[0]).to(rows.dtype)
    torch.addmm(out, rows, matrix, beta=int(add), out=out)


VJPS: dict[type[Term], Vjp] = {Content: content_vjp, Style: style_vjp}


def vjp(term: Term, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool) -> None:
    """Write (or add) the gradient at the features to `into`, given the gradient at the statistic, `slope`."""
    VJPS.get(type(term), vjp_by_autograd)(term, slope, features, target, into, add)


# --- evaluation -------------------------------------------------------------------------------------------------


def bind(objective: Objective, net: VGG19, shape: Sequence[int], arithmetic: Arithmetic | None = None) -> FastBound:
    """The objective for one network and images of shape (H, W); `arithmetic` is by default what the network asks for."""
    return FastBound(objective, net, (int(shape[0]), int(shape[1])), arithmetic=arithmetic or arithmetic_of(net))


@dataclass
class FastBound(Bound):
    """A `Bound` that evaluates by hand."""

    arithmetic: Arithmetic = field(kw_only=True)
    _propagation: Propagation | None = field(init=False, default=None)

    def _features(self, picture: Tensor, reads: Collection[str], actives: Sequence[Active]) -> Iterable[tuple[str, Tensor]]:
        if picture.shape[-2:] == self.shape:  # their memory is that of the evaluations to come
            way = self._way({active.read for active in actives} - {PIXELS})
        else:
            way = Propagation(self.net, reads, picture.shape[-2:], self.arithmetic)
        return ((read, features) for read, features in way.forward(picture) if read in reads)

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        actives = self.objective.active(self.weights)
        at: dict[str, list[Active]] = {}
        for active in actives:
            at.setdefault(active.read, []).append(active)
        features, found = {}, {}
        way = self._way(set(at) - {PIXELS})
        for read, f in itertools.chain([(PIXELS, image.detach())], way.forward(image) if way else ()):
            features[read] = f  # whose memory may soon hold something else
            for active in at.get(read, ()):
                with torch.no_grad():
                    statistic = active.term.statistic(f, self.targets.get(active.key))
                found[active.key] = statistic.requires_grad_(True)
        with torch.enable_grad():
            total, values = self.scored(actives, found, features)
            slopes = dict(zip(found, torch.autograd.grad(total, list(found.values())), strict=True))
        unit = self._unit(slopes.values())

        def inject(read: str, f: Tensor, into: Tensor) -> None:
            for i, active in enumerate(at[read]):
                vjp(active.term, slopes[active.key] * unit, f, self.targets.get(active.key), into, add=i > 0)

        with torch.no_grad():
            grad = way.backward(inject).div_(unit) if way else torch.zeros_like(image)
            for active in at.get(PIXELS, []):
                vjp(active.term, slopes[active.key], image, None, grad, add=True)
        return total.detach(), grad, values

    def _way(self, reads: set[str]) -> Propagation | None:
        """Through the layers that are read, at this size; only the last one is kept."""
        if self._propagation is None or self._propagation.reads != reads:
            self._propagation = None  # its memory is free before the next one takes its own
            self._propagation = Propagation(self.net, reads, self.shape, self.arithmetic) if reads else None
        return self._propagation

    def _unit(self, slopes: Iterable[Tensor]) -> Tensor | float:
        """What gradients are multiplied by on their way back: a power of 2 that keeps them within float16's range."""
        if self.arithmetic.dtype != torch.float16:
            return 1.0
        largest = torch.stack([slope.abs().max() for slope in slopes]).max().clamp_min(1e-30)  # all are 0 at a perfect match
        return torch.exp2(-8 - largest.log2().floor()) * float(self.shape[0] * self.shape[1])
