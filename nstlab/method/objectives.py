"""Objectives: weighted sums of terms, as data.

    goal = 1.0 * content("conv4_2", photo) + 20.0 * style(STYLE_LAYERS, painting)

`goal.bind(net, shape)` computes the targets for one network and one size of image, once; the
`Bound` that it returns gives the total, each term's value, and the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from nstlab.base.settings import FITS, InputError, nearest
from nstlab.method.conventions import DEFAULT_CONVENTION, convention_named
from nstlab.method.terms import PIXELS, Content, PixelTerm, Style, Term, TotalVariation
from nstlab.networks.architectures import DEFAULT_NETWORK, architecture
from nstlab.networks.base import Network
from nstlab.pictures import images as im
from nstlab.pictures import sizes

LARGEST_WEIGHT = 1e30  # its product with a loss is still a float32 number


def _weight(value: float, name: str) -> float:
    """The weight as a float; InputError if it is out of range."""
    value = float(value)
    if not 0 <= value <= LARGEST_WEIGHT:
        raise InputError(
            f"weight of '{name}': {value:g} is not allowed; allowed is from 0 to {LARGEST_WEIGHT:g}"
        )
    return value


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted sum of terms. `2 * objective`, `objective + objective` and `sum([...])` make new
    ones.

    A term whose name is taken gets the name with a number: style, style_2, …"""

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
        names = {term.name for _, term in self.terms}
        for weight, term in other.terms:
            name, number = term.name, 1
            while name in names:
                number += 1
                name = f"{term.name}_{number}"
            names.add(name)
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
            tuple((_weight(weight * factor, term.name), term) for weight, term in self.terms)
        )

    __rmul__ = __mul__

    @property
    def weights(self) -> dict[str, float]:
        """Every weight that can be set, by name: that of each term, "style", and of each of its
        layers, "style:conv1_1"."""
        found = {}
        for weight, term in self.terms:
            found[term.name] = weight
            found |= {
                f"{term.name}:{layer}": w
                for layer, w in zip(term.layers, term.layer_weights, strict=True)
            }
        return found

    @property
    def reads(self) -> list[str]:
        """The layers of the network that are read: those whose weight, and whose term's weight, is
        not 0."""
        return [active.read for active in self.active(self.weights) if active.read != PIXELS]

    def too_small(self, net: Network, shape: Sequence[int]) -> str:
        """The first layer for which an image of shape (H, W), or the picture of a target for it, is
        too small; "" if none."""
        for active in self.active(self.weights):
            for size in () if active.read == PIXELS else (shape, active.term.target_shape(shape)):
                if not net.reaches(active.read, size):
                    return active.read
                if min(net.shapes([active.read], size)[active.read][1:]) < active.term.least:
                    return active.read
        return ""

    def target_shapes(self, shape: Sequence[int]) -> list[Sequence[int]]:
        """(H, W) of the pictures from which the terms' targets are made, for an image of shape (H,
        W)."""
        return [term.target_shape(shape) for _, term in self.terms]

    def workspace(self, net: Network, shape: Sequence[int]) -> int:
        """About how many numbers statistics hold at once for an image of shape (H, W), beside
        features; see `Term.workspace`."""
        shapes = net.shapes(set(self.reads), shape)
        actives = [active for active in self.active(self.weights) if active.read in shapes]
        each = [
            active.term.workspace(shapes[active.read][0], prod(shapes[active.read][1:]))
            for active in actives
        ]
        # Autograd keeps all of them.
        return sum(each) if net.uses_autograd else max(each, default=0)

    def active(self, weights: Mapping[str, float]) -> list[ActiveLayer]:
        """The layers of terms that are evaluated with these weights: those whose weight, and whose
        term's, is not 0."""
        return [
            ActiveLayer(term, layer, read, weights[f"{term.name}:{layer}"])
            for _, term in self.terms
            for layer, read in zip(term.layers, term.reads, strict=True)
            if weights.get(term.name, 0.0) * weights.get(f"{term.name}:{layer}", 0.0) > 0
        ]

    def active_terms(self, weights: Mapping[str, float]) -> list[str]:
        """The names of the terms that are evaluated with these weights."""
        return list(dict.fromkeys(active.term.name for active in self.active(weights)))

    def with_layers(self, names: Iterable[str]) -> Objective:
        """A copy in which every term that reads layers has these layers too, with weight 0."""
        return Objective(tuple((weight, term.with_layers(names)) for weight, term in self.terms))

    def bind(self, net: Network, shape: Sequence[int]) -> Bound:
        """Compute the targets for one network and images of shape (H, W)."""
        return Bound(self, net, (int(shape[0]), int(shape[1])))


