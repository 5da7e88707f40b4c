"""Special views of some fields: α/β, content layer, weights, smoothing, regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab.live.brush import RegionsView
from nstlab.live.views import LOOK, LayersView, View, shows
from nstlab.method.conventions import CONVENTIONS
from nstlab.recipes.base import RunSettings

SHORT = 8  # letters of a label below a vertical slider


class RatioView(View):
    """A logarithmic slider for α/β, which moves β."""

    def __init__(self) -> None:
        slider = w.FloatLogSlider(
            1e-3,
            base=10,
            min=-9,
            max=3,
            step=0.05,
            readout_format=".1e",
            description="α/β",
            tooltip="content over style: to the left more painting, to the right more photo",
            style={"description_width": "2.5em"},
            layout={"width": "auto"},
        )
        super().__init__("beta", slider)

    def widget_value(self, settings: RunSettings) -> float:
        """α/β, within the slider's reach."""
        low = 10**self.widget.min
        high = 10**self.widget.max
        return min(max(settings.alpha / settings.beta, low), high) if settings.beta else high

    def read(self, settings: RunSettings) -> dict[str, Any]:
        """Alpha as it is, and the beta that makes their ratio."""
        # With 0 the photo could never come back.
        alpha = settings.alpha or CONVENTIONS[settings.convention].alpha
        return {"alpha": alpha, "beta": float(f"{alpha / self.widget.value:.4g}")}


class ContentLayerView(LayersView):
    """A menu for the content layer."""

    single = True

    def __init__(self) -> None:
        tooltip = "the layer whose features are to match the photo's"
        menu = w.Dropdown(description="content layer", tooltip=tooltip, **LOOK)
        super().__init__("content_layers", menu)


class BarsView(View):
    """A vertical slider for each of a field's numbers, side by side.

    Attributes:
        field: name of the field.
        title: what is written above the sliders.
    """

    field = title = ""

    def __init__(self) -> None:
        self.sliders: list[w.FloatSlider] = []
        self.row = w.HBox(layout={"width": "100%"})
        self.row.add_class("nst-equalizer")
        super().__init__(self.field, w.VBox([w.Label(self.title), self.row]))

    def labels(self, settings: RunSettings) -> list[str]:
        """What each number belongs to."""
        raise NotImplementedError

    def default(self, settings: RunSettings) -> float:
        """What each number is where the settings leave them open."""
        raise NotImplementedError

    def watch(self, moved: Callable[[], None]) -> None:
        """Have it called when a slider has another value."""
        self.moved = moved

    def show(self, settings: RunSettings) -> None:
        """Let the sliders show the field's numbers; make others if their labels have changed."""
        labels = self.labels(settings)
        if [slider.tooltip for slider in self.sliders] != labels:
            old = self.sliders
            self.sliders = [self._slider(label) for label in labels]
            self.row.children = self.sliders
            for slider in old:
                slider.close()
        for slider, number in zip(self.sliders, self.widget_value(settings), strict=True):
            slider.max = max(slider.max, 5 * number)
            if not shows(slider, number):
                slider.value = number

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        """The field's numbers, if a slider has been moved."""
        numbers = self.widget_value(settings)
        moved = tuple(
            number if shows(slider, number) else slider.value
            for slider, number in zip(self.sliders, numbers, strict=True)
        )
        return {} if moved == numbers else {self.name: moved}

    def widget_value(self, settings: RunSettings) -> tuple[float, ...]:
        """The field's numbers, or the default of each."""
        return getattr(settings, self.name) or (self.default(settings),) * len(
            self.labels(settings)
        )

    def _slider(self, label: str) -> w.FloatSlider:
        slider = w.FloatSlider(
            0,
            min=0,
            max=1,
            step=0.01,
            orientation="vertical",
            readout_format=".2f",
            description=label[:SHORT],
            tooltip=label,
            layout={"width": "50px", "height": "150px"},
        )
        slider.observe(lambda _: self.moved(), names="value")
        return slider


class EqualizerView(BarsView):
    """The weight of each style layer; by default the convention's."""

    field = "style_weights"
    title = "weight of each style layer"

    def labels(self, settings: RunSettings) -> list[str]:
        """The layers."""
        return list(settings.style_layers)

    def default(self, settings: RunSettings) -> float:
        """The convention's weight of a layer."""
        return CONVENTIONS[settings.convention].layer_weight(len(settings.style_layers))


class MixView(BarsView):
    """The share of each painting in a mixture."""

    field = "mix"
    title = "share of each painting"

    def labels(self, settings: RunSettings) -> list[str]:
        """The paintings' names; none for a single painting."""
        if not settings.more_paintings and not settings.mix:  # one painting, whose share is all
            return []
        return [Path(settings.inputs[role].source).stem for role in settings.paintings]

    def default(self, settings: RunSettings) -> float:
        """The same share for all."""
        return 1 / (1 + len(settings.more_paintings))


class SmoothingView(View):
    """A slider for total variation, from none over small to large."""

    def __init__(self) -> None:
        labels = [f"{10 ** (k / 4):.2g}" for k in range(-20, 17)]
        options = [("off", 0.0), *((label, float(label)) for label in labels)]
        slider = w.SelectionSlider(
            options=options,
            description="smoothing (tv)",
            tooltip="weight of total variation: smooths the picture",
            **LOOK,
        )
        super().__init__("tv", slider)

    def widget_value(self, settings: RunSettings) -> float:
        """The nearest of the slider's values."""
        values = [value for _, value in self.widget.options]
        return min(values, key=lambda value: abs(value - settings.tv))


# What has a view of its own, in the order in which it is placed.
SPECIAL: Mapping[tuple[str, ...], Callable[[], View]] = {
    ("alpha", "beta"): RatioView,
    ("content_layers",): ContentLayerView,
    ("style_weights",): EqualizerView,
    ("mix",): MixView,
    ("mask", "painting_mask"): RegionsView,
    ("tv",): SmoothingView,
}

# Fields that mean something only with these settings, and are hidden otherwise.
NEEDED: Mapping[str, Callable[[Any], bool]] = {
    "mix": lambda settings: bool(settings.more_paintings),
    "mix_layers": lambda settings: bool(settings.more_paintings),
    "region_weights": lambda settings: settings.by_region,
}
