"""Controls for settings: one value, of which all widgets are views.

    controls = Controls(TransferSettings("coffee", "mosaic"))
    controls.observe(lambda names: print(names, controls.settings))
    display(controls.box(["size", "pool"]))

`controls.settings` always holds settings that are allowed. A widget that is moved changes it, and all widgets then show what it
says; what is not allowed is refused, with the reason, and the widget shows what holds. A field that is new in the settings gets
a control by itself.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as w

from nstlab.method.conventions import CONVENTIONS
from nstlab.method.names import CONVOLUTIONS, layer_name
from nstlab.recipes.base import RunSettings
from nstlab.settings import InputError, Option, field_type

LOOK = {"style": {"description_width": "8.5em"}, "layout": {"width": "auto"}}
ROUNDED = 0.51  # of a slider's step: browsers send back what they have rounded by so much


class Controls:
    """The settings of a recipe, and a view for each field, in `views` by the fields' names.

    settings: what is shown at first. known: further choices for some fields, such as the pictures that are there."""

    def __init__(self, settings: RunSettings, known: Mapping[str, Sequence[str]] | None = None):
        self.settings = settings
        self.lock = threading.RLock()  # widgets are moved by several threads, and set by others
        self._showing = False
        self._changed: list[Callable[[Sequence[str]], None]] = []
        self._refused: list[Callable[[InputError], None]] = []
        fields = {name: (annotation, opt) for name, annotation, opt in settings.options()}
        self.views: dict[str, View] = {}
        for special in SPECIAL:
            if set(special.fields) <= fields.keys():
                self.views |= dict.fromkeys(special.fields, special(self))
        for name, (annotation, opt) in fields.items():
            if name not in self.views:
                self.views[name] = field_view(self, name, annotation, opt, (known or {}).get(name, ()))
        self.show(settings)

    def observe(self, changed: Callable[[Sequence[str]], None], refused: Callable[[InputError], None] | None = None) -> None:
        """Have it called with the names of the fields that were changed; and with the reason when a change was refused."""
        self._changed.append(changed)
        if refused is not None:
            self._refused.append(refused)

    def change(self, **values: Any) -> None:
        """Change fields, as a user does: observers are told. Raises InputError, and nothing has changed."""
        with self.lock:
            before = self.settings
            for view in dict.fromkeys(self.views.values()):
                values |= view.along(before, values)
            self.show(before.replace(**values))
            changed = [name for name in self.views if getattr(before, name) != getattr(self.settings, name)]
            if changed:
                for observer in self._changed:
                    observer(changed)

    def show(self, settings: RunSettings) -> None:
        """Show other settings of the same recipe; nobody is told."""
        with self.lock:
            self.settings, self._showing = settings, True
            try:
                for view in dict.fromkeys(self.views.values()):
                    view.show(settings)
            finally:
                self._showing = False

    def moved(self, view: View) -> None:
        """A view's widget has another value."""
        with self.lock:
            if self._showing:
                return
            try:
                self.change(**view.changes(self.settings))
            except InputError as error:
                self.show(self.settings)
                for observer in self._refused:
                    observer(error)

    def widgets(self, names: Iterable[str]) -> list[w.Widget]:
        """Those of the named fields, each once; the special ones first, in their order."""
        views = dict.fromkeys(self.views[name] for name in names)
        special = [view for kind in SPECIAL for view in views if isinstance(view, kind)]
        return [view.widget for view in dict.fromkeys([*special, *views])]

    def box(self, names: Iterable[str] | None = None) -> w.VBox:
        """The widgets of all fields, or of those named, one below the other."""
        return w.VBox(self.widgets(self.views if names is None else names))


# --- views ------------------------------------------------------------------------------------------------------


class View:
    """A widget for some fields."""

    fields: ClassVar[tuple[str, ...]]

    def __init__(self, controls: Controls):
        self.controls = controls
        self.widget = self.make()

    def make(self) -> w.Widget:
        """The widget, with what moves in it `watched`."""
        raise NotImplementedError

    def show(self, settings: RunSettings) -> None:
        """Let the widget show what the settings say."""
        raise NotImplementedError

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        """The fields' values that the widget shows, given the present settings."""
        raise NotImplementedError

    def along(self, settings: RunSettings, values: Mapping[str, Any]) -> dict[str, Any]:
        """What has to change along with other fields' new values."""
        return {}

    def watched(self, widget: w.Widget) -> w.Widget:
        """The widget, whose moves change the fields."""
        widget.observe(lambda _: self.controls.moved(self), names="value")
        return widget


