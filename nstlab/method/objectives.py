"""Objectives: weighted sums of terms, as data, and their evaluation.

    goal = 1.0 * content("conv4_2", photo) + 20.0 * style(STYLE_LAYERS, painting)

`goal.bind(net, shape)` computes the targets for one network and one size of image, once; the
`Bound` that it returns gives the total, each term's value, and the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.method.active_layers import ActiveLayer, changed_weights, check_weight
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.base import Network


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted sum of terms.

    `2 * objective`, `objective + objective` and `sum([...])` make new ones. A term whose name is
    taken gets the name with a number: style, style_2, …

    Attributes:
        terms: (weight, term) for each term.
    """

    terms: tuple[tuple[float, Term], ...]

    def __repr__(self) -> str:
        """A line for each term: its weight, name, class and layers."""
        lines = [f"  {weight:g} × {term.name}: {term}" for weight, term in self.terms]
        return "\n".join(["Objective(", *lines, ")"])

    def __add__(self, other: Objective | int) -> Objective:
        if other == 0:  # the start of sum()
            return self
        if not isinstance(other, Objective):
            return NotImplemented
        terms = list(self.terms)
        for weight, term in other.terms:
            name = _free_name(term.name, {term.name for _, term in terms})
            terms.append((weight, dataclasses.replace(term, name=name)))
        return Objective(tuple(terms))

    __radd__ = __add__

    def __mul__(self, factor: float) -> Objective:
        if isinstance(factor, Objective):
            raise TypeError(
                "an objective cannot be multiplied by an objective; objectives are sums of "
                "weighted terms"
            )
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return Objective(
            tuple((check_weight(weight * factor, term.name), term) for weight, term in self.terms)
        )

    __rmul__ = __mul__

    @property
    def weights(self) -> dict[str, float]:
        """All weights by name: of terms, "style", and of their layers, "style:conv1_1"."""
        weights = {}
        for weight, term in self.terms:
            weights[term.name] = weight
            for layer, layer_weight in zip(term.layers, term.layer_weights, strict=True):
                weights[f"{term.name}:{layer}"] = layer_weight
        return weights

    @property
    def reads(self) -> list[str]:
        """The layers of the network that are read: their weight and the term's are not 0."""
        layers = self.active_layers(self.weights)
        return [layer.read for layer in layers if layer.read != PIXELS]

    def active_layers(self, weights: Mapping[str, float]) -> list[ActiveLayer]:
        """The layers of terms that are evaluated with these weights.

        Args:
            weights: by name, as in `weights`; a layer is left out if its weight or its term's is 0.
        """
        return [
            ActiveLayer(term, layer, read, weights[f"{term.name}:{layer}"])
            for _, term in self.terms
            for layer, read in zip(term.layers, term.reads, strict=True)
            if weights.get(term.name, 0.0) * weights.get(f"{term.name}:{layer}", 0.0) > 0
        ]

    def active_terms(self, weights: Mapping[str, float]) -> list[str]:
        """The names of the terms that are evaluated with these weights."""
        return list(dict.fromkeys(layer.term.name for layer in self.active_layers(weights)))

    def with_layers(self, names: Iterable[str]) -> Objective:
        """A copy in which every term that reads layers has these layers too, with weight 0."""
        return Objective(tuple((weight, term.with_layers(names)) for weight, term in self.terms))

    def too_small(self, net: Network, shape: Sequence[int]) -> str:
        """The first layer for which an image, or a target's picture, is too small; "" if none.

        Args:
            shape: (H, W) of the image.
        """
        for layer in self.active_layers(self.weights):
            target_shape = layer.term.target_shape(shape)
            if not (layer.fits(net, shape) and layer.fits(net, target_shape)):
                return layer.read
        return ""

    def target_shapes(self, shape: Sequence[int]) -> list[Sequence[int]]:
        """(H, W) of the terms' target pictures for an image of shape (H, W)."""
        return [term.target_shape(shape) for _, term in self.terms]

    def workspace(self, net: Network, shape: Sequence[int]) -> int:
        """About how many numbers statistics hold at once for an image of shape (H, W)."""
        shapes = net.shapes(set(self.reads), shape)
        numbers = []
        for layer in self.active_layers(self.weights):
            if layer.read in shapes:
                filters, *positions = shapes[layer.read]
                numbers.append(layer.term.workspace(filters, prod(positions)))
        # Autograd keeps all of them.
        return sum(numbers) if net.uses_autograd else max(numbers, default=0)

    def bind(self, net: Network, shape: Sequence[int]) -> Bound:
        """Compute the targets for one network and images of shape (H, W)."""
        return Bound(self, net, (int(shape[0]), int(shape[1])))


def _free_name(name: str, names: Collection[str]) -> str:
    """The name, with a number if it is taken."""
    free = name
    number = 1
    while free in names:
        number += 1
        free = f"{name}_{number}"
    return free


# --- evaluation -----------------------------------------------------------------------------------


