"""Widgets generated from settings: a control for each field, with its range, unit and help.

    controls = Controls(TransferSettings("coffee", "mosaic"))
    display(controls.box(["size", "pool"]))
    controls.settings()                      # what the controls now say, validated

A field that is new in the settings shows up by itself. What a control cannot know to be wrong, because it depends on other
fields, `settings()` refuses with InputError.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as w

from nstlab.settings import CONVENTIONS, CONVOLUTIONS, InputError, Option, RunSettings, kind, layer_name

_LOOK = {"style": {"description_width": "8.5em"}, "layout": {"width": "auto"}}


def _text_of(value: Any) -> str:
    """A value as users write it; nothing for None."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(_text_of, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def _shape(wanted: type, many: bool, optional: bool, opt: Option, value: Any) -> tuple[type[w.Widget], dict[str, Any]]:
    """(kind of widget, its options) for a field."""
    if wanted is bool:
        return w.Checkbox, {"value": bool(value), "indent": True}
    if opt.parse is layer_name:
        several = {"value": tuple(value), "rows": 4} if many else {"value": value}
        known = dict.fromkeys((*CONVOLUTIONS, *(several["value"] if many else (value,))))  # also relu4_2, if it was chosen
        return (w.SelectMultiple if many else w.Dropdown), {"options": list(known), **several}
    if opt.choices and not opt.or_path:
        return w.Dropdown, {"options": list(opt.choices), "value": value}
    if opt.log and opt.low and opt.high:
        return w.FloatLogSlider, {"value": value, "min": math.log10(opt.low), "max": math.log10(opt.high), "step": 0.05}
    if opt.choices:
        return w.Combobox, {"options": list(opt.choices), "value": str(value), "ensure_option": False}
    limits = {"min": opt.low if opt.low is not None else -1e18, "max": opt.high if opt.high is not None else 1e18}
    if wanted is int and not many and value is not None:  # where it may be left open, the convention has filled it
        few = opt.high is not None and opt.high - opt.low <= 100
        return w.IntSlider if few else w.BoundedIntText, {"value": value, **limits}
    if many or optional or wanted is str:
        return w.Text, {"value": _text_of(value), "placeholder": "none" if optional else ""}
    return w.BoundedFloatText, {"value": value, **limits}


def control(name: str, annotation: Any, opt: Option, value: Any) -> w.Widget:
    """The widget for one field, showing a value; its tooltip is the field's help with what is allowed."""
    wanted, many, optional = kind(annotation)
    cls, options = _shape(wanted, many, optional, opt, value)
    bounds = f" ({opt.allowed()})" if opt.low is not None or opt.choices else ""
    unit = f" ({opt.unit})" if opt.unit else ""
    if "continuous_update" in cls.class_trait_names():
        options["continuous_update"] = False  # a value that is being typed is none yet
    return cls(description=name.replace("_", " ") + unit, tooltip=opt.help + bounds, **_LOOK, **options)


def _choices(widget: w.Widget) -> list[Any]:
    """The values of a menu, without their labels."""
    return [choice[1] if isinstance(choice, tuple) else choice for choice in widget.options]


def _meant(slider: w.FloatSlider | w.FloatLogSlider, exact: float) -> float:
    """The value of a slider: the exact one, if what the slider shows is only that, rounded to one of its steps."""
    if isinstance(slider, w.FloatLogSlider):
        apart = abs(math.log10(slider.value / exact)) if exact > 0 else math.inf
    else:
        apart = abs(slider.value - exact)
    return exact if apart <= 0.51 * slider.step else slider.value


def _labelled(value: str) -> tuple[str, str]:
    """A choice as a menu shows it: of a file its name only."""
    return Path(value).name if os.sep in value else value, value


def _chooser(name: str, opt: Option, known: Sequence[str], value: str) -> w.Dropdown:
    """A menu of what is known, for a field that would take any text."""
    options = [_labelled(choice) for choice in dict.fromkeys((*known, value))]
    return w.Dropdown(options=options, value=value, description=name.replace("_", " "), tooltip=opt.help, **_LOOK)


