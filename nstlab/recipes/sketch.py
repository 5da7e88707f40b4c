"""A line drawing in the colours and strokes of a painting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nstlab import method, terms
from nstlab.recipes.fields import first_picture, live_field, picture
from nstlab.recipes.painted import PaintedSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SketchSettings(PaintedSettings, recipe="sketch"):
    """Colour DRAWING with the colours and strokes of PAINTING; its lines stay."""

    any_convention: ClassVar[bool] = False

    drawing: str = picture("content")
    painting: str = picture("style")
    lines: float = live_field(100.0, "weight of the lines", low=0, high=1e6, log=True)
    alpha: float = live_field(
        0.3, "content weight: how far areas follow the drawing", low=0, high=1e6, log=True
    )
    beta: float = live_field(60.0, "style weight", low=0, high=1e9, log=True)
    content_layers: tuple[str, ...] = live_field(
        (), "layers for content (default: conv3_1, or the network's)", layers=True
    )
    init: str = first_picture("noise")

    def _filling(self, name: str) -> Any:
        return (
            ("conv3_1",)
            if name == "content_layers" and self.architecture.blocks
            else super()._filling(name)
        )

    def prepare_inputs(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs, with the drawing in grey on white paper."""
        return {**pictures, "content": terms.on_white(pictures["content"])}

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """λ lines + α content + β style."""
        drawing = pictures["content"]
        lines = method.term(
            terms.Lines, "lines", ("conv1_1",), (1.0,), self.convention, drawing=drawing
        )
        content = method.content(self.content_layers, drawing, convention=self.convention)
        return self.lines * lines + self.alpha * content + self.beta * self.style(pictures, shape)