class Ratio(View):
    """One logarithmic slider for α/β, which moves β."""

    fields = ("alpha", "beta")

    def make(self) -> w.Widget:
        slider = w.FloatLogSlider(
            1e-3, base=10, min=-9, max=3, step=0.05, readout_format=".1e", description="α/β",
            tooltip="content over style: to the left more painting, to the right more photo",
            style={"description_width": "2.5em"}, layout={"width": "auto"},
        )  # fmt: skip
        return self.watched(slider)

    def show(self, settings: RunSettings) -> None:
        slide(self.widget, self._shown(settings))

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        alpha = settings.alpha or CONVENTIONS[settings.convention].alpha  # else the photo could never come back
        if settings.alpha and settings.beta and same(self.widget, self._shown(settings)):
            return {}
        return {"alpha": alpha, "beta": float(f"{alpha / self.widget.value:.4g}")}

    def _shown(self, settings: RunSettings) -> float:
        """α/β, within the slider's reach."""
        low, high = 10**self.widget.min, 10**self.widget.max
        return min(max(settings.alpha / settings.beta, low), high) if settings.beta else high


class ContentLayer(View):
    """One choice for the content layer; several at once are shown when the settings have them."""

    fields = ("content_layers",)

    def make(self) -> w.Widget:
        options = [(name, (name,)) for name in CONVOLUTIONS]
        help = "the layer whose features are to match the photo's"
        return self.watched(w.Dropdown(options=options, description="content layer", tooltip=help, **LOOK))

    def show(self, settings: RunSettings) -> None:
        layers = settings.content_layers
        choose(self.widget, layers, " + ".join(layers))

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        return {"content_layers": self.widget.value}


class Equalizer(View):
    """A slider for the weight of each style layer, side by side."""

    fields = ("style_weights",)

    def make(self) -> w.Widget:
        self.sliders: list[w.FloatSlider] = []
        self.row = w.HBox(layout={"width": "100%"})
        self.row.add_class("nst-equalizer")
        return w.VBox([w.Label("weight of each style layer"), self.row])

    def show(self, settings: RunSettings) -> None:
        layers, weights = settings.style_layers, self._weights(settings)
        if [slider.tooltip for slider in self.sliders] != list(layers):
            old, self.sliders = self.sliders, [self._slider(name) for name in layers]
            self.row.children = self.sliders
            for slider in old:
                slider.close()
        for slider, weight in zip(self.sliders, weights, strict=True):
            slider.max = max(slider.max, 5 * weight)
            slide(slider, weight)

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        shown = zip(self.sliders, self._weights(settings), strict=True)
        meant = tuple(weight if same(slider, weight) else slider.value for slider, weight in shown)
        return {} if meant == self._weights(settings) else {"style_weights": meant}

    def along(self, settings: RunSettings, values: Mapping[str, Any]) -> dict[str, Any]:
        """Layers come and go: those that stay keep the weights that were given, new ones get the mean of these."""
        weights, layers = settings.style_weights, values.get("style_layers")
        if not weights or layers is None or "style_weights" in values:
            return {}
        known, mean = dict(zip(settings.style_layers, weights, strict=True)), sum(weights) / len(weights)
        return {"style_weights": tuple(known.get(name, mean) for name in layers)}

    def _weights(self, settings: RunSettings) -> tuple[float, ...]:
        count = len(settings.style_layers)
        return settings.style_weights or (CONVENTIONS[settings.convention].layer_weight(count),) * count

    def _slider(self, name: str) -> w.FloatSlider:
        slider = w.FloatSlider(
            0, min=0, max=1, step=0.01, orientation="vertical", readout_format=".2f", description=name, tooltip=name,
            layout={"width": "50px", "height": "150px"},
        )  # fmt: skip
        return self.watched(slider)


class Smoothness(View):
    """Total variation, from none over small to large."""

    fields = ("tv",)

    def make(self) -> w.Widget:
        options = [("off", 0.0)] + [(f"{10 ** (k / 4):.2g}", float(f"{10 ** (k / 4):.2g}")) for k in range(-20, 17)]
        help = "weight of total variation: smooths the picture"
        return self.watched(w.SelectionSlider(options=options, description="smoothing (tv)", tooltip=help, **LOOK))

    def show(self, settings: RunSettings) -> None:
        self.widget.value = min(choices(self.widget), key=lambda value: abs(value - settings.tv))

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        return {"tv": self.widget.value}


SPECIAL: tuple[type[View], ...] = (Ratio, ContentLayer, Equalizer, Smoothness)


# --- a view for any field ---------------------------------------------------------------------------------------


class FieldView(View):
    """One field, in a widget that has its value as it is."""

    def __init__(self, controls: Controls, name: str, widget: w.Widget):
        self.name, self.made = name, widget
        super().__init__(controls)

    def make(self) -> w.Widget:
        return self.watched(self.made)

    def show(self, settings: RunSettings) -> None:
        self.widget.value = getattr(settings, self.name)

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        return {self.name: self.widget.value}


