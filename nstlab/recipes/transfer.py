"""Style transfer: the content of a photo in the style of a painting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.base.errors import InputError
from nstlab.base.names import COLOURS
from nstlab.recipes.fields import (
    FAST,
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

    from nstlab.networks.base import Network


@dataclass(frozen=True)
class TransferSettings(RegionalSettings, recipe="transfer"):
    """Repaint PHOTO in the style of PAINTING (Gatys, Ecker, Bethge 2016)."""

    photo: str = picture("content")
    painting: str = picture("style")
    alpha: Filled[float] = content_weight()
    beta: Filled[float] = style_weight()
    content_layers: tuple[str, ...] = live_field(
        (), "layers for content (default: the convention's, or the network's)", layers=True
    )
    init: Filled[str] = first_picture(
        None,
        "first picture; fast: painted in one pass (default: the convention's)",
        own=("content", "style", FAST),
    )
    _: dataclasses.KW_ONLY
    colour: str = picture_field(
        COLOURS[0],
        "colours of the painting; those of the photo given to the painting first; luminance alone",
        choices=COLOURS,
    )
    match_histogram: bool = picture_field(
        False, "give the result the histograms of the photo's colours"
    )
    steps: Filled[int] = length(None, " (default: the convention's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 0 and self.beta == 0:
            raise InputError("alpha and beta are both 0; at least one must be more")

    def derive_inputs(self, pictures: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """The regions, and the photo as the shipped model paints it, if that comes first."""
        derived = super().derive_inputs(pictures, net)
        if self.init != FAST:
            return derived
        from nstlab.feedforward.model import shipped

        model = shipped()
        names = (self.painting, *self.more_paintings)
        if unknown := [name for name in names if name not in model.paintings]:
            raise InputError(
                f"init: the shipped model has not learnt {', '.join(unknown)} (it has: "
                f"{', '.join(model.paintings)}); make a "
                f"first picture with `nstlab apply` and a model of your own"
            )
        return derived | {
            FAST: model.painter(net.device)(pictures["content"], model.mixture(names, self.mix))
        }

    def prepare_inputs(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs, with colours kept as in Gatys et al. 2016 ("Preserving Color")."""
        from nstlab.pictures import colour

        prepared = dict(super().prepare_inputs(pictures))
        photo = pictures["content"]
        if self.colour != COLOURS[0]:
            matched = self.colour == "matched"
            change = colour.matched_colours if matched else colour.matched_luminance
            prepared |= {role: change(pictures[role], photo) for role in self.paintings}
            prepared["content"] = photo if matched else colour.luminance(photo)
        return prepared

    @property
    def finishes(self) -> bool:
        return self.colour == "luminance" or self.match_histogram

    def finish(self, picture: Tensor, pictures: Mapping[str, Tensor]) -> Tensor:
        from nstlab.pictures import colour

        if self.colour == "luminance":
            picture = colour.with_luminance(pictures["content"], picture)
        return (
            colour.matched_histogram(picture, pictures["content"])
            if self.match_histogram
            else picture
        )

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content + β style (Gatys et al. 2016, equation 7)."""
        content = method.content(
            self.content_layers, pictures["content"], convention=self.convention
        )
        return self.alpha * content + self.beta * self.style(pictures, shape)
