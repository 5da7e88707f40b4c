"""The loss and gradient that `objectives.Bound` defines, in less time and memory, and in any
arithmetic.

Features are computed forward once, and at each layer that is read only a statistic is kept.
Autograd differentiates just the scores of the statistics. From there to the features, the gradient
is a vector-Jacobian product, in closed form for the terms of the method and by autograd for others;
from the features to the image, it is `Propagation.backward`."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.graphs import Replayed
from nstlab.method.fast.propagation import Propagation
from nstlab.method.objectives import ActiveLayer, Bound
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.vgg import VGG


def vjp_of_part(
    term: Term, grad_output: Tensor, features: Tensor, target: Tensor | None, crop: Crop
) -> Tensor:
    """The gradient at a crop's features, with the term's margin, through its part."""
    if type(term).part is Term.part:
        into = torch.empty_like(features)
        cut = term.cut(target, crop, features)
        term.vjp(grad_output * crop.share, features, cut, into, add=False)
        return into
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(
            term.part(leaf, target, crop), leaf, grad_output, materialize_grads=True
        )
    return grad


# --- evaluation -----------------------------------------------------------------------------------


class ByHand(Bound):
    """A `Bound` that differentiates only the scores by autograd."""

    def active_by_layer(self) -> tuple[list[ActiveLayer], dict[str, list[ActiveLayer]]]:
        """(the active layers of terms, {layer of the network: those that read it})."""
        actives = self.objective.active_layers(self.weights)
        at = {}
        for active in actives:
            at.setdefault(active.read, []).append(active)
        return actives, at

    def differentiate_scores(
        self,
        actives: Sequence[ActiveLayer],
        statistics: Mapping[tuple[str, str], Tensor],
        features: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[tuple[str, str], Tensor]]:
        """(total / scale, unweighted values of terms, {layer of a term: gradient there})."""
        leaves = {
            key: statistic.detach().requires_grad_(True) for key, statistic in statistics.items()
        }
        with torch.enable_grad():
            total, values = self.combine_scores(actives, leaves, features)
            grad_outputs = dict(
                zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True)
            )
        return total.detach(), values, grad_outputs


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
            # A reference to itself would keep its memory until the garbage is collected.
            proxy = weakref.proxy(self)
            self._replayed = Replayed(lambda image: proxy._evaluate(image))

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
            return self._evaluate(image)
        total, grad, values = self._replayed(image)
        return total, grad, values

    def _evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `evaluate` returns, computed now."""
        actives, at = self.active_by_layer()
        features, statistics = {}, {}
        through = self._propagation_of(set(at) - {PIXELS})
        for read, f in itertools.chain(
            [(PIXELS, image.detach())], through.forward(image) if through else ()
        ):
            features[read] = f  # for its shape; its memory may soon hold something else
            for active in at.get(read, ()):
                with torch.no_grad():
                    statistics[active.key] = active.term.statistic(f, self.targets.get(active.key))
        total, values, grad_outputs = self.differentiate_scores(actives, statistics, features)
        unit = unit_of(grad_outputs.values(), self.arithmetic, self.shape)

        def inject(read: str, f: Tensor, into: Tensor) -> None:
            for i, active in enumerate(at[read]):
                target = self.targets.get(active.key)
                active.term.vjp(grad_outputs[active.key] * unit, f, target, into, add=i > 0)

        with torch.no_grad():
            grad = through.backward(inject).div_(unit) if through else torch.zeros_like(image)
            for active in at.get(PIXELS, []):
                active.term.vjp(grad_outputs[active.key], image, None, grad, add=True)
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
    grad_outputs: Iterable[Tensor], arithmetic: Arithmetic, shape: Sequence[int]
) -> Tensor | float:
    """A power of 2 that keeps gradients within the range of float16 on their way back."""
    if arithmetic.dtype != torch.float16:
        return 1.0
    # At a perfect match all are 0.
    largest = (
        torch.stack([grad_output.abs().max() for grad_output in grad_outputs])
        .max()
        .clamp_min(1e-30)
    )
    return torch.exp2(-8 - largest.log2().floor()) * float(shape[0] * shape[1])