class SliderView(FieldView):
    """A logarithmic slider."""

    def show(self, settings: RunSettings) -> None:
        slide(self.widget, getattr(settings, self.name))

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        return {} if same(self.widget, getattr(settings, self.name)) else super().changes(settings)


class MenuView(FieldView):
    """A menu. A value that is none of its choices becomes one."""

    def show(self, settings: RunSettings) -> None:
        value = getattr(settings, self.name)
        if isinstance(self.widget, w.SelectMultiple):
            self.widget.options = list(dict.fromkeys((*self.widget.options, *value)))
            self.widget.value = value
        else:
            choose(self.widget, value, Path(value).name if os.sep in value else value)


class TextView(FieldView):
    """A line of text. many: several values, with spaces or commas between them. Nothing written is None."""

    def __init__(self, controls: Controls, name: str, widget: w.Widget, many: bool):
        self.many = many
        super().__init__(controls, name, widget)

    def show(self, settings: RunSettings) -> None:
        self.widget.value = text_of(getattr(settings, self.name))

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        text = self.widget.value.strip()
        return {self.name: tuple(text.replace(",", " ").split()) if self.many else text or None}


def field_view(controls: Controls, name: str, annotation: Any, opt: Option, known: Sequence[str] = ()) -> View:
    """The view for a field by what it may hold; its tooltip is the field's help with what is allowed."""
    (wanted, many, optional), value = field_type(annotation), getattr(controls.settings, name)
    bounds = f" ({opt.allowed()})" if opt.low is not None or opt.choices else ""
    unit = f" ({opt.unit})" if opt.unit else ""
    about = {"description": name.replace("_", " ") + unit, "tooltip": opt.help + bounds, **LOOK}
    late = about | {"continuous_update": False}  # a value that is being typed is none yet
    if wanted is bool:
        return FieldView(controls, name, w.Checkbox(indent=True, **about))
    if known:
        return MenuView(controls, name, w.Dropdown(options=list(dict.fromkeys(known)), **about))
    if opt.parse is layer_name and many:
        return MenuView(controls, name, w.SelectMultiple(options=CONVOLUTIONS, rows=4, **about))
    if opt.parse is layer_name:
        return MenuView(controls, name, w.Dropdown(options=CONVOLUTIONS, **about))
    if opt.choices and not opt.or_path:
        return MenuView(controls, name, w.Dropdown(options=opt.choices, **about))
    if opt.choices:
        return TextView(controls, name, w.Combobox(options=opt.choices, ensure_option=False, **late), many)
    if opt.log and opt.low and opt.high:
        ends = {"min": math.log10(opt.low), "max": math.log10(opt.high)}
        return SliderView(controls, name, w.FloatLogSlider(value=value, step=0.05, **ends, **late))
    ends = {"min": -1e18 if opt.low is None else opt.low, "max": 1e18 if opt.high is None else opt.high}
    if wanted is int and not many and value is not None:  # where it may be left open, the convention has filled it
        few = opt.high is not None and opt.high - opt.low <= 100
        return FieldView(controls, name, (w.IntSlider if few else w.BoundedIntText)(value=value, **ends, **late))
    if many or optional or wanted is str:
        return TextView(controls, name, w.Text(placeholder="none" if optional else "", **late), many)
    return FieldView(controls, name, w.BoundedFloatText(value=value, **ends, **late))


def text_of(value: Any) -> str:
    """A value as users write it; nothing for None."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(text_of, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def choices(menu: w.Widget) -> list[Any]:
    """The values of a menu, without their labels."""
    return [choice[1] if isinstance(choice, tuple) else choice for choice in menu.options]


def choose(menu: w.Dropdown, value: Any, label: str) -> None:
    """Let a menu show a value, which becomes one of its choices."""
    if value not in choices(menu):
        pairs = [choice if isinstance(choice, tuple) else (choice, choice) for choice in menu.options]
        menu.options = [*pairs, (label, value)]
    menu.value = value


def slide(slider: w.FloatSlider | w.FloatLogSlider, exact: float) -> None:
    """Let a slider show a value. One that shows it already is left alone: it may be moving on meanwhile, in the browser."""
    if not same(slider, exact):
        slider.value = exact


def same(slider: w.FloatSlider | w.FloatLogSlider, exact: float) -> bool:
    """Whether a slider shows the exact value, or what that is when rounded to one of its steps."""
    if not isinstance(slider, w.FloatLogSlider):
        return abs(slider.value - exact) <= ROUNDED * slider.step
    return exact > 0 and abs(math.log10(slider.value / exact)) <= ROUNDED * slider.step
