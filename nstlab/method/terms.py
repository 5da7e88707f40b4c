"""The terms of an objective: content, style and total variation.

A term is a *statistic* of each of its layers (a mean over positions), and a *score* of that
statistic against its target. How the score is scaled is said by the term's `Convention`, and tested
for each convention against its published formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from nstlab.base.names import rectified
from nstlab.base.settings import FITS, MIN_SIDE
from nstlab.method.conventions import Convention
from nstlab.method.crops import Crop, added, fill_positions
from nstlab.method.statistics import gram, mean_square_error, positions, total_variation
from nstlab.pictures import images as im
from nstlab.pictures import sizes

PIXELS = "pixels"  # stands for a layer where a term reads the image itself


def put(change: Tensor, into: Tensor, add: bool) -> None:
    """Write a gradient into `into`, or add it."""
    if add:
        into.add_(change)
    else:
        into.copy_(change)


def gram_vjp(slope: Tensor, features: Tensor, into: Tensor, add: bool) -> None:
    """The Gram matrix F Fᵀ / M has the gradient (S + Sᵀ) F / M, where S is that at the matrix."""
    rows = positions(features)
    out = positions(into)
    matrix = ((slope + slope.T) / rows.shape[0]).to(rows.dtype)
    torch.addmm(out, rows, matrix, beta=int(add), out=out)


def moments_vjp(slope: Tensor, features: Tensor, into: Tensor, add: bool) -> None:
    """The Gram matrix and the mean, (N, N + 1), have the gradient of the matrix, plus that at the
    mean over M."""
    gram_vjp(slope[:, :-1], features, into, add)
    out = positions(into)
    out.add_((slope[:, -1] / len(out)).to(out.dtype))


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of error, measured on some layers. Subclasses define the `statistic` and its
    `score`.

    The term's value is Σ_l layer_weights_l · score(statistic(F_l), target_l). image: (1, 3, H, W)
    sRGB in [0, 1], from whose features the targets are made; None if there are no targets."""

    name: str
    layers: tuple[str, ...]
    layer_weights: tuple[float, ...]
    convention: Convention
    image: Tensor | None = None
    margin: ClassVar[int] = 0  # positions around those of a crop that `part` sees, too
    # Positions that a layer must have in height and width, for the picture and for the target.
    least: ClassVar[int] = 1
    positional: ClassVar[bool] = False  # whether targets have as many positions as the picture
    _made: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` makes, kept by a key: for tensors of one size and device, which a GPU must
        not wait for each time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def reads(self) -> tuple[str, ...]:
        """The network's layers that are read for `layers`, in the same order: after the ReLU if the
        convention says so."""
        return tuple(map(rectified, self.layers)) if self.convention.rectified else self.layers

    def with_layers(self, names: Iterable[str]) -> Term:
        """A copy that has these layers too, with weight 0."""
        if self.reads == (PIXELS,):
            return self
        more = tuple(name for name in names if name not in self.layers)
        return dataclasses.replace(
            self, layers=self.layers + more, layer_weights=self.layer_weights + (0.0,) * len(more)
        )

    def target_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """(H, W) of the picture from which the targets are made, for an image of shape (H, W)."""
        return shape

    def target_image(self, shape: Sequence[int]) -> Tensor | None:
        """That picture, (1, 3, H, W); None if there are no targets."""
        return None if self.image is None else im.resize(self.image, self.target_shape(shape))

    def target(self, features: Tensor) -> Tensor:
        """What a layer's statistic is compared with, made from the features of `target_image`
        there."""
        return self.statistic(features, None)

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(1, C, h, w) -> the statistic, a mean over the h·w positions."""
        raise NotImplementedError

    def score(self, statistic: Tensor, target: Tensor | None, features: Tensor) -> Tensor:
        """The error of the statistic, a scalar. Only the shape of the features may be used."""
        raise NotImplementedError

    def vjp(
        self, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """Write the gradient at the features into `into`, or add it, given that at the statistic,
        `slope`: by autograd, unless a term has a closed form."""
        with torch.enable_grad():
            leaf = features.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(self.statistic(leaf, target), leaf, slope)
        put(grad, into, add)

    def __repr__(self) -> str:
        """The class, and its layers with their weights; not the pixels of its pictures."""
        if self.reads == (PIXELS,):
            return f"{type(self).__name__}(pixels)"
        layers = zip(self.layers, self.layer_weights, strict=True)
        weighted = ", ".join(f"{weight:.3g} {layer}" for layer, weight in layers)
        return f"{type(self).__name__}({weighted})"

    def __init_subclass__(cls) -> None:
        """Differentiate a new statistic by autograd, unless its class brings its vjp as well."""
        super().__init_subclass__()
        if "__repr__" not in vars(cls):
            cls.__repr__ = Term.__repr__  # which a dataclass would replace
        if "statistic" in vars(cls) and "vjp" not in vars(cls):
            cls.vjp = Term.vjp

    # --- pictures whose features are computed tile by tile: what each of them adds

    def part(self, features: Tensor, target: Tensor | None, crop: Crop) -> Tensor:
        """What some positions add to the statistic, which is the sum over all crops.

        features: those of the crop, with `margin` more on each side. target: that of all
        positions."""
        return crop.share * self.statistic(features, self.cut(target, crop, features))

    def cut(self, target: Tensor | None, crop: Crop, like: Tensor) -> Tensor | None:
        """What of the target is that of the crop, on the device of `like`: all, unless the target
        has positions itself."""
        return target

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        """`total`, None at first, with what a crop of a picture's features adds to what
        `finalize_target` makes the target of."""
        return added(total, self.part(features, None, crop))

    def finalize_target(self, total: Tensor) -> Tensor:
        """The target, given what all crops together are."""
        return total

    def workspace(self, filters: int, positions: int) -> int:
        """About how many numbers its statistic and gradient at a layer hold at once, beside the
        features: for estimates of memory, in which a Gram matrix counts nothing."""
        return 0


@dataclass(frozen=True, eq=False)
class Content(Term):
    """½ Σ_ij (F_ij - P_ij)² (Gatys et al. 2016, equation 1), or its mean over elements, by
    convention.

    The gradient at the convolution is F - P where F > 0, and 0 elsewhere (equation 2; divided by
    N·M for the mean)."""

    positional = True

    def target(self, features: Tensor) -> Tensor:
        """P: the photo's features themselves."""
        return features

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        return mean_square_error(features, target)

    def vjp(self, slope: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool) -> None:
        """The mean of (F - P)² has the gradient 2 (F - P) / (N M)."""
        factor = 2 / features.numel() * slope
        if add:
            into.add_((features - target).mul_(factor))
        else:
            torch.sub(features, target, out=into).mul_(factor)

    def cut(self, target: Tensor, crop: Crop, like: Tensor) -> Tensor:
        return crop.of(target).to(like.device)

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        return fill_positions(total, features, crop, picture)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        elements = 1 if self.convention.content_mean else features.numel()
        return self.convention.content_factor * elements * statistic


@dataclass(frozen=True, eq=False)
class Style(Term):
    """1/(4 N²) Σ_ij (G_ij - A_ij)² with G = F Fᵀ / M (Gatys et al. 2016, equations 3 to 5), or as
    the convention has it.

    The gradient at the convolution is 1/(N² M) (Fᵀ (G - A))_ji where F > 0, and 0 elsewhere
    (equation 6).

    fit, scale: how the painting gets the shape of the image, see images.fit. fitted: the (H, W) of
    the images for which that has been done already; for images of another size, the painting is
    then enlarged or reduced as they are."""

    fit: str = FITS[0]
    scale: float = 1.0
    fitted: tuple[int, int] | None = None

    def target_shape(self, shape: Sequence[int]) -> Sequence[int]:
        if self.image is None:
            return shape
        own = self.image.shape[-2:]
        if self.fitted is None:
            return sizes.fit_geometry(own, shape, self.fit, self.scale)[1]
        return [
            max(MIN_SIDE, round(o * s / f)) for o, s, f in zip(own, shape, self.fitted, strict=True)
        ]

    def target_image(self, shape: Sequence[int]) -> Tensor | None:
        if self.image is None or self.fitted is not None:
            return super().target_image(shape)
        return im.fit(self.image, shape, self.fit, self.scale)

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return gram(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        factor = self.convention.style_factor / features.shape[1] ** self.convention.style_power
        return factor * (statistic - target).square().sum()

    def vjp(
        self, slope: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        gram_vjp(slope, features, into, add)


@dataclass(frozen=True, eq=False)
class PixelTerm(Term):
    """A term of the image itself, whose statistic is its value."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (PIXELS,)

    def score(self, statistic: Tensor, target: None, features: Tensor) -> Tensor:
        return statistic


@dataclass(frozen=True, eq=False)
class TotalVariation(PixelTerm):
    """Mean squared difference of neighbouring pixels.

    neural-style takes half the sum over pixel values from 0 to 255; here, half the mean times the
    number of values (its sum leaves out one row and one column)."""

    margin = 1

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return total_variation(features)

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        (height, width), (top, left) = crop.whole, (crop.rows.start, crop.columns.start)
        # With one more row below, and one column to the right.
        own = features[..., min(1, top) :, min(1, left) :]
        down = own.diff(dim=-2)[..., : crop.shape[0], : crop.shape[1]].square().sum() / (
            (height - 1) * width
        )
        across = own.diff(dim=-1)[..., : crop.shape[0], : crop.shape[1]].square().sum() / (
            height * (width - 1)
        )
        return (down + across) / features.shape[:-2].numel()

    def score(self, statistic: Tensor, target: None, features: Tensor) -> Tensor:
        return (
            statistic
            if self.convention.tv_per_element
            else 0.5 * 255.0**2 * features.numel() * statistic
        )
