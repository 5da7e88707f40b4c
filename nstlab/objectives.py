"""Objectives: weighted sums of terms over the layers of a network, as data.

    goal = 1.0 * content("conv4_2", photo) + 1e3 * style(STYLE_LAYERS, painting)

A term is a *statistic* of each of its layers (a mean over positions) and a *score* of that statistic against its
target. An `Objective` is a tuple of weighted terms; `bind` computes the targets for one network and one size, once.
How a term is scaled is its `Convention` (settings.CONVENTIONS), each tested against its published formula.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nstlab import images as im
from nstlab import statistics
from nstlab.network import VGG19
from nstlab.settings import CONVENTIONS, DEFAULT_CONVENTION, FITS, Convention, InputError, layer_name, nearest

PIXELS = "pixels"  # stands for a layer where a term looks at the image itself


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of error, measured on some layers. Subclasses say how.

    layers are named as the user did; `reads` are the network's layers in the same order, behind the ReLU where the
    convention says so. The term's value is Σ_l layer_weights_l · score(statistic(F_l), target_l), unweighted by the
    objective."""

    name: str
    layers: tuple[str, ...]
    layer_weights: tuple[float, ...]
    convention: Convention

    @property
    def reads(self) -> tuple[str, ...]:
        rectified = self.convention.rectified
        return tuple(layer.replace("conv", "relu") if rectified else layer for layer in self.layers)

    def picture(self, shape: Sequence[int]) -> Tensor | None:
        """The picture whose features are the target, for an image of shape (H, W); None if there is no target."""
        return None

    def target(self, features: Tensor) -> Tensor:
        """What a layer is compared with, from the features of `picture` there."""
        raise NotImplementedError

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

    image: Tensor

    def picture(self, shape: Sequence[int]) -> Tensor:
        return im.resize(self.image, shape)

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

    image: Tensor
    fit: str = FITS[0]
    scale: float = 1.0

    def picture(self, shape: Sequence[int]) -> Tensor:
        return im.fit(self.image, shape, self.fit, self.scale)

    def target(self, features: Tensor) -> Tensor:
        """A: the painting's Gram matrix."""
        return statistics.gram(features)

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
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
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"weight of '{name}': {value:g} is not allowed; allowed is a finite number, 0 or more")
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
            name = next(n for i in range(len(names) + 1) if (n := term.name + f"_{i + 1}" * (i > 0)) not in names)
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

    def bind(self, net: VGG19, shape: Sequence[int]) -> Bound:
        """The objective for one network and images of shape (H, W), with its targets computed."""
        return Bound(self, net, (int(shape[0]), int(shape[1])))


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise InputError(f"convention: '{name}' is not one of {', '.join(CONVENTIONS)}{nearest(name, list(CONVENTIONS))}")
    return CONVENTIONS[name]


def _term(kind: type[Term], name: str, layers, weights, convention: str, **rest) -> Objective:
    layers = tuple(layer_name(n) for n in ((layers,) if isinstance(layers, (str, int)) else layers))
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"{name}: needs one layer or more, each named once; given: {' '.join(layers) or 'none'}")
    chosen = _convention(convention)
    each = 1 / len(layers) if chosen.average_layers else 1.0
    weights = tuple(_weight(w, name) for w in weights or (each,) * len(layers))
    if len(weights) != len(layers):
        raise InputError(f"{name}: {len(weights)} layer weights given for {len(layers)} layers; give one for each")
    return Objective(((1.0, kind(name, layers, weights, chosen, **rest)),))


def content(
    layers: str | int | Sequence[str | int], image: Tensor, weights: Sequence[float] = (), convention: str = DEFAULT_CONVENTION
) -> Objective:
    """Be like the photo in these layers' features; `weights` of the layers are equal by default."""
    return _term(Content, "content", layers, weights, convention, image=image)


def style(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    fit: str = FITS[0],
    scale: float = 1.0,
) -> Objective:
    """Be like the painting in the Gram matrices of these layers' features.

    weights: of the layers; by default 1/|L|, or 1 where the convention adds layers up.
    fit, scale: how the painting gets the image's shape, see images.fit."""
    return _term(Style, "style", layers, weights, convention, image=image, fit=fit, scale=scale)


def total_variation(convention: str = DEFAULT_CONVENTION) -> Objective:
    """Be smooth."""
    return Objective(((1.0, TotalVariation("tv", (PIXELS,), (1.0,), _convention(convention))),))


# --- evaluation -------------------------------------------------------------------------------------------------


@dataclass
class Bound:
    """An objective for one network and one size. Its weights may change between evaluations, its targets never do.

    Terms and layers of weight 0 are not evaluated; their targets are computed when they first count."""

    objective: Objective
    net: VGG19
    shape: tuple[int, int]
    weights: dict[str, float] = field(init=False)
    _targets: dict[tuple[str, str], Tensor] = field(init=False, default_factory=dict)

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
        if not self._active(weights):
            raise InputError("all weights are 0; at least one must be more")
        self._compute_targets(weights)
        self.weights = weights

    @torch.no_grad()
    def _compute_targets(self, weights: Mapping[str, float]) -> None:
        missing: dict[Term, dict[str, str]] = {}
        for term, layer, read, _ in self._active(weights):
            if (term.name, layer) not in self._targets:
                missing.setdefault(term, {})[layer] = read
        for term, reads in missing.items():
            picture = term.picture(self.shape)
            if picture is None:
                continue
            features = self.net(picture.to(self.net.conv1_1_weight), reads.values())  # to its device and dtype
            for layer, read in reads.items():
                self._targets[term.name, layer] = term.target(features[read])

    def _active(self, weights: Mapping[str, float]) -> list[tuple[Term, str, str, float]]:
        """(term, layer, layer read, layer weight) of all that counts."""
        return [
            (term, layer, read, weights[f"{term.name}:{layer}"])
            for _, term in self.objective.terms
            for layer, read in zip(term.layers, term.reads, strict=True)
            if weights[term.name] * weights[f"{term.name}:{layer}"] > 0
        ]

    @property
    def scale(self) -> float:
        """The largest weight. `loss` is the total over it, so that a common factor of all weights changes nothing."""
        return max(self.weights[term.name] for _, term in self.objective.terms)

    @property
    def names(self) -> list[str]:
        """The terms that are evaluated, in the order of `loss`'s values."""
        return list(dict.fromkeys(term.name for term, *_ in self._active(self.weights)))

    def loss(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) -> (total / scale, unweighted value of each term in `names`): a scalar and a vector."""
        active = self._active(self.weights)
        features = self.net(image, {read for _, _, read, _ in active if read != PIXELS}) | {PIXELS: image}
        values: dict[str, Tensor] = {}
        for term, layer, read, weight in active:
            target = self._targets.get((term.name, layer))
            score = term.score(term.statistic(features[read], target), target, features[read])
            values[term.name] = values.get(term.name, 0.0) + weight * score
        total = sum(self.weights[name] / self.scale * value for name, value in values.items())
        return total, torch.stack([value.detach() for value in values.values()])

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(1, 3, H, W) -> (the total, each term's unweighted value)."""
        total, values = self.loss(image)
        return total * self.scale, dict(zip(self.names, values, strict=True))
