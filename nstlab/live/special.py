"""Views of their own for some fields: α/β, the content layer, the weights of layers and paintings,
smoothing, regions."""

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

    def shown(self, settings: RunSettings) -> float:
        """α/β, within the slider's reach."""
        low = 10**self.widget.min
        high = 10**self.widget.max
        return min(max(settings.alpha / settings.beta, low), high) if settings.beta else high

    def read(self, settings: RunSettings) -> dict[str, Any]:
        # With 0 the photo could never come back.
        alpha = settings.alpha or CONVENTIONS[settings.convention].alpha
        return {"alpha": alpha, "beta": float(f"{alpha / self.widget.value:.4g}")}


class ContentLayerView(LayersView):
    """A menu for the content layer."""

    single = True

    def __init__(self) -> None:
        help = "the layer whose features are to match the photo's"
        super().__init__(
            "content_layers", w.Dropdown(description="content layer", tooltip=help, **LOOK)
        )


class BarsView(View):
    """A vertical slider for each of a field's numbers, side by side."""

    field = about = ""

    def __init__(self) -> None:
        self.sliders: list[w.FloatSlider] = []
        self.row = w.HBox(layout={"width": "100%"})
        self.row.add_class("nst-equalizer")
        super().__init__(self.field, w.VBox([w.Label(self.about), self.row]))

    def labels(self, settings: RunSettings) -> list[str]:
        """What each number belongs to."""
        raise NotImplementedError

    def open(self, settings: RunSettings) -> float:
        """What each number is where the settings leave them open."""
        raise NotImplementedError

    def watch(self, moved: Callable[[], None]) -> None:
        self.moved = moved

    def show(self, settings: RunSettings) -> None:
        labels = self.labels(settings)
        if [slider.tooltip for slider in self.sliders] != labels:
            old = self.sliders
            self.sliders = [self._slider(label) for label in labels]
            self.row.children = self.sliders
            for slider in old:
                slider.close()
        for slider, number in zip(self.sliders, self.shown(settings), strict=True):
            slider.max = max(slider.max, 5 * number)
            if not shows(slider, number):
                slider.value = number

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        numbers = self.shown(settings)
        pairs = zip(self.sliders, numbers, strict=True)
        meant = tuple(number if shows(slider, number) else slider.value for slider, number in pairs)
        return {} if meant == numbers else {self.name: meant}

    def shown(self, settings: RunSettings) -> tuple[float, ...]:
        return getattr(settings, self.name) or (self.open(settings),) * len(self.labels(settings))

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
    """The weight of each style layer; where they are left open, the convention's."""

    field, about = "style_weights", "weight of each style layer"

    def labels(self, settings: RunSettings) -> list[str]:
        return list(settings.style_layers)

    def open(self, settings: RunSettings) -> float:
        return CONVENTIONS[settings.convention].layer_weight(len(settings.style_layers))


class MixView(BarsView):
    """The share of each painting in a mixture."""

    field, about = "mix", "share of each painting"

    def labels(self, settings: RunSettings) -> list[str]:
        if not settings.more_paintings and not settings.mix:  # one painting, whose share is all
            return []
        return [Path(settings.inputs[role].source).stem for role in settings.paintings]

    def open(self, settings: RunSettings) -> float:
        return 1 / (1 + len(settings.more_paintings))


class SmoothingView(View):
    """A slider for total variation, from none over small to large.

    It shows the nearest of its values.
    """

    def __init__(self) -> None:
        labels = [f"{10 ** (k / 4):.2g}" for k in range(-20, 17)]
        options = [("off", 0.0), *((label, float(label)) for label in labels)]
        help = "weight of total variation: smooths the picture"
        super().__init__(
            "tv",
            w.SelectionSlider(options=options, description="smoothing (tv)", tooltip=help, **LOOK),
        )

    def shown(self, settings: RunSettings) -> float:
        return min(
            (value for _, value in self.widget.options), key=lambda value: abs(value - settings.tv)
        )


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
