"""Texture synthesis: a picture with a painting's style and no content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstlab import method
from nstlab.method.conventions import CONVENTIONS
from nstlab.recipes.fields import DRAWN, first_picture, picture
from nstlab.recipes.painted import PaintedSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextureSettings(PaintedSettings, recipe="texture"):
    """Make a texture with the style of PAINTING (Gatys et al. 2015; the paper's style
    reconstruction)."""

    painting: str = picture("style")
    init: str = first_picture(DRAWN[0], own=["style"])

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """β style (Gatys, Ecker, Bethge 2015)."""
        return CONVENTIONS[self.convention].beta * self.style(pictures, shape)
