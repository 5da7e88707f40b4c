"""Style transfer: the content of a photo in the style of a painting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.names import COLOURS, layer_name
from nstlab.recipes.base import Filled, Input, first_picture, length, live_field, picture, picture_field
from nstlab.recipes.painted import PaintedSettings
from nstlab.settings import FITS, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from nstlab.method.network import VGG19


@dataclass(frozen=True)
class TransferSettings(PaintedSettings, recipe="transfer"):
    """Repaint PHOTO in the style of PAINTING (Gatys, Ecker, Bethge 2016)."""

    photo: str = picture("content")
    painting: str = picture("style")
    alpha: Filled[float] = live_field(None, "content weight α (default: the convention's)", low=0, high=1e12, log=True)
    beta: Filled[float] = live_field(None, "style weight β (default: the convention's)", low=0, high=1e15, log=True)
    content_layers: tuple[str, ...] = live_field((), "layers for content (default: the convention's)", parse=layer_name)
    init: Filled[str] = first_picture(None, "first picture (default: the convention's)")
    _: dataclasses.KW_ONLY
    colour: str = picture_field(
        COLOURS[0], "colours of the painting; those of the photo given to the painting first; luminance alone", choices=COLOURS,
        later=True,
    )  # fmt: skip
    mask: str | None = picture_field(None, "label picture: a colour for each region of the photo", paths=True, identity=False)
    painting_mask: str | None = picture_field(
        None, "where the same regions are in the painting, in the same colours", paths=True, identity=False
    )
    regions: int | None = picture_field(
        None, "find so many regions that photo and painting share, by their features", low=2, high=12, later=True
    )
    region_weights: tuple[float, ...] = live_field(
        (), "weight of each region, in the order of its colour's #rrggbb (default: 1)", low=0, high=1e12, later=True
    )
    match_histogram: bool = picture_field(False, "give the result the histograms of the photo's colours", later=True)
    steps: Filled[int] = length(None, " (default: the convention's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 0 and self.beta == 0:
            raise InputError("alpha and beta are both 0; at least one must be more")
        if (self.mask is None) != (self.painting_mask is None):
            raise InputError("mask and painting_mask: give both or none; each region's style is taken from the same region")
        if self.mask and self.regions:
            raise InputError("regions: are given by mask and painting_mask already; leave out one of both")
        if (self.mask or self.regions) and self.more_paintings:
            raise InputError("regions are of one painting; leave out more_paintings")
        if self.region_weights and not ((self.mask or self.regions) and any(self.region_weights)):
            raise InputError("region_weights: need regions, and at least one weight that is more than 0")

    @property
    def inputs(self) -> dict[str, Input]:
        found = super().inputs
        if self.mask is None or self.painting_mask is None:
            return found
        own = dataclasses.replace(found["style"], source=self.painting_mask, labels=True)
        return found | {"mask": Input(self.mask, labels=True), "painting_mask": own}

    def found(self, pictures: Mapping[str, Tensor], net: VGG19) -> dict[str, Tensor]:
        """The label pictures of the regions that are to be found."""
        if not self.regions:
            return {}
        from nstlab import labels

        photo, painting = (pictures[role].to(net.device) for role in ("content", "style"))
        mask, own = labels.found(net, photo, painting, self.regions, self.seed)
        return {"mask": mask, "painting_mask": own}

    def prepared(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs, with colours as Gatys et al. 2016 ("Preserving Color in Neural Artistic Style Transfer") have them, and
        masks of the regions, (1, R, H, W), in the photo's shape and in the painting's."""
        from nstlab import colour, labels

        made, photo = dict(pictures), pictures["content"]
        if self.colour != COLOURS[0]:
            matched = self.colour == "matched"
            change = colour.matched_colours if matched else colour.matched_luminance
            made |= {role: change(pictures[role], photo) for role in self.paintings}
            made["content"] = photo if matched else colour.luminance(photo)
        if "mask" in pictures:
            masks, own = labels.masks(pictures["mask"], pictures["painting_mask"])
            made["regions"] = labels.fitted(masks, photo.shape[-2:])
            how = self.style_fit if self.mask else FITS[0]
            made["painting_regions"] = labels.fitted(own, pictures["style"].shape[-2:], how)
        return made

    @property
    def finishes(self) -> bool:
        return self.colour == "luminance" or self.match_histogram

    def finished(self, picture: Tensor, pictures: Mapping[str, Tensor]) -> Tensor:
        from nstlab import colour

        if self.colour == "luminance":
            picture = colour.with_luminance(pictures["content"], picture)
        return colour.matched_histogram(picture, pictures["content"]) if self.match_histogram else picture

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content + β style (Gatys et al. 2016, equation 7), with the style of each region by itself if there are masks."""
        content = method.content(self.content_layers, pictures["content"], convention=self.convention)
        style = self._by_region(pictures, shape) if "regions" in pictures else self.style(pictures, shape)
        return self.alpha * content + self.beta * style

    def _by_region(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """Σ_r w_r s_r style_r; the plain style if there is only one region."""
        masks, count = pictures["regions"], pictures["regions"].shape[1]
        if self.region_weights and len(self.region_weights) != count:
            raise InputError(f"region_weights: {len(self.region_weights)} given for {count} regions")
        if count == 1:
            return self.style(pictures, shape)
        return method.region_styles(
            self.style_layers, pictures["style"], masks, pictures["painting_regions"], self.region_weights, self.convention,
            self.style_weights, shape,
        )  # fmt: skip
