"""Controls for settings: one value, of which all widgets are views.

    controls = Controls(TransferSettings("coffee", "mosaic"), changed=lambda names: print(names, controls.settings))
    display(*controls.widgets(["size", "pool"]))

`controls.settings` always holds settings that are allowed. A widget that is moved changes them, and all widgets then show them.
What is not allowed is refused, with the reason, and the widget shows the old value again.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets as w

from nstlab.method.conventions import CONVENTIONS
from nstlab.method.names import CONVOLUTIONS, layer_name
from nstlab.recipes.base import RunSettings
from nstlab.settings import InputError, Option, field_type

LOOK = {"style": {"description_width": "8.5em"}, "layout": {"width": "auto"}}
ROUNDED = 0.51  # steps of a slider by which browsers may round its value before they send it back


class Controls:
    """The settings of a recipe, and a view for each field, in `views` by the fields' names.

    menus: choices to offer for some fields, such as sample pictures. changed: called with the names of the fields that were
    changed. refused: called with the reason why a widget's new value is not allowed."""

    def __init__(
        self,
        settings: RunSettings,
        menus: Mapping[str, Sequence[str]] | None = None,
        changed: Callable[[Sequence[str]], None] = lambda names: None,
        refused: Callable[[InputError], None] = lambda error: None,
    ):
        self.settings, self.changed, self.refused = settings, changed, refused
        self.lock = threading.RLock()  # some threads move widgets, others set them
        self._showing = False
        self.views: dict[str, View] = {}
        names = {name for name, *_ in settings.options()}
        for fields, make in SPECIAL.items():
            if names.issuperset(fields):
                self.views |= dict.fromkeys(fields, make())
        for name, annotation, opt in settings.options():
            if name not in self.views:
                self.views[name] = field_view(name, annotation, opt, getattr(settings, name), (menus or {}).get(name, ()))
        for view in set(self.views.values()):
            view.watch(partial(self._moved, view))
        self.show(settings)

    def change(self, **values: Any) -> None:
        """Change fields as a user does, so that `changed` is called. Raises InputError, and nothing has changed."""
        with self.lock:
            before = self.settings
            self.show(before.replace(**carried_weights(before, values), **values))
            names = [name for name in self.views if getattr(before, name) != getattr(self.settings, name)]
            if names:
                self.changed(names)

    def show(self, settings: RunSettings) -> None:
        """Show other settings of the same recipe. `changed` is not called."""
        with self.lock:
            self.settings, self._showing = settings, True
            try:
                for view in set(self.views.values()):
                    view.show(settings)
            finally:
                self._showing = False

    def widgets(self, names: Sequence[str]) -> list[w.Widget]:
        """The widgets of these fields, each once, the special ones first."""
        special = [name for fields in SPECIAL for name in fields if name in names]
        return list(dict.fromkeys(self.views[name].widget for name in (*special, *names)))

    def _moved(self, view: View) -> None:
        """Take over what a view shows, since the user has moved its widget."""
        with self.lock:
            if self._showing:
                return
            try:
                self.change(**view.changes(self.settings))
            except InputError as error:
                self.show(self.settings)
                self.refused(error)


# --- views ------------------------------------------------------------------------------------------------------


class View:
    """A widget that shows one field of the settings, as it is."""

    def __init__(self, name: str, widget: w.Widget):
        self.name, self.widget = name, widget

    def watch(self, moved: Callable[[], None]) -> None:
        """Have it called when the widget has another value."""
        self.widget.observe(lambda _: moved(), names="value")

    def show(self, settings: RunSettings) -> None:
        """Let the widget show the settings. If it does, it is left alone, since the user may still be moving it."""
        value = self.shown(settings)
        if not shows(self.widget, value):
            self.widget.value = value

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        """The fields with other values than in these settings, now that the widget has been moved."""
        return {} if shows(self.widget, self.shown(settings)) else self.read(settings)

    def shown(self, settings: RunSettings) -> Any:
        """The widget's value for these settings."""
        return getattr(settings, self.name)

    def read(self, settings: RunSettings) -> dict[str, Any]:
        """The fields' values for the widget's, given the settings so far."""
        return {self.name: self.widget.value}


