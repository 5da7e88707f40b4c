"""The loss and gradient that `objectives.Bound` defines, in less time and memory, and in any
arithmetic.

Features are computed forward once, and at each layer that is read only a statistic is kept.
Autograd differentiates just the scores of the statistics. From there to the features, the gradient
is a vector-Jacobian product, in closed form for the terms of the method and by autograd for others;
from the features to the image, it is `Propagation.backward`."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.graphs import Replayed
from nstlab.method.fast.propagation import Propagation
from nstlab.method.objectives import ActiveLayer, Bound
from nstlab.method.statistics import positions
from nstlab.method.terms import PIXELS, Content, Style, Term
from nstlab.networks.vgg import VGG

# --- vector-Jacobian products of statistics -------------------------------------------------------
# (term, gradient at the statistic, features, target, into, add): write the gradient at the
# features into `into`, or add it
Vjp = Callable[[Any, Tensor, Tensor, Any, Tensor, bool], None]


def vjp_by_autograd(
    term: Term, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
) -> None:
    """The vjp of any statistic."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(term.statistic(leaf, target), leaf, slope)
    put(grad, into, add)


def put(change: Tensor, into: Tensor, add: bool) -> None:
    """Write a gradient into `into`, or add it."""
    into.add_(change) if add else into.copy_(change)


def content_vjp(
    term: Term, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool
) -> None:
    """The vjp of the mean of (F - P)²: 2 (F - P) / (N M)."""
    factor = 2 / features.numel() * slope
    if add:
        into.add_((features - target).mul_(factor))
    else:
        torch.sub(features, target, out=into).mul_(factor)


def style_vjp(
    term: Term, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool
) -> None:
    """The vjp of the Gram matrix F Fᵀ / M: (S + Sᵀ) F / M, where S is the gradient at the
    matrix."""
    rows, out = positions(features), positions(into)
    matrix = ((slope + slope.T) / rows.shape[0]).to(rows.dtype)
    torch.addmm(out, rows, matrix, beta=int(add), out=out)


def moments_vjp(
    term: Term, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool
) -> None:
    """The vjp of the Gram matrix and the mean, (N, N + 1): that of the matrix, and the gradient at
    the mean over M."""
    style_vjp(term, slope[:, :-1], features, target, into, add)
    out = positions(into)
    out.add_((slope[:, -1] / len(out)).to(out.dtype))


# others are added by the files of their terms
VJPS: dict[type[Term], Vjp] = {Content: content_vjp, Style: style_vjp}


def vjp(
    term: Term, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
) -> None:
    """Write the gradient at the features into `into`, or add it, given the gradient at the
    statistic, `slope`."""
    VJPS.get(type(term), vjp_by_autograd)(term, slope, features, target, into, add)


def vjp_of_part(
    term: Term, slope: Tensor, features: Tensor, target: Tensor | None, crop: Crop
) -> Tensor:
    """The gradient at the features of a crop, with the term's margin, through what they add to the
    statistic."""
    if type(term).part is Term.part:
        into = torch.empty_like(features)
        vjp(term, slope * crop.share, features, term.cut(target, crop, features), into, add=False)
        return into
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(
            term.part(leaf, target, crop), leaf, slope, materialize_grads=True
        )
    return grad


# --- evaluation -----------------------------------------------------------------------------------


class ByHand(Bound):
    """A `Bound` that differentiates only the scores by autograd."""

    def grouped(self) -> tuple[list[ActiveLayer], dict[str, list[ActiveLayer]]]:
        """(the layers of terms that are evaluated now, the same by the network's layer that is
        read)."""
        actives, at = self.objective.active(self.weights), {}
        for active in actives:
            at.setdefault(active.read, []).append(active)
        return actives, at

    def differentiate_scores(
        self,
        actives: Sequence[ActiveLayer],
        found: Mapping[tuple[str, str], Tensor],
        features: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[tuple[str, str], Tensor]]:
        """(total / scale, unweighted value of each term, {layer of a term: gradient at its
        statistic})."""
        leaves = {key: statistic.detach().requires_grad_(True) for key, statistic in found.items()}
        with torch.enable_grad():
            total, values = self.scored(actives, leaves, features)
            slopes = dict(
                zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True)
            )
        return total.detach(), values, slopes


@dataclass
class FastBound(ByHand):
    """A `Bound` that evaluates through `Propagation`, on a GPU as a CUDA graph."""

    net: VGG
    arithmetic: Arithmetic = field(kw_only=True)
    _propagation: Propagation | None = field(init=False, default=None)
    _replayed: Replayed | None = field(init=False, default=None)

    def reweight(self, changes: Mapping[str, float]) -> None:
        super().reweight(changes)
        if self.net.device.type == "cuda":
            # a reference to itself would keep its memory until the garbage is collected
            own = weakref.proxy(self)
            self._replayed = Replayed(lambda image: own._evaluated(image))

    def features(
        self, picture: Tensor, reads: Collection[str], actives: Sequence[ActiveLayer]
    ) -> Iterable[tuple[str, Tensor]]:
        through = None
        if picture.shape[-2:] == self.shape:  # the same memory as that of later evaluations
            through = self._propagation_of({active.read for active in actives} - {PIXELS})
        if through is None:
            through = Propagation(self.net, reads, picture.shape[-2:], self.arithmetic)
        return ((read, features) for read, features in through.forward(picture) if read in reads)

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._replayed is None:
            return self._evaluated(image)
        total, grad, values = self._replayed(image)
        return total, grad, values

    def _evaluated(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `evaluate` returns, computed now."""
        actives, at = self.grouped()
        features, found = {}, {}
        through = self._propagation_of(set(at) - {PIXELS})
        for read, f in itertools.chain(
            [(PIXELS, image.detach())], through.forward(image) if through else ()
        ):
            features[read] = f  # for its shape; its memory may soon hold something else
            for active in at.get(read, ()):
                with torch.no_grad():
                    found[active.key] = active.term.statistic(f, self.targets.get(active.key))
        total, values, slopes = self.differentiate_scores(actives, found, features)
        unit = unit_of(slopes.values(), self.arithmetic, self.shape)

        def inject(read: str, f: Tensor, into: Tensor) -> None:
            for i, active in enumerate(at[read]):
                vjp(
                    active.term,
                    slopes[active.key] * unit,
                    f,
                    self.targets.get(active.key),
                    into,
                    add=i > 0,
                )

        with torch.no_grad():
            grad = through.backward(inject).div_(unit) if through else torch.zeros_like(image)
            for active in at.get(PIXELS, []):
                vjp(active.term, slopes[active.key], image, None, grad, add=True)
        return total.detach(), grad.contiguous(), values

    def _propagation_of(self, reads: set[str]) -> Propagation | None:
        """The propagation for the layers that are read, at this size; only the last one is kept."""
        if self._propagation is None or self._propagation.reads != reads:
            self._propagation = None  # its memory is free before the next one takes its own
            self._propagation = (
                Propagation(self.net, reads, self.shape, self.arithmetic) if reads else None
            )
        return self._propagation


def unit_of(
    slopes: Iterable[Tensor], arithmetic: Arithmetic, shape: Sequence[int]
) -> Tensor | float:
    """The factor of gradients on their way back: a power of 2 that keeps them within the range of
    float16."""
    if arithmetic.dtype != torch.float16:
        return 1.0
    # at a perfect match all are 0
    largest = torch.stack([slope.abs().max() for slope in slopes]).max().clamp_min(1e-30)
    return torch.exp2(-8 - largest.log2().floor()) * float(shape[0] * shape[1])