def _name(layer: str | int) -> str:
    """The name of a layer, which may be given by the index that tutorials use for VGG19's: 1 for
    conv1_1."""
    return (
        architecture(DEFAULT_NETWORK).layer(layer) if str(layer).isdecimal() else str(layer).strip()
    )


def term(
    kind: type[Term],
    name: str,
    layers: str | int | Sequence[str | int],
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    **fields: Any,
) -> Objective:
    """An objective of one term with weight 1.

    kind: a subclass of `Term`. weights: of the layers; by default 1/|L|, or 1 if the convention
    adds layers up. fields: those of the kind, such as `image`. Raises InputError for layers,
    weights or a convention that cannot be used."""
    layers = tuple(_name(n) for n in ((layers,) if isinstance(layers, (str, int)) else layers))
    if not layers or len(set(layers)) < len(layers):
        raise InputError(
            f"{name}: needs one layer or more, each named once; given: {' '.join(layers) or 'none'}"
        )
    if ":" in name:
        raise InputError(f"{name}: names of terms have no colon, which is for their layers")
    if issubclass(kind, PixelTerm):
        layers = (PIXELS,)  # whatever is given: such a term reads the image itself
    chosen = convention_named(convention)
    weights = tuple(weights) or (chosen.layer_weight(len(layers)),) * len(layers)
    weights = tuple(_weight(weight, name) for weight in weights)
    if len(weights) != len(layers):
        raise InputError(
            f"{name}: {len(weights)} layer weights given for {len(layers)} layers; give one "
            "for each"
        )
    return Objective(((1.0, kind(name, layers, weights, chosen, **fields)),))


def content(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
) -> Objective:
    """Content: the features of these layers shall be those of the photo (Gatys et al. 2016,
    equation 1).

    image: the photo, (1, 3, H, W) sRGB in [0, 1]. weights, convention: see `term`."""
    return term(
        Content, "content", layers, weights, convention, image=im.check_picture(image, "content")
    )


def style(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    fit: str = FITS[0],
    scale: float = 1.0,
    fitted: Sequence[int] | None = None,
) -> Objective:
    """Style: the Gram matrices of these layers shall be those of the painting (Gatys et al. 2016,
    equations 3 to 5).

    image: the painting, (1, 3, H, W) sRGB in [0, 1]. weights, convention: see `term`. fit, scale,
    fitted: see `Style`."""
    # Refuses what cannot be.
    sizes.fit_geometry(im.check_picture(image, "style").shape[-2:], image.shape[-2:], fit, scale)
    fitted = None if fitted is None else tuple(fitted)
    return term(
        Style,
        "style",
        layers,
        weights,
        convention,
        image=image,
        fit=fit,
        scale=scale,
        fitted=fitted,
    )


def total_variation(convention: str = DEFAULT_CONVENTION) -> Objective:
    """Smoothness: neighbouring pixels shall be alike (see `TotalVariation`)."""
    return Objective(
        ((1.0, TotalVariation("tv", (PIXELS,), (1.0,), convention_named(convention))),)
    )


