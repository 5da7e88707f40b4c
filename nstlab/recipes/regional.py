"""What recipes have in common whose style goes by regions of the photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.recipes.base import Input, live_field, region_field
from nstlab.recipes.painted import PaintedSettings
from nstlab.settings import FITS, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from nstlab.method.network import VGG19


@dataclass(frozen=True, kw_only=True)
class RegionalSettings(PaintedSettings):
    """The settings of recipes in which each region of the photo may take its style from a region of the painting."""

    mask: str | None = region_field(None, "label picture: a colour for each region of the photo", paths=True, identity=False)
    painting_mask: str | None = region_field(
        None, "where the same regions are in the painting, in the same colours", paths=True, identity=False
    )
    regions: int = region_field(
        0, "find so many regions that photo and painting share, by their features; 0: none", low=0, high=12, later=True
    )
    region_weights: tuple[float, ...] = live_field(
        (), "weight of each region, in the order of its colour's #rrggbb (default: 1)", low=0, high=1e12, later=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
        if self.regions < 2:
            return {}
        from nstlab import labels

        photo, painting = (pictures[role].to(net.device) for role in ("content", "style"))
        mask, own = labels.found(net, photo, painting, self.regions, self.seed)
        return {"mask": mask, "painting_mask": own}

    def prepared(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs, with masks of the regions, (1, R, H, W), in the photo's shape and in the painting's."""
        if "mask" not in pictures:
            return pictures
        from nstlab import images as im
        from nstlab import labels

        for name, role in (("mask", "content"), ("painting_mask", "style")) if self.mask else ():
            labels.say_if_stretched(name, pictures[name], im.shape_of(self.inputs[role].source))
        masks, own = labels.masks(pictures["mask"], pictures["painting_mask"])
        how = self.style_fit if self.mask else FITS[0]
        fitted = {"regions": labels.fitted(masks, pictures["content"].shape[-2:])}
        return {**pictures, **fitted, "painting_regions": labels.fitted(own, pictures["style"].shape[-2:], how)}

    def style(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """Σ_r w_r s_r style_r over the regions; the plain style if there is only one, or none."""
        count = pictures["regions"].shape[1] if "regions" in pictures else 1
        if self.region_weights and len(self.region_weights) != count and "regions" in pictures:
            raise InputError(f"region_weights: {len(self.region_weights)} given for {count} regions")
        if count == 1:
            return super().style(pictures, shape)
        return method.region_styles(
            self.style_layers, pictures["style"], pictures["regions"], pictures["painting_regions"], self.region_weights,
            self.convention, self.style_weights, shape,
        )  # fmt: skip
