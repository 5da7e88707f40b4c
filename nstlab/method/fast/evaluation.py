"""The loss and gradient that `objectives.Bound` defines, sooner, in less memory, in any arithmetic.

Features are computed forward once, and at each layer that is read only a statistic is kept.
Autograd differentiates just the scores of the statistics. From there to the features, the gradient
is a vector-Jacobian product, in closed form for the terms of the method and by autograd for others;
from the features to the image, it is `Propagation.backward`.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from nstlab.method.active_layers import ActiveLayer
from nstlab.method.crops import Crop
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.graphs import Replayed
from nstlab.method.fast.propagation import Propagation
from nstlab.method.objectives import Bound
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.vgg import VGG


class VjpBound(Bound):
    """A `Bound` that differentiates only the scores by autograd."""

    def layers_by_read(self) -> tuple[list[ActiveLayer], dict[str, list[ActiveLayer]]]:
        """(the active layers of terms, {layer of the network: those that read it})."""
        layers = self.objective.active_layers(self.weights)
        by_read: dict[str, list[ActiveLayer]] = {}
        for layer in layers:
            by_read.setdefault(layer.read, []).append(layer)
        return layers, by_read

    def differentiate_scores(
        self,
        layers: Sequence[ActiveLayer],
        statistics: Mapping[tuple[str, str], Tensor],
        features: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[tuple[str, str], Tensor]]:
        """Score the statistics, and compute the gradient at each of them.

        Args:
            layers, statistics, features: see `Bound.combine_scores`.

        Returns:
            (total / scale, unweighted value of each term, {layer of a term: gradient there}).
        """
        leaves = {
            key: statistic.detach().requires_grad_(True) for key, statistic in statistics.items()
        }
        with torch.enable_grad():
            total, values = self.combine_scores(layers, leaves, features)
            grads = torch.autograd.grad(total, list(leaves.values()))
        return total.detach(), values, dict(zip(leaves, grads, strict=True))


@dataclass
class FastBound(VjpBound):
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

    def _targets_of(
        self,
        term: Term,
        by_read: Mapping[str, list[ActiveLayer]],
        picture: Tensor,
        layers: Sequence[ActiveLayer],
    ) -> dict[tuple[str, str], Tensor]:
        if term.positional:
            return super()._targets_of(term, by_read, picture, layers)
        # Kept by the term for later bounds: the frames of a film share those of the painting.
        keys = [layer.key for reading in by_read.values() for layer in reading]
        targets = term.cached(
            (self.net, self.net.device, self.shape, self.arithmetic, *keys),
            partial(super()._targets_of, term, by_read, picture, layers),
        )
        return {key: target.clone() for key, target in targets.items()}

    def features(
        self, picture: Tensor, reads: Collection[str], layers: Sequence[ActiveLayer]
    ) -> Iterable[tuple[str, Tensor]]:
        propagation = None
        if picture.shape[-2:] == self.shape:  # in the same memory as later evaluations
            propagation = self._propagation_for({layer.read for layer in layers} - {PIXELS})
        if propagation is None:
            propagation = Propagation(self.net, reads, picture.shape[-2:], self.arithmetic)
        return ((read, f) for read, f in propagation.forward(picture) if read in reads)

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._replayed is None:
            return self._evaluate(image)
        total, grad, values = self._replayed(image)
        return total, grad, values

    def _evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `evaluate` returns, computed now."""
        layers, by_read = self.layers_by_read()
        propagation = self._propagation_for(set(by_read) - {PIXELS})
        features = {}
        statistics = {}
        for read, f in _features_and_pixels(propagation, image):
            features[read] = f  # for its shape; its memory may soon hold something else
            for layer in by_read.get(read, ()):
                with torch.no_grad():
                    statistics[layer.key] = layer.term.statistic(f, self.targets.get(layer.key))
        total, values, grad_outputs = self.differentiate_scores(layers, statistics, features)
        factor = range_factor(grad_outputs.values(), self.arithmetic, self.shape)

        def inject(read: str, f: Tensor, into: Tensor) -> None:
            for i, layer in enumerate(by_read[read]):
                target = self.targets.get(layer.key)
                layer.term.vjp(grad_outputs[layer.key] * factor, f, target, into, add=i > 0)

        with torch.no_grad():
            if propagation is None:
                grad = torch.zeros_like(image)
            else:
                grad = propagation.backward(inject).div_(factor)
            for layer in by_read.get(PIXELS, []):
                layer.term.vjp(grad_outputs[layer.key], image, None, grad, add=True)
        return total.detach(), grad.contiguous(), values

    def _propagation_for(self, reads: set[str]) -> Propagation | None:
        """The propagation for the layers that are read, at this size; only the last one is kept."""
        if self._propagation is None or self._propagation.reads != reads:
            self._propagation = None  # frees its memory before the next one takes its own
            if reads:
                self._propagation = Propagation(self.net, reads, self.shape, self.arithmetic)
        return self._propagation


def _features_and_pixels(
    propagation: Propagation | None, image: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield (PIXELS, the image), then (layer, its features), if any are read."""
    yield PIXELS, image.detach()
    if propagation is not None:
        yield from propagation.forward(image)


def vjp_of_part(
    term: Term, grad_output: Tensor, features: Tensor, target: Tensor | None, crop: Crop
) -> Tensor:
    """The gradient at the features of a crop, through what they add to the statistic.

    Args:
        term: whose statistic it is.
        grad_output: the gradient at the statistic.
        features: those of the crop, with the term's margin.
        target: that of all positions.
        crop: the positions.

    Returns:
        A tensor of the features' shape.
    """
    if type(term).part is Term.part:
        into = torch.empty_like(features)
        target_part = term.cut(target, crop, features)
        term.vjp(grad_output * crop.share, features, target_part, into, add=False)
        return into
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        part = term.part(leaf, target, crop)
        (grad,) = torch.autograd.grad(part, leaf, grad_output, materialize_grads=True)
    return grad


def range_factor(
    grad_outputs: Iterable[Tensor], arithmetic: Arithmetic, shape: Sequence[int]
) -> Tensor | float:
    """A power of 2 that keeps gradients within the range of float16 on their way back.

    Args:
        grad_outputs: the gradients at the statistics.
        shape: (H, W) of the image.
    """
    if arithmetic.dtype != torch.float16:
        return 1.0
    largest = torch.stack([grad_output.abs().max() for grad_output in grad_outputs]).max()
    largest = largest.clamp_min(1e-30)  # at a perfect match all are 0
    return torch.exp2(-8 - largest.log2().floor()) * float(shape[0] * shape[1])
