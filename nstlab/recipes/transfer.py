"""Style transfer: the content of a photo in the style of a painting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.method.names import layer_name
from nstlab.recipes.base import Filled, StyleSettings, first_picture, length, live_field, picture
from nstlab.settings import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TransferSettings(StyleSettings, recipe="transfer"):
    """Repaint PHOTO in the style of PAINTING (Gatys, Ecker, Bethge 2016)."""

    photo: str = picture("content")
    painting: str = picture("style")
    alpha: Filled[float] = live_field(None, "content weight α (default: the convention's)", low=0, high=1e12, log=True)
    beta: Filled[float] = live_field(None, "style weight β (default: the convention's)", low=0, high=1e15, log=True)
    content_layers: tuple[str, ...] = live_field((), "layers for content (default: the convention's)", parse=layer_name)
    init: Filled[str] = first_picture(None, "first picture (default: the convention's)")
    _: dataclasses.KW_ONLY
    steps: Filled[int] = length(None, " (default: the convention's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 0 and self.beta == 0:
            raise InputError("alpha and beta are both 0; at least one must be more")

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content + β style (Gatys et al. 2016, equation 7)."""
        content = method.content(self.content_layers, pictures["content"], convention=self.convention)
        style = method.style(self.style_layers, pictures["style"], self.style_weights, self.convention, fitted=shape)
        return self.alpha * content + self.beta * style
