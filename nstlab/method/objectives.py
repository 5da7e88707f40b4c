"""Objectives: weighted sums of terms over the layers of a network, as data.

    goal = 1.0 * content("conv4_2", photo) + 20.0 * style(STYLE_LAYERS, painting)

A term is a *statistic* of each of its layers (a mean over positions) and a *score* of that statistic against its
target. An `Objective` is a tuple of weighted terms; `bind` computes the targets for one network and one size, once.
How a term is scaled is its `Convention` (settings.CONVENTIONS), each tested against its published formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nstlab import images as im
from nstlab.method import statistics
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION, Convention
from nstlab.method.names import layer_name, rectified
from nstlab.method.network import VGG19
from nstlab.settings import FITS, MIN_SIDE, InputError, nearest

LARGEST = 1e30  # weight: its product with a loss in float32 is a number still
PIXELS = "pixels"  # stands for a layer where a term looks at the image itself


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of error, measured on some layers. Subclasses give the `statistic` and its `score`.

    layers are named as the user did; `reads` are the network's layers in the same order, behind the ReLU where the
    convention says so. The term's value is Σ_l layer_weights_l · score(statistic(F_l), target_l), unweighted by the
    objective. image: (1, 3, H, W) in [0, 1], whose statistic is the target; None if there is no target."""

    name: str
    layers: tuple[str, ...]
    layer_weights: tuple[float, ...]
    convention: Convention
    image: Tensor | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(map(rectified, self.layers)) if self.convention.rectified else self.layers

    def with_layers(self, names: Iterable[str]) -> Term:
        """The same, with these layers too, their weights 0."""
        if self.reads == (PIXELS,):
            return self
        more = tuple(name for name in names if name not in self.layers)
        return dataclasses.replace(self, layers=self.layers + more, layer_weights=self.layer_weights + (0.0,) * len(more))

    def picture(self, shape: Sequence[int]) -> Tensor | None:
        """The picture whose features are the target, for an image of shape (H, W); None if there is no target."""
        return None if self.image is None else im.resize(self.image, shape)

    def shape(self, shape: Sequence[int]) -> Sequence[int]:
        """(H, W) of that picture, or of the image where there is none."""
        return shape

    def target(self, features: Tensor) -> Tensor:
        """What a layer is compared with, from the features of `picture` there: their statistic."""
        return self.statistic(features, None)

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(1, C, h, w) -> the statistic, a mean over the h·w positions."""
        raise NotImplementedError

    def score(self, statistic: Tensor, target: Tensor | None, features: Tensor) -> Tensor:
        """The statistic's error, a scalar. Of the features only the shape is used."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Content(Term):
    """½ Σ_ij (F_ij - P_ij)² (Gatys et al. 2016, equation 1), or its mean over elements, by convention.

    The gradient at the convolution is (F - P) where F > 0, else 0 (equation 2; over N·M for the mean)."""

    def target(self, features: Tensor) -> Tensor:
        """P: the photo's features."""
        return features

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        return statistics.mean_square_error(features, target)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        elements = 1 if self.convention.content_mean else features.numel()
        return self.convention.content_factor * elements * statistic


