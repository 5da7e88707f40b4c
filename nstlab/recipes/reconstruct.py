"""Content reconstruction: what one layer retains of a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nstlab import method
from nstlab.base.names import CONTENT_LAYERS
from nstlab.method.conventions import CONVENTIONS
from nstlab.recipes.base import RunSettings
from nstlab.recipes.fields import DRAWN, first_picture, live_field, picture
from nstlab.recipes.open_fields import Filled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReconstructSettings(RunSettings, recipe="reconstruct"):
    """Reconstruct PHOTO from the features of one layer (content reconstruction, the paper's figure
    1)."""

    photo: str = picture("content")
    layer: Filled[str] = live_field(
        None,
        "layer to reconstruct from (default: conv4_2, or the network's for content)",
        layers=True,
    )
    init: str = first_picture(DRAWN[0], own=["content"])

    def _filling(self, name: str) -> Any:
        if name != "layer":
            return super()._filling(name)
        return next(
            iter(
                CONTENT_LAYERS if self.architecture.blocks else super()._filling("content_layers")
            ),
            None,
        )

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """α content (Gatys et al. 2016, equation 1; Mahendran and Vedaldi 2015)."""
        return CONVENTIONS[self.convention].alpha * method.content(
            self.layer, pictures["content"], convention=self.convention
        )