def shows(widget: w.Widget, value: Any) -> bool:
    """Whether a widget has this value, or for a slider, this value rounded to one of its steps."""
    if isinstance(widget, w.FloatLogSlider):
        return value > 0 and abs(math.log10(widget.value / value)) <= ROUNDED * widget.step
    if isinstance(widget, w.FloatSlider):
        return abs(widget.value - value) <= ROUNDED * widget.step
    return widget.value == value


class MenuView(View):
    """A menu of (label, value) pairs, from which one value is chosen, or several. Values that it lacks are added."""

    def show(self, settings: RunSettings) -> None:
        shown = self.shown(settings)
        for value in shown if isinstance(self.widget, w.SelectMultiple) else [shown]:
            if value not in [known for _, known in self.widget.options]:
                label = " + ".join(value) if isinstance(value, tuple) else value.rpartition(os.sep)[2]
                self.widget.options = [*self.widget.options, (label, value)]
        super().show(settings)


class TextView(View):
    """A line of text: nothing for None, several values with spaces or commas between them."""

    def shown(self, settings: RunSettings) -> str:
        return text_of(getattr(settings, self.name))

    def read(self, settings: RunSettings) -> dict[str, Any]:
        text = self.widget.value.strip()
        many = isinstance(getattr(settings, self.name), tuple)
        return {self.name: tuple(text.replace(",", " ").split()) if many else text or None}


def text_of(value: Any) -> str:
    """A value as users write it; nothing for None."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(text_of, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def field_view(name: str, annotation: Any, opt: Option, value: Any, menu: Sequence[str] = ()) -> View:
    """The view for a field: its widget depends on what the field may hold, or is a menu. Its tooltip is the field's help."""
    wanted, many, optional = field_type(annotation)
    label = name.replace("_", " ") + (f" ({opt.unit})" if opt.unit else "")
    bounds = f" ({opt.allowed()})" if opt.low is not None or opt.choices else ""
    about = {"description": label, "tooltip": opt.help + bounds, **LOOK}
    typed = about | {"continuous_update": False}  # a value is not used before it is complete
    if wanted is bool:
        return View(name, w.Checkbox(indent=True, **about))
    layers = [(layer, layer) for layer in CONVOLUTIONS] if opt.parse is layer_name else []
    if layers and many:
        return MenuView(name, w.SelectMultiple(options=layers, rows=4, **about))
    pairs = [(choice, choice) for choice in menu or opt.choices] or layers
    if pairs and (menu or not opt.or_path):
        return MenuView(name, w.Dropdown(options=pairs, **about))
    if opt.choices:
        return TextView(name, w.Combobox(options=opt.choices, ensure_option=False, **typed))
    if opt.log and opt.low and opt.high:
        return View(name, w.FloatLogSlider(step=0.05, min=math.log10(opt.low), max=math.log10(opt.high), **typed))
    ends = {"min": -1e18 if opt.low is None else opt.low, "max": 1e18 if opt.high is None else opt.high}
    if wanted is int and not many and value is not None:  # one that may be None has the convention's value by now
        few = opt.high is not None and opt.high - opt.low <= 100
        return View(name, (w.IntSlider if few else w.BoundedIntText)(**ends, **typed))
    if many or optional or wanted is str:
        return TextView(name, w.Text(placeholder="none" if optional else "", **typed))
    return View(name, w.BoundedFloatText(**ends, **typed))


# --- special views ----------------------------------------------------------------------------------------------