@dataclass(frozen=True, eq=False)
class Style(Term):
    """1/(4 N²) Σ_ij (G_ij - A_ij)² with G = F Fᵀ / M (Gatys et al. 2016, equations 3 to 5), or as the convention has it.

    The gradient at the convolution is 1/(N² M) (Fᵀ (G - A))_ji where F > 0, else 0 (equation 6)."""

    fit: str = FITS[0]
    scale: float = 1.0
    fitted: tuple[int, int] | None = None

    def picture(self, shape: Sequence[int]) -> Tensor:
        if self.fitted is None:
            return im.fit(self.image, shape, self.fit, self.scale)
        return im.resize(self.image, self.shape(shape))

    def shape(self, shape: Sequence[int]) -> Sequence[int]:
        own = self.image.shape[-2:]
        if self.fitted is None:
            return im.fitting(own, shape, self.fit, self.scale)[1]
        return [max(MIN_SIDE, round(o * s / f)) for o, s, f in zip(own, shape, self.fitted, strict=True)]

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return statistics.gram(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        factor = self.convention.style_factor / features.shape[1] ** self.convention.style_power
        return factor * (statistic - target).square().sum()


@dataclass(frozen=True, eq=False)
class TotalVariation(Term):
    """Mean square difference of neighbouring pixels; neural-style's is half the sum over 0-255 pixel values, here as
    half the mean times the number of values (its sum leaves out one row and one column)."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (PIXELS,)

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return statistics.total_variation(features)

    def score(self, statistic: Tensor, target: None, features: Tensor) -> Tensor:
        return statistic if self.convention.tv_per_element else 0.5 * 255.0**2 * features.numel() * statistic


# --- the algebra ------------------------------------------------------------------------------------------------


def _weight(value: float, name: str) -> float:
    value = float(value)
    if not 0 <= value <= LARGEST:
        raise InputError(f"weight of '{name}': {value:g} is not allowed; allowed is from 0 to {LARGEST:g}")
    return value


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted sum of terms. `2 * objective`, `objective + objective` and `sum([...])` make new ones."""

    terms: tuple[tuple[float, Term], ...]

    def __add__(self, other: Objective | int) -> Objective:
        if other == 0:  # the start of sum()
            return self
        if not isinstance(other, Objective):
            return NotImplemented
        terms, names = list(self.terms), {term.name for _, term in self.terms}
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
            raise TypeError("an objective cannot be multiplied by an objective; objectives are sums of weighted terms")
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return Objective(tuple((_weight(weight * factor, term.name), term) for weight, term in self.terms))

    __rmul__ = __mul__

    @property
    def weights(self) -> dict[str, float]:
        """Every weight that can be set, by name: each term's ("style"), and its layers' ("style:conv1_1")."""
        found = {}
        for weight, term in self.terms:
            found[term.name] = weight
            found |= {f"{term.name}:{layer}": w for layer, w in zip(term.layers, term.layer_weights, strict=True)}
        return found

    @property
    def reads(self) -> list[str]:
        """The layers of the network that are read: those whose weight, and whose term's, is not 0."""
        return [
            read
            for weight, term in self.terms
            for read, layer_weight in zip(term.reads, term.layer_weights, strict=True)
            if weight * layer_weight > 0 and read != PIXELS
        ]

    def shapes(self, shape: Sequence[int]) -> list[Sequence[int]]:
        """(H, W) of the pictures that the terms' targets are made from, for an image of shape (H, W)."""
        return [term.shape(shape) for _, term in self.terms]

    def counting(self, weights: Mapping[str, float]) -> list[str]:
        """The terms that are evaluated with these weights: their own, and a layer's, are more than 0."""
        return list(dict.fromkeys(active.term.name for active in self.active(weights)))

    def active(self, weights: Mapping[str, float]) -> list[Active]:
        """The layers of terms that count with these weights."""
        return [
            Active(term, layer, read, weights[f"{term.name}:{layer}"])
            for _, term in self.terms
            for layer, read in zip(term.layers, term.reads, strict=True)
            if weights.get(term.name, 0.0) * weights.get(f"{term.name}:{layer}", 0.0) > 0
        ]

    def with_layers(self, names: Iterable[str]) -> Objective:
        """The same, with these layers too in every term that looks at layers, their weights 0."""
        return Objective(tuple((weight, term.with_layers(names)) for weight, term in self.terms))

    def bind(self, net: VGG19, shape: Sequence[int]) -> Bound:
        """The objective for one network and images of shape (H, W), with its targets computed."""
        return Bound(self, net, (int(shape[0]), int(shape[1])))


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise InputError(f"convention: '{name}' is not one of {', '.join(CONVENTIONS)}{nearest(name, list(CONVENTIONS))}")
    return CONVENTIONS[name]


def term(
    kind: type[Term],
    name: str,
    layers: str | int | Sequence[str | int],
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    **fields: Any,
) -> Objective:
    """An objective of one term, of any kind, with weight 1.

    weights: of the layers; by default 1/|L|, or 1 where the convention adds layers up. fields: the kind's own, such as
    `image`. Raises InputError for layers, weights or a convention that cannot be used."""
    layers = tuple(layer_name(n) for n in ((layers,) if isinstance(layers, (str, int)) else layers))
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"{name}: needs one layer or more, each named once; given: {' '.join(layers) or 'none'}")
    chosen = _convention(convention)
    weights = tuple(_weight(w, name) for w in weights or (chosen.layer_weight(len(layers)),) * len(layers))
    if len(weights) != len(layers):
        raise InputError(f"{name}: {len(weights)} layer weights given for {len(layers)} layers; give one for each")
    return Objective(((1.0, kind(name, layers, weights, chosen, **fields)),))


def content(
    layers: str | int | Sequence[str | int], image: Tensor, weights: Sequence[float] = (), convention: str = DEFAULT_CONVENTION
) -> Objective:
    """Be like the photo in these layers' features; `weights` of the layers are equal by default."""
    return term(Content, "content", layers, weights, convention, image=im.check_picture(image, "content"))