class Controls:
    """The controls of all fields of a recipe's settings, by name, in `widgets`.

    known: further choices for some fields, such as the pictures that are there."""

    def __init__(self, settings: RunSettings, known: Mapping[str, Sequence[str]] | None = None):
        self._kept = settings
        self.lock = threading.RLock()  # controls are moved by several threads, and set by others
        self._setting = False
        self.widgets = {
            name: _chooser(name, opt, known[name], getattr(settings, name))
            if known and name in known
            else control(name, annotation, opt, getattr(settings, name))
            for name, annotation, opt in settings.options()
        }
        self.masters = [master(self) for master in MASTERS if master.field in self.widgets]
        self.show(settings)

    def settings(self) -> RunSettings:
        """The settings that the controls show. Raises InputError for values that are not allowed, or not together."""
        changes = {}
        for name, annotation, _ in self._kept.options():
            (_, many, optional), widget, before = kind(annotation), self.widgets[name], getattr(self._kept, name)
            written, value = isinstance(widget, w.Text), widget.value
            if isinstance(widget, w.FloatLogSlider):
                value = _meant(widget, before)
            if value == (_text_of(before) if written else before):
                continue
            if written and many:
                value = tuple(value.replace(",", " ").split())
            elif written and optional:
                value = value.strip() or None
            changes[name] = value
        return self._kept.replace(**changes)

    def show(self, settings: RunSettings) -> None:
        """Let the controls show other settings of the same recipe."""
        self._kept = settings
        for name, _, _ in settings.options():
            self.set(name, getattr(settings, name))
        for master in self.masters:
            master.show(settings)

    def set(self, name: str, value: Any) -> None:
        """Let the control of one field show a value."""
        widget = self.widgets[name]
        with self.lock:
            self._setting = True  # a menu with other choices moves to one of them by itself
            try:
                if isinstance(widget, w.SelectMultiple):
                    widget.options = list(dict.fromkeys((*widget.options, *value)))
                elif isinstance(widget, w.Dropdown) and value not in _choices(widget):
                    widget.options = [*widget.options, _labelled(value)]
            finally:
                self._setting = False
            widget.value = _text_of(value) if isinstance(widget, (w.Text, w.Combobox)) else value

    def observe(self, changed: Callable[[str], None]) -> None:
        """Call it with a field's name when its control is moved."""

        def moved(name: str) -> None:
            with self.lock:
                if not self._setting:
                    changed(name)

        for name, widget in self.widgets.items():
            widget.observe(lambda _, name=name: moved(name), names="value")

    def box(self, names: Iterable[str] | None = None) -> w.VBox:
        """The controls, all or those named, one below the other."""
        return w.VBox([self.widgets[name] for name in names or self.widgets])

    def panel(self, names: Iterable[str]) -> list[w.Widget]:
        """The named fields' controls as one steers by them: masters first, and not again what they stand for."""
        names = list(names)
        masters = [master for master in self.masters if master.field in names]
        done = {name for master in masters for name in (master.field, *master.also)}
        return [master.widget for master in masters] + [self.widgets[name] for name in names if name not in done]


# --- masters: what moves a field's control better than that itself -----------------------------------------------


class Master:
    """A control in front of another one. `field` is what it moves, `also` are fields that it makes superfluous, `follows`
    others that it looks at."""

    field: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    follows: ClassVar[tuple[str, ...]] = ("convention",)

    def __init__(self, controls: Controls):
        self.controls, self._showing = controls, False
        self.widget = self.make()
        controls.observe(self._followed)

    def make(self) -> w.Widget:
        """The widget, in which `moved` is observed."""
        raise NotImplementedError

    def value(self, settings: RunSettings) -> Any:
        """What the field shall be, from the widget."""
        raise NotImplementedError

    def refresh(self, settings: RunSettings) -> None:
        """Let the widget show what the settings say."""
        raise NotImplementedError

    def show(self, settings: RunSettings) -> None:
        with self.controls.lock:
            self._showing = True
            try:
                self.refresh(settings)
            finally:
                self._showing = False

    def moved(self, _: Any = None) -> None:
        with self.controls.lock, contextlib.suppress(InputError):  # which whoever observes the fields reports
            if not self._showing:
                self.move(self.controls.settings())

    def move(self, settings: RunSettings) -> None:
        """Move the field, as the widget was moved."""
        self.controls.set(self.field, self.value(settings))

    def _followed(self, name: str) -> None:
        if name in (self.field, *self.also, *self.follows) and not self._showing:
            with contextlib.suppress(InputError):
                self.show(self.controls.settings())


class Ratio(Master):
    """One logarithmic slider for α/β, which moves β."""

    field, also = "beta", ("alpha",)

    def make(self) -> w.Widget:
        slider = w.FloatLogSlider(
            1e-3, base=10, min=-9, max=3, step=0.05, readout_format=".1e", description="α/β",
            tooltip="content over style: to the left more painting, to the right more photo",
            style={"description_width": "2.5em"}, layout={"width": "auto"},
        )  # fmt: skip
        slider.observe(self.moved, names="value")
        return slider

    def move(self, settings: RunSettings) -> None:
        beta = self.value(settings)
        if not settings.alpha:  # else the photo could never come back
            self.controls.set("alpha", CONVENTIONS[settings.convention].alpha)
        self.controls.set(self.field, beta)

    def value(self, settings: RunSettings) -> float:
        if settings.alpha and settings.beta and self._shows(settings):
            return settings.beta
        return float(f"{(settings.alpha or CONVENTIONS[settings.convention].alpha) / self.widget.value:.4g}")

    def refresh(self, settings: RunSettings) -> None:
        if not self._shows(settings):
            self.widget.value = self._shown(settings)

    def _shows(self, settings: RunSettings) -> bool:
        return _meant(self.widget, self._shown(settings)) == self._shown(settings)

    def _shown(self, settings: RunSettings) -> float:
        """α/β, within the slider's reach."""
        low, high = 10**self.widget.min, 10**self.widget.max
        return min(max(settings.alpha / settings.beta, low), high) if settings.beta else high