class RatioView(View):
    """A logarithmic slider for α/β, which moves β."""

    def __init__(self) -> None:
        slider = w.FloatLogSlider(
            1e-3, base=10, min=-9, max=3, step=0.05, readout_format=".1e", description="α/β",
            tooltip="content over style: to the left more painting, to the right more photo",
            style={"description_width": "2.5em"}, layout={"width": "auto"},
        )  # fmt: skip
        super().__init__("beta", slider)

    def shown(self, settings: RunSettings) -> float:
        """α/β, within the slider's reach."""
        low, high = 10**self.widget.min, 10**self.widget.max
        return min(max(settings.alpha / settings.beta, low), high) if settings.beta else high

    def read(self, settings: RunSettings) -> dict[str, Any]:
        alpha = settings.alpha or CONVENTIONS[settings.convention].alpha  # with 0 the photo could never come back
        return {"alpha": alpha, "beta": float(f"{alpha / self.widget.value:.4g}")}


class ContentLayerView(MenuView):
    """A menu for the content layer; several layers together, if the settings have them, are one more choice."""

    def __init__(self) -> None:
        options = [(name, (name,)) for name in CONVOLUTIONS]
        help = "the layer whose features are to match the photo's"
        super().__init__("content_layers", w.Dropdown(options=options, description="content layer", tooltip=help, **LOOK))


class EqualizerView(View):
    """A slider for the weight of each style layer, side by side."""

    def __init__(self) -> None:
        self.sliders: list[w.FloatSlider] = []
        self.row = w.HBox(layout={"width": "100%"})
        self.row.add_class("nst-equalizer")
        super().__init__("style_weights", w.VBox([w.Label("weight of each style layer"), self.row]))

    def watch(self, moved: Callable[[], None]) -> None:
        self.moved = moved

    def show(self, settings: RunSettings) -> None:
        if [slider.description for slider in self.sliders] != list(settings.style_layers):
            old, self.sliders = self.sliders, [self._slider(name) for name in settings.style_layers]
            self.row.children = self.sliders
            for slider in old:
                slider.close()
        for slider, weight in zip(self.sliders, self.shown(settings), strict=True):
            slider.max = max(slider.max, 5 * weight)
            if not shows(slider, weight):
                slider.value = weight

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        weights = self.shown(settings)
        shown = zip(self.sliders, weights, strict=True)
        meant = tuple(weight if shows(slider, weight) else slider.value for slider, weight in shown)
        return {} if meant == weights else {"style_weights": meant}

    def shown(self, settings: RunSettings) -> tuple[float, ...]:
        """The weight of each layer; where the settings leave them open, the convention's."""
        count = len(settings.style_layers)
        return settings.style_weights or (CONVENTIONS[settings.convention].layer_weight(count),) * count

    def _slider(self, name: str) -> w.FloatSlider:
        slider = w.FloatSlider(
            0, min=0, max=1, step=0.01, orientation="vertical", readout_format=".2f", description=name, tooltip=name,
            layout={"width": "50px", "height": "150px"},
        )  # fmt: skip
        slider.observe(lambda _: self.moved(), names="value")
        return slider


def carried_weights(settings: RunSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The style weights to go with other style layers: layers that stay keep theirs, new ones get the mean of all."""
    weights = getattr(settings, "style_weights", ())
    if not weights or "style_layers" not in values or "style_weights" in values:
        return {}
    known, mean = dict(zip(settings.style_layers, weights, strict=True)), sum(weights) / len(weights)
    return {"style_weights": tuple(known.get(name, mean) for name in values["style_layers"])}


class SmoothingView(View):
    """A slider for total variation, from none over small to large. It shows the nearest of its values."""

    def __init__(self) -> None:
        labels = [f"{10 ** (k / 4):.2g}" for k in range(-20, 17)]
        options = [("off", 0.0), *((label, float(label)) for label in labels)]
        help = "weight of total variation: smooths the picture"
        super().__init__("tv", w.SelectionSlider(options=options, description="smoothing (tv)", tooltip=help, **LOOK))

    def shown(self, settings: RunSettings) -> float:
        return min((value for _, value in self.widget.options), key=lambda value: abs(value - settings.tv))


SPECIAL: Mapping[tuple[str, ...], Callable[[], View]] = {  # what has a view of its own, in the order in which it is placed
    ("alpha", "beta"): RatioView,
    ("content_layers",): ContentLayerView,
    ("style_weights",): EqualizerView,
    ("tv",): SmoothingView,
}
