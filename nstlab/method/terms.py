"""The terms of an objective, and the paper's two: content and style.

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

from nstlab.base.errors import InputError
from nstlab.base.names import rectified
from nstlab.base.settings import FITS, MIN_SIDE
from nstlab.method.conventions import Convention
from nstlab.method.crops import Crop, accumulate, fill_positions
from nstlab.method.statistics import gram, gram_vjp, mean_square_error, write_gradient
from nstlab.pictures import images as im
from nstlab.pictures import sizes

PIXELS = "pixels"  # stands for a layer where a term reads the image itself


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of error, measured on some layers: Σ_l w_l · score(statistic(F_l), target_l).

    Subclasses define the `statistic` and its `score`.

    Attributes:
        name: by which the term and its weights are told from others.
        layers: as the user names them.
        layer_weights: w_l, one for each layer.
        convention: how the score is scaled.
        image: (1, 3, H, W) sRGB in [0, 1], from whose features the targets are made; None if there
            are no targets.
    """

    name: str
    layers: tuple[str, ...]
    layer_weights: tuple[float, ...]
    convention: Convention
    image: Tensor | None = None
    margin: ClassVar[int] = 0  # positions around those of a crop that `part` sees, too
    # Positions that a layer must have in height and width, for the picture and for the target.
    least: ClassVar[int] = 1
    positional: ClassVar[bool] = False  # whether targets have as many positions as the picture
    _cache: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)

    def __init_subclass__(cls) -> None:
        """Differentiate a new statistic by autograd, unless its class brings its vjp as well."""
        super().__init_subclass__()
        if "__repr__" not in vars(cls):
            cls.__repr__ = Term.__repr__  # which a dataclass would replace
        if "statistic" in vars(cls) and "vjp" not in vars(cls):
            cls.vjp = Term.vjp

    def __repr__(self) -> str:
        """The class, and its layers with their weights; not the pixels of its pictures."""
        if self.reads == (PIXELS,):
            return f"{type(self).__name__}(pixels)"
        layers = zip(self.layers, self.layer_weights, strict=True)
        weighted = ", ".join(f"{weight:.3g} {layer}" for layer, weight in layers)
        return f"{type(self).__name__}({weighted})"

    @property
    def reads(self) -> tuple[str, ...]:
        """The network's layers that are read: after the ReLU if the convention says so."""
        return tuple(map(rectified, self.layers)) if self.convention.rectified else self.layers

    def with_layers(self, names: Iterable[str]) -> Term:
        """A copy that has these layers too, with weight 0."""
        if self.reads == (PIXELS,):
            return self
        more = tuple(name for name in names if name not in self.layers)
        return dataclasses.replace(
            self, layers=self.layers + more, layer_weights=self.layer_weights + (0.0,) * len(more)
        )

    # --- targets

    def target_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """(H, W) of the picture from which the targets are made, for an image of shape (H, W)."""
        return shape

    def target_image(self, shape: Sequence[int]) -> Tensor | None:
        """That picture, (1, 3, H, W); None if there are no targets."""
        return None if self.image is None else im.resize(self.image, self.target_shape(shape))

    def target(self, features: Tensor) -> Tensor:
        """The target of a layer's statistic, made from the features of `target_image`."""
        return self.statistic(features, None)

    # --- values and gradients

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        """(1, C, h, w) -> the statistic, a mean over the h·w positions."""
        raise NotImplementedError

    def score(self, statistic: Tensor, target: Tensor | None, features: Tensor) -> Tensor:
        """The error of the statistic, a scalar. Only the shape of the features may be used."""
        raise NotImplementedError

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """Write the gradient at the features: by autograd, unless a term has a closed form.

        Args:
            grad_output: the gradient at the statistic, of its shape.
            features: (1, C, h, w).
            target: of the layer.
            into: (1, C, h, w), where to write.
            add: whether the gradient is added to what is there.
        """
        with torch.enable_grad():
            leaf = features.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(self.statistic(leaf, target), leaf, grad_output)
        write_gradient(grad, into, add)

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, computed once for each key.

        For tensors of one size and device, which a GPU must not wait for each time.
        """
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    # --- pictures whose features are computed tile by tile: what each of them adds

    def part(self, features: Tensor, target: Tensor | None, crop: Crop) -> Tensor:
        """What some positions add to the statistic, which is the sum over all crops.

        Args:
            features: those of the crop, with `margin` more on each side.
            target: that of all positions.
            crop: the positions.
        """
        return crop.share * self.statistic(features, self.cut(target, crop, features))

    def cut(self, target: Tensor | None, crop: Crop, like: Tensor) -> Tensor | None:
        """The crop's part of the target, on the device of `like`; all if it has no positions."""
        return target

    def accumulate_target(
        self, total: Tensor | None, features: Tensor, crop: Crop, picture: Tensor
    ) -> Tensor:
        """Add what a crop of the target's picture contributes to what `finalize_target` takes.

        Args:
            total: the sum over the crops before this one; None at first.
            features: those of the crop, with `margin` more on each side.
            crop: the positions.
            picture: from which the features come.

        Returns:
            The sum with this crop, in the memory of `total` if possible.
        """
        return accumulate(total, self.part(features, None, crop))

    def finalize_target(self, total: Tensor) -> Tensor:
        """The target, given the sum over all crops."""
        return total

    def workspace(self, filters: int, positions: int) -> int:
        """About how many numbers statistic and gradient of a layer hold at once, beside features.

        It is for estimates of memory, in which a Gram matrix counts nothing.
        """
        return 0


