"""Content reconstruction: what one layer retains of a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.method.conventions import CONVENTIONS
from nstlab.names import CONTENT_LAYERS, layer_name
from nstlab.recipes.base import DRAWN, RunSettings, first_picture, live_field, picture

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReconstructSettings(RunSettings, recipe="reconstruct"):
    """Reconstruct PHOTO from the features of one layer (content reconstruction, the paper's figure 1)."""

    photo: str = picture("content")
    layer: str = live_field(CONTENT_LAYERS[0], "layer to reconstruct from", parse=layer_name)
    init: str = first_picture(DRAWN[0], own=["content"])

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content (Gatys et al. 2016, equation 1; Mahendran and Vedaldi 2015)."""
        return CONVENTIONS[self.convention].alpha * method.content(self.layer, pictures["content"], convention=self.convention)
