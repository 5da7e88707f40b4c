"""Objectives of one term each, from which users make theirs: content, style, total variation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.base.settings import FITS
from nstlab.method.active_layers import check_weight
from nstlab.method.conventions import DEFAULT_CONVENTION, convention_named
from nstlab.method.objectives import Objective
from nstlab.method.pixel_terms import PixelTerm, TotalVariation
from nstlab.method.terms import PIXELS, Content, Style, Term
from nstlab.networks.architectures import DEFAULT_NETWORK, architecture
from nstlab.pictures import images as im
from nstlab.pictures import sizes


def term(
    kind: type[Term],
    name: str,
    layers: str | int | Sequence[str | int],
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    **fields: Any,
) -> Objective:
    """An objective of one term with weight 1.

    Args:
        kind: a subclass of `Term`.
        name: by which the term and its weights are told from others; without a colon.
        layers: one or more, by name or by the index that tutorials use for VGG19's. A `PixelTerm`
            reads the image itself, whatever is given.
        weights: of the layers; by default 1/|L|, or 1 if the convention adds layers up.
        convention: how the loss is scaled, one of `CONVENTIONS`.
        fields: those of the kind, such as `image`.

    Raises:
        InputError: for layers, weights or a convention that cannot be used.
    """
    names = _layer_names(layers)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"{name}: needs one layer or more, each named once; given: {' '.join(names) or 'none'}"
        )
    if ":" in name:
        raise InputError(f"{name}: names of terms have no colon, which is for their layers")
    if issubclass(kind, PixelTerm):
        names = (PIXELS,)
    scaling = convention_named(convention)
    weights = tuple(weights) or (scaling.layer_weight(len(names)),) * len(names)
    weights = tuple(check_weight(weight, name) for weight in weights)
    if len(weights) != len(names):
        raise InputError(
            f"{name}: {len(weights)} layer weights given for {len(names)} layers; give one for each"
        )
    return Objective(((1.0, kind(name, names, weights, scaling, **fields)),))


def _layer_names(layers: str | int | Sequence[str | int]) -> tuple[str, ...]:
    """The names of one layer or several."""
    if isinstance(layers, (str, int)):
        layers = (layers,)
    return tuple(_layer_name(layer) for layer in layers)


def _layer_name(layer: str | int) -> str:
    """The name of a layer, which may be given by VGG19's index: 1 for conv1_1."""
    if str(layer).isdecimal():
        return architecture(DEFAULT_NETWORK).layer(layer)
    return str(layer).strip()


def content(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
) -> Objective:
    """Content: match the photo's features in these layers (Gatys et al. 2016, equation 1).

    Args:
        image: the photo, (1, 3, H, W) sRGB in [0, 1].
        layers, weights, convention: see `term`.

    Raises:
        InputError: as for `term`, or if the image is no picture.
    """
    image = im.check_picture(image, "content")
    return term(Content, "content", layers, weights, convention, image=image)


def style(
    layers: str | int | Sequence[str | int],
    image: Tensor,
    weights: Sequence[float] = (),
    convention: str = DEFAULT_CONVENTION,
    fit: str = FITS[0],
    scale: float = 1.0,
    fitted: Sequence[int] | None = None,
) -> Objective:
    """Style: match the painting's Gram matrices in these layers.

    Gatys et al. 2016, equations 3 to 5.

    Args:
        image: the painting, (1, 3, H, W) sRGB in [0, 1].
        layers, weights, convention: see `term`.
        fit, scale, fitted: see `Style`.

    Raises:
        InputError: as for `term`, if the image is no picture, or if it cannot be fitted so.
    """
    shape = im.check_picture(image, "style").shape[-2:]
    sizes.fit_geometry(shape, shape, fit, scale)  # refuses what cannot be
    fields = {
        "image": image,
        "fit": fit,
        "scale": scale,
        "fitted": None if fitted is None else tuple(fitted),
    }
    return term(Style, "style", layers, weights, convention, **fields)


def total_variation(convention: str = DEFAULT_CONVENTION) -> Objective:
    """Smoothness: make neighbouring pixels alike (see `TotalVariation`)."""
    return term(TotalVariation, "tv", PIXELS, (1.0,), convention)