def _require_image(term: Term) -> Tensor:
    """The term's image; InputError if it has none."""
    if term.image is None:
        raise InputError(f"{term.name}: needs an image, whose features are to be matched")
    return term.image


@dataclass(frozen=True, eq=False)
class Content(Term):
    """½ Σ_ij (F_ij - P_ij)², or its mean over elements, by convention.

    Gatys et al. 2016, equation 1. The gradient at the convolution is F - P where F > 0, and 0
    elsewhere (equation 2; divided by N·M for the mean).
    """

    positional = True

    def target_image(self, shape: Sequence[int]) -> Tensor | None:
        _require_image(self)
        return super().target_image(shape)

    def target(self, features: Tensor) -> Tensor:
        """P: the photo's features themselves."""
        return features

    def statistic(self, features: Tensor, target: Tensor) -> Tensor:
        return mean_square_error(features, target)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        elements = 1 if self.convention.content_mean else features.numel()
        return self.convention.content_factor * elements * statistic

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor, into: Tensor, add: bool
    ) -> None:
        """The mean of (F - P)² has the gradient 2 (F - P) / (N M)."""
        factor = 2 / features.numel() * grad_output
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


@dataclass(frozen=True, eq=False)
class Style(Term):
    """1/(4 N²) Σ_ij (G_ij - A_ij)² with G = F Fᵀ / M, or as the convention has it.

    Gatys et al. 2016, equations 3 to 5. The gradient at the convolution is 1/(N² M) (Fᵀ (G - A))_ji
    where F > 0, and 0 elsewhere (equation 6).

    Attributes:
        fit, scale: how the painting gets the shape of the image, see images.fit.
        fitted: the (H, W) of the images for which that has been done already; for images of another
            size, the painting is then enlarged or reduced as they are.
    """

    fit: str = FITS[0]
    scale: float = 1.0
    fitted: tuple[int, int] | None = None

    def target_shape(self, shape: Sequence[int]) -> Sequence[int]:
        if self.image is None:
            return shape
        painting_shape = self.image.shape[-2:]
        if self.fitted is None:
            return sizes.fit_geometry(painting_shape, shape, self.fit, self.scale)[1]
        return [
            max(MIN_SIDE, round(painting_side * side / fitted_side))
            for painting_side, side, fitted_side in zip(
                painting_shape, shape, self.fitted, strict=True
            )
        ]

    def target_image(self, shape: Sequence[int]) -> Tensor | None:
        image = _require_image(self)
        if self.fitted is not None:
            return super().target_image(shape)
        return im.fit(image, shape, self.fit, self.scale)

    def statistic(self, features: Tensor, target: Tensor | None) -> Tensor:
        return gram(features)

    def score(self, statistic: Tensor, target: Tensor, features: Tensor) -> Tensor:
        factor = self.convention.style_factor / features.shape[1] ** self.convention.style_power
        return factor * (statistic - target).square().sum()

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        gram_vjp(grad_output, features, into, add)
