"""Photographs: a photo in the light and the colours of another one, which stays a photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nstlab import method, terms
from nstlab.recipes.fields import (
    content_weight,
    first_picture,
    length,
    live_field,
    picture,
    picture_field,
    style_weight,
)
from nstlab.recipes.open_fields import Filled
from nstlab.recipes.regional import RegionalSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PhotorealSettings(RegionalSettings, recipe="photoreal"):
    """Give PHOTO the light and the colours of REFERENCE; it stays a photo (Luan et al. 2017, "Deep
    Photo Style Transfer")."""

    any_convention: ClassVar[bool] = False

    photo: str = picture("content")
    reference: str = picture("style")
    alpha: Filled[float] = content_weight()
    beta: Filled[float] = style_weight()
    affine: float = live_field(
        1e4,
        "weight of the regularizer: colours are, in small windows, affine functions of the photo's",
        low=0,
        high=1e12,
        log=True,
    )
    content_layers: tuple[str, ...] = live_field(
        (), "layers for content (default: the convention's, or the network's)", layers=True
    )
    init: str = first_picture(
        "matched",
        "first picture; matched: the photo with the reference's colours",
        own=("matched", "content", "style"),
    )
    _: dataclasses.KW_ONLY
    smooth: bool = picture_field(
        True, "let edges and grain of the result be the photo's (guided filter)"
    )
    steps: int = length(80)

    def prepare_inputs(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs with their masks; and if the run begins with it, the photo with the
        reference's colours. It is an affine function of the photo in each region, so that the
        regularizer accepts it."""
        prepared = super().prepare_inputs(pictures)
        if self.init != "matched":
            return prepared
        from nstlab.pictures.colour import matched_colours

        photo = prepared["content"]
        reference = prepared["style"]
        if "regions" not in prepared:
            return {**prepared, "matched": matched_colours(photo, reference)}
        masks, reference_masks = (
            prepared[name].split(1, dim=1) for name in ("regions", "painting_regions")
        )
        parts = [
            mask * matched_colours(photo, reference, mask, other)
            for mask, other in zip(masks, reference_masks, strict=True)
        ]
        rest = 1 - prepared["regions"].sum(1, keepdim=True)
        return {**prepared, "matched": (sum(parts) + rest * photo).clamp(0, 1)}

    @property
    def finishes(self) -> bool:
        return self.smooth

    def finish(self, picture: Tensor, pictures: Mapping[str, Tensor]) -> Tensor:
        return terms.guided(picture, pictures["content"])

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content + β style + λ affine."""
        photo = pictures["content"]
        affine = method.term(
            terms.Affine, "affine", ("conv1_1",), (1.0,), self.convention, photo=photo
        )
        content = method.content(self.content_layers, photo, convention=self.convention)
        return self.alpha * content + self.beta * self.style(pictures, shape) + self.affine * affine