def style(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    fit: str = FITS[0],
    scale: float = 1.0,
    fitted: Sequence[int] | None = None,
) -> Objective:
    """Be like the painting in the Gram matrices of these layers' features.

    weights: of the layers; by default 1/|L|, or 1 where the convention adds layers up.
    fit, scale: how the painting gets the image's shape, see images.fit.
    fitted: the (H, W) of images for which this has been done already; for others it is enlarged or reduced as they are."""
    im.fitting(im.check_picture(image, "style").shape[-2:], image.shape[-2:], fit, scale)  # refuses what cannot be
    fitted = None if fitted is None else tuple(fitted)
    return term(Style, "style", layers, weights, convention, image=image, fit=fit, scale=scale, fitted=fitted)


def total_variation(convention: str = DEFAULT_CONVENTION) -> Objective:
    """Be smooth."""
    return Objective(((1.0, TotalVariation("tv", (PIXELS,), (1.0,), _convention(convention))),))


# --- evaluation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Active:
    """One layer of a term that counts: its name as the user gave it, what is read of the network, and its weight."""

    term: Term
    layer: str
    read: str
    weight: float

    @property
    def key(self) -> tuple[str, str]:
        return self.term.name, self.layer


@dataclass
class Bound:
    """An objective for one network and images of one size: the plain definition, by the network as it is and autograd.

    Its weights may change between evaluations, its targets never do. Terms and layers of weight 0 are not evaluated; their
    targets are computed when they first count. The engine evaluates by `fast.evaluation`, which gives the same numbers."""

    objective: Objective
    net: VGG19
    shape: tuple[int, int]
    weights: dict[str, float] = field(init=False)
    targets: dict[tuple[str, str], Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = self.objective.weights
        self.reweight({})

    def reweight(self, changes: Mapping[str, float]) -> None:
        """Set weights by name; InputError for an unknown name or a weight that is not allowed, and nothing changes."""
        for name, value in changes.items():
            if name not in self.weights:
                raise InputError(
                    f"no weight is called '{name}'{nearest(name, list(self.weights))} (there are: {', '.join(self.weights)})"
                )
            _weight(value, name)
        weights = {**self.weights, **{name: float(value) for name, value in changes.items()}}
        if not self.objective.active(weights):
            raise InputError("all weights are 0; at least one must be more")
        self._compute_targets(weights)
        self.weights = weights

    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        actives = self.objective.active(weights)
        missing: dict[Term, dict[str, list[Active]]] = {}
        for active in actives:
            if active.key not in self.targets:
                missing.setdefault(active.term, {}).setdefault(active.read, []).append(active)
        for term, reads in missing.items():
            picture = term.picture(self.shape)
            if picture is None:
                continue
            with torch.no_grad():
                for read, features in self._features(picture.to(self.net.conv1_1_weight), reads, actives):
                    self.targets |= {active.key: term.target(features).clone() for active in reads[read]}

    def _features(self, picture: Tensor, reads: Collection[str], actives: Sequence[Active]) -> Iterable[tuple[str, Tensor]]:
        """(layer, its features) of a picture on the network's device. actives: what evaluations to come will read."""
        return self.net(picture, reads).items()

    @property
    def scale(self) -> float:
        """The largest weight. The loss is the total over it, so that a common factor of all weights changes nothing."""
        return max(self.weights[term.name] for _, term in self.objective.terms)

    @property
    def names(self) -> list[str]:
        """The terms that are evaluated, in the order of `evaluate`'s values."""
        return self.objective.counting(self.weights)

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(1, 3, H, W) -> (the total, each term's unweighted value), which autograd can follow."""
        actives = self.objective.active(self.weights)
        features = self.net(image, {active.read for active in actives} - {PIXELS}) | {PIXELS: image}
        found = {a.key: a.term.statistic(features[a.read], self.targets.get(a.key)) for a in actives}
        total, values = self.scored(actives, found, features)
        return total * self.scale, dict(zip(self.names, values, strict=True))

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 3, H, W) -> (total / scale, its gradient at the image, unweighted value of each term in `names`)."""
        leaf = image.detach().requires_grad_(True)
        total, values = self(leaf)
        (grad,) = torch.autograd.grad(total / self.scale, leaf)
        return total.detach() / self.scale, grad, torch.stack(list(values.values()))

    def scored(
        self, actives: Sequence[Active], found: Mapping[tuple[str, str], Tensor], features: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(total / scale, unweighted value of each term), from the statistics."""
        values: dict[str, Tensor] = {}
        for active in actives:
            score = active.term.score(found[active.key], self.targets.get(active.key), features[active.read])
            values[active.term.name] = values.get(active.term.name, 0.0) + active.weight * score
        total = sum(self.weights[name] / self.scale * value for name, value in values.items())
        return total, torch.stack([value.detach() for value in values.values()])
