"""What recipes have in common whose style goes by regions of the photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method, terms
from nstlab.base.errors import InputError
from nstlab.base.names import STYLE_LAYERS, rectified
from nstlab.recipes.base import Input
from nstlab.recipes.fields import live_field, region_field
from nstlab.recipes.painted import PaintedSettings
from nstlab.terms import statistics

if TYPE_CHECKING:
    from torch import Tensor

    from nstlab.networks.base import Network


@dataclass(frozen=True, kw_only=True)
class RegionalSettings(PaintedSettings):
    """The settings of recipes in which each region of the photo may take its style from a region of
    the painting."""

    mask: str | None = region_field(
        None, "label picture: a colour for each region of the photo", paths=True, identity=False
    )
    painting_mask: str | None = region_field(
        None,
        "where the same regions are in the painting, in the same colours",
        paths=True,
        identity=False,
    )
    regions: int = region_field(
        1,
        "regions to find that photo and painting share, by their features; 1: the whole picture",
        low=1,
        high=12,
    )
    region_weights: tuple[float, ...] = live_field(
        (),
        "weight of each region, in the order of its colour's #rrggbb (default: 1)",
        low=0,
        high=1e12,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mask is None) != (self.painting_mask is None):
            raise InputError(
                "mask and painting_mask: give both or none; each region's style is taken from the "
                "same region"
            )
        if self.mask and self.regions > 1:
            raise InputError(
                "regions: are given by mask and painting_mask already; leave out one of both"
            )
        if self.by_region and self.more_paintings:
            raise InputError("regions are of one painting; leave out more_paintings")
        if self.by_region and self.statistic != (statistics.GRAM,):
            raise InputError("statistic: regions have Gram matrices; leave out one of both")
        if self.region_weights and not (self.by_region and any(self.region_weights)):
            raise InputError(
                "region_weights: need regions, and at least one weight that is more than 0"
            )

    @property
    def by_region(self) -> bool:
        """Whether regions are given or to be found."""
        return self.mask is not None or self.regions > 1

    @property
    def inputs(self) -> dict[str, Input]:
        sources = super().inputs
        if self.mask is None or self.painting_mask is None:
            return sources
        painting_mask = dataclasses.replace(
            sources["style"], source=self.painting_mask, labels=True
        )
        return sources | {"mask": Input(self.mask, labels=True), "painting_mask": painting_mask}

    def derive_inputs(self, pictures: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """The label pictures of the regions that are to be found."""
        if self.regions == 1:
            return {}
        from nstlab.pictures import labels

        photo, painting = (pictures[role].to(net.device) for role in ("content", "style"))
        reached = (
            STYLE_LAYERS
            if self.architecture.blocks
            else self.architecture.style_layers or self.style_layers
        )
        # Neither edges nor whole things.
        layers = [rectified(name) for name in reached[-3:-1] or reached]
        mask, painting_mask = labels.find_regions(
            net, photo, painting, layers, self.regions, self.seed
        )
        return {"mask": mask, "painting_mask": painting_mask}

    def prepare_inputs(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs, with masks of the regions, (1, R, H, W), of photo and painting."""
        if "mask" not in pictures:
            return pictures
        from nstlab.pictures import images as im
        from nstlab.pictures import labels, sizes

        mask, painting_mask, photo, painting = (
            pictures[role] for role in ("mask", "painting_mask", "content", "style")
        )
        if self.mask:  # what is found belongs to the painting as it is in the run already
            style = self.inputs["style"]
            shape = photo.shape[-2:]
            whole = im.shape_of(style.source)
            labels.warn_if_stretched("mask", mask, shape)
            labels.warn_if_stretched("painting_mask", painting_mask, whole)
            painting_mask = labels.crop_labels(
                painting_mask, whole, sizes.fit_geometry(whole, shape, style.fit, style.scale)[0]
            )
        masks = zip(labels.masks(mask, painting_mask), (photo, painting), strict=True)
        regions, others = (labels.fit_masks(style, picture.shape[-2:]) for style, picture in masks)
        labels.warn_if_tiny(regions)
        return {**pictures, "regions": regions, "painting_regions": others}

    def style(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """Σ_r w_r s_r style_r over the regions; the plain style if there is only one, or none."""
        masks = pictures.get("regions")
        if masks is not None and self.region_weights and len(self.region_weights) != masks.shape[1]:
            raise InputError(
                f"region_weights: {len(self.region_weights)} given for {masks.shape[1]} regions"
            )
        if masks is None or masks.shape[1] == 1:
            return super().style(pictures, shape)
        return terms.region_styles(
            self.style_layers,
            pictures["style"],
            masks,
            pictures["painting_regions"],
            self.region_weights,
            self.convention,
            self.style_weights,
            shape,
        )