class ContentLayer(Master):
    """One choice for the content layer; several at once are shown when the settings have them."""

    field = "content_layers"

    def make(self) -> w.Widget:
        options = [(name, (name,)) for name in CONVOLUTIONS]
        help = "the layer whose features are to match the photo's"
        choice = w.Dropdown(options=options, description="content layer", tooltip=help, **_LOOK)
        choice.observe(self.moved, names="value")
        return choice

    def value(self, settings: RunSettings) -> tuple[str, ...]:
        return self.widget.value

    def refresh(self, settings: RunSettings) -> None:
        layers = settings.content_layers
        if layers not in _choices(self.widget):
            self.widget.options = [*self.widget.options, (" + ".join(layers), layers)]
        self.widget.value = layers


class Equalizer(Master):
    """A slider for the weight of each style layer, side by side."""

    field, follows = "style_weights", ("style_layers", "convention")

    def make(self) -> w.Widget:
        self.sliders: list[w.FloatSlider] = []
        self.row = w.HBox(layout={"width": "100%"})
        self.row.add_class("nst-equalizer")
        return w.VBox([w.Label("weight of each style layer"), self.row])

    def value(self, settings: RunSettings) -> tuple[float, ...]:
        weights = self._weights(settings)
        meant = tuple(_meant(slider, weight) for slider, weight in zip(self.sliders, weights, strict=True))
        return settings.style_weights if meant == weights else meant

    def _weights(self, settings: RunSettings) -> tuple[float, ...]:
        count = len(settings.style_layers)
        return settings.style_weights or (CONVENTIONS[settings.convention].layer_weight(count),) * count

    def _followed(self, name: str) -> None:
        if name == "style_layers":
            self._carry(self.controls.widgets[name].value, self.controls.widgets[self.field].value.split())
        super()._followed(name)

    def _carry(self, layers: Sequence[str], weights: Sequence[str]) -> None:
        """Layers come and go: those that stay keep the weights that were given, new ones get the mean of these."""
        if not weights or not layers:
            self.controls.widgets[self.field].value = ""
            return
        known = dict(zip([slider.tooltip for slider in self.sliders], weights, strict=False))
        mean = _text_of(sum(map(float, weights)) / len(weights))
        self.controls.widgets[self.field].value = " ".join(known.get(name, mean) for name in layers)

    def refresh(self, settings: RunSettings) -> None:
        layers, weights = settings.style_layers, self._weights(settings)
        if [slider.tooltip for slider in self.sliders] != list(layers):
            old, self.sliders = self.sliders, [self._slider(name) for name in layers]
            self.row.children = self.sliders
            for slider in old:
                slider.close()
        for slider, weight in zip(self.sliders, weights, strict=True):
            slider.max = max(slider.max, 5 * weight)
            slider.value = weight

    def _slider(self, name: str) -> w.FloatSlider:
        slider = w.FloatSlider(
            0, min=0, max=1, step=0.01, orientation="vertical", readout_format=".2f", description=name, tooltip=name,
            layout={"width": "50px", "height": "150px"},
        )  # fmt: skip
        slider.observe(self.moved, names="value")
        return slider


class Smoothness(Master):
    """Total variation, from none over small to large."""

    field = "tv"

    def make(self) -> w.Widget:
        options = [("off", 0.0)] + [(f"{10 ** (k / 4):.2g}", float(f"{10 ** (k / 4):.2g}")) for k in range(-20, 17)]
        help = "weight of total variation: smooths the picture"
        slider = w.SelectionSlider(options=options, description="smoothing (tv)", tooltip=help, **_LOOK)
        slider.observe(self.moved, names="value")
        return slider

    def value(self, settings: RunSettings) -> float:
        return self.widget.value

    def refresh(self, settings: RunSettings) -> None:
        self.widget.value = min(_choices(self.widget), key=lambda value: abs(value - settings.tv))


MASTERS: tuple[type[Master], ...] = (Ratio, ContentLayer, Equalizer, Smoothness)