@dataclass
class Bound:
    """An objective for one network and images of one size (H, W): the plain definition.

    The gradient is by autograd. Weights may change between evaluations; targets never do. Terms and
    layers of weight 0 are not evaluated, and their targets are computed when their weight is first
    more than 0. The engine evaluates with `fast.evaluation`, which gives the same numbers.

    Attributes:
        weights: by name, as in `Objective.weights`.
        targets: by `ActiveLayer.key`.
    """

    objective: Objective
    net: Network
    shape: tuple[int, int]
    weights: dict[str, float] = field(init=False)
    targets: dict[tuple[str, str], Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = self.objective.weights
        self.reweight({})

    @property
    def scale(self) -> float:
        """The largest weight.

        `evaluate` divides the total by it, so that a common factor of all weights changes nothing.
        """
        return max(self.weights[term.name] for _, term in self.objective.terms)

    @property
    def names(self) -> list[str]:
        """The terms that are evaluated, in the order of the values that `evaluate` returns."""
        return self.objective.active_terms(self.weights)

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(1, 3, H, W) -> (total, {term: unweighted value}).

        The total can be differentiated by autograd.
        """
        layers = self.objective.active_layers(self.weights)
        features = self.net(image, {layer.read for layer in layers} - {PIXELS})
        features = features | {PIXELS: image}
        statistics = {
            layer.key: layer.term.statistic(features[layer.read], self.targets.get(layer.key))
            for layer in layers
        }
        total, values = self.combine_scores(layers, statistics, features)
        return total * self.scale, dict(zip(self.names, values, strict=True))

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 3, H, W) -> (total / scale, its gradient, each term's unweighted value)."""
        leaf = image.detach().requires_grad_(True)
        total, values = self(leaf)
        (grad,) = torch.autograd.grad(total / self.scale, leaf)
        return total.detach() / self.scale, grad, torch.stack(list(values.values()))

    def combine_scores(
        self,
        layers: Sequence[ActiveLayer],
        statistics: Mapping[tuple[str, str], Tensor],
        features: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Score the statistics, and sum the scores up.

        Args:
            layers: those that are evaluated.
            statistics: by `ActiveLayer.key`.
            features: by the network's layer, for their shapes.

        Returns:
            (total / scale, unweighted value of each term).
        """
        values: dict[str, Tensor] = {}
        for layer in layers:
            score = layer.term.score(
                statistics[layer.key], self.targets.get(layer.key), features[layer.read]
            )
            name = layer.term.name
            values[name] = values.get(name, 0.0) + layer.weight * score
        weighted = [self.weights[name] / self.scale * value for name, value in values.items()]
        total = sum(weighted[1:], weighted[0])
        return total, torch.stack([value.detach() for value in values.values()])

    # --- weights and targets

    def reweight(self, changes: Mapping[str, float]) -> None:
        """Set weights by name.

        Args:
            changes: the weights that change, with names as in `Objective.weights`.

        Raises:
            InputError: for an unknown name or a weight that is not allowed; nothing has changed
                then.
        """
        weights = changed_weights(self.weights, changes)
        if not self.objective.active_layers(weights):
            raise InputError("all weights are 0; at least one must be more")
        self._compute_targets(weights)
        self.weights = weights

    def features(
        self, picture: Tensor, reads: Collection[str], layers: Sequence[ActiveLayer]
    ) -> Iterable[tuple[str, Tensor]]:
        """(layer, its features) of a target's picture.

        Args:
            picture: (1, 3, H, W), on the network's device.
            reads: the network's layers that are wanted.
            layers: what later evaluations will read.
        """
        return self.net(picture, reads).items()

    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        """Compute the targets that are missing for these weights."""
        layers = self.objective.active_layers(weights)
        for term, by_read in self._missing_targets(weights).items():
            picture = term.target_image(self.shape)
            if picture is not None:
                self.targets |= self._targets_of(term, by_read, picture, layers)

    @torch.no_grad()
    def _targets_of(
        self,
        term: Term,
        by_read: Mapping[str, list[ActiveLayer]],
        picture: Tensor,
        layers: Sequence[ActiveLayer],
    ) -> dict[tuple[str, str], Tensor]:
        """The targets of these layers of a term, from their picture."""
        picture = picture.to(self.net.device, self.net.dtype)
        return {
            layer.key: term.target(features).clone()
            for read, features in self.features(picture, by_read, layers)
            for layer in by_read[read]
        }

    def _missing_targets(
        self, weights: Mapping[str, float]
    ) -> dict[Term, dict[str, list[ActiveLayer]]]:
        """{term: {layer that is read: the term's layers}} whose targets are not computed yet."""
        missing: dict[Term, dict[str, list[ActiveLayer]]] = {}
        for layer in self.objective.active_layers(weights):
            if layer.key not in self.targets:
                missing.setdefault(layer.term, {}).setdefault(layer.read, []).append(layer)
        return missing
