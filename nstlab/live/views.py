"""Views of settings: a widget for a field, which depends on what the field may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from nstlab.base.options import Option, field_type
from nstlab.recipes.base import RunSettings

LOOK = {"style": {"description_width": "8.5em"}, "layout": {"width": "auto"}}
ROUNDED = 0.51  # steps of a slider by which browsers may round its value before they send it back


class View:
    """A widget that shows one field of the settings, as it is."""

    def __init__(self, name: str, widget: w.Widget):
        self.name, self.widget = name, widget

    def watch(self, moved: Callable[[], None]) -> None:
        """Have it called when the widget has another value."""
        self.widget.observe(lambda _: moved(), names="value")

    def show(self, settings: RunSettings) -> None:
        """Let the widget show the settings.

        If it does already, it is left alone, since the user may still be moving it.
        """
        value = self.widget_value(settings)
        if not shows(self.widget, value):
            self.widget.value = value

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        """What the user has changed by moving the widget: {field: its new value}."""
        return {} if shows(self.widget, self.widget_value(settings)) else self.read(settings)

    def widget_value(self, settings: RunSettings) -> Any:
        """The widget's value for these settings."""
        return getattr(settings, self.name)

    def read(self, settings: RunSettings) -> dict[str, Any]:
        """The fields' values for the widget's, given the settings so far."""
        return {self.name: self.widget.value}


def shows(widget: w.Widget, value: Any) -> bool:
    """Whether a widget has this value; a slider may have it rounded to one of its steps."""
    if isinstance(widget, w.FloatLogSlider):
        return value > 0 and abs(math.log10(widget.value / value)) <= ROUNDED * widget.step
    if isinstance(widget, w.FloatSlider):
        return abs(widget.value - value) <= ROUNDED * widget.step
    return widget.value == value


class MenuView(View):
    """A menu of (label, value) pairs, from which one value is chosen, or several.

    Values that it lacks are added.
    """

    def show(self, settings: RunSettings) -> None:
        """Let the menu offer and show the value of the settings."""
        selected = self.widget_value(settings)
        if not isinstance(self.widget, w.SelectMultiple):
            selected = [selected]
        for value in selected:
            if value not in [offered for _, offered in self.widget.options]:
                label = " + ".join(value) if isinstance(value, tuple) else Path(value).name
                self.widget.options = [*self.widget.options, (label, value)]
        super().show(settings)


class LayersView(MenuView):
    """A menu of the network's layers, from which one is chosen, or several.

    Attributes:
        single: whether one is chosen where the field may hold several; several together are then
            one more choice.
    """

    single = False

    def show(self, settings: RunSettings) -> None:
        """Let the menu offer the layers of the settings' network, and show those of the field."""
        offered = [
            (name, (name,) if self.single else name) for name in settings.architecture.offered
        ]
        if list(self.widget.options)[: len(offered)] != offered:
            self.widget.options = offered
        super().show(settings)


class TextView(View):
    """A line of text: nothing for None, several values with spaces or commas between them."""

    def widget_value(self, settings: RunSettings) -> str:
        """The field's value as users write it."""
        return text_of(getattr(settings, self.name))

    def read(self, settings: RunSettings) -> dict[str, Any]:
        """The field's value, as text, which the settings understand."""
        text = self.widget.value.strip()
        if isinstance(getattr(settings, self.name), tuple):
            return {self.name: tuple(text.replace(",", " ").split())}
        return {self.name: text or None}


def text_of(value: Any) -> str:
    """A value as users write it; nothing for None."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(text_of, value))
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "" if value is None else str(value)


def field_view(
    name: str, annotation: Any, opt: Option, value: Any, menu: Sequence[str] = ()
) -> View:
    """The view for a field, whose widget depends on what the field may hold.

    Args:
        name: of the field.
        annotation: its type.
        opt: its help, unit, bounds and choices; the widget's tooltip is made of them.
        value: what it holds at first.
        menu: choices to offer, if others than the field's own.
    """
    element, many, optional = field_type(annotation)
    label = name.rstrip("_").replace("_", " ") + (f" ({opt.unit})" if opt.unit else "")
    bounds = f" ({opt.allowed()})" if opt.low is not None or opt.choices else ""
    look = {"description": label, "tooltip": opt.help + bounds, **LOOK}
    if element is bool:
        return View(name, w.Checkbox(indent=True, **look))
    if opt.layers:
        return LayersView(name, w.SelectMultiple(rows=4, **look) if many else w.Dropdown(**look))
    choices = [(choice, (choice,) if many else choice) for choice in menu or opt.choices]
    if choices and (menu or not opt.or_path):
        return MenuView(name, w.Dropdown(options=choices, **look))
    look |= {"continuous_update": False}  # a value is not used before it is complete
    if opt.choices:
        return TextView(name, w.Combobox(options=opt.choices, ensure_option=False, **look))
    if opt.log and opt.low and opt.high:
        low, high = math.log10(opt.low), math.log10(opt.high)
        return View(name, w.FloatLogSlider(step=0.05, min=low, max=high, **look))
    # A number that may be None has the convention's value by now.
    if element is int and not many and value is not None:
        few = opt.high is not None and opt.high - opt.low <= 100
        widget = w.IntSlider if few else w.BoundedIntText
        return View(name, widget(**_bounds(opt), **look))
    if many or optional or element in (str, Path):
        return TextView(name, w.Text(placeholder="none" if optional else "", **look))
    return View(name, w.BoundedFloatText(**_bounds(opt), **look))


def _bounds(opt: Option) -> dict[str, float]:
    """The least and largest value of a number's widget."""
    return {
        "min": -1e18 if opt.low is None else opt.low,
        "max": 1e18 if opt.high is None else opt.high,
    }