# --- evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActiveLayer:
    """A layer of a term that is evaluated: its name as the user gave it, the network's layer that
    is read, its weight."""

    term: Term
    layer: str
    read: str
    weight: float

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the layer of the term among all."""
        return self.term.name, self.layer


@dataclass
class Bound:
    """An objective for one network and images of one size (H, W): the plain definition, with the
    gradient by autograd.

    Weights may change between evaluations; targets never do. Terms and layers of weight 0 are not
    evaluated, and their targets are computed when their weight is first more than 0. The engine
    evaluates with `fast.evaluation`, which gives the same numbers."""

    objective: Objective
    net: Network
    shape: tuple[int, int]
    weights: dict[str, float] = field(init=False)
    targets: dict[tuple[str, str], Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = self.objective.weights
        self.reweight({})

    def reweight(self, changes: Mapping[str, float]) -> None:
        """Set weights by name. Raises InputError, and changes nothing, for an unknown name or a
        weight that is not allowed."""
        for name, value in changes.items():
            if name not in self.weights:
                raise InputError(
                    f"no weight is called '{name}'{nearest(name, list(self.weights))} (there are: "
                    f"{', '.join(self.weights)})"
                )
            _weight(value, name)
        weights = {**self.weights, **{name: float(value) for name, value in changes.items()}}
        if not self.objective.active(weights):
            raise InputError("all weights are 0; at least one must be more")
        self._compute_targets(weights)
        self.weights = weights

    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        """Compute the targets that evaluations with these weights need and that are not there
        yet."""
        actives = self.objective.active(weights)
        for term, reads in self._missing(weights).items():
            picture = term.target_image(self.shape)
            if picture is None:
                continue
            with torch.no_grad():
                for read, features in self.features(
                    picture.to(self.net.device, self.net.dtype), reads, actives
                ):
                    self.targets |= {
                        active.key: term.target(features).clone() for active in reads[read]
                    }

    def _missing(self, weights: Mapping[str, float]) -> dict[Term, dict[str, list[ActiveLayer]]]:
        """{term: {layer that is read: the term's layers}} whose targets are needed with these
        weights and not there yet."""
        missing: dict[Term, dict[str, list[ActiveLayer]]] = {}
        for active in self.objective.active(weights):
            if active.key not in self.targets:
                missing.setdefault(active.term, {}).setdefault(active.read, []).append(active)
        return missing

    def features(
        self, picture: Tensor, reads: Collection[str], actives: Sequence[ActiveLayer]
    ) -> Iterable[tuple[str, Tensor]]:
        """(layer, its features) of a picture on the network's device. actives: what later
        evaluations will read."""
        return self.net(picture, reads).items()

    @property
    def scale(self) -> float:
        """The largest weight. `evaluate` divides the total by it, so that a common factor of all
        weights changes nothing."""
        return max(self.weights[term.name] for _, term in self.objective.terms)

    @property
    def names(self) -> list[str]:
        """The terms that are evaluated, in the order of the values that `evaluate` returns."""
        return self.objective.active_terms(self.weights)

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(1, 3, H, W) -> (total, {term: unweighted value}); the total can be differentiated by
        autograd."""
        actives = self.objective.active(self.weights)
        features = self.net(image, {active.read for active in actives} - {PIXELS}) | {PIXELS: image}
        found = {
            a.key: a.term.statistic(features[a.read], self.targets.get(a.key)) for a in actives
        }
        total, values = self.scored(actives, found, features)
        return total * self.scale, dict(zip(self.names, values, strict=True))

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 3, H, W) -> (total / scale, gradient of that at the image, unweighted value of each
        term in `names`)."""
        leaf = image.detach().requires_grad_(True)
        total, values = self(leaf)
        (grad,) = torch.autograd.grad(total / self.scale, leaf)
        return total.detach() / self.scale, grad, torch.stack(list(values.values()))

    def scored(
        self,
        actives: Sequence[ActiveLayer],
        found: Mapping[tuple[str, str], Tensor],
        features: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """(total / scale, unweighted value of each term), from the statistics `found`."""
        values: dict[str, Tensor] = {}
        for active in actives:
            score = active.term.score(
                found[active.key], self.targets.get(active.key), features[active.read]
            )
            values[active.term.name] = values.get(active.term.name, 0.0) + active.weight * score
        weighted = [self.weights[name] / self.scale * value for name, value in values.items()]
        return sum(weighted[1:], weighted[0]), torch.stack(
            [value.detach() for value in values.values()]
        )
